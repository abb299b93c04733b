"""Decipherment: the phones of untranscribed speech, learned from unrelated text; and the same with transcripts, to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vcae.model.phone_hmm import GaussianPhones, PhoneHmm
from vcae.training.config import DecipherConfig
from vcae.training.decipher_data import Speech

# Smallest variance of the latent in any direction.
SMALLEST_VARIANCE = 1e-2


@dataclass(frozen=True)
class Steps:
    """Steps of recordings in one row, each pause shortened to one step.

    Attributes:
        latent: (N, D), float32.
        active: (N,), false in pauses.
        lengths: (R,), steps of each recording.
    """

    latent: np.ndarray
    active: np.ndarray
    lengths: np.ndarray


def shorten_pauses(active: np.ndarray) -> np.ndarray:
    """Return which steps (T,) are kept if each pause has one."""
    kept: np.ndarray = active | np.concatenate([[True], active[:-1]])
    return kept


def as_steps(speech: Sequence[Speech]) -> Steps:
    """Return the steps of recordings."""
    kept = [shorten_pauses(s.active.numpy()) for s in speech]
    latent = np.concatenate([s.latent.float().numpy()[k] for s, k in zip(speech, kept, strict=True)])
    active = np.concatenate([s.active.numpy()[k] for s, k in zip(speech, kept, strict=True)])
    return Steps(latent, active, np.array([k.sum() for k in kept]))


@dataclass(frozen=True)
class Deciphered:
    """Result of a decipherment.

    Attributes:
        phones: The learned distributions of the latent.
        hmm: The model of their order, from text.
        likelihood: Mean log-likelihood of a step in nats; higher is better, and no transcript is needed for it.
    """

    phones: GaussianPhones
    hmm: PhoneHmm
    likelihood: float

    def read(self, latent: np.ndarray, active: np.ndarray) -> np.ndarray:
        """Return the phone of each step (T,) of a recording."""
        return self.hmm.best_path(self.phones.scores(latent, active))


def estimate(steps: Steps, posterior: np.ndarray, scale: float, prior: float) -> GaussianPhones:
    """Return the distributions of the latent for the probability of each phone at each step (N, S).

    Args:
        steps: The speech.
        posterior: (N, S).
        scale: As in `GaussianPhones`.
        prior: Number of steps at the mean of all, which every phone is given beforehand.
    """
    spoken = steps.latent[steps.active]
    weight = posterior[steps.active, 1:]
    counts, middle = weight.sum(axis=0), spoken.mean(axis=0)
    means = (weight.T @ spoken + prior * middle) / (counts + prior)[:, None]
    around = spoken.T @ spoken / len(spoken) - (means * (counts / counts.sum())[:, None]).T @ means
    values, vectors = np.linalg.eigh((around + around.T) / 2)
    covariance = (vectors * np.maximum(values, SMALLEST_VARIANCE)) @ vectors.T
    return GaussianPhones(means.astype(np.float32), covariance, scale)


def random_phones(steps: Steps, centroids: np.ndarray, config: DecipherConfig, rng: np.random.Generator) -> GaussianPhones:
    """Return distributions around clusters of the latent (S - 1, D) that are given to the phones at random."""
    spoken = steps.latent[steps.active]
    means = rng.permutation(centroids) + config.spread * rng.standard_normal(centroids.shape)
    return GaussianPhones(
        means.astype(np.float32), np.cov(spoken.T) + SMALLEST_VARIANCE * np.eye(spoken.shape[1]), config.first_scale
    )


def decipher(
    steps: Steps,
    bigram: np.ndarray,
    trigram: np.ndarray,
    centroids: np.ndarray,
    config: DecipherConfig,
    seed: int,
    on_start: Callable[[int, float], None] | None = None,
) -> Deciphered:
    """Learn the distribution of each phone by expectation maximisation, from random starts; the likeliest is returned.

    Each start takes iterations with pairs of phones, then with triples. The exponent of the likelihoods grows, so that the text decides first.

    Source: Ravi and Knight, Deciphering foreign language (2011); the restarts of Berg-Kirkpatrick and Klein, Decipherment with a million
    random restarts (2013); the growing exponent of Ueda and Nakano, Deterministic annealing EM algorithm (1998).

    Args:
        steps: The speech.
        bigram: (S, S), probability of a phone after a phone in text.
        trigram: (S, S, S), probability of a phone after two phones.
        centroids: (S - 1, D), clusters of the latent.
        config: Settings.
        seed: Seed of the starts.
        on_start: Called with the number and the likelihood of each start.
    """
    rng, best = np.random.default_rng(seed), None
    for start in range(config.n_starts):
        phones = random_phones(steps, centroids, config, rng)
        found = improve(steps, phones, PhoneHmm(bigram, config.stay, config.skip), config.iterations, config)
        found = improve(steps, found.phones, replace(found.hmm, trigram=trigram), config.trigram_iterations, config)
        if on_start is not None:
            on_start(start, found.likelihood)
        if best is None or found.likelihood > best.likelihood:
            best = found
    assert best is not None
    return best


def improve(steps: Steps, phones: GaussianPhones, hmm: PhoneHmm, n: int, config: DecipherConfig) -> Deciphered:
    """Return the distributions after n iterations of expectation maximisation, and the likelihood before the last one."""
    likelihood, first = -np.inf, phones.scale
    for k in range(n):
        scale = first + (config.scale - first) * min((k + 1) / n, 1.0)
        phones = replace(phones, scale=scale)
        posterior, total = hmm.posteriors(phones.scores(steps.latent, steps.active), steps.lengths)
        likelihood = total / len(steps.latent)
        phones = estimate(steps, posterior, scale, config.prior)
    return Deciphered(phones, hmm, likelihood)


def align(scores: np.ndarray, phones: Sequence[int]) -> np.ndarray:
    """Return the phone of each step (T,) if the phones stand in this order, one step each at least; in equal parts with too few steps.

    Args:
        scores: (T, S), log-likelihood of each step in each phone.
        phones: The phones of the recording.
    """
    n = len(phones)
    if len(scores) <= n:
        return np.asarray(phones)[np.arange(len(scores)) * n // len(scores)]
    here = scores[:, phones]
    best, moved = np.full(n, -np.inf), np.zeros((len(scores), n), bool)
    best[0] = here[0, 0]
    for t in range(1, len(scores)):
        before = np.concatenate([[-np.inf], best[:-1]])
        moved[t] = before > best
        best = np.maximum(before, best) + here[t]
    at, path = n - 1, np.empty(len(scores), np.int64)
    for t in range(len(scores) - 1, -1, -1):
        path[t] = phones[at]
        at -= int(moved[t, at])
    return path


def learn_paired(
    steps: Steps, transcripts: Sequence[Sequence[int]], bigram: np.ndarray, trigram: np.ndarray, config: DecipherConfig
) -> Deciphered:
    """Learn the distributions from speech with its phones: equal parts at first, then alignments by the distributions.

    Args:
        steps: The speech.
        transcripts: Phones of each recording.
        bigram: As in `decipher`.
        trigram: As in `decipher`.
        config: Settings.
    """
    starts = np.cumsum(steps.lengths) - steps.lengths
    scores = np.zeros((len(steps.latent), len(bigram)), np.float32)
    phones: GaussianPhones | None = None
    for _ in range(config.paired_iterations):
        posterior = np.zeros_like(scores)
        for first, length, spoken in zip(starts, steps.lengths, transcripts, strict=True):
            at = first + np.flatnonzero(steps.active[first : first + length])
            equal = np.arange(len(at)) * len(spoken) // max(len(at), 1)
            path = np.asarray(spoken)[equal] if phones is None else align(scores[at], spoken)
            posterior[at, path] = 1
        phones = estimate(steps, posterior, config.scale, config.prior)
        scores = phones.scores(steps.latent, steps.active)
    assert phones is not None
    return Deciphered(phones, PhoneHmm(bigram, config.stay, config.skip, trigram), np.nan)
