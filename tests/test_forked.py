"""What `python()` starts behaves as what `sys.executable` starts, so that tests may use it instead."""

import os
import subprocess
import sys

import pytest

from tests.forked import python

SCRIPT = """
import os, sys
print(sys.argv[1:], os.getcwd(), os.environ["GIVEN"], __name__, sys.path[0], sys.stdin.read(), "vcae" in sys.modules)
sys.stderr.write("told")
if sys.argv[1] == "raise":
    raise ValueError("raised")
if sys.argv[1] == "kill":
    sys.stdout.flush()
    os.kill(os.getpid(), 9)
sys.exit({"text": "a text", "none": None}.get(sys.argv[1], 3))
"""


def _started(words, **how):
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"GIVEN": "a\u00e9"}, **how)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("end", ["raise", "kill", "text", "none", "number"])
def test_a_script(tmp_path, end):
    (tmp_path / "script.py").write_text(SCRIPT)
    words = [str(tmp_path / "script.py"), end, "--x", "\u00fc"]
    (code, out, err), wanted = (_started([*how, *words], cwd=tmp_path, input="in\n") for how in (python(), [sys.executable]))
    assert (code, out) == wanted[:2]
    assert err.startswith("told")
    assert err.splitlines()[-1] == wanted[2].splitlines()[-1]


def test_a_module():
    words = ["-m", "vcae", "--version"]
    assert _started([*python(), *words]) == _started([sys.executable, *words])


def test_each_is_a_process_of_its_own(tmp_path):
    (tmp_path / "script.py").write_text("import builtins, os; print(os.getpid(), hasattr(builtins, 'left')); builtins.left = 1")
    said = [_started([*python(), str(tmp_path / "script.py")])[1].split() for _ in range(2)]
    assert said[0][0] != said[1][0]
    assert [left for _, left in said] == ["False", "False"]
