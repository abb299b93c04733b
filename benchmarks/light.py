"""Measure time and memory of a conversion with and without torch, each in a process of its own.

    vcae export onnx graphs
    python benchmarks/light.py graphs [--runs 5] [--python .venv-light/bin/python]

Prints for each way the seconds from the start of the process to the written sound, the seconds of computing time in them, and the largest memory.
On a busy machine the computing time is the more reliable one.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CLIPS = Path(__file__).parent.parent / "demo" / "clips"


def measure(command: list[str]) -> tuple[float, float, float]:
    """Run a command and return its wall time in s, its computing time in s, and its largest memory in MB."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graphs", help="a folder of `vcae export onnx`")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--python", default=sys.executable, help="interpreter for the way without torch")
    args = parser.parse_args()
    clips = [str(CLIPS / "source.flac"), "--speaker", str(CLIPS / "reference.flac"), "--force", "--output"]
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "out.wav")
        ways = {
            "torch": [sys.executable, "-m", "vcae", "convert", *clips, out, "--device", "cpu"],
            "light": [args.python, "-m", "vcae.cli.light", *clips, out, "--models", args.graphs],
        }
        print("| way | wall s | computing s | memory MB |\n|---|---|---|---|")
        for name, command in ways.items():
            measure(command)
            wall, spent, memory = zip(*(measure(command) for _ in range(args.runs)), strict=True)
            print(f"| {name} | {statistics.median(wall):.2f} | {statistics.median(spent):.2f} | {max(memory):.0f} |")


if __name__ == "__main__":
    main()
