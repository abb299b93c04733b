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
from dataclasses import dataclass
from pathlib import Path

import soundfile

import vcae
from vcae.audio.io import Sound, read_sound, write_sound
from vcae.tasks.convert import ConvertOptions, convert, hear_voice


@dataclass(frozen=True)
class Pair:
    """What is converted, the clips given of the target, and the clip of the target kept for the judge: rows of the manifest."""

    source: dict[str, str]
    references: list[dict[str, str]]
    judged: dict[str, str]


def choose_pairs(manifest: Path, split: str, n: int, seed: int, min_s: float, reference_s: float = 0.0) -> list[Pair]:
    """Choose pairs; speakers are taken in turn, so that each is source, and target, about as often.

    With `reference_s`, as many clips are given of the target as hold so many seconds, and only speakers of whom there is enough are
    targets; else one clip.
    """
    with manifest.open(newline="", encoding="utf-8") as opened:
        rows = [r for r in csv.DictReader(opened) if r["split"] == split and float(r["duration_s"]) >= min_s]
    by_speaker = defaultdict(list)
    for row in rows:
        by_speaker[row["speaker"]].append(row)
    speakers = sorted(s for s, r in by_speaker.items() if len(r) >= 2)
    length = {s: sum(float(r["duration_s"]) for r in by_speaker[s]) for s in speakers}
    longest = {s: max(float(r["duration_s"]) for r in by_speaker[s]) for s in speakers}
    targets = [s for s in speakers if length[s] - longest[s] >= reference_s]
    if len(targets) < 2:
        raise SystemExit(f"{len(targets)} speakers of the split {split} have {reference_s:g} s and a clip more; two are needed")
    rng = random.Random(seed)
    pairs = []
    for i in range(n):
        source = speakers[i % len(speakers)]
        target = targets[(i + 1 + rng.randrange(len(targets) - 1)) % len(targets)]
        target = target if target != source else targets[(targets.index(target) + 1) % len(targets)]
        first, judged, *others = rng.sample(by_speaker[target], len(by_speaker[target]) if reference_s else 2)
        references = [first]
        while sum(float(r["duration_s"]) for r in references) < reference_s:
            references.append(others.pop())
        pairs.append(Pair(rng.choice(by_speaker[source]), references, judged))
    return pairs


def hear(root: Path, references: list[dict[str, str]], reference_s: float) -> list[Sound]:
    """Read clips, the last one cut so that they hold `reference_s` seconds in all (whole when 0)."""
    clips = [read_sound(root / row["path"]) for row in references]
    if reference_s:
        last = clips[-1]
        kept = reference_s - sum(clip.duration_s for clip in clips[:-1])
        clips[-1] = Sound(last.wav[: round(kept * last.sample_rate)], last.sample_rate, last.name)
        clips = [clip for clip in clips if clip.duration_s >= 1]
    return clips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--min-s", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument(
        "--reference-s", type=float, default=0.0, help="seconds of the target given to the command; one clip when 0"
    )
    parser.add_argument("--match", default="auto", help="how far frames are drawn to the reference's, 0 to 1, or auto")
    parser.add_argument("--detail", type=float, default=1.0, help="how much of the source's detail is kept, 0 to 1")
    parser.add_argument("--label", default="vcae")
    parser.add_argument("--out", type=Path, default=Path("out/pairs"))
    args = parser.parse_args()
    model = vcae.load(args.checkpoint)
    root = args.manifest.parent
    args.out.mkdir(parents=True, exist_ok=True)
    lines, audio_s, started = [], 0.0, time.perf_counter()
    for n, pair in enumerate(choose_pairs(args.manifest, args.split, args.pairs, args.seed, args.min_s, args.reference_s)):
        source, judged = (root / row["path"] for row in (pair.source, pair.judged))
        sound, voice = read_sound(source), hear_voice(model, hear(root, pair.references, args.reference_s))
        wav = convert(model, sound, voice, ConvertOptions(match=args.match, detail=args.detail)).wav
        path = args.out / f"{n:02d}_{pair.source['speaker']}_to_{pair.judged['speaker']}.wav"
        write_sound(path, Sound(wav.numpy(), model.sample_rate), "converted by vcae", force=True)
        difference = abs(soundfile.info(path).duration - sound.duration_s)
        if difference > model.mel_config.hop_length / model.sample_rate:
            raise SystemExit(f"{path} is {difference:.3f} s longer or shorter than {source}")
        audio_s += sound.duration_s
        lines.append([path.name, source.resolve(), judged.resolve(), pair.source.get("transcript", ""), args.label])
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
