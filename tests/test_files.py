"""The one writer: whole or not at all, whoever writes."""

import os
import stat
import time

import pytest
import torch

from vcae import AudioError, CheckpointError, DataError, Sound, files, write_sound
from vcae.audio.io import read_sound
from vcae.checkpoint import write_tensors
from vcae.files import check_target, hash_file, remove_leftovers, replacing, write_file

TONE = torch.sin(torch.arange(16000) / 8).numpy()
WRITERS = {
    "text": lambda path: write_file(path, "units\udce9\n"),
    "bytes": lambda path: write_file(path, b"\x00\x01"),
    "sound": lambda path: write_sound(path, Sound(TONE, 16000), "a tone", force=True),
    "tensors": lambda path: write_tensors(path, {"x": torch.arange(3)}, {"a": "b"}),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_writer_replaces_and_leaves_nothing_beside(tmp_path, kind):
    path = tmp_path / "new" / "out.wav"
    WRITERS[kind](path)
    first = path.read_bytes()
    path.write_bytes(b"old")
    WRITERS[kind](path)
    assert path.read_bytes() == first
    assert os.listdir(path.parent) == ["out.wav"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("kind", WRITERS)
def test_every_writer_keeps_the_old_file_when_it_fails(tmp_path, kind, monkeypatch):
    path = tmp_path / "out.wav"
    path.write_bytes(b"old")

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    wanted = {"sound": AudioError, "tensors": CheckpointError}.get(kind, DataError)
    with pytest.raises(wanted, match=r"out\.wav could not be written \(No space left on device\); choose another place"):
        WRITERS[kind](path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.wav"]


def test_what_a_killed_writer_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path):
    dead = tmp_path / ".vcae-999999999-half.part"
    dead.write_bytes(b"half")
    with replacing(tmp_path / "out.bin") as temporary:
        remove_leftovers(tmp_path)
        assert not dead.exists()
        temporary.write_bytes(b"whole")
    assert (tmp_path / "out.bin").read_bytes() == b"whole"


def test_where_processes_cannot_be_asked_only_old_leftovers_are_swept(tmp_path, monkeypatch):
    """On Windows signal 0 is Ctrl-C, which must not be sent to anybody."""
    monkeypatch.setattr(files, "CAN_PROBE", False)
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a signal was sent"))
    old, new = tmp_path / ".vcae-1-old.part", tmp_path / ".vcae-1-new.part"
    for file in (old, new):
        file.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * files.STALE_S,) * 2)
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == [new.name]


def test_a_file_is_flushed_through_a_descriptor_that_can_write(tmp_path, monkeypatch):
    """Windows refuses to flush another."""
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda number: flushed.append(os.write(number, b"")))
    write_file(tmp_path / "out.txt", "text")
    assert flushed == [0]
    assert (tmp_path / "out.txt").read_text() == "text"


def test_an_interruption_is_not_an_error_of_writing(tmp_path):
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "out.bin"):
        raise KeyboardInterrupt
    assert not os.listdir(tmp_path)


def test_targets_are_refused_before_any_work(tmp_path):
    (tmp_path / "there.txt").write_text("x")
    check_target("-")
    check_target(tmp_path / "new" / "x.TXT", suffixes=(".txt",))
    check_target(tmp_path / "there.txt", force=True)
    with pytest.raises(DataError, match="exists; add `force=True`"):
        check_target(tmp_path / "there.txt")
    with pytest.raises(CheckpointError, match=r"has the suffix '\.pt'; allowed is \.safetensors"):
        check_target(tmp_path / "x.pt", suffixes=(".safetensors",), refuse=CheckpointError)
    with pytest.raises(DataError, match="is a folder; give a file name"):
        check_target(tmp_path)
    with pytest.raises(DataError, match=r"there\.txt is not a writable folder"):
        check_target(tmp_path / "there.txt" / "below.txt")


def test_hash_is_sha256_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    # Source: FIPS 180-2, appendix B.1.
    assert hash_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_written_sound_is_read_again(tmp_path):
    WRITERS["sound"](tmp_path / "tone.wav")
    assert abs(read_sound(tmp_path / "tone.wav").wav - TONE).max() < 1e-3
