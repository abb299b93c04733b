"""Maintain the results in docs/results.json and their tables in docs/results.md.

    python benchmarks/results.py conversion out/judged/means.json [--rename OLD=NEW ...]
    python benchmarks/results.py            # only rewrites the tables

The first argument is a table of docs/results.md, between `<!-- NAME -->` and `<!-- end -->`; the files are from `vcae evaluate`. Existing
systems are replaced one by one, but not by results on fewer files.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DATA, PAGE = ROOT / "docs/results.json", ROOT / "docs/results.md"
WORDS = {"moonshine_wer": "WER, Moonshine", "whisper_wer": "WER, Whisper"}
NATURAL = {"distillmos": "DistillMOS"}
COPIES = {"pesq_wb": "PESQ-wb", "stoi": "STOI", "mel_db": "mel dB", "cosine": "speaker cosine", "ovrl": "DNSMOS OVRL"}
VOICE = {"cosine_target": "cosine to target", "cosine_source": "cosine to source", "accepted": "accepted"}
COLUMNS = {
    "conversion": {**WORDS, **NATURAL, **VOICE},
    "vocoder": {**WORDS, **NATURAL, **COPIES},
    "codec": {**WORDS, **NATURAL, **COPIES},
    "robustness": {"whisper_wer": WORDS["whisper_wer"], **NATURAL, **VOICE},
    "denoise": {
        "whisper_wer": WORDS["whisper_wer"],
        **NATURAL,
        "stoi": "STOI",
        "pesq_wb": "PESQ-wb",
        "ovrl": "DNSMOS OVRL",
    },
}
SOURCE = "the sources as recorded"
# Differences are given with their intervals.
DIFFERENCES = {**WORDS, **NATURAL, "cosine_target": VOICE["cosine_target"], "cosine_source": VOICE["cosine_source"]}


def add(data: dict[str, Any], name: str, found: dict[str, Any], rename: dict[str, str]) -> None:
    """Put the results of `vcae evaluate` into a table's data."""
    kept = data.setdefault(name, {"systems": {}})
    for label, means in found["means"].items():
        values = {"n": found["n"][label], **{key: means[key] for key in COLUMNS[name] if means.get(key) is not None}}
        if values["n"] >= kept["systems"].get(rename.get(label, label), {"n": 0})["n"]:
            kept["systems"][rename.get(label, label)] = values
        own = {
            key: means.get(key.replace("_wer", "_source") if "_wer" in key else f"{key}_source") for key in (*WORDS, *NATURAL)
        }
        heard = {key: value for key, value in own.items() if value is not None}
        if name == "conversion" and heard and values["n"] >= kept["systems"].get(SOURCE, {"n": 0})["n"]:
            # The sources are the same for all systems, and their scores are the upper bound.
            kept["systems"] = {SOURCE: {}} | kept["systems"] | {SOURCE: {"n": values["n"], **heard}}
    for d in found.get("differences", []):
        if d["score"] in DIFFERENCES and d["value"] is not None:
            system = kept.setdefault("differences", {}).setdefault(rename.get(d["system"], d["system"]), {})
            system[d["score"]] = {key: d[key] for key in ("value", "low", "high", "pairs")}
    kept["judges"] = kept.get("judges", {}) | {name: identity for name, identity in found["judges"].items() if name != "own"}


def number(key: str, value: float | None) -> str:
    """Format a number with its significant digits."""
    if value is None:
        return ""
    return (
        f"{value:.2f}"
        if key in ("distillmos", "pesq_wb", "mel_db", "ovrl")
        else f"{value:.3f}".removeprefix("0" if value < 1 else "")
    )


def tables(data: dict[str, Any]) -> dict[str, str]:
    """Return every table as markdown, by its name."""
    found = {}
    for name, kept in data.items():
        columns = {key: head for key, head in COLUMNS[name].items() if any(key in s for s in kept["systems"].values())}
        lines = [f"| system | n | {' | '.join(columns.values())} |", "|---" * (2 + len(columns)) + "|"]
        for label, values in kept["systems"].items():
            cells = [number(key, values.get(key)) for key in columns]
            lines.append(f"| {label} | {values['n']} | {' | '.join(cells)} |")
        found[name] = "\n".join(lines)
        if "differences" in kept:
            lines = ["| system | pairs | score | difference | from | to |", "|---" * 6 + "|"]
            for label, by_score in kept["differences"].items():
                for key, head in DIFFERENCES.items():
                    if key in by_score:
                        d = by_score[key]
                        lines.append(
                            f"| {label} | {d['pairs']} | {head} | {d['value']:+.3f} | {d['low']:+.3f} | {d['high']:+.3f} |"
                        )
            found[f"{name}-differences"] = "\n".join(lines)
    return found


def fill(page: str, made: dict[str, str]) -> str:
    """Return the page with its tables replaced.

    Raises:
        SystemExit: If it lacks the place of one.
    """
    for name, table in made.items():
        pattern = rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)"
        page, n = re.subn(pattern, lambda found, table=table: f"{found[1]}\n{table}\n\n{found[2]}", page, flags=re.S)
        if n != 1:
            raise SystemExit(f"{PAGE} has {n} places <!-- {name} -->; one is needed")
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=COLUMNS)
    parser.add_argument("means", nargs="*", type=Path)
    parser.add_argument("--rename", nargs="+", default=[], metavar="OLD=NEW", help="what systems are called in the table")
    args = parser.parse_args()
    data = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
    for path in args.means:
        add(data, args.name, json.loads(path.read_text(encoding="utf-8")), dict(word.split("=", 1) for word in args.rename))
    DATA.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), tables(data)), encoding="utf-8")
    print(f"wrote {DATA} and {PAGE}")


if __name__ == "__main__":
    sys.exit(main())
