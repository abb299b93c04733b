"""The start of the command, from nothing: what it imports, and how long that takes."""

import subprocess
import sys
import time


def vcae(*args):
    return subprocess.run([sys.executable, "-m", "vcae", *args], capture_output=True)


def test_help_and_version_answer_at_once():
    """Best of three, so that a busy machine does not decide."""
    best = 9.0
    for _ in range(3):
        start = time.perf_counter()
        done = vcae("--help")
        best = min(best, time.perf_counter() - start)
        assert done.returncode == 0
    assert b"convert" in done.stdout
    assert best < 0.5
    assert vcae("--version").stdout.startswith(b"vcae 0.")
    code = "import sys, vcae.cli.app; sys.exit(any(m in sys.modules for m in ('torch', 'torchaudio', 'librosa', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
