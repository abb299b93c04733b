"""Describe the files that vcae writes beside sound: voices, detectors, units, features, reports and scores; told apart by content."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vcae.errors import DataError

Describe = Callable[[str], dict[str, Any]]
# Suffixes of files that are read as text.
TEXTS = (".jsonl", ".json", ".csv", ".textgrid", ".txt")
# A larger text file is not one of ours.
MAX_TEXT_BYTES = 1 << 28
KINDS = (
    "checkpoints, voices, detectors and classifiers (.safetensors), sound files, compressed speech (.vcz), units (.jsonl, .TextGrid, .txt), "
    "features (.npz, .parquet), report.jsonl, rows of anomaly scores (.json, .jsonl, .csv), and the scores of evaluate (.csv, .json)"
)


def describe_model_file(path: Path) -> dict[str, Any] | None:
    """Describe a voice, a detector or a classifier; None for another safetensors file.

    Raises:
        CheckpointError: If the file is damaged.
    """
    from vcae.files import hash_file
    from vcae.model_file import read_header, read_metadata

    header = read_header(path)
    values: dict[str, Any] = {"file": str(path), "bytes": path.stat().st_size, "sha256": hash_file(path)}
    if "vcae_voice" in header:
        from vcae.voice.file import read_voice_facts

        facts = read_voice_facts(path)
        median = facts.pop("log_f0_median")
        pitch = {"median_f0_hz": None if median is None else round(math.exp(median), 1)}
        return {"kind": "voice", **values, **pitch, **{k: v for k, v in facts.items() if k != "error_bandwidth"}}
    if "vcae_anomaly" in header:
        from vcae.anomaly.detector import Detector

        detector = Detector.load(path)
        decision = detector.decision
        return {
            "kind": "detector",
            **values,
            "model": detector.config.model,
            "members": list(detector.config.parts),
            "sample_rate_hz": detector.config.mel.sample_rate,
            "threshold": None if decision is None else decision.value,
            "threshold_reason": "none chosen" if decision is None else decision.reason,
            "info": {name: value for name, value in detector.info.items() if name != "sha256"},
        }
    if "vcae" in header and isinstance(read_metadata(path).get("classes"), dict):
        from vcae.anomaly.openset import OpenSetClassifier

        model = OpenSetClassifier.load(path)
        return {
            "kind": "classifier",
            **values,
            "classes": list(model.classes),
            "decided_by": model.config.by,
            "thresholds": dict(model.thresholds),
            "info": dict(model.facts),
        }
    return None


def describe_features(path: str) -> dict[str, Any]:
    """Describe a file of features that `vcae embed` wrote.

    Raises:
        DataError: If it is damaged or holds something else.
        ConfigError: For Parquet without pyarrow.
    """
    import numpy as np

    from vcae.tasks.embed_files import need_writer

    try:
        if Path(path).suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as opened:
                shape = opened["values"].shape
                n_rows, dim, names, facts = shape[0], shape[1], len(opened["names"]), json.loads(str(opened["facts"]))
        else:
            need_writer(path)
            from pyarrow import parquet

            table = parquet.read_table(path)
            n_rows, dim = table.num_rows, table.schema.field("values").type.list_size
            names = len(set(table.column("name").to_pylist()))
            facts = json.loads(table.schema.metadata[b"vcae"])
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; check the path") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(f"{path} is not a file of features ({error}); give one that `vcae embed` wrote") from error
    return {"kind": "features", "file": path, "recordings": names, "rows": n_rows, "numbers_per_row": dim, **facts}


def describe_text(path: str) -> dict[str, Any]:
    """Describe a text file that vcae wrote: units, a report, anomaly scores, or the scores of an evaluation.

    Raises:
        DataError: If it cannot be read, or is something else.
    """
    text = _read(path)
    if Path(path).suffix.lower() == ".csv":
        return {"file": path, **_table(path, list(csv.DictReader(text.splitlines())))}
    if text.lstrip().startswith("{"):
        values = _json(path, text)
        if values is not None:
            return {"file": path, **values}
    from vcae.tasks.unit_files import parse_units

    try:
        found = parse_units(text, path)
    except DataError as error:
        raise DataError(f"{path} is not a file that vcae writes ({error}); info describes {KINDS}") from error
    timed = [one for one in found if one.lengths is not None]
    return {
        "kind": "units",
        "file": path,
        "sequences": len(found),
        "units": sum(len(one.units) for one in found),
        "different_units": len({unit for one in found for unit in one.units}),
        "duration_s": round(sum(one.duration_s for one in timed), 3) if len(timed) == len(found) else None,
        "collapsed": any(one.collapsed for one in found),
        "checkpoint": next((one.checkpoint for one in found if one.checkpoint), None),
    }


def _read(path: str) -> str:
    try:
        size = Path(path).stat().st_size
        if size > MAX_TEXT_BYTES:
            raise DataError(f"{path} has {size} bytes and is not a file that vcae writes; info describes {KINDS}")
        data = Path(path).read_bytes()
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; check the path") from error
    except (OSError, UnicodeError, ValueError) as error:
        raise DataError(f"{path} cannot be read as text ({error}); info describes {KINDS}") from error


def _json(path: str, text: str) -> dict[str, Any] | None:
    """Describe JSON, whole or a row a line; None where it may be units."""
    try:
        whole = json.loads(text)
        rows = [whole]
    except ValueError:
        try:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise DataError(f"{path} is not whole JSON ({error}); a run that was stopped may have left it so") from error
    first = rows[0]
    if not all(isinstance(row, dict) for row in rows) or "units" in first:
        return None
    if {"source", "status", "output"} <= set(first):
        return _report(rows)
    if {"score", "threshold"} <= set(first):
        return _scores(rows)
    if {"class", "confidence"} <= set(first):
        return {"kind": "classes", "recordings": len(rows), "classes": dict(Counter(str(row.get("class")) for row in rows))}
    if len(rows) == 1 and {"facts", "threshold", "figures"} <= set(first):
        return {
            "kind": "anomaly evaluation",
            "threshold": first["threshold"],
            **_plain(first["facts"]),
            **_plain(first["figures"]),
        }
    if len(rows) == 1 and {"facts", "means", "n"} <= set(first):
        return {"kind": "evaluation", "rows": first["n"], "means": first["means"]}
    return None


def _report(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    last = {str(row.get("output")) + str(row.get("source")): row for row in rows}.values()
    return {
        "kind": "report",
        "sources": len(last),
        "status": dict(Counter(str(row.get("status")) for row in last)),
        "duration_s": round(sum(float(row.get("duration_s") or 0) for row in last), 3),
        "elapsed_s": round(sum(float(row.get("elapsed_s") or 0) for row in last), 3),
        "failed": [f"{row.get('source')}: {row.get('reason')}" for row in last if row.get("status") == "failed"],
    }


def _scores(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    scores = [float(row["score"]) for row in rows if row.get("score") not in (None, "")]
    called = [str(row.get("anomalous")).lower() in ("1", "true") for row in rows]
    return {
        "kind": "anomaly scores of windows" if "start_s" in rows[0] else "anomaly scores",
        "rows": len(rows),
        # Without a threshold nothing was called either way.
        "anomalous": None if all(row.get("anomalous") in (None, "") for row in rows) else sum(called),
        "threshold": next((float(row["threshold"]) for row in rows if row.get("threshold") not in (None, "")), None),
        "lowest_score": min(scores, default=None),
        "highest_score": max(scores, default=None),
    }


def _table(path: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    columns = set(rows[0]) if rows else set()
    if {"path", "score", "anomalous"} <= columns:
        return _scores(rows)
    if {"file", "class", "confidence"} <= columns:
        return {"kind": "classes", "recordings": len(rows), "classes": dict(Counter(row["class"] for row in rows))}
    if {"path", "label", "score", "decision"} <= columns:
        right = sum(row["label"] == row["decision"] for row in rows)
        return {"kind": "anomaly evaluation", "recordings": len(rows), "rightly_decided": right}
    if "source" in columns or "label" in columns:
        rest = sorted(columns - {"source"})
        return {
            "kind": "table of recordings",
            "rows": len(rows),
            "columns": ", ".join(["source", *rest] if "source" in columns else rest),
        }
    raise DataError(
        f"{path} has the columns {', '.join(sorted(map(str, columns))) or 'none'} and is no table of vcae; info describes {KINDS}"
    )


def _plain(values: Any) -> dict[str, Any]:
    return dict(values) if isinstance(values, dict) else {}
