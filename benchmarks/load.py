"""Time real commands: many short files, one long one, and a single one on a machine that is busy with something else.

`python benchmarks/load.py [--files 1000] [--minutes 60] [--loop 10] [--busy 2]`; a count of 0 leaves its part out. `--busy 2` converts the
bundled clip idle and then beside two processes that compute without pause, and streams it in real time beside one of them.

Files are cut from the bundled clip. The shell loop is run over `--loop` of them and its time taken in proportion. Use of the cores is
the processor time of the command and its workers over the elapsed time and the cores; the peak is that of the largest process.
"""

import argparse
import contextlib
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from vcae.environment import allowed_cores

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
    cores = allowed_cores()
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


def spin() -> None:
    while True:
        pass


@contextlib.contextmanager
def spinning(n: int) -> Iterator[None]:
    """Run processes that compute without pause."""
    others = [multiprocessing.get_context("spawn").Process(target=spin, daemon=True) for _ in range(n)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.join()


def stream(speech: np.ndarray, block_s: float = 0.08) -> str:
    """Stream the clip as a microphone would give it, and return the command's summary."""
    words = ["stream", "-s", str(CLIPS / "reference.flac"), "--rate", "16000"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    run = subprocess.Popen([sys.executable, "-m", "vcae", *words], **pipes)
    assert run.stdin is not None
    pcm, size = (speech * 32767).astype("<i2").tobytes(), 2 * round(block_s * 16000)
    run.stdin.write(pcm[:size])
    run.stdin.flush()
    for start in range(size, len(pcm), size):
        run.stdin.write(pcm[start : start + size])
        run.stdin.flush()
        time.sleep(block_s)
    _, said = run.communicate()
    return said.decode().strip()


def busy(folder: Path, n: int, speech: np.ndarray, repeats: int = 3) -> None:
    """Convert one clip idle and beside other processes, and stream it beside one."""
    took = dict[int, float]()
    for count in (0, n):
        with spinning(count):
            took[count] = min(command(CLIPS / "source.flac", "-o", folder / f"{count}-{i}.wav")[0] for i in range(repeats))
    print(
        f"{len(speech) / 16000:.1f} s on {allowed_cores()} cores, best of {repeats}: {took[0]:.2f} s idle, {took[n]:.2f} s beside {n} other "
        f"processes, {took[n] / took[0]:.2f} times as long"
    )
    for count in (0, 1):
        with spinning(count):
            print(f"stream beside {count}: {stream(speech)}")


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--loop", type=int, default=10)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--busy", type=int, default=2, help="other processes beside a conversion")
    args = parser.parse_args()
    speech, _ = soundfile.read(CLIPS / "source.flac", dtype="float32")
    with tempfile.TemporaryDirectory() as name:
        if args.minutes:
            long(Path(name), args.minutes, speech)
        if args.busy:
            busy(Path(name), args.busy, speech)
        if args.files:
            many(Path(name), args.files, args.loop, speech)


if __name__ == "__main__":
    main()
