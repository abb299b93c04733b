"""The classical peers: WORLD's F0 and spectral envelope, matched by statistics or replaced by the target's nearest frames.

Source: Toda et al., Voice Conversion Based on Maximum-Likelihood Estimation of Spectral Parameter Trajectory (2007), its mean and
variance baseline, on the parameters of WORLD (Morise et al., 2016).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyworld

N_CEPSTRUM = 40
N_NEAREST = 4
RATE = 16000


@dataclass(frozen=True)
class Parameters:
    """WORLD's parameters: F0 (T,) in Hz, coded envelope (T, N_CEPSTRUM), aperiodicity (T, F)."""

    f0: np.ndarray
    envelope: np.ndarray
    aperiodicity: np.ndarray


def analyse(wav: np.ndarray) -> Parameters:
    """Analyse a signal (N,) at 16 kHz."""
    x = wav.astype(np.float64)
    f0, at = pyworld.harvest(x, RATE)
    envelope = pyworld.code_spectral_envelope(pyworld.cheaptrick(x, f0, at, RATE), RATE, N_CEPSTRUM)
    return Parameters(f0, envelope, pyworld.d4c(x, f0, at, RATE))


def _loud(parameters: Parameters) -> np.ndarray:
    level = parameters.envelope[:, 0]
    return level > np.quantile(level, 0.95) - 0.5 * (np.quantile(level, 0.95) - level.min())


def convert(source: np.ndarray, references: Sequence[np.ndarray], nearest: bool) -> np.ndarray:
    """Convert a signal (N,) at 16 kHz to the voice of references, by statistics or by nearest frames of their envelopes."""
    own, theirs = analyse(source), [analyse(r) for r in references]
    mine, yours = _loud(own), [_loud(t) for t in theirs]
    frames = np.concatenate([t.envelope[loud] for t, loud in zip(theirs, yours, strict=True)])
    mean, deviation = own.envelope[mine].mean(0), own.envelope[mine].std(0) + 1e-6
    goal_mean, goal_deviation = frames.mean(0), frames.std(0) + 1e-6
    normal = (own.envelope - mean) / deviation
    envelope = own.envelope.copy()
    # Pauses keep their own envelope, and every frame its own level.
    envelope[mine, 1:] = (normal * goal_deviation + goal_mean)[mine, 1:]
    if nearest:
        from scipy.spatial import cKDTree

        _, index = cKDTree((frames - goal_mean) / goal_deviation).query(normal[mine], k=min(N_NEAREST, len(frames)))
        envelope[mine, 1:] = frames[index.reshape(mine.sum(), -1)].mean(1)[:, 1:]
    voiced = own.f0 > 0
    their_f0 = np.log(np.concatenate([t.f0[t.f0 > 0] for t in theirs]))
    own_f0 = np.log(own.f0[voiced])
    f0 = own.f0.copy()
    if len(own_f0) and len(their_f0):
        f0[voiced] = np.exp((own_f0 - own_f0.mean()) / max(own_f0.std(), 1e-3) * their_f0.std() + their_f0.mean())
    size = pyworld.get_cheaptrick_fft_size(RATE)
    spectrum = pyworld.decode_spectral_envelope(np.ascontiguousarray(envelope), RATE, size)
    made: np.ndarray = pyworld.synthesize(f0, spectrum, own.aperiodicity, RATE)[: len(source)]
    return made.astype(np.float32)
