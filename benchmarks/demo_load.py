"""Load test of the server by many clients: `python benchmarks/demo_load.py --clients 50 --seconds 120`.

Starts `vcae serve` on loopback, lets clients convert the bundled pair over and over through gradio's client, and counts what came back: a
sound, a stated refusal (the queue is full), or a failure. Prints p50 and p95 of the successful calls, waiting included, and the server's
memory over time. A client that is refused waits a second or two, as one would be asked to, and tries again.
"""

import argparse
import io
import json
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Any

import numpy as np
import psutil
import soundfile

ROOT = Path(__file__).parent.parent
CLIPS = ROOT / "demo" / "clips"
MOST_CLIENTS, MOST_SECONDS = 200, 600


class Counts:
    """Counts of the answers to all clients."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.seconds: list[float] = []
        self.refused = 0
        self.failures: list[str] = []

    def add(self, outcome: str, seconds: float = 0.0, reason: str = "") -> None:
        """Count a call: `ok`, `refused` or `failed`."""
        with self._lock:
            if outcome == "ok":
                self.seconds.append(seconds)
            elif outcome == "refused":
                self.refused += 1
            else:
                self.failures.append(reason)


def visit(url: str, until: float, counts: Counts, seed: int, rest_s: float) -> None:
    """Convert the bundled pair until the time is over."""
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError
    from gradio_client.utils import QueueError

    rng = random.Random(seed)
    time.sleep(rng.uniform(0, min(5.0, max(0.0, until - time.monotonic()) / 4)))
    with tempfile.TemporaryDirectory() as folder:
        try:
            client = Client(url, verbose=False, download_files=folder)
        except Exception as error:
            counts.add("failed", reason=f"connecting: {type(error).__name__}: {error}")
            return
        while time.monotonic() < until:
            start = time.monotonic()
            try:
                source, reference = (handle_file(str(CLIPS / f"{name}.flac")) for name in ("source", "reference"))
                wav, rate = soundfile.read(client.predict(source, [reference], seed=rng.randrange(1000), api_name="/convert"))
                whole = (
                    rate == 16000
                    and abs(len(wav) - soundfile.info(CLIPS / "source.flac").frames) < 2
                    and np.abs(wav).max() > 0.1
                )
                counts.add("ok" if whole else "failed", time.monotonic() - start, "no whole sound came back")
            except QueueError:
                counts.add("refused")
                time.sleep(rng.uniform(1.0, 2.0))
            except (AppError, Exception) as error:
                counts.add("failed", reason=f"{type(error).__name__}: {error}")
                time.sleep(1.0)
            time.sleep(rest_s)


def visit_plainly(url: str, until: float, counts: Counts, seed: int, rest_s: float) -> None:
    """Convert the bundled pair until the time is over, by requests to /v1/convert."""
    import httpx

    rng = random.Random(seed)
    time.sleep(rng.uniform(0, min(5.0, max(0.0, until - time.monotonic()) / 4)))
    clips = {name: (CLIPS / f"{name}.flac").read_bytes() for name in ("source", "reference")}
    frames = soundfile.info(CLIPS / "source.flac").frames
    with httpx.Client(trust_env=False, timeout=300) as client:
        while time.monotonic() < until:
            start = time.monotonic()
            files = {name: (f"{name}.flac", data) for name, data in clips.items()}
            try:
                answer = client.post(f"{url}/v1/convert", files=files, data={"seed": str(rng.randrange(1000))})
                if answer.status_code == 503:
                    counts.add("refused")
                    time.sleep(rng.uniform(1.0, 2.0))
                    continue
                answer.raise_for_status()
                wav, rate = soundfile.read(io.BytesIO(answer.content))
                whole = rate == 16000 and abs(len(wav) - frames) < 2 and np.abs(wav).max() > 0.1
                counts.add("ok" if whole else "failed", time.monotonic() - start, "no whole sound came back")
            except httpx.HTTPError as error:
                counts.add("failed", reason=f"{type(error).__name__}: {error}")
                time.sleep(1.0)
            time.sleep(rest_s)


def memory_mb(process: psutil.Process) -> float:
    """Return the resident memory of a process and its children."""
    every = [process, *process.children(recursive=True)]
    return sum(p.memory_info().rss for p in every) / 1e6


def start_server(queue: int, jobs: int) -> tuple[subprocess.Popen, str, IO[bytes]]:
    """Return a running `vcae serve`, its address and its log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tempfile.TemporaryFile()  # noqa: SIM115
    words = [sys.executable, "-m", "vcae", "serve", "--port", str(port), "--max-queue", str(queue), "--jobs", str(jobs)]
    process = subprocess.Popen([*words, "--keep-minutes", "0.5", "--quiet"], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    for _ in range(600):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return process, f"http://127.0.0.1:{port}", log
        if process.poll() is not None:
            log.seek(0)
            raise SystemExit(f"the server did not start: {log.read().decode()}")
        time.sleep(0.2)
    raise SystemExit("the server did not start in two minutes")


def run(clients: int, seconds: float, queue: int, jobs: int, rest_s: float, plain: bool = False) -> dict[str, Any]:
    """Return the figures of a run."""
    process, url, log = start_server(queue, jobs)
    watched, counts, memory = psutil.Process(process.pid), Counts(), []
    try:
        from gradio_client import Client, handle_file

        source, reference = (handle_file(str(CLIPS / f"{name}.flac")) for name in ("source", "reference"))
        # Memory that the first job allocates for models is not a leak.
        Client(url, verbose=False).predict(source, [reference], api_name="/convert")
        start = time.monotonic()
        memory.append((0.0, memory_mb(watched)))
        until = start + seconds
        threads = [
            threading.Thread(target=visit_plainly if plain else visit, args=(url, until, counts, n, rest_s))
            for n in range(clients)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(min(5.0, seconds / 8))
            memory.append((time.monotonic() - start, memory_mb(watched)))
        wall_s = time.monotonic() - start
    finally:
        process.terminate()
        process.wait(timeout=30)
    log.seek(0)
    said = log.read().decode(errors="replace")
    p50, p95 = (float(np.quantile(counts.seconds, q)) if counts.seconds else None for q in (0.5, 0.95))
    late = [mb for at, mb in memory if at >= seconds / 4] or [memory[-1][1]]
    return {
        "clients": clients,
        "seconds": round(wall_s, 1),
        "ok": len(counts.seconds),
        "refused": counts.refused,
        "failed": len(counts.failures),
        "failures": sorted(set(counts.failures))[:5],
        "p50_s": p50 and round(p50, 2),
        "p95_s": p95 and round(p95, 2),
        "rss_mb_before": round(memory[0][1]),
        "rss_mb_at_a_quarter": round(late[0]),
        "rss_mb_max": round(max(mb for _, mb in memory)),
        "rss_mb_after": round(memory[-1][1]),
        "rss_mb": [(round(at), round(mb)) for at, mb in memory],
        "tracebacks": said.count("Traceback"),
        "last_error": next((line for line in reversed(said.splitlines()) if re.match(r"[\w.]+(Error|Exception)\b", line)), ""),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50, help=f"at once, at most {MOST_CLIENTS}")
    parser.add_argument("--seconds", type=float, default=120.0, help=f"that clients go on for, at most {MOST_SECONDS}")
    parser.add_argument("--queue", type=int, default=20, help="jobs that may wait at the server")
    parser.add_argument("--jobs", type=int, default=1, help="that the server works on at once")
    parser.add_argument("--rest", type=float, default=0.0, help="seconds that a client rests after each call: the rate")
    parser.add_argument("--plain", action="store_true", help="by requests to /v1/convert instead of gradio's client")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    if not (1 <= args.clients <= MOST_CLIENTS and 1 <= args.seconds <= MOST_SECONDS):
        parser.error(f"1 to {MOST_CLIENTS} clients and 1 to {MOST_SECONDS} seconds are allowed")
    found = run(args.clients, args.seconds, args.queue, args.jobs, args.rest, args.plain)
    if args.json:
        print(json.dumps(found))
    else:
        print("\n".join(f"{key:20} {value}" for key, value in found.items()))
    sys.exit(1 if found["failed"] or found["tracebacks"] else 0)


if __name__ == "__main__":
    main()
