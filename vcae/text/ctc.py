"""Decoding of the output of connectionist temporal classification (CTC): the best path, and the best words of a lexicon."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vcae.text.lexicon import Lexicon

# Hypotheses that are kept after each step, and how far (in nats) one may be behind the best.
BEAM, BEHIND = 200, 14.0
# A symbol less likely than this (log-probability) in a step starts no hypothesis there.
UNLIKELY = -9.0
# Weight of the language model, and what each word costs or gains besides, in nats.
LANGUAGE_WEIGHT, WORD_SCORE = 0.7, -0.5


def collapse(log_probs: np.ndarray) -> list[tuple[int, int, int]]:
    """Return the best path's symbols without blanks and repetitions: (symbol, first step, step after the last), for (T, 1 + symbols)."""
    best = log_probs.argmax(axis=1)
    starts = np.flatnonzero(np.diff(best, prepend=-1))
    ends = np.append(starts[1:], len(best))
    return [(int(best[a]), int(a), int(b)) for a, b in zip(starts, ends, strict=True) if best[a] != 0]


class _History:
    """Words of a hypothesis: the last one with its steps, and those before it."""

    __slots__ = ("before", "start", "stop", "word")

    def __init__(self, word: int, start: int, stop: int, before: _History | None) -> None:
        self.word, self.start, self.stop, self.before = word, start, stop, before


@dataclass(slots=True)
class _Hypothesis:
    """Best way to a state.

    Attributes:
        score: Log-probability in nats, with the part of the language model that is known.
        start, stop: First step of the word that is being spelled, and the step after its last symbol.
        history: The words before it.
    """

    score: float
    start: int
    stop: int
    history: _History | None


# Place in the tree of words, last symbol (0 after a blank), last word.
_State = tuple[int, int, int]


class WordSearch:
    """Beam search for the most likely words of a lexicon, with a language model of pairs of words.

    The log-probabilities may be given in pieces; memory does not grow with them, apart from the words found.

    Args:
        lexicon: Words, their phones and probabilities.
        beam: Hypotheses that are kept.
        language_weight: Weight of the language model.
        word_score: What each word adds, in nats.

    Source: Graves and Jaitly, Towards end-to-end speech recognition with recurrent neural networks (2014); Ney and Ortmanns, Dynamic
    programming search for continuous speech recognition (1999), for the tree and the language model's part that is known before a word ends.
    """

    def __init__(
        self, lexicon: Lexicon, beam: int = BEAM, language_weight: float = LANGUAGE_WEIGHT, word_score: float = WORD_SCORE
    ) -> None:
        self._lexicon, self._beam, self._weight, self._word_score = lexicon, beam, language_weight, word_score
        self._states: dict[_State, _Hypothesis] = {(0, 0, lexicon.START): _Hypothesis(0.0, 0, 0, None)}
        self._step = 0

    def add(self, log_probs: np.ndarray) -> None:
        """Go on by log-probabilities of blank and phones (T, 1 + phones)."""
        for row in log_probs:
            self._advance(row.tolist())

    def finish(self) -> list[tuple[str, int, int]]:
        """Return the words of the best hypothesis, with first step and step after the last."""
        best, ended = -math.inf, None
        for (node, _, last), hypothesis in self._states.items():
            score, history = hypothesis.score, hypothesis.history
            if node:
                ends = self._ends(node, last, hypothesis)
                if not ends:
                    continue
                score, _, history = max(ends, key=lambda end: end[0])
            if score > best:
                best, ended = score, history
        found = []
        while ended is not None:
            found.append((self._lexicon.words[ended.word], ended.start, ended.stop))
            ended = ended.before
        return found[::-1]

    def _ends(self, node: int, last: int, hypothesis: _Hypothesis) -> list[tuple[float, int, _History]]:
        """Return score, word and history of each word that is complete at a node."""
        lexicon, made = self._lexicon, []
        for word in lexicon.ends[node]:
            gain = self._weight * (lexicon.log_probability(last, word) - lexicon.best_below[node]) + self._word_score
            history = _History(word, hypothesis.start, hypothesis.stop, hypothesis.history)
            made.append((hypothesis.score + gain, word, history))
        return made

    def _advance(self, row: list[float]) -> None:
        lexicon, found = self._lexicon, dict[_State, _Hypothesis]()
        step, blank = self._step, row[0]

        def offer(state: _State, score: float, start: int, stop: int, history: _History | None) -> None:
            known = found.get(state)
            if known is None:
                found[state] = _Hypothesis(score, start, stop, history)
            elif known.score < score:
                known.score, known.start, known.stop, known.history = score, start, stop, history

        def extend(node: int, symbol: int, last: int, score: float, start: int | None, history: _History | None) -> None:
            before = lexicon.best_below[node]
            for phone, child in lexicon.children[node].items():
                if phone != symbol and row[phone] > UNLIKELY:
                    known = self._weight * (lexicon.best_below[child] - before)
                    first = step if start is None else start
                    offer((child, phone, last), score + row[phone] + known, first, step + 1, history)

        for (node, symbol, last), h in self._states.items():
            offer((node, 0, last), h.score + blank, h.start, h.stop, h.history)
            if symbol:
                stop = step + 1 if node else h.stop
                offer((node, symbol, last), h.score + row[symbol], h.start, stop, h.history)
            extend(node, symbol, last, h.score, h.start if node else None, h.history)
            if node:
                for score, word, history in self._ends(node, last, h):
                    # The next word starts in this step, or a blank follows.
                    offer((0, 0, word), score + blank, step, step, history)
                    extend(0, symbol, word, score, None, history)
        limit = max(h.score for h in found.values()) - BEHIND
        kept = sorted(((s, h) for s, h in found.items() if h.score > limit), key=lambda item: -item[1].score)
        self._states = dict(kept[: self._beam])
        self._step += 1
