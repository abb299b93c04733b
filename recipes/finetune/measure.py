"""Convert recordings of other speakers to a fine-tuned voice, and to the same voice without fine-tuning, for the judges.

    python recipes/finetune/measure.py MANIFEST SPEAKER NAME [--pairs 6] [--out out/finetune]
    vcae evaluate out/finetune/pairs.csv

SPEAKER is the speaker of the voice NAME in the manifest; the judges compare with its recordings that were not used for fine-tuning.
"""

import argparse
import csv
import random
import sys
from pathlib import Path

import vcae
from vcae.audio.io import Sound, read_sound, write_sound
from vcae.errors import DataError, VcaeError
from vcae.evaluation.tables import Conversion, write_table
from vcae.tasks.convert import convert
from vcae.voice.file import load_voice, read_voice_facts
from vcae.voice.shelf import voice_path
from vcae.voice.voice import MIN_REFERENCE_S, voice_from_sounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("speaker")
    parser.add_argument("name")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--min-s", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/finetune"))
    args = parser.parse_args()
    root = args.manifest.parent
    with args.manifest.open(newline="", encoding="utf-8") as opened:
        rows = [r for r in csv.DictReader(opened) if r["split"] == args.split]
    used = set(read_voice_facts(voice_path(args.name))["provenance"]["clips"])
    own = [r for r in rows if r["speaker"] == args.speaker]
    heard = [root / r["path"] for r in own if Path(r["path"]).name in used]
    judged = [root / r["path"] for r in own if Path(r["path"]).name not in used and float(r["duration_s"]) >= args.min_s]
    others = [r for r in rows if r["speaker"] != args.speaker and float(r["duration_s"]) >= args.min_s]
    if not heard or not judged or not others:
        raise DataError(
            f"{args.speaker} has {len(heard)} recordings that {args.name} was fine-tuned on, {len(judged)} others and {len(others)} sources "
            f"of {args.min_s:g} s in {args.manifest}; each is needed"
        )
    model = vcae.load()
    clips = [clip for clip in map(read_sound, heard) if clip.duration_s >= MIN_REFERENCE_S]
    voices = {"before": voice_from_sounds(model, clips), "after": load_voice(voice_path(args.name), model)}
    rng = random.Random(f"{args.seed} {args.speaker}")
    conversions = []
    args.out.mkdir(parents=True, exist_ok=True)
    for n in range(args.pairs):
        row, target = rng.choice(others), rng.choice(judged)
        for label, voice in voices.items():
            path = args.out / f"{args.speaker}_{n:02d}_{label}.wav"
            done = convert(model, read_sound(root / row["path"]), voice)
            write_sound(path, Sound(done.wav.numpy(), done.sample_rate), "converted by vcae", force=True)
            conversions.append(Conversion(path, root / row["path"], target, row.get("transcript", ""), label))
    write_table(args.out / "pairs.csv", sorted(conversions, key=lambda c: c.label, reverse=True))
    print(f"wrote {args.out / 'pairs.csv'}: {len(conversions)} conversions; judge them: vcae evaluate {args.out / 'pairs.csv'}")


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        sys.exit(f"error: {error}")
