"""Blocks and thresholds of F0 detection, whoever runs the network. Without torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

F0_MIN_HZ = 50.0
F0_MAX_HZ = 600.0
# swift-f0's own threshold is 0.5, which misses more voiced frames.
VOICED_CONFIDENCE = 0.35
SAMPLE_RATE = 16000
HOP_LENGTH = 256
# Context of the detector in frames, before and after each frame; a block with its context fills the detector's largest window (1875).
LEFT_FRAMES, RIGHT_FRAMES = 11, 11
BLOCK_FRAMES = 1850
# A function that returns pitch in Hz and confidence of each frame of samples (n,), n // HOP_LENGTH of each.
Detect = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def detect_by_blocks(read: Callable[[int, int], np.ndarray], n_samples: int, peak: float, detect: Detect) -> np.ndarray:
    """Estimate F0 of a signal at 16 kHz that is read in blocks.

    Args:
        read: Function that returns samples `start` to `stop`, (n,).
        n_samples: Length of the signal, N.
        peak: Largest magnitude of the signal.
        detect: The detector.

    Returns:
        (T,) float32 in Hz, 0 where unvoiced, T = 1 + N // 256; about 1 MB an hour.
    """
    n, blocks = 1 + n_samples // HOP_LENGTH, []
    # The detector takes anything under -60 dBFS for silence, so a quiet recording is amplified first.
    scale = 0.5 / peak if peak > 0 else 1.0
    for start in range(0, n, BLOCK_FRAMES):
        stop, first = min(start + BLOCK_FRAMES, n), max(start - LEFT_FRAMES, 0)
        last = n if stop == n else min(stop + RIGHT_FRAMES, n)
        wav = read(first * HOP_LENGTH, min(last * HOP_LENGTH, n_samples)) * scale
        if last == n:
            wav = np.pad(wav, (0, HOP_LENGTH))
        pitch, confidence = detect(wav)
        f0 = np.where(confidence >= VOICED_CONFIDENCE, pitch, 0.0)
        blocks.append(f0[start - first : stop - first].astype(np.float32))
    return np.concatenate(blocks)
