"""Download LibriSpeech or VCTK and list it as a manifest: `python recipes/prepare/corpora.py librispeech ROOT [--part train-clean-100]`.

Needs the network. Whole speakers go to the dev split, every tenth.
"""

import argparse
import csv
import os
from pathlib import Path

import torchaudio

LICENSE = "CC BY 4.0"


def librispeech(root: Path, part: str) -> list[tuple[str, str]]:
    """Return (path, speaker) of every utterance."""
    dataset = torchaudio.datasets.LIBRISPEECH(root, url=part, download=True)
    metadata = [dataset.get_metadata(n) for n in range(len(dataset))]
    return [(str(Path("LibriSpeech") / m[0]), str(m[3])) for m in metadata]


def vctk(root: Path, part: str) -> list[tuple[str, str]]:
    """Return (path, speaker) of every utterance of one microphone."""
    torchaudio.datasets.VCTK_092(root, mic_id=part, download=True)
    files = sorted(root.rglob(f"*_{part}.flac"))
    return [(os.path.relpath(path, root), path.parent.name) for path in files]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", choices=("librispeech", "vctk"))
    parser.add_argument("root", type=Path)
    parser.add_argument("--part", help="LibriSpeech subset (train-clean-100) or VCTK microphone (mic2)")
    args = parser.parse_args()
    args.root.mkdir(parents=True, exist_ok=True)
    files = (
        librispeech(args.root, args.part or "train-clean-100")
        if args.corpus == "librispeech"
        else vctk(args.root, args.part or "mic2")
    )
    dev = set(sorted({speaker for _, speaker in files})[::10])
    path = args.root / "manifest.csv"
    with path.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["path", "speaker", "corpus", "split", "license"])
        writer.writerows([file, speaker, args.corpus, "dev" if speaker in dev else "train", LICENSE] for file, speaker in files)
    print(
        f"wrote {path}: {len(files)} files, {len({s for _, s in files})} speakers; next: recipes/prepare/cache.py {path} cache/train"
    )


if __name__ == "__main__":
    main()
