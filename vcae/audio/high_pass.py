"""Butterworth high-pass filter of a stream, in NumPy: SciPy's signal package takes most of a second to import.

Source: Butterworth filters by the bilinear transform, Oppenheim and Schafer, Discrete-Time Signal Processing, section 7.1.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

# Samples that are filtered at a time, as one matrix product.
BLOCK = 256


@lru_cache(maxsize=16)
def _state_space(sample_rate: int, cut_hz: float, order: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return A (order, order), B (order,), C (order,) and D of the filter, a chain of sections of second order."""
    warped = 2 * sample_rate * math.tan(math.pi * cut_hz / sample_rate)
    a, b, c, d = np.zeros((0, 0)), np.zeros(0), np.zeros(0), 1.0
    for k in range(order // 2):
        # A pole of the analogue high-pass, and its place in the z plane.
        pole = warped / np.exp(1j * math.pi * (2 * k + order + 1) / (2 * order))
        z = (2 * sample_rate + pole) / (2 * sample_rate - pole)
        a1, a2 = -2 * z.real, abs(z) ** 2
        # Two zeros at 0 Hz, and no change at half the sample rate.
        gain = (1 - a1 + a2) / 4
        section = np.array([[-a1, 1.0], [-a2, 0.0]])
        entry, leave = gain * np.array([-2 - a1, 1 - a2]), np.array([1.0, 0.0])
        n = len(b)
        joined = np.zeros((n + 2, n + 2))
        joined[:n, :n], joined[n:, :n], joined[n:, n:] = a, np.outer(entry, c), section
        a, b, c, d = joined, np.concatenate([b, entry * d]), np.concatenate([gain * c, leave]), gain * d
    return a, b, c, d


@lru_cache(maxsize=16)
def _blocks(sample_rate: int, cut_hz: float, order: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the matrices of a block: input to output, state to output, input to state, and the powers of A from 1 on."""
    a, b, c, d = _state_space(sample_rate, cut_hz, order)
    powers = np.zeros((BLOCK + 1, order, order))
    powers[0] = np.eye(order)
    for n in range(BLOCK):
        powers[n + 1] = a @ powers[n]
    response = np.concatenate([[d], powers[:-1] @ b @ c])[:BLOCK]
    lag = np.arange(BLOCK)[:, None] - np.arange(BLOCK)
    through = np.where(lag >= 0, response[np.maximum(lag, 0)], 0.0)
    return through, c @ powers[:-1], (powers[:-1] @ b)[::-1], powers


class HighPass:
    """High-pass filter of a stream; the output does not depend on how the input is split into blocks.

    Args:
        sample_rate: Hz.
        cut_hz: Frequency that is attenuated by 3 dB.
        order: Even; the slope is 6 dB an octave for each.
        first: First sample; the filter starts as if it had always been there, so that a DC offset is not a step.
    """

    def __init__(self, sample_rate: int, cut_hz: float, order: int, first: float = 0.0) -> None:
        self._matrices = _blocks(sample_rate, cut_hz, order)
        a, b, _, _ = _state_space(sample_rate, cut_hz, order)
        self._state = np.linalg.solve(np.eye(order) - a, b * first)

    def __call__(self, wav: np.ndarray) -> np.ndarray:
        """Filter the next samples (n,), float64, and return as many."""
        through, seen, entry, powers = self._matrices
        made = np.empty(len(wav))
        whole = len(wav) // BLOCK * BLOCK
        frames = wav[:whole].reshape(-1, BLOCK)
        entered, states = frames @ entry, np.empty((len(frames), len(self._state)))
        state, step = self._state, powers[BLOCK]
        for n, change in enumerate(entered):
            states[n] = state
            state = step @ state + change
        made[:whole] = (frames @ through.T + states @ seen.T).ravel()
        rest, n = wav[whole:], len(wav) - whole
        made[whole:] = through[:n, :n] @ rest + seen[:n] @ state
        self._state = powers[n] @ state + rest @ entry[BLOCK - n :]
        return made
