"""The command line as users meet it: real processes, real files."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from tests.forked import python
from vcae.audio.io import read_comment
from vcae.model_file import find


def vcae(*args, cwd=None, stdin=None):
    return subprocess.run([*python(), "-m", "vcae", *map(str, args)], cwd=cwd, input=stdin, capture_output=True)


def test_convert_writes_a_tagged_file_and_says_so(tmp_path, clips):
    out = tmp_path / "new" / "folder" / "out.wav"
    done = vcae("convert", clips["source"], "--speaker", clips["reference"], "-s", clips["reference2"], "-o", out, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["output"] == str(out)
    assert said["device"] in ("cpu", "cuda:0", "cuda", "mps")
    wav, rate = soundfile.read(out)
    assert rate == 16000
    assert abs(len(wav) / rate - soundfile.info(clips["source"]).duration) <= 256 / 16000
    assert np.abs(wav).max() > 0.01
    comment = read_comment(out)
    assert comment.startswith("converted by vcae 0.")
    assert said["sha256"][:16] in comment
    assert [p.name for p in out.parent.iterdir()] == ["out.wav"]
    assert not done.stderr


def test_pipes_carry_sound_and_nothing_else(clips):
    done = vcae("convert", "-", "--speaker", clips["reference"], stdin=clips["source"].read_bytes())
    assert done.returncode == 0, done.stderr
    wav, rate = soundfile.read(io.BytesIO(done.stdout))
    assert (rate, len(wav)) == (16000, soundfile.info(clips["source"]).frames)
    assert b"wrote -" in done.stderr


def test_default_name_force_and_quiet(tmp_path, clips):
    args = ("convert", clips["source"], "-s", clips["reference"], "--pitch", "3", "--quiet")
    assert vcae(*args, cwd=tmp_path).returncode == 0
    out = tmp_path / "source.converted.wav"
    before = out.read_bytes()
    again = vcae(*args, cwd=tmp_path)
    assert again.returncode == 2
    assert b"exists; add --force" in again.stderr
    assert out.read_bytes() == before
    forced = vcae(*args, "--force", cwd=tmp_path)
    assert (forced.returncode, forced.stdout, forced.stderr) == (0, b"", b"")
    assert out.read_bytes() == before


def test_an_input_is_never_replaced(tmp_path, clips):
    for name in ("source", "reference"):
        (tmp_path / f"{name}.flac").write_bytes(clips[name].read_bytes())
    for name in ("source", "reference"):
        done = vcae("convert", "source.flac", "-s", "reference.flac", "-o", tmp_path / f"{name}.flac", "--force", cwd=tmp_path)
        assert done.returncode == 2
        assert b"is an input too" in done.stderr
        assert (tmp_path / f"{name}.flac").read_bytes() == clips[name].read_bytes()


@pytest.mark.parametrize("command", ["reconstruct", "vocode"])
def test_copies(tmp_path, clips, command):
    out = tmp_path / "copy.flac"
    done = vcae(command, clips["source"], "-o", out)
    assert done.returncode == 0, done.stderr
    assert soundfile.info(out).frames == soundfile.info(clips["source"]).frames
    assert read_comment(out).startswith(f"{command}".rstrip("e"))


def test_info(clips, tiny_checkpoint, tmp_path):
    (tmp_path / "denoiser").mkdir()
    beside_a_folder = json.loads(vcae("info", "denoiser", "--json", cwd=tmp_path).stdout)
    assert beside_a_folder["parameters"] == {"all": 681858}
    sound = json.loads(vcae("info", clips["source"], "--json").stdout)
    assert sound["sample_rate_hz"] == 16000
    assert 80 < sound["median_f0_hz"] < 150
    shipped = json.loads(vcae("info", "default", "--json").stdout)
    assert shipped["parameters"]["autoencoder"] > 5e6
    assert shipped["info"]["license"]
    assert b"a test" in vcae("info", tiny_checkpoint).stdout


def test_converting_does_not_need_torchaudio(tmp_path, clips):
    """A torchaudio whose import fails must not stop a conversion; librosa is too slow to import for nothing."""
    code = (
        "import sys; sys.modules['torchaudio'] = None; sys.modules['librosa'] = None; from vcae.cli.app import main;"
        f"sys.argv = ['vcae', 'convert', {str(clips['source'])!r}, '-s', {str(clips['reference'])!r}, '-o', 'a.wav']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.wav").exists()


def _wav(path, samples, rate=16000, subtype="FLOAT"):
    soundfile.write(path, samples, rate, format="WAV", subtype=subtype)


def _noise(n):
    return np.random.default_rng(0).standard_normal(n) * 0.1


CASES = {
    "missing file": (lambda d: {"source": d / "no.wav"}, "no.wav does not exist"),
    "folder": (lambda d: {"source": d}, "is a folder"),
    "empty file": (lambda d: {"source": _made(d, lambda p: p.write_bytes(b""))}, "0 bytes"),
    "zero samples": (lambda d: {"source": _made(d, lambda p: _wav(p, np.zeros(0)))}, "0 samples"),
    "text": (lambda d: {"source": _made(d, lambda p: p.write_text("not sound"))}, "not a sound file"),
    "nan": (lambda d: {"source": _made(d, lambda p: _wav(p, np.full(16000, np.nan)))}, "16000 samples that are NaN"),
    "inf": (lambda d: {"reference": _made(d, lambda p: _wav(p, np.full(16000, np.inf)))}, "NaN or infinite"),
    "silent source": (lambda d: {"source": _made(d, lambda p: _wav(p, np.zeros(16000)))}, "is silent"),
    "silent reference": (lambda d: {"reference": _made(d, lambda p: _wav(p, np.zeros(32000)))}, "is silent"),
    "short reference": (lambda d: {"reference": _made(d, lambda p: _wav(p, _noise(15000)))}, "0.0 s of speech found in"),
    "short source": (lambda d: {"source": _made(d, lambda p: _wav(p, _noise(7000)))}, "0.44 s long; at least 0.5 s"),
    "low rate": (lambda d: {"source": _made(d, lambda p: _wav(p, _noise(7000), 4000))}, "4000 Hz; allowed are 8000"),
    "unwritable output": (lambda d: {"out": _made(d, lambda p: p.write_text("x")) / "below.wav"}, "not a writable folder"),
    "unknown suffix": (lambda d: {"out": d / "out.docx"}, "suffix '.docx'; allowed are .wav"),
    "pickle": (lambda d: {"checkpoint": d / "model.pth"}, "is a pickle"),
    "unknown checkpoint": (lambda d: {"checkpoint": "nonesuch"}, "no checkpoint is called 'nonesuch'"),
    "corrupted checkpoint": (lambda d: {"checkpoint": _damaged(d, lambda b: b[:100] + b"\xff" * 64 + b[164:])}, "damaged"),
    "truncated checkpoint": (lambda d: {"checkpoint": _damaged(d, lambda b: b[: len(b) // 2])}, "damaged"),
    "other format": (lambda d: {"checkpoint": _damaged(d, _other_format)}, "format 7; this version reads format 1"),
    "bad pitch": (lambda d: {"pitch": "loud"}, "pitch is 'loud'; allowed are auto, keep"),
}


def _made(folder, make):
    make(folder / "made.wav")
    return folder / "made.wav"


def _damaged(folder, change):
    path = folder / "model.safetensors"
    path.write_bytes(change(find("default").read_bytes()))
    return path


def _other_format(data):
    length = int.from_bytes(data[:8], "little")
    head = data[8 : 8 + length].replace(b'\\"format\\": 1', b'\\"format\\": 7')
    return data[:8] + head + data[8 + length :]


@pytest.mark.parametrize("case", CASES)
def test_a_users_mistake_is_one_line_and_exit_code_2(tmp_path, clips, case):
    make, message = CASES[case]
    inputs, outputs = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    outputs.mkdir()
    given = {"source": clips["source"], "reference": clips["reference"], "out": outputs / "out.wav"} | make(inputs)
    args = ["convert", given["source"], "--speaker", given["reference"], "-o", given["out"]]
    args += [x for key in ("checkpoint", "pitch") if key in given for x in (f"--{key}", given[key])]
    done = vcae(*args)
    lines = done.stderr.decode().strip().split("\n")
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not done.stdout
    assert not list(outputs.iterdir())


def test_truncated_flac(tmp_path, clips):
    data = clips["source"].read_bytes()
    for share in (0.001, 0.4):
        (tmp_path / "t.flac").write_bytes(data[: int(len(data) * share)])
        done = vcae("convert", tmp_path / "t.flac", "-s", clips["reference"], "-o", tmp_path / "o.wav")
        assert done.returncode == (2 if share == 0.001 else 0), share
        assert done.stderr.count(b"\n") == 1
        assert (tmp_path / "o.wav").exists() == (share == 0.4)
    assert b"warning: " in done.stderr
    assert b"t.flac is cut off or damaged: " in done.stderr
    assert 0.25 < soundfile.info(tmp_path / "o.wav").duration / 6.69 < 0.55


def test_noise_without_a_voiced_frame(tmp_path, clips):
    """A source without pitch is converted; a reference without speech is refused."""
    _wav(tmp_path / "noise.wav", _noise(32000))
    done = vcae("convert", "noise.wav", "-s", clips["reference"], "-o", "0.wav", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["source_f0_hz"] is None
    assert np.isfinite(soundfile.read(tmp_path / "0.wav")[0]).all()
    for source in (clips["source"], "noise.wav"):
        refused = vcae("convert", source, "-s", "noise.wav", "-o", "1.wav", "--json", cwd=tmp_path)
        assert (refused.returncode, refused.stdout) == (2, b"")
        assert b"0.0 s of speech found in noise.wav" in refused.stderr
    spoken = vcae("convert", "noise.wav", "-s", clips["reference"], cwd=tmp_path).stdout
    assert b"no voiced sound in the source" in spoken


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path, clips):
    tmp_path.chmod(0o500)
    done = vcae("convert", clips["source"], "-s", clips["reference"], "-o", tmp_path / "o.wav")
    tmp_path.chmod(0o700)
    assert done.returncode == 2
    assert b"not a writable folder" in done.stderr


def test_usage_errors_are_exit_code_2(clips):
    assert vcae("convert", clips["source"]).returncode == 2
    assert vcae("convert", clips["source"], "-s", clips["reference"], "--device", "tpu").returncode == 2
    assert vcae("nonesuch").returncode == 2


@pytest.mark.parametrize("rate", [8000, 22050, 48000, 192000])
def test_any_rate(tmp_path, clips, speech, rate):
    from vcae.audio.io import resample

    _wav(tmp_path / "s.wav", np.stack([resample(speech[:24000], 16000, rate)] * 2, axis=1), rate, "PCM_24")
    done = vcae("convert", tmp_path / "s.wav", "-s", clips["reference"], "-o", tmp_path / "o.mp3")
    assert done.returncode == 0, done.stderr
    info = soundfile.info(tmp_path / "o.mp3")
    assert info.duration == pytest.approx(1.5, abs=0.1)
    # An mp3 has at most 48 kHz.
    assert info.samplerate == min(max(rate, 16000), 48000)
