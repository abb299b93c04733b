"""Copy two utterances of each unseen speaker by a vocoder, for the judges: makes the rows of this recipe's tables.

python recipes/vocoder/score.py MANIFEST CHECKPOINT --out out/score [--n-corrections 8]
vcae evaluate --no-align out/score/pairs.csv

It uses only functions that exist in every version of the code since the corrections, so that it also runs in a checkout of the commit that
still has the rejected variants.
"""

import argparse
import csv
import random
from collections import defaultdict
from pathlib import Path

import soundfile
import torch

import vcae
from vcae.audio.io import read_sound
from vcae.audio.loudness import active_level

MIN_S, MAX_S, PER_SPEAKER, SEED = 2.0, 8.0, 2, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("checkpoint")
    parser.add_argument("--n-corrections", type=int, default=8)
    parser.add_argument("--label", default="vocoder")
    parser.add_argument("--out", type=Path, default=Path("out/score"))
    args = parser.parse_args()
    by_speaker = defaultdict(list)
    with args.manifest.open(newline="", encoding="utf-8") as opened:
        for row in csv.DictReader(opened):
            if row["split"] == "dev" and MIN_S <= float(row["duration_s"]) <= MAX_S:
                by_speaker[row["speaker"]].append(args.manifest.parent / row["path"])
    rng = random.Random(SEED)
    files = [path for s in sorted(by_speaker) for path in rng.sample(by_speaker[s], min(PER_SPEAKER, len(by_speaker[s])))]
    model = vcae.load(args.checkpoint, device="cpu")
    args.out.mkdir(parents=True, exist_ok=True)
    lines = [["degraded", "reference", "label"]]
    for n, path in enumerate(files):
        sound = read_sound(path)
        seen = model.analyse(sound.wav, sound.sample_rate)
        noise = torch.randn(1, len(seen.wav), generator=torch.Generator().manual_seed(0))
        f0 = seen.f0
        if f0.shape[-1] != seen.mel.shape[-1]:
            # Only the commit with the rejected variants has other hops, and this function.
            from vcae.training.objectives import resample_f0

            f0 = resample_f0(f0, seen.mel.shape[-1])
        with torch.inference_mode():
            wav = model.checkpoint.vocoder(seen.mel, f0, len(seen.wav), noise, args.n_corrections)[0].numpy()
        copy = args.out / f"{n:02d}.wav"
        soundfile.write(copy, (wav * (seen.level / active_level(seen.wav))).clip(-1, 1), model.sample_rate)
        lines.append([copy.name, str(path.resolve()), args.label])
    with (args.out / "pairs.csv").open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows(lines)
    print(f"{len(files)} copies; judge them: vcae evaluate --no-align {args.out / 'pairs.csv'}")


if __name__ == "__main__":
    main()
