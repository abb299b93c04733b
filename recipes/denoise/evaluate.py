"""Denoise noisy speech by several systems and judge the outputs: `python recipes/denoise/evaluate.py recipes/denoise/conf/test.yaml manifest=...`.

Interrupted runs resume: mixtures and outputs that exist are kept, except those of `ours`, and readings of the judges are cached.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from mixtures import Mixture, mixtures
from rich.console import Console
from rich.progress import track
from settings import DenoiseTestRecipe
from systems import System, build

from vcae.audio.f0 import SAMPLE_RATE
from vcae.config import load_config
from vcae.errors import DataError, VcaeError
from vcae.evaluation.run import judge_table
from vcae.evaluation.tables import Copy, write_table

MEASURES = {
    "whisper_wer": "WER, Whisper",
    "moonshine_wer": "WER, Moonshine",
    "pesq_wb": "PESQ-wb",
    "stoi": "STOI",
    "distillmos": "DistillMOS",
    "ovrl": "OVRL",
}
# Seconds of sound that each system denoises to measure its speed.
TIMED_S = 30.0


def keep(path: Path, wav: np.ndarray) -> bool:
    """Write a file, unless it exists with the same samples; return whether it was written."""
    samples = np.round(wav * 32767).clip(-32768, 32767).astype(np.int16)
    if path.exists():
        known = soundfile.read(path, dtype="int16")[0]
        if np.array_equal(known, samples):
            return False
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16")
    return True


def run_systems(recipe: DenoiseTestRecipe, found: Sequence[Mixture]) -> Path:
    """Write every system's outputs, and the table for the judges; return its path."""
    out, console = Path(recipe.output_dir), Console(stderr=True)
    changed = set()
    for mixture in found:
        written = [keep(out / kind / mixture.file_name, getattr(mixture, kind)) for kind in ("clean", "noisy")]
        if any(written):
            changed.add(mixture.file_name)
    for name in recipe.systems:
        system = build(name, recipe.denoiser, recipe.strength)
        for mixture in track(found, description=name, console=console):
            path = out / name / mixture.file_name
            if name == "ours" or mixture.file_name in changed or not path.exists():
                keep(path, system(mixture.noisy))
        time_system(name, system, found, out / "speed.json")
    folders = {"noisy": out / "noisy", **{name: out / name for name in recipe.systems}}
    folders |= {name: Path(folder) for name, folder in recipe.folders.items()}
    rows = []
    for mixture in found:
        for name, folder in folders.items():
            if not (folder / mixture.file_name).is_file():
                raise DataError(
                    f"{folder / mixture.file_name} does not exist; denoise the files of {out / 'noisy'} into {folder}"
                )
            reference = out / "clean" / mixture.file_name
            rows.append(Copy(folder / mixture.file_name, reference, mixture.transcript, f"{mixture.condition}|{name}"))
    write_table(out / "pairs.csv", rows)
    return out / "pairs.csv"


def time_system(name: str, system: System, found: Sequence[Mixture], path: Path) -> None:
    """Store how many seconds of sound a system denoises per second of processor time; others' speeds stay in the file."""
    wav = np.concatenate([mixture.noisy for mixture in found])[: round(TIMED_S * SAMPLE_RATE)]
    system(wav[:SAMPLE_RATE])
    start = time.process_time()
    system(wav)
    known = json.loads(path.read_text()) if path.exists() else {}
    known[name] = len(wav) / SAMPLE_RATE / (time.process_time() - start)
    path.write_text(json.dumps(known, indent=1) + "\n")


def format_table(means: dict[str, dict[str, float]]) -> str:
    """Return the means as a table with a row per condition and system."""
    judged = {key: name for key, name in MEASURES.items() if all(key in row for row in means.values())}
    lines = [f"| condition | system | {' | '.join(judged.values())} |", "|---" * (2 + len(judged)) + "|"]
    for label, row in means.items():
        cells = [f"{row[key]:.3f}" if key in ("stoi", "whisper_wer", "moonshine_wer") else f"{row[key]:.2f}" for key in judged]
        lines.append(f"| {label.replace('|', ' | ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    try:
        recipe = load_config(DenoiseTestRecipe, sys.argv[1], sys.argv[2:])
        pairs = run_systems(recipe, list(mixtures(recipe)))
    except VcaeError as error:
        sys.exit(f"error: {error}")
    if not recipe.judge:
        print(f"not judged; judge the copies: vcae evaluate {pairs}")
        return
    report = judge_table(pairs, recipe.judges, aligned=False)
    print("\n".join([*report.missing, *report.problems]), file=sys.stderr)
    text = format_table(report.means())
    speeds = json.loads((pairs.parent / "speed.json").read_text())
    text += "\n\nTimes real time, by processor time: " + ", ".join(f"{name} {speed:.0f}" for name, speed in speeds.items())
    (pairs.parent / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
