"""Convert pairs of unseen speakers and list them for the judges.

    python benchmarks/conversion.py MANIFEST --pairs 132 --min-s 1.5 --out out/pairs [--checkpoint default] [--label name]
    vcae evaluate out/pairs/pairs.csv -o out/judged

Writes one wav a pair and `pairs.csv` (converted, source, target_ref, transcript, label), which `vcae evaluate` judges. The reference given
to the command and the target_ref given to the judges are different utterances. Pairs are ordered ones of speakers, each as often source as
target; 12 speakers have 132. Two runs over the same pairs are compared by `vcae evaluate A/pairs.csv B/pairs.csv --paired`.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import soundfile

import vcae
from vcae import light
from vcae.audio.io import Sound, read_sound, resample, write_sound
from vcae.evaluation.pairs import choose_own_pairs, choose_pairs, read_references
from vcae.evaluation.tables import Conversion, write_table
from vcae.options import ConvertOptions
from vcae.tasks.convert import convert
from vcae.tasks.live import LiveConverter
from vcae.voice.voice import voice_from_sounds


def convert_live(converter: LiveConverter, sound: Sound) -> np.ndarray:
    """Convert a whole sound block by block."""
    wav, size = resample(sound.wav, sound.sample_rate, converter.sample_rate), converter.block_samples
    padded = np.pad(wav, (0, -len(wav) % size))
    pieces = [converter(padded[at : at + size]) for at in range(0, len(padded), size)]
    return np.concatenate([*pieces, converter.finish()])[: len(wav)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--pairs", type=int, default=132)
    parser.add_argument("--min-s", type=float, default=1.5, help="shorter recordings are left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument(
        "--reference-s", type=float, default=0.0, help="seconds of the target given to the command; one clip when 0"
    )
    parser.add_argument(
        "--targets-with-s", type=float, default=0.0, help="only targets of whom there is so much; --reference-s when 0"
    )
    parser.add_argument("--self", action="store_true", help="convert speakers to themselves")
    parser.add_argument("--live", action="store_true", help="as `vcae stream` does: in blocks, with running statistics")
    parser.add_argument("--graphs", help="a folder of `vcae export onnx`: convert by vcae.light, without torch")
    parser.add_argument("--speed", type=float, default=1.0, help="as these options of `vcae convert`")
    parser.add_argument("--formant", type=float, default=0.0)
    parser.add_argument("--expression", type=float, default=1.0)
    parser.add_argument("--no-watermark", action="store_true")
    parser.add_argument("--label", default="vcae")
    parser.add_argument("--out", type=Path, default=Path("out/pairs"))
    args = parser.parse_args()
    manner = {"speed": args.speed, "formant": args.formant, "expression": args.expression}
    model = vcae.load(args.checkpoint)
    graphs = None if args.graphs is None else light.Graphs(args.graphs)
    options = ConvertOptions(**manner, watermark=not args.no_watermark, rate=model.sample_rate)
    root = args.manifest.parent
    args.out.mkdir(parents=True, exist_ok=True)
    lines, audio_s, started = [], 0.0, time.perf_counter()
    pool_s = args.targets_with_s or args.reference_s
    which = (args.manifest, args.split, args.pairs, args.seed, args.min_s)
    for n, pair in enumerate(choose_own_pairs(*which) if args.self else choose_pairs(*which, pool_s)):
        source, judged = (root / row["path"] for row in (pair.source, pair.judged))
        sound, references = read_sound(source), read_references(root, pair, args.reference_s)
        if graphs is not None:
            wav = light.convert(graphs, sound, light.measure_voice(graphs, references), options).wav
        elif args.live:
            voice = voice_from_sounds(model, references)
            wav = convert_live(LiveConverter(model, voice, model.analyse_sound(references[0]), options), sound)
        else:
            wav = convert(model, sound, voice_from_sounds(model, references), options).wav.numpy()
        path = args.out / f"{n:03d}_{pair.source['speaker']}_to_{pair.judged['speaker']}.wav"
        write_sound(path, Sound(wav, model.sample_rate), "converted by vcae", force=True)
        difference = abs(soundfile.info(path).duration - sound.duration_s / args.speed)
        if difference > model.mel_config.hop_length / model.sample_rate:
            raise SystemExit(f"{path} is {difference:.3f} s longer or shorter than {source}")
        audio_s += sound.duration_s
        lines.append(Conversion(path, source, judged, pair.source.get("transcript", ""), args.label))
    write_table(args.out / "pairs.csv", lines)
    elapsed = time.perf_counter() - started
    print(
        f"{len(lines)} pairs, {audio_s:.0f} s converted in {elapsed:.1f} s; judge them: vcae evaluate {args.out / 'pairs.csv'}"
    )


if __name__ == "__main__":
    main()
