"""Say sentences in the voices of unseen speakers, read them back, and list them for the judges.

    python benchmarks/say.py MANIFEST --pairs 40 --out out/say [--label name]
    vcae evaluate out/say/pairs.csv -o out/judged

Each pair is a transcript of one speaker and the voice of another, as in benchmarks/conversion.py; nobody among them was trained on. Writes
one wav a pair, `pairs.csv` for `vcae evaluate`, and prints the speed and the errors of the package's own recogniser: of words, and of phones
against those that were asked for. Text to speech to text.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

import vcae
from vcae.audio.io import Sound, write_sound
from vcae.evaluation.alignment import normalize_transcript
from vcae.evaluation.pairs import choose_pairs, read_references
from vcae.evaluation.tables import Conversion, write_table
from vcae.model.acoustic import PAUSE
from vcae.options import SayOptions
from vcae.text.errors import error_rate
from vcae.text.say import say_sentences
from vcae.text.transcribe import transcribe_source
from vcae.voice.voice import voice_from_sounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--acoustic", default="acoustic", help="name or path of an acoustic model")
    parser.add_argument("--reader", type=int, default=SayOptions.reader, help="number of the reader whose manner is taken")
    parser.add_argument("--no-own", action="store_true", help="do not read the speech back")
    parser.add_argument("--label", default="vcae")
    parser.add_argument("--out", type=Path, default=Path("out/say"))
    args = parser.parse_args()
    model, options, root = vcae.load(), SayOptions(reader=args.reader), args.manifest.parent
    args.out.mkdir(parents=True, exist_ok=True)
    lines, words, phones, seconds, elapsed, cpu = [], [], [], 0.0, 0.0, 0.0
    for n, pair in enumerate(choose_pairs(args.manifest, args.split, args.pairs, args.seed, 1.5)):
        text = pair.source["transcript"]
        voice = voice_from_sounds(model, read_references(root, pair))
        # The first call loads what the others share.
        for counted in (False, True) if n == 0 else (True,):
            started, busy = time.perf_counter(), time.process_time()
            said = list(say_sentences(model, text, voice, options, args.acoustic))
            elapsed += counted * (time.perf_counter() - started)
            cpu += counted * (time.process_time() - busy)
        sound = Sound(np.concatenate([s.wav for s in said]), model.sample_rate)
        seconds += sound.duration_s
        path = args.out / f"{n:03d}_{pair.judged['speaker']}.wav"
        write_sound(path, sound, "said by vcae", force=True)
        where = [(root / row["path"]).resolve() for row in (pair.source, pair.judged)]
        lines.append(Conversion(path.resolve(), where[0], where[1], text, args.label))
        if not args.no_own:
            words.append((normalize_transcript(text), transcribe_source(model, sound).text.split()))
            asked = [p.rstrip("012") for s in said for p in s.phones if p != PAUSE]
            phones.append((asked, transcribe_source(model, replace(sound, name="speech"), "phones").text.split()))
    write_table(args.out / "pairs.csv", lines)
    found = {"sentences": len(lines), "seconds": round(seconds, 1), "times_real_time": round(seconds / elapsed, 1)}
    # On a busy machine the processor's time says more.
    found["seconds_per_processor_second"] = round(seconds / cpu, 1)
    if words:
        found |= {"own_word_errors": round(error_rate(words), 4), "own_phone_errors": round(error_rate(phones), 4)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
