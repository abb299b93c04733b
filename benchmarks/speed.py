"""Time a conversion inside one process: `python benchmarks/speed.py [--seconds 60] [--threads 2] [--busy 0]`.

Loading the model is included, importing torch is not. `again` is a second conversion in the same process, to the voice measured before. `--busy 2`
runs two other computing processes at the same time. `OMP_WAIT_POLICY=ACTIVE` in the environment shows the cost of threads that spin while they wait.
"""

import argparse
import multiprocessing
import resource
import time

import numpy as np

from vcae.environment import prepare

prepare()

import torch  # noqa: E402

from vcae.audio.io import Sound, read_sound  # noqa: E402
from vcae.tasks.convert import convert  # noqa: E402
from vcae.tasks.model import load  # noqa: E402
from vcae.voice.voice import voice_from_sounds  # noqa: E402


def spin() -> None:
    while True:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--source", default="demo/clips/source.flac")
    parser.add_argument("--reference", default="demo/clips/reference.flac")
    parser.add_argument("--busy", type=int, default=0, help="other processes that compute meanwhile")
    args = parser.parse_args()
    others = [multiprocessing.get_context("spawn").Process(target=spin, daemon=True) for _ in range(args.busy)]
    for other in others:
        other.start()
    torch.set_num_threads(args.threads)
    sound, reference = read_sound(args.source), read_sound(args.reference)
    source = Sound(np.resize(sound.wav, round(args.seconds * sound.sample_rate)), sound.sample_rate)
    start = time.perf_counter()
    model = load(device="cpu")
    loaded = time.perf_counter()
    voice = voice_from_sounds(model, [reference])
    convert(model, source, voice)
    done = time.perf_counter()
    convert(model, source, voice)
    again = time.perf_counter() - done
    for other in others:
        other.kill()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{args.seconds:g} s of audio, {args.threads} threads, {args.busy} other processes: "
        f"load {loaded - start:.2f} s, convert {done - loaded:.2f} s, "
        f"together {done - start:.2f} s ({args.seconds / (done - start):.0f} times real time), "
        f"again {again:.2f} s ({args.seconds / again:.0f} times), peak memory {peak:.0f} MiB"
    )


if __name__ == "__main__":
    main()
