"""A process that has used a model forks, as `multiprocessing` does by default on Linux up to Python 3.13, and the child uses it too."""

import os
import subprocess
import sys

import pytest

from tests.conftest import CLIPS, ROOT

PARENT = """
import multiprocessing, os, sys
import numpy as np
import torch
import vcae

model = vcae.load(device="cpu")
# Threads are what a child lacks, however few cores the test has.
torch.set_num_threads(2)
source, voice = vcae.read_sound(sys.argv[1]), model.voice(sys.argv[2])
detector = vcae.Detector.fit([np.random.default_rng(n).normal(0, 0.1, 32000) for n in range(6)], 16000)
sound, score = model.convert(source, reference=voice).wav, detector.score(source).score

def child(_=None):
    assert torch.get_num_threads() == 1
    return float(np.abs(model.convert(source, reference=voice).wav - sound).max()), abs(detector.score(source).score - score)

with multiprocessing.get_context("fork").Pool(1) as pool:
    print(*pool.map(child, [None])[0])
number = os.fork()
if not number:
    print(*child())
    # An orderly end, which closes what the parent had opened.
    sys.exit(0)
assert os.waitpid(number, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_works_as_its_parent_does():
    words = [sys.executable, "-u", "-c", PARENT, CLIPS / "source.flac", CLIPS / "reference.flac"]
    done = subprocess.run([*map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    differences = [*map(float, done.stdout.split())]
    assert len(differences) == 4
    # One thread sums in another order than two.
    assert max(differences) < 1e-3
