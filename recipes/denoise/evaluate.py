"""Clean noisy speech by every system and have it judged: `python recipes/denoise/evaluate.py recipes/denoise/conf/test.yaml manifest=...`."""

import sys
import time
from pathlib import Path

import numpy as np
import soundfile
from mixtures import Mixture, mixtures
from rich.console import Console
from rich.progress import track
from settings import DenoiseTestRecipe
from systems import build

from vcae.audio.f0 import SAMPLE_RATE
from vcae.config import load_config
from vcae.errors import VcaeError
from vcae.evaluation.run import judge_table
from vcae.evaluation.tables import Copy, write_table

JUDGES = ("moonshine", "distillmos", "pesq", "stoi", "dnsmos")
MEASURES = {
    "moonshine_wer": "WER",
    "distillmos": "DistillMOS",
    "stoi": "STOI",
    "pesq_wb": "PESQ-wb",
    "ovrl": "OVRL",
    "p808": "P.808",
}


def write(recipe: DenoiseTestRecipe, found: list[Mixture]) -> Path:
    """Write every system's outputs, and the list for the judge."""
    out, console = Path(recipe.output_dir), Console(stderr=True)
    out.mkdir(parents=True, exist_ok=True)
    rows = []

    def keep(label: str, n: int, wav: np.ndarray) -> Path:
        path = out / f"{label.replace(' ', '_')}-{n:03d}.wav"
        soundfile.write(path, wav, SAMPLE_RATE, subtype="PCM_16")
        return path

    references = [keep("clean", n, mixture.clean) for n, mixture in enumerate(found)]
    for name in ("noisy", *recipe.systems):
        system = (lambda wav: wav) if name == "noisy" else build(name, recipe.denoiser)
        started = time.perf_counter()
        for n, mixture in enumerate(track(found, description=name, console=console)):
            copy = keep(name, n, system(mixture.noisy))
            rows.append(Copy(copy, references[n], label=f"{mixture.condition}|{name}"))
        seconds = sum(len(mixture.noisy) for mixture in found) / SAMPLE_RATE
        console.print(f"{name}: {seconds / (time.perf_counter() - started):.0f} times real time")
    pairs = out / "pairs.csv"
    write_table(pairs, rows)
    return pairs


def tell(means: dict[str, dict[str, float]], systems: tuple[str, ...]) -> str:
    """Return the table, a row a condition and system."""
    judged = {key: name for key, name in MEASURES.items() if all(key in row for row in means.values())}
    lines = [f"| condition | system | {' | '.join(judged.values())} |", "|---" * (2 + len(judged)) + "|"]
    for condition in dict.fromkeys(label.split("|")[0] for label in means):
        for system in ("noisy", *systems):
            row = means[f"{condition}|{system}"]
            lines.append(f"| {condition} | {system} | {' | '.join(f'{row[key]:.3f}' for key in judged)} |")
    return "\n".join(lines)


def main() -> None:
    try:
        recipe = load_config(DenoiseTestRecipe, sys.argv[1], sys.argv[2:])
        pairs = write(recipe, list(mixtures(recipe)))
    except VcaeError as error:
        sys.exit(f"error: {error}")
    if not recipe.judge:
        print(f"not judged; judge the copies: vcae evaluate {pairs}")
        return
    report = judge_table(pairs, JUDGES)
    print("\n".join([*report.missing, *report.problems]), file=sys.stderr)
    text = tell(report.means(), recipe.systems)
    (pairs.parent / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
