"""Words to find in a recording and words to say in their place: as phones, and where they are spoken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vcae.errors import ConfigError, DataError
from vcae.model.transcriber import PHONES
from vcae.text.say import shared_pronunciation
from vcae.text.spelling import sentences
from vcae.text.spotting import Spot, find_phones


@dataclass(frozen=True)
class Change:
    """Words to find and words to say in their place, as phones.

    Attributes:
        before, old, new, after: Phones with stress of the words that stay, of those that go, of those that come, and of those that stay.
        old_sizes, new_sizes: Number of phones of each word of `old` and `new`.
    """

    before: tuple[str, ...]
    old: tuple[str, ...]
    new: tuple[str, ...]
    after: tuple[str, ...]
    old_sizes: tuple[int, ...] = field(default=(), compare=False)
    new_sizes: tuple[int, ...] = field(default=(), compare=False)


def parse_change(old: str, new: str) -> Change:
    """Return the phones of words to find and to say; what both begin or end with stays as it is.

    Raises:
        ConfigError: If both are the same.
        DataError: If one has no English word.
    """
    found, said = (tuple(word for sentence in sentences(text) for word in sentence.words) for text in (old, new))
    if found == said:
        raise ConfigError(f"the words {old!r} are to be replaced by themselves; give others")
    same = 0
    while same < min(len(found), len(said)) - 1 and found[same] == said[same]:
        same += 1
    end = 0
    while end < min(len(found), len(said)) - 1 - same and found[-1 - end] == said[-1 - end]:
        end += 1
    pronounce = shared_pronunciation()

    def phones(words: Sequence[str]) -> tuple[str, ...]:
        return tuple(phone for word in words for phone in pronounce(word))

    parts = found[:same], found[same : len(found) - end], said[same : len(said) - end], found[len(found) - end :]
    before, gone, come, after = map(phones, parts)
    old_sizes, new_sizes = (tuple(len(pronounce(word)) for word in words) for words in parts[1:3])
    return Change(before, gone, come, after, old_sizes, new_sizes)


def find_change(phones: np.ndarray, change: Change, what: str, nth: int | None, step_s: float) -> Spot:
    """Return where the words of a change are spoken.

    Raises:
        DataError: If they are not found, or more than once without `nth`.
    """
    numbers = [1 + PHONES.index(phone.rstrip("012")) for phone in (*change.before, *change.old, *change.after)]
    spots = find_phones(phones, numbers)
    if not spots:
        raise DataError(f"{what!r} was not found in the recording; check the words, or give those before or after them too")
    if nth is None and len(spots) > 1:
        times = ", ".join(f"{spot.start * step_s:.2f} s" for spot in spots[:10])
        raise DataError(f"{what!r} was found {len(spots)} times, at {times}; choose one with nth, or give more words")
    if nth is not None and not 1 <= nth <= len(spots):
        raise DataError(f"{what!r} was found {len(spots)} times, and nth is {nth}; allowed are 1 to {len(spots)}")
    spot = spots[(nth or 1) - 1]
    first = len(change.before)
    return replace(spot, spans=spot.spans[first : first + len(change.old)])


def widen(phones: np.ndarray, spot: Spot) -> tuple[int, int]:
    """Return first step and step after the last of words: the middle between their outer phones and the phones beside them, one step away at most."""
    best = phones.argmax(axis=1)
    spoken = np.flatnonzero(best)
    before, after = spoken[spoken < spot.start], spoken[spoken >= spot.stop]
    left = spot.start - (before[-1] + 1) if len(before) else spot.start
    right = after[0] - spot.stop if len(after) else len(phones) - spot.stop
    return spot.start - min(int(left) // 2 + int(left) % 2, 2), spot.stop + min(int(right) // 2, 2)
