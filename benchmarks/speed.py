"""Time a conversion inside one process: `python benchmarks/speed.py [--seconds 60] [--threads 2]`.

Model load is counted, the import of torch is not. `again` is a second conversion in the same process, to the voice already heard.
"""

import argparse
import resource
import time

import numpy as np
import torch

from vcae.audio.io import Sound, read_sound
from vcae.tasks.convert import convert
from vcae.tasks.model import load
from vcae.voice.voice import hear_voice


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--source", default="demo/clips/source.flac")
    parser.add_argument("--reference", default="demo/clips/reference.flac")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sound, reference = read_sound(args.source), read_sound(args.reference)
    source = Sound(np.resize(sound.wav, round(args.seconds * sound.sample_rate)), sound.sample_rate)
    start = time.perf_counter()
    model = load(device="cpu")
    loaded = time.perf_counter()
    voice = hear_voice(model, [reference])
    convert(model, source, voice)
    done = time.perf_counter()
    convert(model, source, voice)
    again = time.perf_counter() - done
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{args.seconds:g} s of audio, {args.threads} threads: load {loaded - start:.2f} s, convert {done - loaded:.2f} s, "
        f"together {done - start:.2f} s ({args.seconds / (done - start):.0f} times real time), "
        f"again {again:.2f} s ({args.seconds / again:.0f} times), peak memory {peak:.0f} MiB"
    )


if __name__ == "__main__":
    main()
