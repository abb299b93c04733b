"""Time many short files and one long one, as real commands: `python benchmarks/load.py [--files 1000] [--minutes 60] [--loop 10]`.

Files are cut from the bundled clip. The shell loop is run over `--loop` of them and its time taken in proportion. Use of the cores is
the processor time of the command and its workers over the elapsed time and the cores; the peak is that of the largest process.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

CLIPS = Path(__file__).parent.parent / "demo" / "clips"


def command(*args: object) -> tuple[float, float]:
    """Run the command line and return its elapsed and its processor time, in seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "vcae", "convert", *map(str, args), "-s", str(CLIPS / "reference.flac"), "-q"], check=True
    )
    elapsed, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return elapsed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def many(folder: Path, n: int, n_loop: int, speech: np.ndarray) -> None:
    """Convert many short files as a folder, and some in a loop of commands."""
    rng, seconds = np.random.default_rng(0), 0.0
    (folder / "in").mkdir()
    for i in range(n):
        length, start = rng.integers(16000, 40000), rng.integers(0, 60000)
        soundfile.write(folder / "in" / f"{i:04d}.wav", speech[start : start + length], 16000)
        seconds += length / 16000
    elapsed, used = command(folder / "in", "--out-dir", folder / "out")
    cores = len(os.sched_getaffinity(0))
    loop = sum(command(folder / "in" / f"{i:04d}.wav", "-o", folder / f"{i}.wav")[0] for i in range(n_loop)) / n_loop * n
    print(
        f"{n} files of {seconds:.0f} s: folder mode {elapsed:.1f} s ({seconds / elapsed:.0f} times real time, {used / elapsed / cores:.0%} of "
        f"{cores} cores); the command in a loop {loop:.0f} s, {loop / elapsed:.1f} times as long"
    )


def long(folder: Path, minutes: int, speech: np.ndarray) -> None:
    """Convert one long file."""
    with soundfile.SoundFile(folder / "long.flac", "w", 16000, 1) as out:
        for start in range(0, minutes * 960000, 960000):
            at = (start + np.arange(960000)) / 16000
            out.write(np.resize(speech, 960000) * (0.6 + 0.4 * np.sin(at / 37)))
    elapsed, _ = command(folder / "long.flac", "-o", folder / "long-out.flac")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(f"{minutes} min: {elapsed:.1f} s, {minutes * 60 / elapsed:.1f} times real time; peak {peak:.2f} GB")


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--loop", type=int, default=10)
    parser.add_argument("--minutes", type=int, default=60)
    args = parser.parse_args()
    speech, _ = soundfile.read(CLIPS / "source.flac", dtype="float32")
    with tempfile.TemporaryDirectory() as name:
        if args.minutes:
            long(Path(name), args.minutes, speech)
        if args.files:
            many(Path(name), args.files, args.loop, speech)


if __name__ == "__main__":
    main()
