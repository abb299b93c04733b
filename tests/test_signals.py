"""SIGTERM (a service manager, `kill`) and SIGHUP (a closed terminal) end a command at once, and leave no incomplete file."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from tests.conftest import CLIPS, ROOT

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
REFERENCE = str(CLIPS / "reference.flac")


@pytest.fixture(scope="module")
def long(tmp_path_factory, speech):
    path = tmp_path_factory.mktemp("long") / "long.wav"
    soundfile.write(path, np.resize(speech, 16000 * 60), 16000)
    return str(path)


def _end(words, number, folder, ready, group=False):
    """Start a command, send it a signal once it is ready, and return its exit code and what it said."""
    command = [sys.executable, "-m", "vcae", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=ROOT, env=environment
    )
    end = time.monotonic() + 120
    while not ready(folder):
        assert time.monotonic() < end
        assert run.poll() is None, run.communicate()
        time.sleep(0.01)
    (os.killpg if group else os.kill)(run.pid, number)
    said = run.communicate(timeout=60)
    return run.returncode, "".join(said)


def _part(folder):
    return list(folder.glob(".vcae-*.part"))


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_conversion_leaves_no_incomplete_file(long, tmp_path, number, code):
    words = ["convert", long, "-s", REFERENCE, "-o", str(tmp_path / "out.wav")]
    assert _end(words, getattr(signal, number), tmp_path, _part) == (code, "")
    assert os.listdir(tmp_path) == []


def test_neither_does_compression(long, tmp_path):
    words, start = ["compress", long, "-o", str(tmp_path / "out.vcz")], time.monotonic()
    # Its file is written in a moment at the end, so this is in the middle of the work before.
    assert _end(words, signal.SIGTERM, tmp_path, lambda folder: time.monotonic() - start > 2.5) == (143, "")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("group", [False, True], ids=["parent", "group"])
def test_a_run_over_many_files_ends_its_workers(long, tmp_path, group):
    for name in "abc":
        os.link(long, tmp_path / f"{name}.wav")
    out = tmp_path / "out"
    words = ["convert", str(tmp_path), "-s", REFERENCE, "--out-dir", str(out), "--jobs", "2"]
    code, said = _end(words, signal.SIGHUP, out, _part, group)
    assert (code, said) == (129, "")
    assert set(os.listdir(out)) <= {"report.jsonl"}


CALLBACK = """
import io, os, signal, sys
import numpy, soundfile
from vcae.signals import exit_on_signals

class Sent(io.BytesIO):
    sent = False

    def {method}(self, *given):
        if not self.sent:
            self.sent = True
            signal.raise_signal({number})
        return super().{method}(*given)

exit_on_signals()
file = Sent()
try:
    for _ in range(500):
        file.seek(0)
        soundfile.write(file, numpy.zeros(16000), 16000, format="OGG", subtype="OPUS")
except BaseException as error:
    assert file.sent
    print(type(error).__name__, error, end="")
"""


@pytest.mark.parametrize(
    ("number", "expected"), [("SIGTERM", "SystemExit 143"), ("SIGHUP", "SystemExit 129"), ("SIGINT", "KeyboardInterrupt ")]
)
@pytest.mark.parametrize("method", ["write", "tell"])
def test_a_signal_in_a_callback_from_c_is_handled_after_it(method, number, expected):
    code = CALLBACK.format(method=method, number=int(getattr(signal, number)))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (run.returncode, run.stdout, run.stderr) == (0, expected, "")


IMPORTED = """
import abc, collections.abc, signal, sys
from vcae.signals import exit_on_signals

exit_on_signals()
sent, register = False, abc.ABCMeta.register

def register_with_signal(*given):
    global sent
    # Cython's memory views register themselves so, and go on after any exception.
    if given[0] is collections.abc.Sequence and sys._getframe(2).f_code.co_name == "exec_module" and not sent:
        sent = True
        signal.raise_signal({number})
    return register(*given)

abc.ABCMeta.register = register_with_signal
try:
    import numpy.random
    for _ in range(1000):
        numpy.random.default_rng().standard_normal(100000)
except BaseException as error:
    assert sent
    print(type(error).__name__, error, end="")
"""


@pytest.mark.parametrize(("number", "expected"), [("SIGTERM", "SystemExit 143"), ("SIGINT", "KeyboardInterrupt ")])
def test_a_signal_in_the_import_of_a_compiled_module_is_handled_after_it(number, expected):
    code = IMPORTED.format(number=int(getattr(signal, number)))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (run.returncode, run.stdout, run.stderr) == (0, expected, "")


def test_a_command_under_nohup_goes_on(tmp_path):
    said = "import signal; from vcae.signals import exit_on_signals; exit_on_signals(); "
    said += "print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, callable(signal.getsignal(signal.SIGTERM)))"
    words = ["nohup", sys.executable, "-c", said]
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT, stdin=subprocess.DEVNULL)
    assert done.stdout.split() == ["True", "True"]


@pytest.mark.parametrize("wait_s", [0.6, 2.5])
def test_a_server_that_has_just_been_started_ends_in_order(tmp_path, wait_s):
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'vcae[demo]'")
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    words = [sys.executable, "-m", "vcae", "serve", "--port", "0"]
    run = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environment)
    time.sleep(wait_s)
    run.terminate()
    said = run.communicate(timeout=60)[0]
    # Python itself may not have got as far as our first line.
    assert run.returncode in (0, 143, -signal.SIGTERM), said
    assert [line for line in said.splitlines() if not line.startswith("vcae: http")] == []
    assert os.listdir(tmp_path) == []
