"""Copy recordings through their mels by our vocoder and by its peers, time them, and judge the copies.

    python benchmarks/vocoder.py MANIFEST --files 10 --out out/vocoder [--no-judge]

Every method runs in a process of its own, once for each number of threads, held to as many cores where the system allows: its peak memory
and its times are its own. `synthesis` counts from mel (and F0, or WORLD's parameters) to sound, `all` from sound to sound. The copies and
`pairs.csv` (degraded, reference, label), which `vcae evaluate` judges too, stay in the output folder.
"""

import argparse
import csv
import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

import vcae
from vcae.audio.io import Sound, read_sound, write_sound
from vcae.audio.loudness import follow_envelope
from vcae.engine.engine import DECODED_CORRECTIONS
from vcae.evaluation.run import judge_table
from vcae.evaluation.tables import Copy, write_table
from vcae.vocoder.griffin_lim import griffin_lim

METHODS = ("vocoder", "autoencoder", "griffin-lim-32", "griffin-lim-60", "world", "original")
SCORES = ("moonshine_wer", "whisper_wer", "distillmos", "pesq_wb", "stoi", "mel_db", "cosine", "ovrl", "p808")


def copy_one(method: str, model: vcae.Model, sound: Sound) -> tuple[np.ndarray, float]:
    """Return the copy of a sound, and the seconds that its synthesis alone took."""
    if method == "world":
        import pyworld

        wav = sound.wav.astype(np.float64)
        f0, at = pyworld.harvest(wav, sound.sample_rate)
        parameters = (f0, pyworld.cheaptrick(wav, f0, at, sound.sample_rate), pyworld.d4c(wav, f0, at, sound.sample_rate))
        start = time.perf_counter()
        made = pyworld.synthesize(*parameters, sound.sample_rate)[: len(wav)].astype(np.float32)
        return made, time.perf_counter() - start
    seen = model.analyse(sound.wav, sound.sample_rate)
    mel, f0 = seen.mel, seen.f0
    if method == "autoencoder":
        mel = model.decode(model.encode(sound.wav, sound.sample_rate))
    start = time.perf_counter()
    if method.startswith("griffin-lim"):
        wav = griffin_lim(mel, model.mel_config, len(seen.wav), n_iter=int(method.rpartition("-")[2]))
    else:
        n_corrections = DECODED_CORRECTIONS if method == "autoencoder" else None
        wav = model.vocode(mel, f0, len(seen.wav), n_corrections=n_corrections, follow=torch.from_numpy(seen.wav)[None])
    elapsed = time.perf_counter() - start
    return follow_envelope(wav[0].numpy(), seen.wav, seen.level), elapsed


def run_method(method: str, threads: int, checkpoint: str, files: list[str], out: Path) -> None:
    """Copy all files by one method and print what it took as JSON."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    torch.set_num_threads(threads)
    model = vcae.load(checkpoint, device="cpu")
    sounds = [read_sound(path) for path in files]
    copy_one(method, model, sounds[0])
    synthesis_s = all_s = 0.0
    for n, sound in enumerate(sounds):
        start = time.perf_counter()
        wav, elapsed = copy_one(method, model, sound)
        all_s += time.perf_counter() - start
        synthesis_s += elapsed
        write_sound(out / f"{method}_{n:02d}.wav", Sound(wav, sound.sample_rate), "copied by vcae", force=True)
    vocoder = model.checkpoint.vocoder
    print(
        json.dumps(
            {
                "audio_s": sum(s.duration_s for s in sounds),
                "synthesis_s": synthesis_s,
                "all_s": all_s,
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "parameters": sum(p.numel() for p in vocoder.parameters()) if vocoder and method == "vocoder" else 0,
            }
        )
    )


def measure(method: str, args: argparse.Namespace, files: list[str]) -> dict[int, dict[str, float]]:
    """Run one method in processes of its own, one for each number of threads."""
    found = {}
    for threads in args.threads:
        command = [sys.executable, __file__, args.manifest, "--out", args.out, "--checkpoint", args.checkpoint, "--run", method]
        done = subprocess.run(
            [*map(str, command), "--threads", str(threads)], input="\n".join(files), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{method} failed: {done.stderr[-500:]}")
        found[threads] = json.loads(done.stdout.splitlines()[-1])
    return found


def judge(args: argparse.Namespace, copies: list[Copy]) -> dict[str, dict[str, float]]:
    """Write the table of copies, judge them, and return the means by label."""
    pairs = args.out / "pairs.csv"
    write_table(pairs, copies)
    if args.no_judge:
        print(f"not judged; judge them: vcae evaluate {pairs}")
        return {}
    report = judge_table(pairs)
    print("\n".join([*report.missing, *report.problems]))
    return report.means()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--files", type=int, default=10)
    parser.add_argument("--min-s", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--no-judge", action="store_true", help="only copy and time")
    parser.add_argument("--out", type=Path, default=Path("out/vocoder"))
    parser.add_argument("--run", choices=METHODS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        run_method(args.run, args.threads[0], args.checkpoint, sys.stdin.read().splitlines(), args.out)
        return
    with args.manifest.open(newline="", encoding="utf-8") as opened:
        rows = [r for r in csv.DictReader(opened) if r["split"] == args.split and float(r["duration_s"]) >= args.min_s]
    chosen = random.Random(args.seed).sample(rows, args.files)
    files = [str((args.manifest.parent / row["path"]).resolve()) for row in chosen]
    args.out.mkdir(parents=True, exist_ok=True)
    measured, lines = {}, []
    for method in args.methods:
        try:
            measured[method] = {} if method == "original" else measure(method, args, files)
        except SystemExit as error:
            if method != "world" or "pyworld" not in str(error):
                raise
            print("world left out: pip install '.[eval]' brings it")
            continue
        copies = files if method == "original" else [str(args.out / f"{method}_{n:02d}.wav") for n in range(len(files))]
        lines += [
            Copy(Path(copy), Path(original), row["transcript"], method)
            for copy, original, row in zip(copies, files, chosen, strict=True)
        ]
    scores = judge(args, lines)
    times = [f"{what}, {n} thread{'s'[: n > 1]}" for n in args.threads for what in ("synthesis", "all")]
    print("| method | parameters | " + " | ".join(times) + " | peak MiB | " + " | ".join(SCORES) + " |")
    print("|" + "---|" * (3 + len(times) + len(SCORES)))
    for method, found in measured.items():
        cells = [method, f"{max((f['parameters'] for f in found.values()), default=0):,}"]
        for threads in args.threads:
            f = found.get(threads)
            cells += [f"{f['audio_s'] / f[key]:.0f}x" if f else "" for key in ("synthesis_s", "all_s")]
        cells.append(f"{max((f['peak_mib'] for f in found.values()), default=0):.0f}")
        cells += [f"{scores[method][key]:.3f}" if key in scores.get(method, {}) else "" for key in SCORES]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
