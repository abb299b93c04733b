"""Change a word of sentences of unseen speakers, and list the results for the judges.

    python benchmarks/edit.py MANIFEST --sentences 30 --out out/edit
    vcae evaluate out/edit/pairs.csv -o out/edit-judged

In each sentence a word of at least four phones, which comes once, is replaced by a word of a fixed list. Prints how far the places that were
found are from pocketsphinx's alignment. Writes one wav a sentence, and `pairs.csv` for `vcae evaluate`, in which the rows `original` are the
sentences as they were.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np

import vcae
from vcae.audio.io import Sound, read_sound, resample, write_sound
from vcae.errors import DataError
from vcae.evaluation.alignment import Alignment, Interval, align, normalize_transcript
from vcae.evaluation.tables import Conversion, write_table
from vcae.text.edit import edit_sound

WORDS = "garden winter yellow seven doctor island monday silver carpet hundred family summer pencil bottle forest window paper river"
N_PHONES = 4


def phones_in(found: Alignment, word: Interval) -> int:
    return sum(word.start_s <= phone.start_s < word.end_s - 1e-3 for phone in found.phones)


def choose(manifest: Path, split: str, n: int, rng: np.random.Generator) -> list[tuple[Path, str, Interval, str]]:
    """Return recordings with their texts, a word of each with its times, and another word."""
    with manifest.open(encoding="utf-8", newline="") as opened:
        rows = [row for row in csv.DictReader(opened) if row["split"] == split and row["transcript"]]
    chosen = []
    for at in rng.permutation(len(rows)):
        row = rows[at]
        path, text = manifest.parent / row["path"], " ".join(normalize_transcript(row["transcript"]))
        sound = read_sound(path)
        try:
            found = align(resample(sound.wav, sound.sample_rate, 16000), text)
        except DataError:
            continue
        once = [w for w in found.words if text.split().count(w.label) == 1 and phones_in(found, w) >= N_PHONES]
        if once:
            chosen.append((path, text, once[rng.integers(len(once))], str(rng.choice(WORDS.split()))))
        if len(chosen) == n:
            break
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--sentences", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/edit"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    engine, lines, errors, missed = vcae.load(), [], [], {"not_found": 0, "several": 0, "elsewhere": 0}
    for n, (path, text, word, new) in enumerate(
        choose(args.manifest, args.split, args.sentences, np.random.default_rng(args.seed))
    ):
        sound = read_sound(path)
        try:
            made = edit_sound(engine, sound, word.label, new)
        except DataError as error:
            missed["several" if "times" in str(error) else "not_found"] += 1
            print(path.name, error, flush=True)
            continue
        begin, end = made.times_s
        if begin > word.end_s or end < word.start_s:
            missed["elsewhere"] += 1
        errors.append((begin - word.start_s, end - word.end_s))
        target = args.out / f"{n:03d}_{word.label}_{new}.wav"
        write_sound(target, Sound(made.wav, made.sample_rate), "edited by vcae", force=True)
        edited = " ".join(new if each == word.label else each for each in text.split())
        lines.append(Conversion(target.resolve(), path.resolve(), path.resolve(), edited, "edited"))
        lines.append(Conversion(path.resolve(), path.resolve(), path.resolve(), text, "original"))
    write_table(args.out / "pairs.csv", lines)
    wrong = np.abs(np.array(errors))
    found = {"edited": len(errors), **missed, "median_error_s": np.median(wrong, axis=0).round(3).tolist()}
    print(
        json.dumps(
            found
            | {"mean_error_s": np.mean(errors, axis=0).round(3).tolist(), "largest_s": wrong.max(axis=0).round(3).tolist()}
        )
    )


if __name__ == "__main__":
    main()
