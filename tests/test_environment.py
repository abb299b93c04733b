import os
import shutil
import subprocess
import sys

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
