"""Hidden Markov model of speech whose states are phones, with the probabilities of phones in text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# Steps, with padding, that are processed at once.
GROUP_STEPS = 8000
TINY = np.float32(1e-30)


@dataclass(frozen=True)
class GaussianPhones:
    """Normal distribution of the content latent for each phone, with one covariance for all.

    Attributes:
        means: (S - 1, D), of all phones but silence.
        covariance: (D, D).
        scale: Exponent of the likelihoods, as steps depend on each other, which the model takes for independent.
    """

    means: np.ndarray
    covariance: np.ndarray
    scale: float

    def scores(self, latent: np.ndarray, active: np.ndarray) -> np.ndarray:
        """Return the log-likelihood of each phone (N, S) at the steps of a latent (N, D); steps that are not active are silence, phone 0."""
        white = np.linalg.cholesky(np.linalg.inv(self.covariance))
        x, y = (latent @ white).astype(np.float32), (self.means @ white).astype(np.float32)
        apart = (x**2).sum(axis=1)[:, None] - 2 * x @ y.T + (y**2).sum(axis=1)[None]
        volume = np.linalg.slogdet(self.covariance)[1]
        found = np.full((len(latent), len(self.means) + 1), -1000.0, np.float32)
        found[active, 1:] = -0.5 * self.scale * (apart[active] + volume)
        found[~active, 0] = 0.0
        return found


@dataclass(frozen=True)
class PhoneHmm:
    """Hidden Markov model whose state is a phone, or a phone and the one before it.

    Axes: S phones, of which 0 is silence; N steps of all recordings in one row. A recording begins after a silence.

    Attributes:
        bigram: (S, S), probability of a phone after a phone.
        stay: Probability that a step has the same phone as the step before.
        skip: Share of steps between which and the step before one phone is missing.
        trigram: (S, S, S), probability of a phone after two phones; None to take the bigram, which is some thirty times as fast.
    """

    bigram: np.ndarray
    stay: float
    skip: float
    trigram: np.ndarray | None = None

    @property
    def moves(self) -> np.ndarray:
        """Probability of a step with another phone after two phones: (S, S, S), or (1, S, S) without a trigram; float32."""
        step = self.bigram[None] if self.trigram is None else self.trigram
        moved: np.ndarray = (1 - self.stay - self.skip) * step + self.skip * self.bigram @ self.bigram
        return moved.astype(np.float32)

    def posteriors(self, scores: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the probability of each phone at each step (N, S), and the log-likelihood of all steps in nats.

        Source: Rabiner, A tutorial on hidden Markov models and selected applications in speech recognition (1989).

        Args:
            scores: (N, S), log-likelihood of each step in each phone.
            lengths: (R,), steps of each recording.
        """
        highest = scores.max(axis=1)
        seen = np.exp(scores - highest[:, None]).astype(np.float32)
        found, total = np.empty_like(seen), float(highest.sum(dtype=np.float64))
        pass_through = self._pairs if self.trigram is None else self._triples
        for places, valid in _groups(lengths):
            posterior, scale = pass_through(seen[places], valid)
            found[places[valid]] = posterior[valid]
            total += float(np.log(scale[valid]).sum(dtype=np.float64))
        return found, total

    def _pairs(self, seen: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return posteriors (T, B, S) and scales (T, B) for likelihoods (T, B, S) by the bigram."""
        step = self.moves[0] + np.float32(self.stay) * np.eye(len(self.bigram), dtype=np.float32)
        forward, scale = np.empty_like(seen), np.ones(valid.shape, np.float32)
        last = np.broadcast_to(step[0], seen[0].shape)
        for t, here in enumerate(seen):
            now = last * here + TINY
            scale[t] = now.sum(axis=1)
            forward[t] = now / scale[t][:, None]
            last = forward[t] @ step
        backward, back = np.ones_like(seen[0]), np.ascontiguousarray(step.T)
        for t in range(len(seen) - 1, -1, -1):
            forward[t] *= backward
            ahead = (backward * seen[t] / scale[t][:, None]) @ back
            backward = np.where(valid[t][:, None], ahead, np.float32(1))
        return forward / np.maximum(forward.sum(axis=2, keepdims=True), TINY), scale

    def _triples(self, seen: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the same by the trigram. The axes of a state are: phone, recording, phone before it."""
        moves, stay = self.moves, np.float32(self.stay)
        ahead, back = np.ascontiguousarray(moves.transpose(1, 0, 2)), np.ascontiguousarray(moves.transpose(1, 2, 0))
        n_steps, n_rows, n_phones = seen.shape
        forward = np.empty((n_steps, n_phones, n_rows, n_phones), np.float32)
        scale, last = np.ones(valid.shape, np.float32), np.zeros(forward.shape[1:], np.float32)
        last[0, :, 0] = 1
        for t, here in enumerate(seen):
            now = ((last @ ahead).transpose(2, 1, 0) + stay * last) * here.T[:, :, None] + TINY
            scale[t] = now.sum(axis=(0, 2))
            forward[t] = last = now / scale[t][None, :, None]
        posterior, backward = np.empty_like(seen), np.ones_like(last)
        for t in range(n_steps - 1, -1, -1):
            posterior[t] = (forward[t] * backward).sum(axis=2).T
            ready = backward * (seen[t] / scale[t][:, None]).T[:, :, None]
            before = ready.transpose(2, 1, 0) @ back + stay * ready
            backward = np.where(valid[t][None, :, None], before, np.float32(1))
        return posterior / np.maximum(posterior.sum(axis=2, keepdims=True), TINY), scale

    def best_path(self, scores: np.ndarray) -> np.ndarray:
        """Return the most likely phone at each step (T,) of one recording, for its scores (T, S)."""
        with np.errstate(divide="ignore"):
            moves, stay = np.log(self.moves), np.float32(np.log(self.stay))
        n_before, n_phones, _ = moves.shape
        best = np.full((n_before, n_phones), -np.inf, np.float32)
        best[0, 0] = 0.0
        # For each state the state before it, as a number before * S + phone.
        back = np.empty((len(scores), n_before, n_phones), np.int32)
        states = np.arange(n_before * n_phones).reshape(n_before, n_phones)
        for t, here in enumerate(scores):
            if n_before > 1:
                paths = best[:, :, None] + moves
                entered, source = paths.max(axis=0), paths.argmax(axis=0) * n_phones + np.arange(n_phones)[:, None]
            else:
                paths = best[0][:, None] + moves[0]
                entered, source = paths.max(axis=0)[None], paths.argmax(axis=0)[None]
            kept = best + stay
            back[t] = np.where(kept >= entered, states, source)
            best = np.maximum(kept, entered) + here[None]
        path, state = np.empty(len(scores), np.int64), int(best.argmax())
        for t in range(len(scores) - 1, -1, -1):
            path[t] = state % n_phones
            state = int(back[t].reshape(-1)[state])
        return path


def _groups(lengths: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the places of recordings of similar lengths (T, B), and which of them are valid."""
    starts, order = np.cumsum(lengths) - lengths, np.argsort(lengths, kind="stable")
    first = 0
    while first < len(order):
        last = first + 1
        while last < len(order) and (last - first + 1) * lengths[order[last]] <= GROUP_STEPS:
            last += 1
        chosen = order[first:last]
        steps = np.arange(lengths[chosen[-1]])[:, None]
        valid = steps < lengths[chosen][None]
        yield np.where(valid, starts[chosen][None] + steps, starts[chosen][None]), valid
        first = last
