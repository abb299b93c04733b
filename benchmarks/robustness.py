"""Convert under hard conditions, and list the results for the judges, one label a condition.

    python benchmarks/robustness.py MANIFEST --pairs 12 --out out/robustness [--checkpoint default] [--only whispered --only room]
    vcae evaluate out/robustness/pairs.csv -o out/judged

Pairs are chosen as in `benchmarks/conversion.py`. Source and reference are changed as the condition says; the judges get the unchanged
recording of the target and the source's transcript. Every random number depends on the pair and the condition only.
"""

import argparse
import io
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import butter, lfilter, sosfilt

import vcae
from vcae.audio.io import Sound, read_sound, resample, write_sound
from vcae.errors import AudioError
from vcae.evaluation.pairs import Pair, choose_pairs, read_references
from vcae.evaluation.tables import Conversion, write_table
from vcae.tasks.convert import convert
from vcae.voice.voice import voice_from_sounds

Change = Callable[[Sound, np.random.Generator], Sound]
LPC_ORDER, WHISPER_FRAME_S = 24, 0.02


def same(sound: Sound, rng: np.random.Generator) -> Sound:
    return sound


def noisy(snr_db: float) -> Change:
    """Add noise that falls by 3 dB an octave."""

    def change(sound: Sound, rng: np.random.Generator) -> Sound:
        spectrum = np.fft.rfft(rng.standard_normal(len(sound.wav)))
        hz = np.fft.rfftfreq(len(sound.wav), 1 / sound.sample_rate)
        noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(hz, 50)), len(sound.wav))
        scale = np.std(sound.wav) / np.std(noise) / 10 ** (snr_db / 20)
        return replace(sound, wav=(sound.wav + scale * noise).astype(np.float32))

    return change


def room(decay_s: float, direct_db: float) -> Change:
    """Put the talker into a room: the direct sound, and noise that decays by 60 dB in `decay_s`, `direct_db` below it in total."""

    def change(sound: Sound, rng: np.random.Generator) -> Sound:
        n = round(decay_s * sound.sample_rate)
        tail = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
        tail[: round(0.003 * sound.sample_rate)] = 0
        tail *= 10 ** (-direct_db / 20) / np.sqrt(np.sum(tail**2))
        tail[0] = 1
        size = len(sound.wav) + n
        wet = np.fft.irfft(np.fft.rfft(sound.wav, size) * np.fft.rfft(tail, size), size)[: len(sound.wav)]
        return replace(sound, wav=(wet * np.std(sound.wav) / np.std(wet)).astype(np.float32))

    return change


def telephone(sound: Sound, rng: np.random.Generator) -> Sound:
    sos = butter(4, (300, 3400), "bandpass", fs=sound.sample_rate, output="sos")
    return replace(sound, wav=sosfilt(sos, sound.wav).astype(np.float32))


def mp3(sound: Sound, rng: np.random.Generator) -> Sound:
    opened = io.BytesIO()
    wav = np.clip(sound.wav, -1, 1)
    soundfile.write(opened, wav, sound.sample_rate, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.99)
    opened.seek(0)
    back = soundfile.read(opened, dtype="float32")[0][: len(wav)]
    return replace(sound, wav=np.pad(back, (0, len(wav) - len(back))))


def size(factor: float) -> Change:
    """Play faster: formants and F0 rise by `factor`, as of a smaller speaker, who also speaks faster."""

    def change(sound: Sound, rng: np.random.Generator) -> Sound:
        return replace(sound, wav=resample(sound.wav, round(sound.sample_rate * factor), sound.sample_rate))

    return change


def whispered(sound: Sound, rng: np.random.Generator) -> Sound:
    """Excite the linear predictor of each frame by noise in place of the voice; high frequencies are raised by 6 dB an octave."""
    wav = lfilter([1, -0.97], [1], sound.wav)
    n = round(WHISPER_FRAME_S * sound.sample_rate)
    window, out = np.hanning(2 * n), np.zeros(len(wav) + 2 * n)
    padded = np.pad(wav, (0, 2 * n))
    for at in range(0, len(wav), n):
        frame = padded[at : at + 2 * n] * window
        r = np.fft.irfft(np.abs(np.fft.rfft(frame, 4 * n)) ** 2)[: LPC_ORDER + 1]
        r[0] = r[0] * 1.0001 + 1e-9
        lags = np.abs(np.subtract.outer(np.arange(LPC_ORDER), np.arange(LPC_ORDER)))
        a = np.linalg.solve(r[lags], r[1:])
        gain = np.sqrt(max(r[0] - a @ r[1:], 0) / np.sum(window**2))
        out[at : at + 2 * n] += window * lfilter([gain], [1, *-a], rng.standard_normal(2 * n))
    whisper = out[: len(wav)]
    return replace(sound, wav=(whisper * np.std(sound.wav) / max(np.std(whisper), 1e-9)).astype(np.float32))


def shouted(sound: Sound, rng: np.random.Generator) -> Sound:
    """Raise F0 and formants a little and tilt the spectrum, as of a raised voice; then clip the peaks."""
    raised = size(1.12)(sound, rng)
    bright = lfilter([1, -0.7], [1], raised.wav)
    bright = bright / max(float(np.abs(bright).max()), 1e-9)
    return replace(raised, wav=np.clip(1.6 * bright, -0.9, 0.9).astype(np.float32))


# Name of the condition: change of the source, change of the reference, seconds of reference (0: one clip).
CONDITIONS: dict[str, tuple[Change, Change, float]] = {
    "as recorded": (same, same, 0),
    "reference of 1.5 s": (same, same, 1.5),
    "reference of 3 s": (same, same, 3),
    "reference of 10 s": (same, same, 10),
    "reference of 30 s": (same, same, 30),
    "noise, 20 dB": (noisy(20), same, 0),
    "noise, 10 dB": (noisy(10), same, 0),
    "room": (room(0.5, 3), same, 0),
    "telephone": (telephone, same, 0),
    "MP3 at its lowest quality": (mp3, same, 0),
    "noise, 20 dB, in the reference": (same, noisy(20), 0),
    "noise, 10 dB, in the reference": (same, noisy(10), 0),
    "room in the reference": (same, room(0.5, 3), 0),
    "telephone in the reference": (same, telephone, 0),
    "small source (1.25)": (size(1.25), same, 0),
    "large source (0.85)": (size(0.85), same, 0),
    "whispered": (whispered, same, 0),
    "raised voice, clipped": (shouted, same, 0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--min-s", type=float, default=3.0, help="shorter recordings are left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument(
        "--only", action="append", choices=list(CONDITIONS), metavar="CONDITION", help=f"one of: {'; '.join(CONDITIONS)}"
    )
    parser.add_argument("--out", type=Path, default=Path("out/robustness"))
    args = parser.parse_args()
    model, root = vcae.load(args.checkpoint), args.manifest.parent
    args.out.mkdir(parents=True, exist_ok=True)
    lines: list[Conversion] = []
    for name, (of_source, of_reference, reference_s) in CONDITIONS.items():
        if args.only and name not in args.only:
            continue
        refused = 0
        pool_s = max(3.0, reference_s)
        for pair in choose_pairs(args.manifest, args.split, args.pairs, args.seed, args.min_s, pool_s if reference_s else 0.0):
            rng = np.random.default_rng(zlib.crc32(f"{name} {pair.source['path']}".encode()))
            try:
                path = convert_pair(model, root, pair, of_source, of_reference, reference_s, rng, args.out, name)
            except AudioError as error:
                print(f"{name}: {error}")
                refused += 1
                continue
            source, judged = root / pair.source["path"], root / pair.judged["path"]
            lines.append(Conversion(path, source, judged, pair.source.get("transcript", ""), name))
        print(f"{name}: {args.pairs - refused} of {args.pairs} converted", flush=True)
    write_table(args.out / "pairs.csv", lines)


def convert_pair(
    model: vcae.Model,
    root: Path,
    pair: Pair,
    of_source: Change,
    of_reference: Change,
    reference_s: float,
    rng: np.random.Generator,
    out: Path,
    name: str,
) -> Path:
    """Convert one pair under a condition and return the path of the result."""
    references = [of_reference(clip, rng) for clip in read_references(root, pair, reference_s)]
    source = of_source(read_sound(root / pair.source["path"]), rng)
    done = convert(model, source, voice_from_sounds(model, references))
    folder = out / "".join(c if c.isalnum() else "_" for c in name)
    folder.mkdir(exist_ok=True)
    path = folder / f"{Path(pair.source['path']).stem}_to_{pair.judged['speaker']}.wav"
    write_sound(path, Sound(done.wav.numpy(), done.sample_rate), "converted by vcae", force=True)
    return path


if __name__ == "__main__":
    main()
