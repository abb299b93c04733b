"""Hostile input to the whole command line: each case a right result, or one clear line and exit code 2."""

import io
import json
import os
import resource
import struct
import subprocess
import sys
import traceback

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from tests.conftest import CLIPS
from vcae.audio.io import SoundReader, read_sound, resample
from vcae.cli.app import app
from vcae.errors import AudioError

REFERENCE = str(CLIPS / "reference.flac")
SECONDS = 0.8


@pytest.fixture(scope="module")
def said(speech):
    return speech[24000 : 24000 + round(SECONDS * 16000)]


def invoke(*args, stdin=None):
    """Run the command line in this process; an exception that a user would see as a traceback fails the test."""
    done = CliRunner().invoke(app, [str(arg) for arg in args], input=stdin)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        traceback.print_exception(done.exception)
        pytest.fail(f"a traceback: {done.exception!r}")
    return done


def convert(source, out, *more, stdin=None):
    return invoke("convert", source, "-s", REFERENCE, "-o", out, "-q", *more, stdin=stdin)


def refused(done, message):
    assert done.exit_code == 2, done.output
    lines = done.stderr.strip().split("\n")
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert message in lines[0]


@pytest.fixture(scope="module")
def right(said, tmp_path_factory):
    """What the clean recording gives."""
    folder = tmp_path_factory.mktemp("right")
    soundfile.write(folder / "a.wav", said, 16000, subtype="FLOAT")
    assert convert(folder / "a.wav", folder / "b.wav").exit_code == 0
    return soundfile.read(folder / "b.wav")[0]


def _likeness(a, b):
    """Correlation of the two sounds' energy over time, in frames of 16 ms."""
    n = min(len(a), len(b)) // 256 * 256
    power = [np.log(np.square(x[:n]).reshape(-1, 256).mean(axis=1) + 1e-7) for x in (a, b)]
    return np.corrcoef(*power)[0, 1]


def _same(path, right, rate=16000):
    wav, own = soundfile.read(path)
    assert own == rate
    wav = resample(wav if wav.ndim == 1 else wav.mean(axis=1), rate, 16000)
    assert abs(len(wav) - len(right)) <= 1
    assert np.isfinite(wav).all()
    assert _likeness(wav, right) > 0.9
    return wav


@pytest.mark.parametrize(
    ("kind", "subtype", "near"),
    [
        ("WAV", "PCM_U8", None),
        ("WAV", "PCM_16", 0.02),
        ("WAV", "PCM_24", 0.001),
        ("WAV", "PCM_32", 0.001),
        ("WAV", "FLOAT", 0.0001),
        ("WAV", "DOUBLE", 0.0001),
        ("WAV", "ULAW", None),
        ("WAV", "ALAW", None),
        ("WAV", "IMA_ADPCM", None),
        ("WAVEX", "PCM_24", 0.001),
        ("RF64", "PCM_16", 0.02),
        ("W64", "FLOAT", 0.0001),
        ("AIFF", "PCM_S8", None),
        ("AU", "ULAW", None),
        ("CAF", "ALAC_16", 0.02),
        ("FLAC", "PCM_24", 0.001),
    ],
)
def test_every_sample_format(tmp_path, said, right, kind, subtype, near):
    soundfile.write(tmp_path / "in.bin", said, 16000, format=kind, subtype=subtype)
    assert convert(tmp_path / "in.bin", tmp_path / "out.wav").exit_code == 0
    wav = (
        _same(tmp_path / "out.wav", right[: len(right)]) if subtype != "IMA_ADPCM" else soundfile.read(tmp_path / "out.wav")[0]
    )
    if near is not None:
        assert np.abs(wav - right).max() < near


@pytest.mark.parametrize("channels", range(1, 9))
def test_every_number_of_channels(tmp_path, said, right, channels):
    soundfile.write(tmp_path / "in.wav", np.repeat(said[:, None], channels, axis=1), 16000, subtype="FLOAT")
    assert convert(tmp_path / "in.wav", tmp_path / "out.wav").exit_code == 0
    assert soundfile.info(tmp_path / "out.wav").channels == channels
    assert np.abs(_same(tmp_path / "out.wav", right) - right).max() < 1e-3


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 32000, 44100, 48000, 88200, 96000, 192000])
def test_every_rate(tmp_path, said, right, rate):
    soundfile.write(tmp_path / "in.wav", resample(said, 16000, rate), rate, subtype="FLOAT")
    assert convert(tmp_path / "in.wav", tmp_path / "out.wav").exit_code == 0
    _same(tmp_path / "out.wav", right, max(rate, 16000))
    if rate >= 16000:
        assert soundfile.info(tmp_path / "out.wav").frames == soundfile.info(tmp_path / "in.wav").frames


@pytest.mark.parametrize("rate", [1, 4000, 7999, 192001, 384000, 2147483647])
def test_rates_beyond_what_is_read(tmp_path, said, rate):
    soundfile.write(tmp_path / "in.wav", said, rate)
    refused(convert(tmp_path / "in.wav", tmp_path / "out.wav"), f"sample rate of {rate} Hz; allowed are 8000 to 192000")
    assert not (tmp_path / "out.wav").exists()


SIGNALS = {
    "0.05 s": (lambda x: x[:800], "0.05 s long; at least 0.5 s"),
    "no samples": (lambda x: x[:0], "holds 0 samples"),
    "one sample": (lambda x: x[:1], "0.00 s long"),
    "silent": (lambda x: 0 * x, "is silent"),
    "nearly silent": (lambda x: 1e-5 * x, "is silent"),
    "only an offset": (lambda x: 0 * x + 0.5, "is silent"),
    "nan": (lambda x: np.where(np.arange(len(x)) == 7, np.nan, x), "holds 1 samples that are NaN"),
    "infinite": (lambda x: np.where(np.arange(len(x)) == 7, -np.inf, x), "holds 1 samples that are NaN or infinite"),
    "0.5 s": (lambda x: x[:8000], None),
    "clipped": (lambda x: np.clip(50 * x, -1, 1), None),
    "far over full scale": (lambda x: 1e4 * x, None),
    "quiet": (lambda x: 0.01 * x, None),
    "one click": (lambda x: 0.02 * x + (np.arange(len(x)) == 5000), None),
    "noise": (lambda x: np.random.default_rng(0).standard_normal(len(x)) * 0.1, None),
    "square wave": (lambda x: np.sign(np.sin(np.arange(len(x)) / 20)), None),
    "half of it silent": (lambda x: x * (np.arange(len(x)) < 6000), None),
}


@pytest.mark.parametrize("case", SIGNALS)
def test_every_signal(tmp_path, said, case):
    change, message = SIGNALS[case]
    wav = change(said)
    soundfile.write(tmp_path / "in.wav", wav, 16000, subtype="FLOAT")
    done = convert(tmp_path / "in.wav", tmp_path / "out.flac")
    if message is not None:
        refused(done, message)
        assert [p.name for p in tmp_path.iterdir()] == ["in.wav"]
        return
    assert done.exit_code == 0, done.output
    made, _ = soundfile.read(tmp_path / "out.flac")
    assert len(made) == len(wav)
    assert 1e-5 < np.abs(made).max() <= 1


def test_an_offset_changes_nothing(tmp_path, said, right):
    soundfile.write(tmp_path / "in.wav", said + np.float32(0.4), 16000, subtype="FLOAT")
    assert convert(tmp_path / "in.wav", tmp_path / "out.wav").exit_code == 0
    wav = _same(tmp_path / "out.wav", right)
    assert np.abs(wav - right).max() < 0.02


def _encoded(said, name):
    buffer = io.BytesIO()
    kinds = {"wav": ("WAV", None), "flac": ("FLAC", None), "ogg": ("OGG", None), "mp3": ("MP3", None), "aiff": ("AIFF", None)}
    soundfile.write(buffer, said, 16000, format=kinds[name][0])
    return buffer.getvalue()


def _read(path):
    try:
        return read_sound(path)
    except AudioError as error:
        return error


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_truncated_at_every_tenth_byte_of_the_header(tmp_path, said, kind, capfd):
    data, refusals = _encoded(said, kind), 0
    for size in range(0, min(len(data) - 1, 400), 10):
        path = tmp_path / f"{size}.{kind}"
        path.write_bytes(data[:size])
        found = _read(path)
        if isinstance(found, AudioError):
            refusals += 1
            assert str(path) in str(found)
        else:
            assert len(found.wav) < len(said)
            assert np.isfinite(found.wav).all()
    assert refusals >= (5 if kind == "wav" else 3)
    refused(convert(tmp_path / f"20.{kind}", tmp_path / "out.wav"), "")
    assert not (tmp_path / "out.wav").exists()
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(("kind", "suffix"), [("wav", ".mp3"), ("flac", ".wav"), ("ogg", ".txt"), ("wav", ".raw"), ("mp3", "")])
def test_a_wrong_suffix_says_nothing(tmp_path, said, right, kind, suffix):
    (tmp_path / f"in{suffix}").write_bytes(_encoded(said, kind))
    assert convert(tmp_path / f"in{suffix}", tmp_path / "out.wav").exit_code == 0
    wav, _ = soundfile.read(tmp_path / "out.wav")
    assert _likeness(wav, right) > 0.8


NO_SOUND = {
    "text.wav": b"hello",
    "zip.wav": b"PK\x03\x04" + bytes(100),
    "zeros.flac": bytes(5000),
    "ones.mp3": b"\xff" * 5000,
    "riff.wav": b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt " + bytes(28),
    "riff2.wav": b"RIFF\xff\xff\xff\xffWAVEfmt \x10\x00\x00\x00\x01\x00\xff\xff\x80\x3e\x00\x00\xff\xff\xff\xff\xff\xff\x10\x00data\xff\xff\xff\xff",
    "raw.raw": bytes(1000),
}


@pytest.mark.parametrize("name", NO_SOUND)
def test_what_is_no_sound(tmp_path, name):
    (tmp_path / name).write_bytes(NO_SOUND[name])
    refused(convert(tmp_path / name, tmp_path / "out.wav"), name)


@pytest.mark.parametrize(
    "name", ["two words.wav", "\U0001f600.wav", "a\nb.wav", "-dash.wav", "a'b\"c;$(x).wav", "x" * 250 + ".wav"]
)
def test_odd_names(tmp_path, monkeypatch, said, name):
    monkeypatch.chdir(tmp_path)
    soundfile.write(open(name, "wb"), said, 16000, format="WAV")  # noqa: SIM115
    os.mkdir("out")
    source, out = f"./{name}", f"./out/{name}"
    done = invoke("convert", source, "-s", REFERENCE, "-o", out)
    assert done.exit_code == 0, done.output
    assert soundfile.info(open(out, "rb")).frames == len(said)  # noqa: SIM115
    assert done.stdout.count("\n") == 1
    refused(invoke("convert", source, "-s", REFERENCE, "-o", out), "exists; add --force")
    refused(invoke("convert", f"{source}.no", "-s", REFERENCE), "")


def test_a_name_that_is_no_text(tmp_path, said):
    """A name in an encoding of its own, by a real process."""
    path = os.fsencode(tmp_path) + b"/\xff\xfe.wav"
    with open(path, "wb") as out:
        soundfile.write(out, said, 16000, format="WAV")
    command = [sys.executable, "-m", "vcae", "convert", path, "-s", REFERENCE, "-o", path + b".flac", "--json"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert os.path.exists(path + b".flac")


def test_links(tmp_path, said):
    soundfile.write(tmp_path / "in.wav", said, 16000)
    (tmp_path / "good.wav").symlink_to("in.wav")
    (tmp_path / "dangling.wav").symlink_to("gone.wav")
    (tmp_path / "circle.wav").symlink_to("circle.wav")
    assert convert(tmp_path / "good.wav", tmp_path / "out.wav").exit_code == 0
    refused(convert(tmp_path / "dangling.wav", tmp_path / "o.wav"), "does not exist")
    refused(convert(tmp_path / "circle.wav", tmp_path / "o.wav"), "circle.wav")
    refused(convert(tmp_path / "in.wav", tmp_path / "good.wav", "--force"), "is an input too")
    assert np.allclose(read_sound(tmp_path / "in.wav").wav, said, atol=1e-4)


def test_devices_and_pipes_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    refused(convert(tmp_path / "pipe.wav", tmp_path / "o.wav"), "not a regular file")
    refused(convert("/dev/zero", tmp_path / "o.wav"), "not a regular file")
    refused(convert("a\0b.wav", tmp_path / "o.wav"), "has a zero byte")
    refused(convert(tmp_path / ("y" * 300), tmp_path / "o.wav"), "")


def test_pipes_in(tmp_path, said, right):
    assert convert("-", tmp_path / "out.wav", stdin=_encoded(said, "wav")).exit_code == 0
    _same(tmp_path / "out.wav", right)
    refused(convert("-", tmp_path / "o.wav", stdin=b""), "standard input is empty")
    refused(convert("-", tmp_path / "o.wav", stdin=b"no sound" * 100), "standard input is not a sound file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(tmp_path, said):
    soundfile.write(tmp_path / "in.wav", said, 16000)
    (tmp_path / "in.wav").chmod(0)
    refused(convert(tmp_path / "in.wav", tmp_path / "o.wav"), "check its permissions")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder that even root cannot write to")
def test_a_folder_that_cannot_be_written_to(tmp_path, said):
    soundfile.write(tmp_path / "in.wav", said, 16000)
    refused(convert(tmp_path / "in.wav", "/proc/self/out.wav"), "/proc/self/out.wav")
    refused(invoke("convert", tmp_path, "-s", REFERENCE, "--out-dir", "/proc/self/out"), "choose another --out-dir")


@pytest.mark.parametrize("command", ["reconstruct", "vocode", "units", "info"])
@pytest.mark.parametrize("case", ["text.wav", "riff2.wav", "silent", "nan"])
def test_other_commands(tmp_path, said, command, case):
    path = tmp_path / "in.wav"
    if case in NO_SOUND:
        path.write_bytes(NO_SOUND[case])
    else:
        soundfile.write(path, SIGNALS[case][0](said), 16000, subtype="FLOAT")
    done = invoke(
        command, path, *([] if command == "info" else ["-o", tmp_path / ("o.txt" if command == "units" else "o.wav")])
    )
    if command == "info" and case == "silent":
        assert done.exit_code == 0
    else:
        refused(done, "in.wav")
    assert [p.name for p in tmp_path.iterdir()] == ["in.wav"]


def _process(args, before=None, **how):
    return subprocess.run(
        [sys.executable, "-m", "vcae", *map(str, args)], preexec_fn=before, stderr=subprocess.PIPE, text=True, **how
    )


def _one_line(done, message):
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr


def test_a_full_disk(tmp_path, clips):
    """A limit on the size of files does what a full disk does: a write fails in the middle."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))

    for suffix in ("wav", "flac"):
        args = ("convert", clips["source"], "-s", REFERENCE, "-o", tmp_path / f"o.{suffix}")
        done = _process(args, limit, stdout=subprocess.DEVNULL)
        _one_line(done, "could not be written (File too large)")
        assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_standard_output(tmp_path, said):
    soundfile.write(tmp_path / "in.wav", said, 16000)
    for out in ("-", tmp_path / "out.wav"):
        with open("/dev/full", "w") as full:
            done = _process(("convert", tmp_path / "in.wav", "-s", REFERENCE, "-o", out), stdout=full)
        _one_line(done, "standard output could not be written (No space left on device)")
    assert soundfile.info(tmp_path / "out.wav").frames == len(said)


def test_a_closed_standard_output(tmp_path, said):
    soundfile.write(tmp_path / "in.wav", said, 16000)
    args = ("convert", tmp_path / "in.wav", "-s", REFERENCE)
    done = _process((*args, "-o", "-"), lambda: os.close(1))
    _one_line(done, "standard output could not be written")
    silent = _process((*args, "-o", tmp_path / "out.wav", "-q"), lambda: (os.close(0), os.close(1)))
    assert (silent.returncode, silent.stderr) == (0, "")
    assert soundfile.info(tmp_path / "out.wav").frames == len(said)
    reading, writing = os.pipe()
    os.close(reading)
    done = _process((*args, "-o", "-"), stdout=writing)
    os.close(writing)
    _one_line(done, "closed by its reader")
    assert _process(("--version",), lambda: os.close(1)).stderr.count("Traceback") == 0


def test_three_hours_of_silence_and_a_huge_claim(tmp_path):
    """Three hours are read to their end in bounded memory before they are called silent; a header may claim what it likes."""
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 8000, 1, subtype="PCM_U8") as out:
        for _ in range(3 * 60):
            out.write(np.zeros(60 * 8000))
    refused(convert(path, tmp_path / "o.wav"), "is silent")
    data = bytearray(path.read_bytes()[:20000])
    data[40:44] = b"\xf0\xff\xff\x7f"
    path.write_bytes(data)
    with SoundReader(path) as reader:
        assert sum(len(block) for block in reader.blocks()) <= 20000


def test_a_bad_line_in_json_is_none(tmp_path, said):
    soundfile.write(tmp_path / "in.wav", SIGNALS["noise"][0](said), 16000)
    done = invoke("convert", tmp_path / "in.wav", "-s", REFERENCE, "-o", tmp_path / "o.wav", "--json")
    assert json.loads(done.stdout)["source_f0_hz"] is None
