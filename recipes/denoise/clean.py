"""Denoise the recordings of a manifest by DeepFilterNet 3: `python recipes/denoise/clean.py MANIFEST FOLDER --corpus librispeech`.

Their own background noise would otherwise be a target of the training. FOLDER/manifest.csv has MANIFEST's columns and the paths of the
copies, which are 16-bit FLAC at 16 kHz; those of other corpora stay where they are. Copies that exist are kept, so that an interrupted run resumes.
"""

import argparse
import csv
import os
import sys
from pathlib import Path

import numpy as np
import soundfile
from mixtures import read, table
from rich.progress import track
from teacher import DeepFilterNet

from vcae.audio.f0 import SAMPLE_RATE
from vcae.errors import VcaeError

# The first second, reversed, precedes the recording, so that the network knows the noise from the start.
LEAD = SAMPLE_RATE
PEAK = 0.5


def clean(wav: np.ndarray, network: DeepFilterNet) -> np.ndarray:
    """Return a recording (N,) without its noise, at its own level."""
    scale = PEAK / max(float(np.abs(wav).max(initial=0)), 1e-6)
    lead = wav[:LEAD][::-1]
    return network(np.concatenate([lead, wav]) * scale).wav[len(lead) :] / scale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--corpus", nargs="+", help="denoise only these; all by default")
    parser.add_argument("--split", default="train")
    args = parser.parse_args()
    try:
        rows = [row for row in table(str(args.manifest)) if row.get("split", args.split) == args.split]
        noisy = [row for row in rows if args.corpus is None or row.get("corpus") in args.corpus]
        if not noisy:
            sys.exit(f"error: {args.manifest} has no row of the split {args.split!r} and the corpora {args.corpus}")
        chosen = {row["path"] for row in noisy}
        for row in (row for row in rows if row["path"] not in chosen):
            row["path"] = os.path.relpath(row["path"], args.folder)
        network = DeepFilterNet()
        for row in track(noisy, description="denoising"):
            source = Path(row["path"])
            path = (args.folder / source.relative_to(args.manifest.parent)).with_suffix(".flac")
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                part = path.with_suffix(".part")
                soundfile.write(part, np.clip(clean(read(source), network), -1, 1), SAMPLE_RATE, "PCM_16", format="FLAC")
                part.replace(path)
            row["path"] = str(path.relative_to(args.folder))
    except VcaeError as error:
        sys.exit(f"error: {error}")
    with (args.folder / "manifest.csv").open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"wrote {args.folder / 'manifest.csv'}: {len(noisy)} recordings denoised, {len(rows) - len(noisy)} as they were")


if __name__ == "__main__":
    main()
