"""Clean noisy speech by every system and have it judged: `python recipes/denoise/evaluate.py recipes/denoise/conf/test.yaml manifest=...`."""

import csv
import json
import subprocess
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

MEASURES = {"ovrl": "DNSMOS OVRL", "p808": "P.808", "stoi": "STOI", "pesq_wb": "PESQ-wb"}


def write(recipe: DenoiseTestRecipe, found: list[Mixture]) -> Path:
    """Write every system's outputs, and the list for the judge."""
    out, console = Path(recipe.output_dir), Console(stderr=True)
    out.mkdir(parents=True, exist_ok=True)
    rows = []

    def keep(label: str, n: int, wav: np.ndarray) -> str:
        name = f"{label.replace(' ', '_')}-{n:03d}.wav"
        soundfile.write(out / name, wav, SAMPLE_RATE, subtype="PCM_16")
        return name

    references = [keep("clean", n, mixture.clean) for n, mixture in enumerate(found)]
    for name in ("noisy", *recipe.systems):
        system = (lambda wav: wav) if name == "noisy" else build(name, recipe.denoiser)
        started = time.perf_counter()
        for n, mixture in enumerate(track(found, description=name, console=console)):
            rows.append((keep(name, n, system(mixture.noisy)), references[n], f"{mixture.condition}|{name}"))
        seconds = sum(len(mixture.noisy) for mixture in found) / SAMPLE_RATE
        console.print(f"{name}: {seconds / (time.perf_counter() - started):.0f} times real time")
    pairs = out / "pairs.csv"
    with pairs.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([("degraded", "reference", "label"), *rows])
    return pairs


def tell(means: dict[str, dict[str, float]], systems: tuple[str, ...]) -> str:
    """Return the table, a row a condition and system."""
    lines = [f"| condition | system | {' | '.join(MEASURES.values())} |", "|---" * (2 + len(MEASURES)) + "|"]
    for condition in dict.fromkeys(label.split("|")[0] for label in means):
        for system in ("noisy", *systems):
            row = means[f"{condition}|{system}"]
            lines.append(f"| {condition} | {system} | {' | '.join(f'{row[key]:.3f}' for key in MEASURES)} |")
    return "\n".join(lines)


def main() -> None:
    try:
        recipe = load_config(DenoiseTestRecipe, sys.argv[1], sys.argv[2:])
        pairs = write(recipe, list(mixtures(recipe)))
    except VcaeError as error:
        sys.exit(f"error: {error}")
    if recipe.judge is None:
        print(f"not judged; score the pairs: evaluate_copy.py {pairs}")
        return
    scores = pairs.with_name("scores.csv")
    command = [recipe.judge_python, "-W", "ignore", recipe.judge, str(pairs), "-o", str(scores)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    text = tell(json.loads(scores.with_suffix(".json").read_text()), recipe.systems)
    (pairs.parent / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
