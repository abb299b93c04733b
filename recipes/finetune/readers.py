"""Write the speech of readers that `vcae voice train` converts to a voice: the middle of one recording of each, as mels in 8 bits.

python recipes/finetune/readers.py MANIFEST [--readers 20] [--frames 312] [--output vcae/weights/readers.safetensors]

MANIFEST has the columns path, speaker, corpus, split, duration_s and license; readers are of LibriSpeech, chosen at random.
"""

import argparse
import csv
import hashlib
import json
import random
import sys
from pathlib import Path

import torch

import vcae
from vcae import checkpoint
from vcae.audio.io import read_sound
from vcae.engine.listening import analyse
from vcae.errors import DataError, VcaeError
from vcae.model.weights import round_weights
from vcae.voice.voice import MIN_REFERENCE_S

INFO = {"author": "vcae contributors", "data": "LibriSpeech train-clean-100, a few seconds a reader", "licence": "CC BY 4.0"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--readers", type=int, default=20)
    parser.add_argument("--frames", type=int, default=312)
    parser.add_argument("--corpus", default="librispeech")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("vcae/weights/readers.safetensors"))
    args = parser.parse_args()
    model = vcae.load()
    shortest = args.frames / model.mel_config.frame_rate
    first: dict[str, Path] = {}
    with args.manifest.open(newline="", encoding="utf-8") as opened:
        for row in csv.DictReader(opened):
            if row["split"] == "train" and row["corpus"] == args.corpus and float(row["duration_s"]) >= shortest + 1:
                first.setdefault(row["speaker"], args.manifest.parent / row["path"])
    if len(first) < args.readers:
        raise DataError(
            f"{args.manifest} has {len(first)} readers of {args.corpus} with {shortest + 1:.1f} s; {args.readers} are needed"
        )
    mels, f0s = [], []
    for speaker in random.Random(args.seed).sample(sorted(first), args.readers):
        seen = analyse(model, read_sound(first[speaker]), MIN_REFERENCE_S)
        # An even frame, as a step of the content has two.
        start = (seen.mel.shape[-1] - args.frames) // 4 * 2
        mels.append(seen.mel[0, :, start : start + args.frames])
        f0s.append(seen.f0[0, start : start + args.frames])
    tensors = round_weights({"mel": torch.cat(mels, 1)})
    tensors |= {"f0": torch.cat(f0s).half(), "lengths": torch.full((args.readers,), args.frames, dtype=torch.int64)}
    checkpoint.write_tensors(args.output, tensors, {"vcae": json.dumps({"format": 1, "info": INFO})})
    digest = hashlib.sha256(args.output.read_bytes()).hexdigest()
    args.output.with_suffix(".sha256").write_text(f"{digest}  {args.output.name}\n", encoding="utf-8")
    print(f"wrote {args.output}: {args.readers} readers, {args.readers * shortest:.0f} s, {args.output.stat().st_size} bytes")


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        sys.exit(f"error: {error}")
