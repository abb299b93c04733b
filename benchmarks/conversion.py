"""Convert pairs of unseen speakers and list them for the judges.

    python benchmarks/conversion.py MANIFEST --split dev --pairs 20 --out out/pairs [--checkpoint default] [--label name]

Writes one wav a pair and `pairs.csv` (converted, source, target_ref, transcript, label), which evaluate_vc.py scores. The reference given
to the command and the target_ref given to the judge are different utterances.
"""

import argparse
import csv
import random
import time
from collections import defaultdict
from pathlib import Path

import soundfile

import vcae
from vcae.audio.io import Sound, read_sound, write_sound
from vcae.tasks.convert import ConvertOptions, convert, hear_voice


def choose_pairs(manifest: Path, split: str, n: int, seed: int, min_s: float) -> list[tuple[dict[str, str], ...]]:
    """Return (source, reference, target_ref) rows; speakers are taken in turn, so that each is source and target about as often."""
    with manifest.open(newline="", encoding="utf-8") as opened:
        rows = [r for r in csv.DictReader(opened) if r["split"] == split and float(r["duration_s"]) >= min_s]
    by_speaker = defaultdict(list)
    for row in rows:
        by_speaker[row["speaker"]].append(row)
    speakers = sorted(s for s, r in by_speaker.items() if len(r) >= 2)
    rng = random.Random(seed)
    pairs = []
    for i in range(n):
        source = speakers[i % len(speakers)]
        target = speakers[(i + 1 + rng.randrange(len(speakers) - 1)) % len(speakers)]
        target = target if target != source else speakers[(i + 1) % len(speakers)]
        reference, judged = rng.sample(by_speaker[target], 2)
        pairs.append((rng.choice(by_speaker[source]), reference, judged))
    return pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--min-s", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--match", type=float, default=1.0, help="strength of matching to the reference's frames, 0 to 1")
    parser.add_argument("--label", default="vcae")
    parser.add_argument("--out", type=Path, default=Path("out/pairs"))
    args = parser.parse_args()
    model = vcae.load(args.checkpoint)
    root = args.manifest.parent
    args.out.mkdir(parents=True, exist_ok=True)
    lines, audio_s, started = [], 0.0, time.perf_counter()
    for n, rows in enumerate(choose_pairs(args.manifest, args.split, args.pairs, args.seed, args.min_s)):
        source, reference, judged = (root / row["path"] for row in rows)
        sound, clip = read_sound(source), read_sound(reference)
        wav = convert(model, sound, hear_voice(model, [clip]), ConvertOptions(match=args.match)).wav
        path = args.out / f"{n:02d}_{rows[0]['speaker']}_to_{rows[1]['speaker']}.wav"
        write_sound(path, Sound(wav.numpy(), model.sample_rate), "converted by vcae", force=True)
        difference = abs(soundfile.info(path).duration - sound.duration_s)
        if difference > model.mel_config.hop_length / model.sample_rate:
            raise SystemExit(f"{path} is {difference:.3f} s longer or shorter than {source}")
        audio_s += sound.duration_s
        lines.append([path.name, source.resolve(), judged.resolve(), rows[0].get("transcript", ""), args.label])
    with (args.out / "pairs.csv").open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["converted", "source", "target_ref", "transcript", "label"])
        writer.writerows(lines)
    elapsed = time.perf_counter() - started
    print(
        f"{args.pairs} pairs, {audio_s:.0f} s converted in {elapsed:.1f} s; score them: evaluate_vc.py {args.out / 'pairs.csv'}"
    )


if __name__ == "__main__":
    main()
