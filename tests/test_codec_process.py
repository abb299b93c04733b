"""`vcae compress` and `decompress` with the shipped codec, as users run them: processes, pipes, folders."""

import io
import json
import os
import subprocess

import numpy as np
import pytest
import soundfile

from tests.conftest import CLIPS, ROOT
from tests.forked import python
from vcae.audio.io import read_comment
from vcae.codec.bitstream import Reader

SOURCE = CLIPS / "source.flac"


def vcae(*args, cwd=None, stdin=None):
    command = [*python(), "-m", "vcae", *map(str, args)]
    return subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


@pytest.fixture(scope="module")
def compressed(tmp_path_factory):
    """The bundled clip at 1.5 kbit/s, and what was said of it."""
    path = tmp_path_factory.mktemp("codec") / "talk.vcz"
    done = vcae("compress", SOURCE, "-o", path, "--json")
    assert done.returncode == 0, done.stderr
    return path, json.loads(done.stdout)


def _likeness(a, b):
    """Correlation of two sounds' energy over time, in frames of 16 ms."""
    n = min(len(a), len(b)) // 256 * 256
    power = [np.log(np.square(x[:n]).reshape(-1, 256).mean(axis=1) + 1e-6) for x in (a, b)]
    return np.corrcoef(*power)[0, 1]


def test_a_recording_there_and_back(compressed, speech, tmp_path):
    path, said = compressed
    size, seconds = path.stat().st_size, len(speech) / 16000
    assert said["bytes"] == size
    assert said["kbps"] == round(size * 8 / 1000 / seconds, 3)
    assert 1.2 < said["kbps"] <= 1.5
    known = json.loads(vcae("info", path, "--json").stdout)
    assert (known["bytes"], known["kbps"], known["damage"]) == (size, said["kbps"], [])
    assert known["checkpoint"] == said["sha256"][:8]
    done = vcae("decompress", path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    wav, rate = soundfile.read(tmp_path / "talk.decompressed.wav")
    assert (rate, len(wav)) == (16000, len(speech))
    assert _likeness(wav, speech) > 0.9
    comment = read_comment(tmp_path / "talk.decompressed.wav")
    assert comment.startswith("decompressed by vcae 0.")
    assert said["sha256"][:16] in comment


def test_another_voice_by_pipe(compressed, speech):
    path, _ = compressed
    done = vcae("decompress", "-", "--speaker", CLIPS / "reference.flac", "--json", stdin=path.read_bytes())
    assert done.returncode == 0, done.stderr
    wav, rate = soundfile.read(io.BytesIO(done.stdout))
    assert rate == 16000
    assert len(wav) >= len(speech)
    assert _likeness(wav, speech) > 0.8
    assert json.loads(done.stderr)["speaker"] == [str(CLIPS / "reference.flac")]


def test_damage_is_told_and_strict_refuses_it(compressed, tmp_path):
    path, _ = compressed
    data = bytearray(path.read_bytes())
    with path.open("rb") as opened:
        block = list(Reader(opened))[1]
    data[block.offset + 20] ^= 0x10
    (tmp_path / "a.vcz").write_bytes(data)
    done = vcae("decompress", "a.vcz", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr.decode().splitlines() == [
        f"damaged: a.vcz: 2.04 to 4.09 s, byte {block.offset}: the checksum of the block does not fit"
    ]
    strict = vcae("decompress", "a.vcz", "-o", "b.wav", "--strict", cwd=tmp_path)
    assert strict.returncode == 2
    assert strict.stderr.startswith(f"error: a.vcz is damaged at byte {block.offset}: ".encode())
    assert not (tmp_path / "b.wav").exists()


@pytest.mark.slow
def test_folders_in_processes(speech, tmp_path):
    """Files come out the same whatever the number of processes; a file alone sounds as in a folder."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for n, name in enumerate(("a.wav", "b.flac", "sub/c.wav")):
        soundfile.write(tmp_path / "in" / name, speech[n * 8000 : n * 8000 + 24000], 16000)
    for jobs in (1, 2):
        done = vcae("compress", "in", "--out-dir", f"code{jobs}", "--jobs", jobs, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["compressed"] == 3
    for name in ("a", "b", "sub/c"):
        assert (tmp_path / f"code1/{name}.vcz").read_bytes() == (tmp_path / f"code2/{name}.vcz").read_bytes()
    done = vcae("decompress", "code1", "--out-dir", "back", "--jobs", 2, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["decompressed"] == 3
    for name in ("a", "b", "sub/c"):
        assert soundfile.info(tmp_path / f"back/{name}.wav").frames == 24000
    assert vcae("decompress", "code1/b.vcz", "-o", "b.wav", cwd=tmp_path).returncode == 0
    one, many = (soundfile.read(tmp_path / name)[0] for name in ("b.wav", "back/b.wav"))
    np.testing.assert_allclose(one, many, atol=2e-3)
