"""Make the stored references of the tests with librosa: `python tests/make_reference.py`."""

from pathlib import Path

import librosa
import numpy as np
import soundfile

ROOT = Path(__file__).parent.parent


def main():
    wav, rate = soundfile.read(ROOT / "demo/clips/source.flac", dtype="float32")
    wav = wav[: 2 * rate]
    mel = librosa.feature.melspectrogram(
        y=wav, sr=rate, n_fft=1024, win_length=1024, hop_length=256, n_mels=80, fmin=0, fmax=8000, power=1.0, pad_mode="reflect"
    )
    np.savez_compressed(ROOT / "tests/data/librosa_mel.npz", mel=np.log(np.maximum(mel, 1e-5)).astype(np.float32))


if __name__ == "__main__":
    main()
