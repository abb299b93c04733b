"""Features of detectors: log-mels of recordings, and statistics of clips."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from vcae.anomaly.config import AnomalyConfig
from vcae.audio.config import MelConfig
from vcae.audio.mel import LogMel
from vcae.errors import AudioError, DataError
from vcae.model.blocks import ConvNeXtStack

# A recording whose peak is below this counts as silent.
SILENCE = 1e-5
# Added to standard deviations of log-mels before the logarithm.
LEAST_SPREAD = 0.05
# Frames of a modulation spectrum (2 s of the default mel), and the edges of the bins over which it is pooled.
MODULATION_FRAMES = 64
MODULATION_EDGES = (1, 2, 3, 5, 8, 12, 20, 33)


def check_wav(wav: np.ndarray, config: AnomalyConfig, name: str = "the recording") -> np.ndarray:
    """Check a recording and return its samples as float32.

    Args:
        wav: (N,), at the mel's sample rate.
        config: Settings of the detector.
        name: Name of the recording for messages.

    Raises:
        AudioError: If it has another shape, samples that are not finite, is shorter than a window, or silent.
    """
    if wav.ndim != 1:
        raise AudioError(f"{name} has the shape {wav.shape}; one channel of samples (N,) is needed")
    rate = config.mel.sample_rate
    least = config.mel.n_fft + (config.context - 1) * config.mel.hop_length
    if len(wav) < least:
        raise AudioError(
            f"{name} lasts {len(wav) / rate:.3f} s, shorter than a window of {least / rate:.3f} s; give a longer recording"
        )
    if not np.isfinite(wav).all():
        raise AudioError(f"{name} holds samples that are NaN or infinite; repair or re-export the file")
    peak = float(np.abs(wav).max())
    if peak < SILENCE:
        raise AudioError(f"{name} is silent (peak {peak:.1e}) and cannot be scored; check the microphone or the file")
    return np.ascontiguousarray(wav, dtype=np.float32)


def cut(wav: np.ndarray, length: int) -> list[np.ndarray]:
    """Cut a signal into equal parts of at most 1.5 * `length` samples."""
    n = max(1, round(len(wav) / length))
    return [np.ascontiguousarray(part) for part in np.array_split(wav, n)]


class MelReader:
    """Extractor of log-mels (n_mels, T) from recordings (N,)."""

    def __init__(self, config: AnomalyConfig) -> None:
        self._mel = LogMel(config.mel).eval()

    @torch.no_grad()
    def __call__(self, wav: np.ndarray) -> Tensor:
        """Return the log-mel (n_mels, T) of a recording (N,)."""
        mel: Tensor = self._mel(torch.from_numpy(wav)[None])[0]
        return mel


def split_recordings(recordings: Sequence[np.ndarray], config: AnomalyConfig) -> tuple[list[np.ndarray], list[int], list[int]]:
    """Cut recordings into segments, and assign the segments to folds.

    Segments of one recording are in the same fold if there are enough recordings.

    Returns:
        Segments, the fold of each, and the number of its recording.

    Raises:
        DataError: If the recordings are too short for the number of folds.
    """
    length = int(config.segment_s * config.mel.sample_rate)
    per_recording = [cut(wav, length) for wav in recordings]
    if len(recordings) >= 2 * config.folds:
        order = np.random.default_rng(config.seed).permutation(len(recordings))
        fold_of = {int(r): n % config.folds for n, r in enumerate(order)}
        made = [(part, fold_of[r], r) for r, parts in enumerate(per_recording) for part in parts]
    else:
        parts = [part for parts in per_recording for part in parts]
        least = 4 * config.folds
        if len(parts) < least:
            # Few recordings are cut into shorter segments, so that some can be held out.
            total = sum(len(wav) for wav in recordings)
            shortest = 2 * (config.mel.n_fft + (config.context - 1) * config.mel.hop_length)
            length = total // least
            if length < shortest:
                raise DataError(
                    f"{total / config.mel.sample_rate:.1f} s of normal sound; at least "
                    f"{least * shortest / config.mel.sample_rate:.1f} s are needed to hold some out"
                )
            parts = [part for wav in recordings for part in cut(wav, length)]
        made = [(part, n * config.folds // len(parts), n) for n, part in enumerate(parts)]
    return [m[0] for m in made], [m[1] for m in made], [m[2] for m in made]


def clip_statistics(mel: Tensor) -> np.ndarray:
    """Return statistics of a clip: for each band its mean and the logs of the standard deviations of its values and of their differences.

    Args:
        mel: (n_mels, T), natural log magnitude.

    Returns:
        (3 * n_mels,), float64.
    """
    values = mel.double()
    # Logarithms make the distribution of standard deviations symmetric.
    spreads = torch.stack([values.std(1), values.diff(dim=1).std(1)])
    return torch.cat([values.mean(1), (spreads + LEAST_SPREAD).log().flatten()]).numpy()


def modulation_statistics(mel: Tensor) -> np.ndarray:
    """Return the log of the mean modulation spectrum of wide bands.

    Args:
        mel: (n_mels, T), natural log magnitude.

    Returns:
        (16 * 7,), float64: 16 wide bands, 7 ranges from 0.5 Hz to half the frame rate (for the default mel).
    """
    n = MODULATION_FRAMES
    bands = torch.stack([band.double().mean(0) for band in mel.tensor_split(16)])
    bands = bands - bands.mean(1, keepdim=True)
    if bands.shape[1] < n:
        bands = torch.nn.functional.pad(bands, (0, n - bands.shape[1]))
    window = torch.hann_window(n, periodic=False, dtype=torch.float64)
    power = torch.fft.rfft(bands.unfold(1, n, n // 2) * window).abs().square().mean(1)
    edges = MODULATION_EDGES
    pooled = [power[:, low:high].mean(1) for low, high in itertools.pairwise(edges)]
    return torch.stack(pooled, dim=1).add(1e-3).log().flatten().numpy()


class EncoderReader:
    """Extractor of activations of the shipped speaker encoder, which is trained on hundreds of voices.

    The weights are copied into the detector, so that it does not change with the shipped checkpoint.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        width, n_mels, _ = tensors["input.weight"].shape
        n_blocks = 1 + max(int(k.split(".")[2]) for k in tensors if k.startswith("stack.blocks."))
        self._input = nn.Conv1d(n_mels, width, 5, padding=2)
        self._stack = ConvNeXtStack(width, n_blocks)
        self._input.load_state_dict({k.removeprefix("input."): v.float() for k, v in tensors.items() if k.startswith("input.")})
        self._stack.load_state_dict({k.removeprefix("stack."): v.float() for k, v in tensors.items() if k.startswith("stack.")})
        self._mel = LogMel(MelConfig()).eval()

    @classmethod
    def shipped(cls) -> EncoderReader:
        """Take the weights from the default checkpoint."""
        from vcae.checkpoint import load

        autoencoder = load().autoencoder
        assert autoencoder is not None
        encoder = autoencoder.speaker_encoder
        assert encoder is not None
        kept = {k: v for k, v in encoder.state_dict().items() if k.startswith(("input.", "stack."))}
        kept |= {"mean": autoencoder.mel_mean, "deviation": autoencoder.mel_deviation}
        return cls({k: v.half() for k, v in kept.items()})

    @torch.no_grad()
    def __call__(self, wav: np.ndarray) -> np.ndarray:
        """Return mean and log standard deviation over time of each activation, (2 * width,) float64, for a recording (N,) at 16 kHz."""
        mel = self._mel(torch.from_numpy(wav)[None])
        x = (mel - self.tensors["mean"].float()) / self.tensors["deviation"].float()
        values = self._stack(self._input(x))[0].double()
        return torch.cat([values.mean(1), (values.std(1) + 0.02).log()]).numpy()
