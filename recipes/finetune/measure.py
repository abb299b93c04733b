"""Convert sentences of other speakers to voices that `vcae voice train` made, and to the same voices untrained, for the judges.

    python recipes/finetune/measure.py MANIFEST [--speakers p225,p226] [--pairs 12] [--out out/finetune]
    vcae evaluate out/finetune/pairs.csv

Of each speaker in the split, the first recordings, of 60 s at most, train the voice; the judges compare with those that are left.
"""

import argparse
import csv
import random
import sys
import time
from pathlib import Path

import vcae
from vcae.audio.io import Sound, read_sound, write_sound
from vcae.errors import DataError, VcaeError
from vcae.evaluation.tables import Conversion, write_table
from vcae.tasks.convert import convert
from vcae.voice.train import train_voice
from vcae.voice.voice import MIN_REFERENCE_S, voice_from_sounds

SPEAKERS = "p225,p226,p227,p228,p256,p262"
# Recordings that are kept for the judges, and their share of the seconds.
KEPT, KEPT_SHARE = 2, 0.25


def split_recordings(
    rows: list[dict[str, str]], speaker: str, longest_s: float
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Return the recordings of a speaker that train, and those that judge."""
    own = [row for row in rows if row["speaker"] == speaker and float(row["duration_s"]) >= MIN_REFERENCE_S]
    budget = min(longest_s, (1 - KEPT_SHARE) * sum(float(row["duration_s"]) for row in own))
    learned: list[dict[str, str]] = []
    while len(own) - len(learned) > KEPT:
        if sum(float(row["duration_s"]) for row in [*learned, own[len(learned)]]) > budget:
            break
        learned.append(own[len(learned)])
    if not learned:
        raise DataError(f"{speaker} has {len(own)} recordings in this split; more than {KEPT} are needed")
    return learned, own[len(learned) :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--speakers", default=SPEAKERS)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--min-s", type=float, default=2.5)
    parser.add_argument("--max-s", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/finetune"))
    args = parser.parse_args()
    root, model, conversions = args.manifest.parent, vcae.load(), list[Conversion]()
    with args.manifest.open(newline="", encoding="utf-8") as opened:
        rows = [row for row in csv.DictReader(opened) if row["split"] == args.split]
    args.out.mkdir(parents=True, exist_ok=True)
    for speaker in args.speakers.split(","):
        learned, judged = split_recordings(rows, speaker, args.max_s)
        others = [row for row in rows if row["speaker"] != speaker and float(row["duration_s"]) >= args.min_s]
        clips, started = [read_sound(root / row["path"]) for row in learned], time.perf_counter()
        done = train_voice(model, clips)
        print(
            f"{speaker}: {done.speech_s + done.held_out_s:.0f} s of speech, {time.perf_counter() - started:.0f} s, "
            f"distance {done.before_db:.2f} dB before, {done.after_db:.2f} dB after"
        )
        before = voice_from_sounds(model, clips, denoise=False)
        # What is refused is judged as it is used: untrained.
        voices, rng = {"before": before, "after": done.voice or before}, random.Random(f"{args.seed} {speaker}")
        for n, row in enumerate(rng.sample(others, args.pairs)):
            target = judged[n % len(judged)]
            for label, voice in voices.items():
                path = args.out / f"{speaker}_{n:02d}_{label}.wav"
                made = convert(model, read_sound(root / row["path"]), voice)
                write_sound(path, Sound(made.wav.numpy(), made.sample_rate), "converted by vcae", force=True)
                text = row.get("transcript", "")
                conversions.append(Conversion(path, root / row["path"], root / target["path"], text, label))
    write_table(args.out / "pairs.csv", sorted(conversions, key=lambda c: c.label, reverse=True))
    print(f"wrote {args.out / 'pairs.csv'}: {len(conversions)} conversions; judge them: vcae evaluate {args.out / 'pairs.csv'}")


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        sys.exit(f"error: {error}")
