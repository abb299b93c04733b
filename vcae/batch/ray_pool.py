"""Jobs on a Ray cluster: the same as `vcae.batch.pool`, on any number of machines that share the files."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from vcae.batch.jobs import Job, Outcome
from vcae.batch.pool import THREADS, TRIES
from vcae.batch.worker import Worker
from vcae.errors import ConfigError, VcaeError

# Jobs are sent in batches of sources up to this many bytes, so that short ones do not wait for the network; an hour is a batch of its own.
BATCH_BYTES = 4 << 20
MAX_BATCH = 16


class RayWorker:
    """Actor on the cluster that loads the model once and processes batches of jobs."""

    def __init__(self, build: Callable[[], Worker]) -> None:
        import torch

        torch.set_num_threads(1)
        self._build = build
        self._work: Worker | None = None

    def start(self) -> VcaeError | None:
        """Load the model; return the error if that fails."""
        try:
            self._work = self._build()
            self._work.start()
        except VcaeError as error:
            return error
        return None

    def work(self, jobs: list[Job]) -> list[Outcome]:
        """Process jobs one after another."""
        assert self._work is not None
        return [self._work(job) for job in jobs]


def _size(job: Job) -> int:
    try:
        return os.stat(job.source).st_size
    except (OSError, ValueError):
        return 0


def make_batches(jobs: Sequence[Job]) -> list[list[Job]]:
    """Group jobs, in order, into batches of similar size."""
    batches: list[list[Job]] = []
    room = 0
    for job in jobs:
        size = _size(job)
        if not batches or size > room or len(batches[-1]) == MAX_BATCH:
            batches.append([])
            room = BATCH_BYTES
        batches[-1].append(job)
        room -= size
    return batches


def connect(address: str | None, n_workers: int) -> Any:
    """Connect to a cluster, or start one on this machine with `n_workers` CPUs; return the ray module.

    Raises:
        ConfigError: If Ray is missing or the cluster cannot be reached.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError("the engine ray needs Ray; pip install 'vcae[ray]'") from error
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        how: dict[str, Any] = {"num_cpus": n_workers, "include_dashboard": False} if address is None else {"address": address}
        try:
            ray.init(log_to_driver=False, logging_level="ERROR", **how)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"the Ray cluster at {address or 'this machine'} cannot be reached ({error}); check its address"
            ) from error
    return ray


def run_jobs_on_ray(
    jobs: Sequence[Job], build: Callable[[], Worker], n_workers: int, address: str | None = None
) -> Iterator[Outcome]:
    """Process jobs on a cluster and yield their outcomes in order of completion; a batch whose worker crashed is repeated by another.

    Args:
        jobs: Jobs, whose files must have the same paths on every machine.
        build: As in `vcae.batch.pool.run_jobs`.
        n_workers: Number of workers with one core each.
        address: Address of the cluster, such as `auto` or `ray://host:10001`; None starts one on this machine.

    Raises:
        VcaeError: If a worker cannot be built, or the cluster cannot be used.
    """
    ray = connect(address, n_workers)
    threads = {"env_vars": dict.fromkeys(THREADS, "1")}
    remote = ray.remote(RayWorker).options(num_cpus=1, runtime_env=threads)
    waiting = deque((batch, 1) for batch in make_batches(jobs))
    busy: dict[Any, tuple[Any, list[Job], int]] = {}
    failed_starts = 0

    def start() -> None:
        worker = remote.remote(build)
        busy[worker.start.remote()] = (worker, [], 0)

    try:
        for _ in range(min(n_workers, len(waiting))):
            start()
        while busy:
            ready, _ = ray.wait(list(busy))
            worker, batch, tries = busy.pop(ready[0])
            try:
                answer = ray.get(ready[0])
            except ray.exceptions.RayActorError as error:
                if not batch:
                    failed_starts += 1
                if failed_starts > TRIES:
                    raise VcaeError(f"a worker on the cluster died before it could start ({str(error)[:200]})") from error
                if batch and tries < TRIES:
                    waiting.append((batch, tries + 1))
                else:
                    yield from (
                        Outcome(j.source, j.speakers, j.output, "failed", f"its worker died {TRIES} times") for j in batch
                    )
                if waiting:
                    start()
                continue
            if isinstance(answer, VcaeError):
                raise answer
            yield from answer or []
            if waiting:
                batch, tries = waiting.popleft()
                busy[worker.work.remote(batch)] = (worker, batch, tries)
            else:
                ray.kill(worker)
    finally:
        for worker, _, _ in busy.values():
            ray.kill(worker)
        if address is None:
            ray.shutdown()
