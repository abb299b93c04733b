"""Decode mutated compressed files: `python benchmarks/fuzz_codec.py [--files 10000] [--jobs 1] [--first 0] [--keep FOLDER]`.

Mutations: flipped bits, replaced, inserted or deleted bytes, truncated and spliced files, exchanged blocks; and headers and payloads edited with
correct checksums, so that the code after the checksums is tested. File n is the same on every machine with the same codec. Every file must raise
a BitstreamError or give finite sound within 5 s and 1 GB; one in ten is also decoded with `strict`, one in twenty in another voice. Prints the
outcomes, the slowest files and peak memory (VmHWM of the worker, including model and libraries); exits with 1 if any file failed. Times are
processor times, so that a busy machine does not matter; a worker that has used 15 s, or sleeps for two minutes, is killed.
"""

import argparse
import dataclasses
import multiprocessing
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
CLIPS = ROOT / "demo" / "clips"
LIMIT_S, LIMIT_MB = 5.0, 1000.0
# Limits of processor time and of elapsed time after which a worker is killed; the latter is for one that sleeps.
HANG_S, SLEEP_S = 3 * LIMIT_S, 120.0
# A worker is given so long to load the codec.
START_S = 120.0
# Memory that a worker may ask for, so that a bad file ends the worker and not the machine.
ADDRESS_BYTES = 24 << 30
RATES = (0.6, 1.5, 3.0, 6.0)
STRICT_EVERY, VOICE_EVERY = 10, 20


@dataclasses.dataclass(frozen=True)
class Result:
    """Outcome of a file.

    Attributes:
        number: Of the file.
        kind: Of the mutation.
        status: `decoded`, `damaged` (decoded in part), `refused`, `crash` or `hang`.
        seconds: Of the processor that decoding took.
        peak_mb: Of the worker while it did.
        detail: Of a crash.
    """

    number: int
    kind: str
    status: str
    seconds: float = 0.0
    peak_mb: float = 0.0
    detail: str = ""

    @property
    def failed(self) -> bool:
        """Whether the outcome is a failure of the decoder."""
        return self.status in ("crash", "hang") or self.seconds > LIMIT_S or self.peak_mb > LIMIT_MB


def make_files(codec: Any, seconds: float = 4.5) -> list[bytes]:
    """Compress pieces of the bundled clips at all rates: of 2 or 3 blocks, and a short one of 1."""
    from vcae.audio.io import Sound, read_sound

    source, reference = (read_sound(str(CLIPS / f"{name}.flac")) for name in ("source", "reference"))
    n = round(seconds * source.sample_rate)
    pieces = [(source.wav[-n:], kbps) for kbps in RATES] + [(reference.wav[n : n + n // 3], 1.5)]
    return [codec.compress(Sound(wav, source.sample_rate), kbps) for wav, kbps in pieces]


def _peak_mb() -> float:
    """Return the peak memory of this process since the last call."""
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    Path("/proc/self/clear_refs").write_text("5")
    return peak / 1024


def _decode(codec: Any, voice: Any, number: int, data: bytes) -> str:
    """Decode a file and return its outcome; failures raise."""
    import numpy as np

    from vcae.errors import BitstreamError

    chosen = voice if number % VOICE_EVERY == 3 else None
    try:
        done = codec.decompress(data, chosen)
    except BitstreamError:
        return "refused"
    wav = done.sound.wav
    assert wav.dtype == np.float32, wav.dtype
    assert wav.ndim == 1, wav.shape
    assert 0 < len(wav) <= done.header.n_samples, len(wav)
    assert len(wav) == done.header.n_samples or done.damage, (len(wav), done.header)
    assert np.isfinite(wav).all()
    assert np.abs(wav).max() <= 1
    if number % STRICT_EVERY == 0:
        try:
            codec.decompress(data, chosen, strict=True)
            assert not done.damage, done.damage
        except BitstreamError:
            assert done.damage
    return "damaged" if done.damage else "decoded"


def work(pipe: Connection, files: list[bytes] | None) -> None:
    """Answer numbers with results until the pipe is closed; first of all, send the files."""
    import resource

    os.environ["OMP_NUM_THREADS"] = "1"
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES, ADDRESS_BYTES))
    import torch

    torch.set_num_threads(1)
    from tests.mutations import mutate
    from vcae.audio.io import read_sound
    from vcae.codec.codec import Codec
    from vcae.voice.voice import voice_from_sounds

    codec = Codec(device="cpu")
    if files is None:
        files = make_files(codec)
    voice = voice_from_sounds(codec.model, [read_sound(str(CLIPS / "reference2.flac"))])
    # Memory that is allocated at the first use is not counted.
    for data in files:
        codec.decompress(data)
    pipe.send((files, _peak_mb()))
    while True:
        try:
            number = pipe.recv()
        except EOFError:
            return
        kind, data = mutate(number, files)
        _peak_mb()
        start, detail = time.process_time(), ""
        try:
            status = _decode(codec, voice, number, data)
        except Exception as error:
            status, detail = "crash", "".join(traceback.format_exception(error)[-3:])
        pipe.send(Result(number, kind, status, time.process_time() - start, _peak_mb(), detail))


class Worker:
    """Worker process with its present task and the time of its start."""

    def __init__(self, files: list[bytes] | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=work, args=(theirs, files), daemon=True)
        self.process.start()
        theirs.close()
        if not self.pipe.poll(START_S):
            raise SystemExit(f"a worker did not load the codec within {START_S:.0f} s")
        try:
            self.files, self.base_mb = self.pipe.recv()
        except EOFError:
            raise SystemExit("a worker could not load the codec; what it said stands above") from None
        self.number, self.since, self.used_s = -1, 0.0, 0.0

    def give(self, number: int) -> None:
        """Start decoding a file."""
        self.number, self.since, self.used_s = number, time.monotonic(), self.processor_s()
        self.pipe.send(number)

    def processor_s(self) -> float:
        """Return the processor time that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """End it."""
        self.process.kill()
        self.process.join()


def run(numbers: Iterator[int], n_workers: int, folder: Path | None) -> Iterator[Result]:
    """Decode files in processes, each with a limit of time, and yield what became of them; those that failed are written to a folder."""
    first = Worker(None)
    files = first.files
    workers = [first, *(Worker(files) for _ in range(n_workers - 1))]
    print(f"files of {', '.join(str(len(data)) for data in files)} bytes; a worker has {first.base_mb:.0f} MB before it starts")
    for worker in workers:
        worker.give(next(numbers))
    while any(worker.number >= 0 for worker in workers):
        ready = wait([worker.pipe for worker in workers], timeout=0.2)
        for place, worker in enumerate(workers):
            result = _hear(worker, worker.pipe in ready)
            if result is None:
                continue
            if result.failed and folder is not None:
                _keep(folder, files, result.number)
            yield result
            number = next(numbers, None)
            if number is None:
                worker.kill()
                worker.number = -1
                workers = [*workers[:place], *workers[place + 1 :]]
                break
            if result.status == "hang" or not worker.process.is_alive():
                workers[place] = Worker(files)
            workers[place].give(number)


def _hear(worker: Worker, ready: bool) -> Result | None:
    """Return a worker's outcome, or that of a worker that crashed or exceeded a limit; None while it is running."""
    if ready:
        try:
            result: Result = worker.pipe.recv()
            return result
        except EOFError:
            worker.process.join()
            return Result(worker.number, "?", "crash", detail=f"exit code {worker.process.exitcode}")
    seconds, passed = worker.processor_s() - worker.used_s, time.monotonic() - worker.since
    if seconds < HANG_S and passed < SLEEP_S:
        return None
    worker.kill()
    return Result(worker.number, "?", "hang", seconds, detail=f"after {passed:.0f} s")


def _keep(folder: Path, files: list[bytes], number: int) -> None:
    from tests.mutations import mutate

    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{number}.vcz").write_bytes(mutate(number, files)[1])


def main() -> None:
    """Read the options, decode, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    start, results, counts = time.perf_counter(), list[Result](), Counter[tuple[str, str]]()
    for result in run(iter(range(args.first, args.first + args.files)), args.jobs, args.keep):
        results.append(result)
        counts[result.kind, result.status] += 1
        if result.failed:
            print(
                f"FAILED {result.number} ({result.kind}): {result.status}, {result.seconds:.2f} s, {result.peak_mb:.0f} MB {result.detail}"
            )
        if sys.stderr.isatty() and len(results) % 20 == 0:
            sys.stderr.write(f"\r{len(results)} of {args.files}, {sum(r.failed for r in results)} failed ")
    for kind in sorted({kind for kind, _ in counts}):
        print(f"{kind:16}", ", ".join(f"{n} {status}" for (of, status), n in sorted(counts.items()) if of == kind))
    slowest, largest = max(results, key=lambda r: r.seconds), max(results, key=lambda r: r.peak_mb)
    crashes, hangs = (sum(r.status == status for r in results) for status in ("crash", "hang"))
    print(
        f"{len(results)} files in {time.perf_counter() - start:.0f} s: {crashes} crashes, {hangs} hangs, "
        f"{sum(r.seconds > LIMIT_S for r in results)} over {LIMIT_S:g} s, {sum(r.peak_mb > LIMIT_MB for r in results)} over {LIMIT_MB:g} MB; "
        f"slowest {slowest.seconds:.2f} s ({slowest.kind}, {slowest.number}), "
        f"peak {largest.peak_mb:.0f} MB ({largest.kind}, {largest.number})"
    )
    sys.exit(any(result.failed for result in results))


if __name__ == "__main__":
    main()
