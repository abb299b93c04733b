"""Folders on a Ray cluster of two workers on this machine."""

import json
import os
import signal
import subprocess
import sys
from functools import partial

import pytest
import soundfile

from tests.conftest import CLIPS
from tests.forked import python
from vcae.batch.jobs import Job
from vcae.batch.ray_pool import MAX_BATCH, make_batches, run_jobs_on_ray
from vcae.batch.workers import Converter
from vcae.errors import ConfigError
from vcae.options import ConvertOptions

REFERENCE = str(CLIPS / "reference.flac")


@pytest.fixture
def folder(tmp_path, speech):
    root = tmp_path / "in"
    root.mkdir()
    for n in range(24):
        soundfile.write(root / f"{n:02d}.wav", speech[n * 1500 : n * 1500 + 8200 + 100 * n], 16000)
    return root


def _vcae(*args):
    return subprocess.run([*python(), "-m", "vcae", "convert", *map(str, args)], capture_output=True, text=True)


def test_batches_are_alike(tmp_path):
    for n, size in enumerate((5 << 20, 3 << 20, 1 << 20, *[10] * 40)):
        with open(tmp_path / str(n), "wb") as out:
            out.truncate(size)
    jobs = [Job(str(tmp_path / str(n)), (), "") for n in range(43)]
    batches = make_batches(jobs)
    assert [job for batch in batches for job in batch] == jobs
    assert [len(batch) for batch in batches][:2] == [1, 2]
    assert max(map(len, batches)) == MAX_BATCH


def test_ray_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'vcae\[ray\]'"):
        next(run_jobs_on_ray([Job("a", ("b",), "c")], partial(Converter, ConvertOptions()), 1))


@pytest.mark.slow
def test_a_cluster_gives_the_same_bytes(folder, tmp_path):
    pytest.importorskip("ray")
    said = {}
    for engine in ("local", "ray"):
        done = _vcae(folder, "-s", REFERENCE, "--out-dir", tmp_path / engine, "--jobs", 2, "--engine", engine, "--json")
        assert done.returncode == 0, done.stderr
        said[engine] = json.loads(done.stdout)
        assert said[engine]["converted"] == 24
    for n in range(24):
        assert (tmp_path / "local" / f"{n:02d}.wav").read_bytes() == (tmp_path / "ray" / f"{n:02d}.wav").read_bytes()
    refused = _vcae(folder, "-s", REFERENCE, "--out-dir", tmp_path / "x", "--engine", "ray", "--pitch", "loud")
    assert refused.returncode == 2
    assert "pitch is 'loud'" in refused.stderr


def _our_workers():
    """The numbers of worker processes that this process is an ancestor of."""
    parents, workers = {}, []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as stat, open(f"/proc/{entry}/cmdline") as command:
                parents[int(entry)] = int(stat.read().rsplit(")", 1)[1].split()[1])
                workers += [int(entry)] if command.read().startswith("ray::RayWorker") else []
        except OSError:
            continue

    def ours(pid):
        return pid == os.getpid() or (pid in parents and ours(parents[pid]))

    return [pid for pid in workers if ours(pid)]


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="finds the worker in /proc")
def test_a_killed_worker_loses_nothing(folder, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr("vcae.batch.ray_pool.MAX_BATCH", 3)
    jobs = [Job(str(path), (REFERENCE,), str(tmp_path / "out" / path.name)) for path in sorted(folder.iterdir())]
    outcomes, killed = [], []
    for outcome in run_jobs_on_ray(jobs, partial(Converter, ConvertOptions()), 2):
        outcomes.append(outcome)
        if not killed:
            killed = _our_workers()[:1]
            os.kill(killed[0], signal.SIGKILL)
    assert killed
    assert not ray.is_initialized()
    assert sorted(outcome.output for outcome in outcomes) == [job.output for job in jobs]
    assert {outcome.status for outcome in outcomes} == {"converted"}
    assert all(soundfile.info(job.output).frames for job in jobs)
