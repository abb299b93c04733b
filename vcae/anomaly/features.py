"""What a detector looks at: the log-mel of a recording, and the statistics of a clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vcae.audio.mel import LogMel
from vcae.config import AnomalyConfig
from vcae.errors import AudioError, DataError

# A recording whose loudest sample is under this holds nothing to judge.
SILENCE = 1e-5


def check_wav(wav: np.ndarray, config: AnomalyConfig, name: str = "the recording") -> np.ndarray:
    """Return the samples as float32.

    Args:
        wav: (N,), at the mel's sample rate.
        config: Of the detector.
        name: For messages.

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
        raise AudioError(f"{name} is silent (peak {peak:.1e}); nothing can be said of it")
    return np.ascontiguousarray(wav, dtype=np.float32)


def cut(wav: np.ndarray, length: int) -> list[np.ndarray]:
    """Cut a signal into equal parts no longer than `length` samples by more than a half."""
    n = max(1, round(len(wav) / length))
    return [np.ascontiguousarray(part) for part in np.array_split(wav, n)]


class MelReader:
    """Log-mels (n_mels, T) of recordings (N,)."""

    def __init__(self, config: AnomalyConfig) -> None:
        self._mel = LogMel(config.mel).eval()

    @torch.no_grad()
    def __call__(self, wav: np.ndarray) -> Tensor:
        """Return the log-mel (n_mels, T) of a recording (N,)."""
        mel: Tensor = self._mel(torch.from_numpy(wav)[None])[0]
        return mel


def split_recordings(recordings: Sequence[np.ndarray], config: AnomalyConfig) -> tuple[list[np.ndarray], list[int]]:
    """Cut recordings into segments, and deal the segments out to folds.

    Segments of one recording share a fold as long as there are recordings enough.

    Returns:
        Segments, and the fold of each.

    Raises:
        DataError: If there are too few seconds for so many folds.
    """
    length = int(config.segment_s * config.mel.sample_rate)
    per_recording = [cut(wav, length) for wav in recordings]
    if len(recordings) >= 2 * config.folds:
        order = np.random.default_rng(config.seed).permutation(len(recordings))
        fold_of = {int(r): n % config.folds for n, r in enumerate(order)}
        pairs = [(part, fold_of[r]) for r, parts in enumerate(per_recording) for part in parts]
    else:
        parts = [part for parts in per_recording for part in parts]
        least = 4 * config.folds
        if len(parts) < least:
            # Few recordings: shorter parts, so that some can be held out.
            total = sum(len(wav) for wav in recordings)
            shortest = 2 * (config.mel.n_fft + (config.context - 1) * config.mel.hop_length)
            length = total // least
            if length < shortest:
                raise DataError(
                    f"{total / config.mel.sample_rate:.1f} s of normal sound; at least "
                    f"{least * shortest / config.mel.sample_rate:.1f} s are needed to hold some out"
                )
            parts = [part for wav in recordings for part in cut(wav, length)]
        pairs = [(part, n * config.folds // len(parts)) for n, part in enumerate(parts)]
    return [part for part, _ in pairs], [fold for _, fold in pairs]


def clip_statistics(mel: Tensor) -> np.ndarray:
    """Return the statistics of a clip: mean and deviation of each band, and the deviation of its differences.

    Args:
        mel: (n_mels, T), natural log magnitude.

    Returns:
        (3 * n_mels,), float64.
    """
    values = mel.double()
    steps = values.diff(dim=1)
    return torch.cat([values.mean(1), values.std(1), steps.std(1)]).numpy()
