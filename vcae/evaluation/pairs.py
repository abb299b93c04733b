"""Pairs of source and target speakers, chosen from the recordings of a manifest."""

from __future__ import annotations

import csv
import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vcae.audio.io import Sound, read_sound
from vcae.errors import DataError

MIN_REFERENCE_S = 1.0
# Clips of each speaker to draw from, the longest ones: short clips have few words and little evidence of a voice.
N_LONGEST = 10


@dataclass(frozen=True)
class Pair:
    """Source, reference clips of the target, and another clip of the target for the judge: rows of a manifest."""

    source: dict[str, str]
    references: list[dict[str, str]]
    judged: dict[str, str]


def choose_pairs(manifest: Path, split: str, n: int, seed: int, min_s: float, reference_s: float = 0.0) -> list[Pair]:
    """Choose ordered pairs of speakers, balanced over sources and targets, without repetition until every pair has been used.

    Args:
        manifest: CSV with columns path, speaker, split and duration_s.
        split: Only rows of this split are used.
        n: Number of pairs; 12 speakers have 132, after which the pairs repeat with other recordings. A smaller number gives the
            first pairs of a larger one.
        seed: The same seed gives the same pairs.
        min_s: Shortest recording in seconds; the `N_LONGEST` longest of each speaker are drawn from.
        reference_s: Duration of the target's clips in seconds; speakers with less speech are not used as targets. 0 gives one clip.

    Raises:
        DataError: If fewer than two speakers can be targets.
    """
    by_speaker = _by_speaker(manifest, split, min_s)
    speakers = sorted(s for s, r in by_speaker.items() if len(r) >= 2)
    rng = random.Random(seed)
    rng.shuffle(speakers)
    seconds = {s: [float(r["duration_s"]) for r in by_speaker[s]] for s in speakers}
    targets = [s for s in speakers if sum(seconds[s]) - max(seconds[s]) >= reference_s]
    if len(targets) < 2:
        raise DataError(
            f"{len(targets)} speakers of the split {split!r} in {manifest} have {reference_s:g} s in clips of {min_s:g} s and one "
            "clip more; two are needed: ask for fewer seconds or another split"
        )
    pairs = []
    for source, target in itertools.islice(_ordered_pairs(speakers, targets), n):
        clips = by_speaker[target]
        first, judged, *others = rng.sample(clips, len(clips)) if reference_s else rng.sample(_longest(clips), 2)
        references = [first]
        while sum(float(r["duration_s"]) for r in references) < reference_s:
            references.append(others.pop())
        pairs.append(Pair(rng.choice(_longest(by_speaker[source])), references, judged))
    return pairs


def _ordered_pairs(sources: Sequence[str], targets: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each source with each other target endlessly; after each round of the sources the targets are shifted by one."""
    for shift in itertools.cycle(range(1, len(targets) + 1)):
        for n, source in enumerate(sources):
            target = targets[(n + shift) % len(targets)]
            if target != source:
                yield source, target


def _longest(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    return sorted(rows, key=lambda row: (-float(row["duration_s"]), row["path"]))[:N_LONGEST]


def choose_own_pairs(manifest: Path, split: str, n: int, seed: int, min_s: float) -> list[Pair]:
    """Choose pairs whose source and target are one speaker, in three different recordings; arguments as `choose_pairs`.

    Raises:
        DataError: If no speaker has three recordings.
    """
    by_speaker = _by_speaker(manifest, split, min_s)
    speakers = sorted(s for s, r in by_speaker.items() if len(r) >= 3)
    if not speakers:
        raise DataError(
            f"no speaker of the split {split!r} in {manifest} has three recordings of {min_s:g} s; take another split"
        )
    rng = random.Random(seed)
    chosen = [rng.sample(by_speaker[speakers[i % len(speakers)]], 3) for i in range(n)]
    return [Pair(source, [reference], judged) for source, reference, judged in chosen]


def _by_speaker(manifest: Path, split: str, min_s: float) -> dict[str, list[dict[str, str]]]:
    by_speaker = defaultdict(list)
    with manifest.open(newline="", encoding="utf-8") as opened:
        for row in csv.DictReader(opened):
            if row["split"] == split and float(row["duration_s"]) >= min_s:
                by_speaker[row["speaker"]].append(row)
    return by_speaker


def read_references(root: Path, pair: Pair, reference_s: float = 0.0) -> list[Sound]:
    """Read a pair's reference clips, cut to `reference_s` seconds in total; without a cut when 0."""
    clips, left = [], reference_s or float("inf")
    for row in pair.references:
        clip = read_sound(root / row["path"])
        kept = (
            clip if clip.duration_s <= left else Sound(clip.wav[: round(left * clip.sample_rate)], clip.sample_rate, clip.name)
        )
        # A remainder too short for a reference is left out.
        if kept.duration_s >= MIN_REFERENCE_S:
            clips.append(kept)
        left -= kept.duration_s
        if left < MIN_REFERENCE_S:
            break
    return clips
