"""Convert noisy sources with and without denoising, and judge the conversions: `python recipes/denoise/convert.py CONF [name=value ...]`.

Word errors are relative to the text recognised in the clean source.
"""

import sys
from pathlib import Path

import numpy as np
import soundfile
from mixtures import PEAK, mix, noises, speech
from rich.console import Console
from rich.progress import track
from settings import DenoiseTestRecipe

import vcae
from vcae.audio.f0 import SAMPLE_RATE
from vcae.config import load_config
from vcae.errors import VcaeError
from vcae.evaluation.report import table
from vcae.evaluation.run import judge_table
from vcae.evaluation.tables import Conversion, write_table

WAYS = {"clean source": (False, False), "noisy source": (True, False), "noisy source, denoised": (True, True)}


def write(recipe: DenoiseTestRecipe) -> Path:
    """Write the conversions of each clip to the voice of the next speaker's, and the list for the judge."""
    out, model = Path(recipe.output_dir) / "converted", vcae.load()
    out.mkdir(parents=True, exist_ok=True)
    clips, bank, rows = speech(recipe), noises(recipe)["sounds"], []

    def keep(name: str, wav: np.ndarray) -> Path:
        soundfile.write(out / name, wav, SAMPLE_RATE, subtype="PCM_16")
        return out / name

    for snr in recipe.snrs_db:
        for i, clip in enumerate(track(clips, description=f"{snr:g} dB", console=Console(stderr=True))):
            target = clips[(i + recipe.per_speaker) % len(clips)]
            clean, noisy = mix(clip, bank[i % len(bank)], snr)
            # The reference is as noisy, with another noise.
            good, bad = mix(target, bank[(i + 7) % len(bank)], snr)
            source = keep(f"source-{i:03d}.wav", clip * min(1.0, PEAK / np.abs(clip).max()))
            wanted = keep(f"target-{i:03d}.wav", target * min(1.0, PEAK / np.abs(target).max()))
            for both in (False, True):
                for label, (spoilt, cleaned) in WAYS.items():
                    if both and not spoilt:
                        continue
                    reference = bad if both else good
                    made = model.convert(noisy if spoilt else clean, SAMPLE_RATE, reference, denoise=cleaned).wav
                    told = f"{snr:g} dB, {label}{', noisy reference' * both}"
                    converted = keep(f"{told.replace(', ', '-').replace(' ', '_')}-{i:03d}.wav", made)
                    rows.append(Conversion(converted, source, wanted, label=told))
    pairs = out / "pairs.csv"
    write_table(pairs, rows)
    return pairs


def main() -> None:
    try:
        recipe = load_config(DenoiseTestRecipe, sys.argv[1], sys.argv[2:])
        pairs = write(recipe)
    except VcaeError as error:
        sys.exit(f"error: {error}")
    if not recipe.judge:
        print(f"not judged; judge the conversions: vcae evaluate {pairs}")
        return
    report = judge_table(pairs)
    rows = table(report, every=True)
    print("\n".join("| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]]))
    print("\n".join([*report.missing, *report.problems]), file=sys.stderr)


if __name__ == "__main__":
    main()
