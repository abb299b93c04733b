"""Our codec and its peers in one run: bit rate, scores of the judges, and times.

    python benchmarks/codec.py MANIFEST [--no-judge] [--output-dir out/codec]

Clips are the first ones of every speaker, by path, that last 3 to 8 s. A rate is that of whole files over what they last: for peers, of the
file that the tool writes, with the least container that its options offer; `payload` leaves out Ogg's pages and heads. Peers are run as
real processes, their starts included in their times; ours is called in this process, its model loaded. `copy` is what `vcae vocode` makes,
the best that a codec over our vocoder can reach. Words are judged against the transcript where the manifest has one, else against the
recogniser's own reading of the reference. Without judges (extra `eval`) there are rates and times only. The folder holds `codec.json`,
`codec.png`, `codec.svg`, all sounds and what was judged.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from codec_peers import PEERS, SAMPLE_RATE, ogg_payload
from codec_report import SCORES, Measured, draw_rates, table, write_json

import vcae
from vcae.audio.io import Sound, read_sound, resample, write_sound
from vcae.errors import ConfigError, DataError, VcaeError
from vcae.evaluation.judges import NAMES
from vcae.evaluation.run import judge_table
from vcae.evaluation.tables import Copy, write_table
from vcae.tasks.copy import vocode

SYSTEMS = ("reference", "copy", "vcae", "codec2", "speex", "opus", "mp3")
COLUMNS = ("path", "speaker", "split", "duration_s")


class Coder(Protocol):
    """Interface of a codec at one of its rates."""

    @property
    def codec(self) -> str:
        """Name of the codec, which is a line in the plot."""

    @property
    def setting(self) -> str:
        """Setting of the rate."""

    @property
    def commands(self) -> list[str]:
        """Label in tables."""

    def encode(self, sound: Sound) -> tuple[bytes, float]:
        """Return a file and the seconds that making it took."""

    def decode(self, data: bytes) -> tuple[Sound, float]:
        """Return the sound of a file and the seconds that making it took."""


class Ours:
    """Our codec at one rate, run in this process."""

    codec = "vcae"

    def __init__(self, loaded: Any, kbps: float) -> None:
        self._loaded, self._kbps = loaded, kbps
        self.setting = f"{kbps:g}"
        codec = f"Codec({loaded.file.path.name!r})"
        self.commands = [f"{codec}.compress(sound, {kbps:g})", f"{codec}.decompress(data)", f"sha256:{loaded.file.sha256[:16]}"]

    def encode(self, sound: Sound) -> tuple[bytes, float]:
        start = time.perf_counter()
        data = self._loaded.compress(sound, self._kbps)
        return data, time.perf_counter() - start

    def decode(self, data: bytes) -> tuple[Sound, float]:
        start = time.perf_counter()
        sound = self._loaded.decompress(data).sound
        return sound, time.perf_counter() - start


def choose_clips(manifest: Path, split: str, per_speaker: int, min_s: float, max_s: float) -> list[tuple[Path, str]]:
    """Return the first clips of every speaker, by path, of at least the given length, each with its transcript or an empty one.

    Raises:
        DataError: If the manifest is missing, lacks a column, or has no such clip.
    """
    if not manifest.is_file():
        raise DataError(f"the manifest {manifest} does not exist; make one with recipes/prepare")
    with manifest.open(newline="", encoding="utf-8") as opened:
        reader = csv.DictReader(opened)
        absent = [column for column in COLUMNS if column not in (reader.fieldnames or [])]
        if absent:
            raise DataError(f"the manifest {manifest} has no column {absent[0]!r}; make one with recipes/prepare")
        rows = [r for r in reader if r["split"] == split and min_s <= float(r["duration_s"]) <= max_s]
    chosen: dict[str, list[tuple[Path, str]]] = {}
    for row in sorted(rows, key=lambda row: (row["speaker"], row["path"])):
        chosen.setdefault(row["speaker"], []).append((manifest.parent / row["path"], row.get("transcript") or ""))
    if not chosen:
        raise DataError(f"no clip of the split {split!r} in {manifest} lasts {min_s:g} to {max_s:g} s; take another split")
    return [clip for clips in chosen.values() for clip in clips[:per_speaker]]


def choose_coders(args: argparse.Namespace) -> tuple[list[Coder], list[str]]:
    """Return the available systems among those requested, and a message for each that is not available."""
    coders: list[Coder] = []
    if "vcae" in args.systems:
        from vcae.codec.codec import Codec

        loaded = Codec(args.checkpoint, "cpu")
        coders += [Ours(loaded, kbps) for kbps in args.kbps]
    asked = [peer for peer in PEERS if peer.system in args.systems]
    said = dict.fromkeys(peer.missing for peer in asked if peer.missing)
    return [*coders, *(peer for peer in asked if not peer.missing)], list(said)


def measure(coder: Coder, sounds: list[Sound], folder: Path, least_s: float) -> Measured:
    """Code all sounds, repeatedly until enough seconds of sound are timed; keep the copies of the first pass."""
    label = f"{coder.codec} {coder.setting}"
    audio_s = sum(sound.duration_s for sound in sounds)
    passes = max(1, math.ceil(least_s / audio_s))
    size, encode_s, decode_s, payloads, copies = 0, 0.0, 0.0, [], []
    coder.decode(coder.encode(sounds[0])[0])
    for n in range(passes * len(sounds)):
        data, seconds = coder.encode(sounds[n % len(sounds)])
        encode_s += seconds
        copy, seconds = coder.decode(data)
        decode_s += seconds
        if n < len(sounds):
            size += len(data)
            payloads.append(ogg_payload(data))
            copies.append(keep(copy, folder, label, n))
    timed_s = passes * audio_s
    found = Measured(label, coder.codec, copies, 0.008 * size / audio_s, timed_s=timed_s, commands=coder.commands)
    if all(payloads):
        found.payload_kbps = 0.008 * sum(payload or 0 for payload in payloads) / audio_s
    found.encode_x, found.decode_x = timed_s / encode_s, timed_s / decode_s
    return found


def keep(sound: Sound, folder: Path, label: str, n: int) -> Path:
    """Write a copy into the folder and return its path."""
    path = folder / f"{n:03d}_{label.replace(' ', '_')}.wav"
    write_sound(path, sound, f"{label}, made by vcae's benchmark", force=True)
    return path


def judge(args: argparse.Namespace, systems: list[Measured], references: list[Path], transcripts: list[str]) -> list[str]:
    """Set the scores of every system, and return the problems."""
    pairs = args.output_dir / "pairs.csv"
    rows = [
        Copy(copy, reference, transcript, system.label)
        for system in systems
        for copy, reference, transcript in zip(system.copies, references, transcripts, strict=True)
    ]
    write_table(pairs, rows)
    if args.no_judge:
        return [f"not judged, so rates and times only; judge the copies: vcae evaluate {pairs}"]
    report = judge_table(pairs, args.judges)
    means = report.means()
    for system in systems:
        system.scores = {key: means[system.label][key] for key in SCORES if key in means[system.label]}
    return [*report.missing, *report.problems]


def measure_all(args: argparse.Namespace, clips: list[tuple[Path, str]]) -> tuple[list[Measured], list[str]]:
    """Run every system on the clips, judge the copies, and return the results and the problems."""
    sounds = [
        Sound(resample(s.wav, s.sample_rate, SAMPLE_RATE), SAMPLE_RATE, s.name) for s in (read_sound(path) for path, _ in clips)
    ]
    folder = args.output_dir / "sounds"
    folder.mkdir(parents=True, exist_ok=True)
    references = [keep(sound, folder, "reference", n) for n, sound in enumerate(sounds)]
    # All systems get the sound in 16 bits, as the judges do.
    sounds = [read_sound(path) for path in references]
    systems, (coders, said) = [], choose_coders(args)
    if "reference" in args.systems:
        systems.append(Measured("reference", "reference", references))
    if "copy" in args.systems:
        model = vcae.load(device="cpu")
        systems.append(Measured("copy", "copy", [keep(vocode(model, s), folder, "copy", n) for n, s in enumerate(sounds)]))
    systems += [measure(coder, sounds, folder, args.timed_s) for coder in coders]
    if not systems:
        raise ConfigError(f"none of the systems {', '.join(args.systems)} can be run here: {'; '.join(said)}")
    return systems, [*said, *judge(args, systems, references, [transcript for _, transcript in clips])]


def count(word: str) -> int:
    if int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word} is less than 1")
    return int(word)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--clips-per-speaker", type=count, default=2)
    parser.add_argument("--min-s", type=float, default=3.0, help="shorter clips are left out")
    parser.add_argument("--max-s", type=float, default=8.0, help="longer clips are left out")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument("--kbps", type=float, nargs="+", default=[0.6, 1.5, 3.0, 6.0], help="rates of ours")
    parser.add_argument("--checkpoint", default="codec", help="of ours")
    parser.add_argument("--timed-s", type=float, default=60.0, help="the least sound that every codec is timed on")
    parser.add_argument("--threads", type=count, default=2, help="of ours; the peers have one")
    parser.add_argument("--no-judge", action="store_true", help="only rates and times")
    parser.add_argument("--judges", nargs="+", choices=NAMES, help="all that judge copies when not given")
    parser.add_argument("--output-dir", type=Path, default=Path("out/codec"))
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    args = parse(words)
    torch.set_num_threads(args.threads)
    clips = choose_clips(args.manifest, args.split, args.clips_per_speaker, args.min_s, args.max_s)
    systems, said = measure_all(args, clips)
    write_json(args.output_dir / "codec.json", args, [path for path, _ in clips], systems, said)
    print(table(systems))
    print("\n".join(["", *said, f"{len(clips)} clips; wrote {args.output_dir / 'codec.json'}"]))
    if any(system.scores and system.kbps for system in systems):
        for path in draw_rates(args.output_dir / "codec", systems):
            print(f"drew {path}")


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        sys.exit(f"error: {error}")
