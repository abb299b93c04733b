"""The prepared cache: a manifest's audio as int16 and its F0, in safetensors shards, so that training decodes no audio files."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vcae.audio.f0 import HOP_LENGTH, SAMPLE_RATE, estimate_f0
from vcae.errors import AudioError, DataError

log = logging.getLogger(__name__)

SHARD_SAMPLES = 64 * 1024 * 1024
MIN_S = 0.5
INDEX_FORMAT = 1


@dataclass(frozen=True)
class Row:
    """Row of a manifest: a sound file and its speaker."""

    path: Path
    speaker: str
    corpus: str


def read_manifest(path: str | Path, split: str | None = None) -> list[Row]:
    """Read a manifest CSV.

    Args:
        path: The CSV, with columns `path` (relative to the CSV's folder) and `speaker`, and optionally `corpus` and `split`.
        split: Keep only rows of this split.

    Returns:
        The rows.

    Raises:
        DataError: If the file or a column is missing, or no row is left.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"the manifest {file} does not exist; make one with recipes/prepare/folder.py")
    with file.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    for column in ("path", "speaker"):
        if rows and column not in rows[0]:
            raise DataError(f"the manifest {file} has no column {column!r}; it has {', '.join(rows[0])}")
    kept = [
        Row(file.parent / r["path"], r["speaker"], r.get("corpus") or "default")
        for r in rows
        if split is None or r.get("split") == split
    ]
    if not kept:
        splits = sorted({r.get("split") or "" for r in rows})
        raise DataError(f"the manifest {file} has no row of split {split!r}; it has {splits}")
    return kept


def _load(row: Row, speed: float) -> tuple[np.ndarray, np.ndarray]:
    from vcae.audio.io import read_sound, resample
    from vcae.audio.loudness import SILENCE_LEVEL, active_level, normalize_level

    sound = read_sound(row.path)
    wav = resample(sound.wav, sound.sample_rate, SAMPLE_RATE)
    if speed != 1.0:
        # A higher speed raises pitch and formants together and counts as another speaker, as in Kaldi's speed perturbation.
        wav = resample(wav, round(SAMPLE_RATE * speed), SAMPLE_RATE)
    if len(wav) < MIN_S * SAMPLE_RATE:
        raise AudioError(f"{row.path} is {len(wav) / SAMPLE_RATE:.2f} s long; at least {MIN_S} s are needed")
    level = active_level(wav)
    if level < SILENCE_LEVEL:
        raise AudioError(f"{row.path} is silent (level {level:.1e})")
    wav = normalize_level(wav)
    wav = wav[: len(wav) // HOP_LENGTH * HOP_LENGTH]
    f0 = estimate_f0(wav)
    return np.round(wav * 32767).astype(np.int16), f0


def prepare_cache(
    rows: list[Row],
    output_dir: str | Path,
    speeds: tuple[float, ...] = (1.0,),
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Decode and analyse every file once, and bring it to the models' level.

    Args:
        rows: Rows to prepare. A file that cannot be used is left out and logged.
        output_dir: Folder of the cache; created if needed.
        speeds: Each speed other than 1 adds a copy of the data, played at that speed, as additional speakers.
        progress: Called with the number of files done and the total.

    Returns:
        The path of the index.

    Raises:
        DataError: If no file could be used.
    """
    output = Path(output_dir)
    output.mkdir(parents=True, exist_ok=True)
    jobs = [(row, speed) for speed in speeds for row in rows]
    utterances: list[dict[str, object]] = []
    failed: list[str] = []
    writer = _ShardWriter(output)
    for n, (row, speed, result) in enumerate(_in_order(jobs)):
        if isinstance(result, Exception):
            failed.append(str(result))
            log.warning("left out: %s", result)
        else:
            speaker = row.speaker if speed == 1.0 else f"{row.speaker}@{speed:g}"
            place = writer.add(*result)
            utterances.append({"name": row.path.name, "speaker": f"{row.corpus}/{speaker}", "corpus": row.corpus, **place})
        if progress is not None:
            progress(n + 1, len(jobs))
    if not utterances:
        raise DataError(f"none of the {len(jobs)} files could be used; the first reason: {failed[0]}")
    shards = writer.close()
    index = {
        "format": INDEX_FORMAT,
        "sample_rate": SAMPLE_RATE,
        "hop_length": HOP_LENGTH,
        "shards": shards,
        "failed": failed,
        "utterances": utterances,
    }
    path = output / "index.json"
    path.write_text(json.dumps(index), encoding="utf-8")
    return path


def _in_order(jobs: list[tuple[Row, float]]) -> Iterator[tuple[Row, float, tuple[np.ndarray, np.ndarray] | Exception]]:
    def attempt(job: tuple[Row, float]) -> tuple[np.ndarray, np.ndarray] | Exception:
        try:
            return _load(*job)
        except AudioError as error:
            return error

    # In limited windows, so that decoded audio does not accumulate while a shard is written.
    with ThreadPoolExecutor(max_workers=2) as pool:
        for start in range(0, len(jobs), 64):
            window = jobs[start : start + 64]
            for (row, speed), result in zip(window, pool.map(attempt, window), strict=True):
                yield row, speed, result


class _ShardWriter:
    """Writer that collects utterances and writes a shard whenever it has enough samples."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: list[str] = []
        self._clear()

    def _clear(self) -> None:
        self.audio: list[np.ndarray] = []
        self.f0: list[np.ndarray] = []
        self.n_audio = self.n_f0 = 0

    def add(self, audio: np.ndarray, f0: np.ndarray) -> dict[str, object]:
        place: dict[str, object] = {"shard": len(self.names), "start": self.n_audio, "n_samples": len(audio)}
        place |= {"f0_start": self.n_f0, "n_frames": len(f0)}
        self.audio.append(audio)
        self.f0.append(f0)
        self.n_audio += len(audio)
        self.n_f0 += len(f0)
        if self.n_audio >= SHARD_SAMPLES:
            self._flush()
        return place

    def _flush(self) -> None:
        from safetensors.numpy import save_file

        name = f"shard-{len(self.names):03d}.safetensors"
        save_file({"audio": np.concatenate(self.audio), "f0": np.concatenate(self.f0)}, self.folder / name)
        self.names.append(name)
        self._clear()

    def close(self) -> list[str]:
        if self.audio:
            self._flush()
        return self.names
