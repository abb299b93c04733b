"""List a folder of audio, `speaker/file.wav`, as a manifest: `python recipes/prepare/folder.py FOLDER [--dev-speakers 4]`.

Writes FOLDER/manifest.csv with path, speaker, corpus, split and duration_s. Whole speakers go to the dev split.
"""

import argparse
import csv
import random
from pathlib import Path

import soundfile

SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"}


def list_folder(folder: Path, corpus: str, n_dev: int, seed: int) -> list[list[str]]:
    """Return manifest rows; a file's speaker is the first folder under `folder`."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and len(p.relative_to(folder).parts) > 1)
    speakers = sorted({p.relative_to(folder).parts[0] for p in files})
    if len(speakers) < n_dev + 2:
        raise SystemExit(f"{folder} has {len(speakers)} speaker folders; at least {n_dev + 2} are needed: speaker/file.wav")
    dev = set(random.Random(seed).sample(speakers, n_dev))
    rows = []
    for path in files:
        name = path.relative_to(folder)
        try:
            duration_s = soundfile.info(path).duration
        except soundfile.LibsndfileError as error:
            print(f"left out {path}: {error}")
            continue
        rows.append([str(name), name.parts[0], corpus, "dev" if name.parts[0] in dev else "train", f"{duration_s:.3f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--corpus", default="own")
    parser.add_argument("--dev-speakers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows = list_folder(args.folder, args.corpus, args.dev_speakers, args.seed)
    path = args.folder / "manifest.csv"
    with path.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["path", "speaker", "corpus", "split", "duration_s"])
        writer.writerows(rows)
    print(f"wrote {path}: {len(rows)} files, {len({r[1] for r in rows})} speakers")


if __name__ == "__main__":
    main()
