"""Pool of worker processes, each of which loads a model once and processes one job after another; a crashed process is replaced."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from vcae.batch.jobs import Job, Outcome
from vcae.batch.worker import Worker
from vcae.errors import VcaeError
from vcae.signals import exit_on_signals, ignore_signals

# Attempts at a job whose worker process crashes.
TRIES = 2
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    job: Job | None = None
    tries: int = 0


def _serve(pipe: Connection, build: Callable[[], Worker]) -> None:
    """Process jobs until the pipe is closed, which also happens when the parent is killed."""
    # The parent process handles Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    torch.set_num_threads(1)
    # From here on there may be an incomplete file, which is removed at exit.
    exit_on_signals()
    try:
        work = build()
        work.start()
        pipe.send(None)
        while True:
            pipe.send(work(pipe.recv()))
    except VcaeError as error:
        pipe.send(error)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    finally:
        ignore_signals()


def run_jobs(jobs: Sequence[Job], build: Callable[[], Worker], n_workers: int) -> Iterator[Outcome]:
    """Process jobs in worker processes and yield their outcomes in order of completion.

    Each process has one thread, so that the result of a job does not depend on the number of processes.

    Args:
        jobs: Started in this order; longest first keeps all workers busy to the end.
        build: Function that builds a worker in each process. It is pickled, so it must be a function of a module or a `functools.partial` of one.
        n_workers: Largest number of processes.

    Raises:
        VcaeError: If a worker cannot be built.
    """
    waiting = deque((job, 1) for job in jobs)
    workers: list[_Worker] = []
    try:
        for _ in range(min(n_workers, len(waiting))):
            workers.append(_start(build))
        while workers:
            for ready in wait([worker.pipe for worker in workers]):
                worker = next(worker for worker in workers if worker.pipe is ready)
                outcome = _receive(worker, waiting)
                if outcome is not None:
                    yield outcome
                if not worker.process.is_alive() or worker.pipe.closed:
                    workers.remove(worker)
                    if waiting:
                        workers.append(_start(build))
                elif waiting:
                    worker.job, worker.tries = waiting.popleft()
                    worker.pipe.send(worker.job)
                else:
                    worker.pipe.close()
                    workers.remove(worker)
                    worker.process.join()
    finally:
        _end(workers)


def _start(build: Callable[[], Worker]) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, build), daemon=True)
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        process.start()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    theirs.close()
    return _Worker(process, ours)


def _receive(worker: _Worker, waiting: deque[tuple[Job, int]]) -> Outcome | None:
    """Receive a worker's message: the outcome of its job, or None if it has just started, or crashed and the job will be repeated."""
    try:
        answer = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        worker.pipe.close()
        worker.process.join()
        died = (
            f"a worker process died (exit code {worker.process.exitcode}; a crash, or too little memory: try fewer processes)"
        )
        if worker.job is None:
            raise VcaeError(f"{died} before it could start") from None
        if worker.tries < TRIES:
            waiting.append((worker.job, worker.tries + 1))
            return None
        return Outcome(worker.job.source, worker.job.speakers, worker.job.output, "failed", f"{died}, {TRIES} times")
    if isinstance(answer, VcaeError):
        raise answer
    worker.job = None
    return answer if isinstance(answer, Outcome) else None


def _end(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        worker.process.join(10)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
