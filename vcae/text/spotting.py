"""Finding given words in a recording, by their phones in the output of the transcriber."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Smallest mean score of a phone, in nats below the best path, and how much lower than at the best place it may be.
LEAST_SCORE, BEHIND_BEST = -3.0, 1.0


@dataclass(frozen=True)
class Spot:
    """Place of given phones.

    Attributes:
        score: Mean of the phones' log-probabilities, in nats below the best path there.
        spans: First step of each phone, and the step after its last.
    """

    score: float
    spans: tuple[tuple[int, int], ...]

    @property
    def start(self) -> int:
        """First step."""
        return self.spans[0][0]

    @property
    def stop(self) -> int:
        """Step after the last."""
        return self.spans[-1][1]


def find_phones(log_probs: np.ndarray, phones: Sequence[int], least: float = LEAST_SCORE) -> list[Spot]:
    """Return where phones are spoken one after another, in order of time, without overlap; the better of two that overlap.

    A place whose score is lower than the best one's by more than `BEHIND_BEST` is left out.

    Args:
        log_probs: (T, 1 + phones), of blank and phones, as the transcriber gives them.
        phones: Numbers of the phones, from 1.
        least: Smallest score.

    Source: Wilpon, Rabiner, Lee and Goldman, Automatic recognition of keywords in unconstrained speech using hidden Markov models (1990);
    what is not the keyword is here the best path.
    """
    states = [phones[0]]
    for phone in phones[1:]:
        states += [0, phone]
    relative = log_probs - log_probs.max(axis=1, keepdims=True)
    n, found = len(states), []
    scores = np.full(n, -np.inf)
    # The steps at which each state of the best way to a state began.
    ways: list[tuple[int, ...]] = [()] * n
    for step, row in enumerate(relative):
        new, new_ways = np.full(n, -np.inf), list(ways)
        for s in range(n):
            options = [(scores[s], ways[s])]
            if s == 0:
                options.append((0.0, (step,)))
            else:
                options.append((scores[s - 1], (*ways[s - 1], step)))
            if s > 1 and states[s] and states[s] != states[s - 2]:
                options.append((scores[s - 2], (*ways[s - 2], step, step)))
            best, way = max(options, key=lambda option: option[0])
            new[s], new_ways[s] = best + row[states[s]], way
        scores, ways = new, new_ways
        if scores[-1] / len(phones) >= least:
            found.append((float(scores[-1]), ways[-1], step + 1))
    kept: list[Spot] = []
    limit = max((score for score, _, _ in found), default=0.0) - BEHIND_BEST * len(phones)
    for score, way, stop in sorted(found, key=lambda one: (-one[0], one[2])):
        if score < limit:
            break
        edges = (*way, stop)
        spot = Spot(score / len(phones), tuple((edges[k], edges[k + 1]) for k in range(0, n, 2)))
        if all(spot.stop <= other.start or spot.start >= other.stop for other in kept):
            kept.append(spot)
    return sorted(kept, key=lambda spot: spot.start)
