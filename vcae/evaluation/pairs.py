"""Pairs: who is converted to whom, and lists of conversions to be judged."""

from __future__ import annotations

import csv
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from vcae.audio.io import Sound, read_sound
from vcae.errors import DataError

COLUMNS = ("converted", "source", "target_ref")
MIN_REFERENCE_S = 1.0


@dataclass(frozen=True)
class Pair:
    """What is converted, the clips given of the target, and the clip of the target kept for the judge: rows of a manifest."""

    source: dict[str, str]
    references: list[dict[str, str]]
    judged: dict[str, str]


def choose_pairs(manifest: Path, split: str, n: int, seed: int, min_s: float, reference_s: float = 0.0) -> list[Pair]:
    """Choose pairs; speakers are taken in turn, so that each is source, and target, about as often.

    Args:
        manifest: CSV with columns path, speaker, split and duration_s.
        split: Rows of this split are taken.
        n: How many pairs.
        seed: The same seed gives the same pairs.
        min_s: Shorter recordings are left out, in seconds.
        reference_s: Give as many clips of the target as hold so many seconds, and take as targets only speakers of whom there is
            enough; one clip when 0.

    Raises:
        DataError: If fewer than two speakers can be targets.
    """
    by_speaker = _by_speaker(manifest, split, min_s)
    speakers = sorted(s for s, r in by_speaker.items() if len(r) >= 2)
    seconds = {s: [float(r["duration_s"]) for r in by_speaker[s]] for s in speakers}
    targets = [s for s in speakers if sum(seconds[s]) - max(seconds[s]) >= reference_s]
    if len(targets) < 2:
        raise DataError(
            f"{len(targets)} speakers of the split {split!r} in {manifest} have {reference_s:g} s in clips of {min_s:g} s and one "
            "clip more; two are needed: ask for fewer seconds or another split"
        )
    rng = random.Random(seed)
    pairs = []
    for i in range(n):
        source = speakers[i % len(speakers)]
        target = targets[(i + 1 + rng.randrange(len(targets) - 1)) % len(targets)]
        target = target if target != source else targets[(targets.index(target) + 1) % len(targets)]
        first, judged, *others = rng.sample(by_speaker[target], len(by_speaker[target]) if reference_s else 2)
        references = [first]
        while sum(float(r["duration_s"]) for r in references) < reference_s:
            references.append(others.pop())
        pairs.append(Pair(rng.choice(by_speaker[source]), references, judged))
    return pairs


def choose_own_pairs(manifest: Path, split: str, n: int, seed: int, min_s: float) -> list[Pair]:
    """Choose pairs whose source and target are one speaker, in three different recordings; arguments as `choose_pairs`.

    Raises:
        DataError: If nobody has three recordings.
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
    """Read a pair's reference clips, up to `reference_s` seconds in all, the last one cut there; whole when 0."""
    clips, left = [], reference_s or float("inf")
    for row in pair.references:
        clip = read_sound(root / row["path"])
        kept = (
            clip if clip.duration_s <= left else Sound(clip.wav[: round(left * clip.sample_rate)], clip.sample_rate, clip.name)
        )
        # A remainder too short to be heard as a voice is left out.
        if kept.duration_s >= MIN_REFERENCE_S:
            clips.append(kept)
        left -= kept.duration_s
        if left < MIN_REFERENCE_S:
            break
    return clips


@dataclass(frozen=True)
class Conversion:
    """One row of a pairs CSV.

    Attributes:
        converted: The file to judge.
        source: What it was made from.
        target_ref: An utterance of the voice asked for, best one that the converter did not hear.
        transcript: What is said; empty when not known.
        label: Which system made it.
    """

    converted: Path
    source: Path
    target_ref: Path
    transcript: str
    label: str


def read_pairs(path: Path) -> list[Conversion]:
    """Read a pairs CSV; its paths are absolute or relative to its folder.

    Raises:
        DataError: If the file, a column or a sound file is missing, or no row is there.
    """
    if not path.is_file():
        raise DataError(f"the pairs file {path} does not exist; make one with the columns {', '.join(COLUMNS)}")
    with path.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    if not rows:
        raise DataError(f"the pairs file {path} has no rows; give one conversion a row, with the columns {', '.join(COLUMNS)}")
    for column in COLUMNS:
        if column not in rows[0]:
            raise DataError(f"the pairs file {path} has no column {column!r}; it has {', '.join(rows[0])}")
    found = []
    for number, row in enumerate(rows, start=2):
        files = [path.parent / row[column] for column in COLUMNS]
        for column, file in zip(COLUMNS, files, strict=True):
            if not file.is_file():
                raise DataError(
                    f"line {number} of {path}: the {column} {file} does not exist; paths are relative to the CSV's folder"
                )
        found.append(Conversion(files[0], files[1], files[2], row.get("transcript") or "", row.get("label") or "all"))
    return found


def write_pairs(path: Path, rows: list[Conversion]) -> None:
    """Write a pairs CSV, with paths inside its folder relative to it."""
    with path.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow([*COLUMNS, "transcript", "label"])
        for row in rows:
            files = [_relative(file, path.parent) for file in (row.converted, row.source, row.target_ref)]
            writer.writerow([*files, row.transcript, row.label])


def _relative(file: Path, folder: Path) -> str:
    file, folder = file.resolve(), folder.resolve()
    return str(file.relative_to(folder)) if file.is_relative_to(folder) else str(file)
