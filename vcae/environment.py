"""Settings of the process that other libraries need: environment variables, threads, and computing after a fork. Imports no torch."""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

SETTINGS = {
    # onnxruntime (which runs the F0 estimator) looks up a telemetry host and writes a device id under HOME without this.
    "ORT_DISABLE_TELEMETRY": "1",
    # OpenMP threads sleep while they wait for each other. Spinning, they take the core that the thread they wait for needs: on two cores
    # with other work a conversion then takes six times as long.
    "OMP_WAIT_POLICY": "PASSIVE",
}
THREADS = "OMP_NUM_THREADS"
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
# Called in a forked child process before anything else runs there.
_after_fork: list[Callable[[], object]] = []
# The number of threads that `prepare` set; empty if it set none.
_limit = ""


def prepare() -> None:
    """Set what is not set yet. Call it before torch or onnxruntime is imported; afterwards it has no effect on them.

    The number of threads is set where a container's limit is below the number of cores, which OpenMP does not look at.
    """
    global _limit
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if allowed_cores() < cores_by_affinity() and not os.environ.get(THREADS):
        os.environ[THREADS] = _limit = str(allowed_cores())


def prepare_command() -> None:
    """Prepare a process that is all ours: as `prepare`, and keep torch's compiler, which is not used, from making a folder for its cache.

    Torch makes it when optimizers and shapes without memory are first used. An existing folder in its place gets no files.
    """
    prepare()
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", tempfile.gettempdir())


def prepare_torch() -> None:
    """Limit torch to the cores that this process may use, unless OMP_NUM_THREADS is set, and make it work in forked children."""
    import torch

    if not _threads_given() and torch.get_num_threads() > allowed_cores():
        torch.set_num_threads(allowed_cores())
    after_fork(_use_one_thread)


def use_one_thread() -> None:
    """Give torch one thread from now on, for work in short pieces, unless OMP_NUM_THREADS is set.

    The threads of a layer wait for the slowest of them. Beside other work that is often late, and alone short pieces gain little by a second.
    """
    import torch

    if not _threads_given():
        torch.set_num_threads(1)


def _threads_given() -> bool:
    """Return whether the user set the number of threads; one that `prepare` set does not count."""
    return os.environ.get(THREADS, "") not in ("", _limit)


def after_fork(function: Callable[[], object]) -> None:
    """Call a function in each child process that is forked from now on. Given again, it is still called once."""
    if not hasattr(os, "register_at_fork"):
        return
    if not _after_fork:
        os.register_at_fork(after_in_child=_run_after_fork)
    if function not in _after_fork:
        _after_fork.append(function)


def _run_after_fork() -> None:
    for function in _after_fork:
        function()


def _use_one_thread() -> None:
    """Give torch one thread: the others exist in the parent only, and it would wait for them for ever."""
    sys.modules["torch"].set_num_threads(1)


def allowed_cores(cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS) -> int:
    """Return the number of cores that this process may use: by its affinity, and by the limits of its control groups.

    Args:
        cgroups: Folder where the control groups are mounted.
        own: File that names the groups of this process.

    Source: the kernel's admin guide, cgroup-v2.rst (cpu.max) and scheduler/sched-bwc.rst (cpu.cfs_quota_us).
    """
    quota = quota_of_cores(cgroups, own)
    return max(math.floor(min(cores_by_affinity(), math.inf if quota is None else quota)), 1)


def quota_of_cores(cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS) -> float | None:
    """Return the limit of the control groups in cores, or None without one; arguments as `allowed_cores`."""
    shares = [share for folder in _cpu_groups(cgroups, own) if (share := _cpu_share(folder)) is not None]
    return min(shares, default=None)


def cores_by_affinity() -> int:
    """Return the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_groups(cgroups: Path, own: Path) -> list[Path]:
    """Return the folders that may limit the processor time of this process: its groups and the groups around them."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    folders = list[Path]()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in (cgroups / controllers, cgroups / "cpu") if controllers else (cgroups, cgroups / "unified"):
            # Inside a container the path is often that of the host, and the group's files are at the mount itself.
            inside = mount / path.strip("/")
            folders += [folder for folder in (inside, *inside.parents) if folder.is_relative_to(mount)]
    return folders


def _cpu_share(folder: Path) -> float | None:
    """Return the processor time per time that a group allows, or None without a limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = (folder / "cpu.cfs_quota_us").read_text(), (folder / "cpu.cfs_period_us").read_text()
        return None if quota == "max" or int(quota) < 0 else int(quota) / int(period)
    except (OSError, ValueError):
        return None
