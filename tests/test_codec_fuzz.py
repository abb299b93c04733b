"""Mutated files through the whole decoder: sound or a BitstreamError, nothing else. `benchmarks/fuzz_codec.py` does ten thousand."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT
from tests.mutations import KINDS, mutate, put_together, take_apart
from vcae.audio.io import Sound
from vcae.codec.bitstream import Header
from vcae.codec.codec import Codec
from vcae.errors import BitstreamError


@pytest.fixture(scope="module")
def codec():
    return Codec(device="cpu")


@pytest.fixture(scope="module")
def files(codec, speech):
    """Of two or three blocks each, and one block."""
    pieces = [(speech[-72000:], 0.6), (speech[-72000:], 1.5), (speech[-72000:], 6.0), (speech[20000:40000], 1.5)]
    return [codec.compress(Sound(wav, 16000), kbps) for wav, kbps in pieces]


def _decode(codec, data):
    """Return what is decoded after looking at it, or None if it was refused; any other exception is a failure."""
    try:
        done = codec.decompress(data)
    except BitstreamError:
        return None
    wav = done.sound.wav
    assert wav.dtype == np.float32
    assert 0 < len(wav) <= done.header.n_samples
    assert len(wav) == done.header.n_samples or done.damage
    assert np.isfinite(wav).all()
    assert np.abs(wav).max() <= 1
    for damage in done.damage:
        assert 0 <= damage.start_s <= damage.stop_s <= done.header.duration_s
        assert 0 < damage.offset <= len(data)
    return done


@settings(deadline=None, max_examples=33, derandomize=True)
@given(seed=st.integers(0, 10**6))
def test_mutated_files_give_sound_or_are_refused(codec, files, seed):
    _, data = mutate(seed, files)
    done = _decode(codec, data)
    if done is not None and done.damage:
        with pytest.raises(BitstreamError):
            codec.decompress(data, strict=True)


@pytest.mark.parametrize("kind", range(len(KINDS)), ids=lambda k: KINDS[k].__name__)
def test_each_kind_of_mutation(codec, files, kind):
    for turn in range(2):
        _decode(codec, mutate(kind + 11 * turn, files)[1])


@settings(deadline=None, max_examples=15, derandomize=True)
@given(data=st.data())
def test_any_payload_with_a_right_checksum_is_decoded_or_refused(codec, files, data):
    header, payloads = take_apart(files[data.draw(st.integers(0, len(files) - 1))])
    at = data.draw(st.integers(0, len(payloads) - 1))
    payloads[at] = data.draw(st.binary(max_size=300))
    _decode(codec, put_together(header, payloads))


@pytest.mark.parametrize("n_samples", [1, 512, 3999, 4000, 1 << 34])
def test_lengths_that_are_claimed_with_right_checksums(codec, files, n_samples):
    """A file that claims 12 days and holds some seconds gives these seconds."""
    header, payloads = take_apart(files[1])
    changed = Header(header.checkpoint, n_samples, header.quality, header.block_steps, header.level, header.f0, header.speaker)
    done = _decode(codec, put_together(changed, payloads[: changed.n_blocks]))
    assert (done is None) == (n_samples < 4000)
    if n_samples == 1 << 34:
        assert done.damage[-1].stop_s == n_samples / 16000
        assert len(done.sound.wav) <= (len(payloads) + 1) * header.block_samples


def test_damage_costs_its_block_and_no_other(codec, files):
    """What lies a block and a window away from a lost block is as it was."""
    header, payloads = take_apart(files[2])
    assert len(payloads) == 3
    right = codec.decompress(files[2]).sound.wav
    changed = bytearray(files[2])
    changed[len(files[2]) - len(payloads[2]) // 2] ^= 4
    done = _decode(codec, bytes(changed))
    assert [(d.start_s, d.stop_s) for d in done.damage] == [header.span(2)]
    safe = header.block_samples
    np.testing.assert_allclose(done.sound.wav[:safe], right[:safe], atol=1e-4)
    # It is the last one: the sound ends where it began.
    assert len(done.sound.wav) == 2 * header.block_samples


def test_the_long_fuzzer_finds_nothing_in_a_few():
    # A process of its own: its workers hand over objects of its main module.
    command = [sys.executable, "benchmarks/fuzz_codec.py", "--files", "11"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "11 files in " in done.stdout
    assert ": 0 crashes, 0 hangs, 0 over 5 s, 0 over 1000 MB" in done.stdout
