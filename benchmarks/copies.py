"""Copy recordings of unseen speakers and list them for the judges.

    python benchmarks/copies.py MANIFEST --split dev --files 10 --out out/copies [--checkpoint default]

Makes three copies of each file, by the vocoder, by the whole autoencoder, and by Griffin-Lim from the same mel (60 iterations), and
`pairs.csv` (degraded, reference, label), which evaluate_copy.py scores.
"""

import argparse
import csv
import random
from pathlib import Path

import vcae
from vcae.audio.io import Sound, read_sound, write_sound
from vcae.audio.loudness import follow_envelope
from vcae.tasks.copy import reconstruct, vocode
from vcae.vocoder.griffin_lim import griffin_lim


def classical(model: vcae.Model, sound: Sound) -> Sound:
    """Copy by Griffin-Lim from the mel."""
    seen = model.analyse(sound.wav, sound.sample_rate)
    wav = griffin_lim(seen.mel, model.mel_config, len(seen.wav), n_iter=60)[0].numpy()
    return Sound(follow_envelope(wav, seen.wav, seen.level), model.sample_rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--files", type=int, default=10)
    parser.add_argument("--min-s", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--out", type=Path, default=Path("out/copies"))
    args = parser.parse_args()
    with args.manifest.open(newline="", encoding="utf-8") as opened:
        rows = [r for r in csv.DictReader(opened) if r["split"] == args.split and float(r["duration_s"]) >= args.min_s]
    chosen = random.Random(args.seed).sample(rows, args.files)
    model = vcae.load(args.checkpoint)
    copies = {
        "vocoder": lambda sound: vocode(model, sound),
        "autoencoder + vocoder": lambda sound: reconstruct(model, sound),
        "Griffin-Lim 60": lambda sound: classical(model, sound),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "pairs.csv").open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["degraded", "reference", "label"])
        for label, copy in copies.items():
            for n, row in enumerate(chosen):
                path = args.out / f"{label.split()[0]}_{n:02d}.wav"
                original = args.manifest.parent / row["path"]
                write_sound(path, copy(read_sound(original)), "copied by vcae", force=True)
                writer.writerow([path.name, original.resolve(), label])
    print(f"{len(chosen)} files, {len(copies)} copies each; score them: evaluate_copy.py --speaker {args.out / 'pairs.csv'}")


if __name__ == "__main__":
    main()
