import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import CLIPS

CONVERT = [sys.executable, "-m", "vcae", "convert", str(CLIPS / "source.flac"), "--speaker", str(CLIPS / "reference.flac")]


@pytest.fixture
def fresh(tmp_path):
    """A home and a temporary folder that nothing was written to yet, and an environment that knows no others."""
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    return home, temporary, kept | {"HOME": str(home), "TMPDIR": str(temporary)}


def test_a_conversion_leaves_nothing_in_home_or_temporary_folder(fresh, tmp_path):
    home, temporary, environment = fresh
    subprocess.run([*CONVERT, "-o", str(tmp_path / "out.wav")], env=environment, check=True, capture_output=True)
    assert (tmp_path / "out.wav").stat().st_size > 100_000
    assert list(home.rglob("*")) == []
    assert list(temporary.rglob("*")) == []


def test_units_and_denoising_leave_nothing_either(fresh, tmp_path):
    home, temporary, environment = fresh
    source = str(CLIPS / "noisy.flac")
    for command in (["units", source, "-o", str(tmp_path / "x.jsonl")], ["denoise", source, "-o", str(tmp_path / "x.wav")]):
        subprocess.run([sys.executable, "-m", "vcae", *command], env=environment, check=True, capture_output=True)
    assert list(home.rglob("*")) == []
    assert list(temporary.rglob("*")) == []


def test_pictures_leave_nothing_either(fresh, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'vcae[demo]'")
    home, temporary, environment = fresh
    command = [sys.executable, "-m", "vcae", "plot", str(CLIPS / "noisy.flac"), "-o", str(tmp_path / "x.png")]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert (tmp_path / "x.png").stat().st_size > 10_000
    assert list(home.rglob("*")) == []
    assert list(temporary.rglob("*")) == []
    # Who has matplotlib's folders already keeps their use.
    (home / ".cache" / "matplotlib").mkdir(parents=True)
    said = "import vcae.figures.plot as p; p.need_matplotlib(); import matplotlib; print(matplotlib.get_cachedir())"
    done = subprocess.run([sys.executable, "-c", said], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(home / ".cache" / "matplotlib")


@pytest.mark.parametrize("command", ["demo", "serve"])
def test_servers_leave_nothing_and_speak_to_this_machine_alone(fresh, tmp_path, command):
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'vcae[demo]'")
    home, temporary, environment = fresh
    trace, said = tmp_path / "trace", tmp_path / "said"
    words = [sys.executable, "-m", "vcae", command, "--port", "0"]
    if shutil.which("strace"):
        words = ["strace", "-f", "-e", "trace=connect,sendto", "-o", str(trace), *words]
    with said.open("w") as out:
        run = subprocess.Popen(words, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        end = time.monotonic() + 150
        while "Ctrl-C" not in said.read_text():
            assert run.poll() is None, said.read_text()
            assert time.monotonic() < end
            time.sleep(0.2)
    finally:
        os.killpg(run.pid, signal.SIGTERM)
    assert run.wait(60) == 0, said.read_text()
    assert list(home.rglob("*")) == []
    assert list(temporary.rglob("*")) == []
    reached = [line for line in trace.read_text().splitlines() if "sa_family" in line] if trace.exists() else []
    assert [line for line in reached if "AF_UNIX" not in line and 'inet_addr("127.0.0.1")' not in line] == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_socket_is_opened_but_local_ones(fresh, tmp_path):
    trace = tmp_path / "trace"
    traced = ["strace", "-f", "-e", "trace=socket,connect", "-o", str(trace), *CONVERT, "-o", str(tmp_path / "out.wav")]
    done = subprocess.run(traced, env=fresh[2], capture_output=True, text=True)
    if done.returncode and "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    opened = [line for line in trace.read_text().splitlines() if "socket(" in line or "connect(" in line]
    assert [line for line in opened if "AF_UNIX" not in line] == []


def test_python_use_sets_them_before_torch_is_loaded(fresh):
    said = "import vcae, os, sys; assert 'torch' not in sys.modules; vcae.load; "
    said += "print(os.environ['ORT_DISABLE_TELEMETRY'], os.environ['OMP_WAIT_POLICY'])"
    done = subprocess.run([sys.executable, "-c", said], env=fresh[2], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["1", "PASSIVE"]


def test_what_the_user_set_stays(fresh):
    said = "import vcae.environment as e, os; e.prepare(); print(os.environ['OMP_WAIT_POLICY'])"
    environment = fresh[2] | {"OMP_WAIT_POLICY": "ACTIVE"}
    done = subprocess.run([sys.executable, "-c", said], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "ACTIVE"


def test_threads_stay_within_the_limits_of_control_groups(tmp_path):
    from vcae.environment import allowed_cores

    cores = len(os.sched_getaffinity(0))
    own = tmp_path / "own"
    assert allowed_cores(tmp_path, own) == cores, "without control groups the affinity decides"

    second = tmp_path / "v2"
    (second / "shop" / "cell").mkdir(parents=True)
    own.write_text("0::/shop/cell\n")
    (second / "shop" / "cell" / "cpu.max").write_text("max 100000\n")
    assert allowed_cores(second, own) == cores
    # A limit of a group around ours holds for us too; half a core is one thread.
    (second / "shop" / "cpu.max").write_text("50000 100000\n")
    assert allowed_cores(second, own) == 1
    (second / "shop" / "cpu.max").write_text("100000000 100000\n")
    assert allowed_cores(second, own) == cores

    first = tmp_path / "v1"
    (first / "cpu,cpuacct").mkdir(parents=True)
    # In a container the path is the host's, and the files are at the mount.
    own.write_text("5:memory:/x\n4:cpu,cpuacct:/docker/77\n")
    (first / "cpu,cpuacct" / "cpu.cfs_quota_us").write_text("150000\n")
    (first / "cpu,cpuacct" / "cpu.cfs_period_us").write_text("100000\n")
    assert allowed_cores(first, own) == 1
    (first / "cpu,cpuacct" / "cpu.cfs_quota_us").write_text("-1\n")
    assert allowed_cores(first, own) == cores


THREADS = """
import os, sys
import vcae.environment as environment
environment.allowed_cores.__defaults__ = (environment.Path(sys.argv[1]), environment.Path(sys.argv[1], "own"))
if sys.argv[2] == "late":
    import torch
    torch.set_num_threads(2)
environment.prepare()
from vcae.audio.mel import LogMel, MelConfig
LogMel(MelConfig())
import torch
print(torch.get_num_threads())
"""


@pytest.mark.parametrize(
    ("given", "when", "expected"), [({}, "early", 1), ({}, "late", 1), ({"OMP_NUM_THREADS": "2"}, "early", 2)]
)
def test_torch_has_no_more_threads_than_a_container_allows_unless_the_user_says_so(fresh, tmp_path, given, when, expected):
    (tmp_path / "own").write_text("0::/\n")
    (tmp_path / "cpu.max").write_text("130000 100000\n")
    words = [sys.executable, "-c", THREADS, str(tmp_path), when]
    env = {name: value for name, value in fresh[2].items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(words, env=env | given, check=True, capture_output=True, text=True)
    assert done.stdout.split() == [str(expected)]
