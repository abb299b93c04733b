"""`vcae compress`, `decompress` and `info` around a codec: names, pipes, damage, folders. The codec here is a stand-in without networks."""

import io
import json
import os
import subprocess
import sys
import traceback
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from tests import codec_standin
from tests.conftest import CLIPS, ROOT
from vcae.audio.io import read_comment
from vcae.batch import pool
from vcae.cli.app import app
from vcae.codec.bitstream import Header, Reader, write
from vcae.codec.vcz import MAX_LINES
from vcae.files import hash_file
from vcae.model_file import find

SOURCE = CLIPS / "source.flac"


@pytest.fixture(autouse=True)
def _codec(monkeypatch, tmp_path):
    standin = ModuleType("vcae.codec.codec")
    standin.Codec = codec_standin.Codec
    monkeypatch.setitem(sys.modules, "vcae.codec.codec", standin)
    monkeypatch.chdir(tmp_path)


def vcae(*args, stdin=None):
    done = CliRunner().invoke(app, [str(arg) for arg in args], input=stdin)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        traceback.print_exception(done.exception)
        pytest.fail(f"a traceback: {done.exception!r}")
    return done


def refused(done, *messages):
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    for message in messages:
        assert message in done.stderr


@pytest.fixture(scope="module")
def compressed(speech):
    """Ten blocks of half a second."""
    from vcae.audio.io import Sound

    return codec_standin.Codec().compress(Sound(speech[: 10 * 8192 - 2000], 16000), 1.5)


def _offsets(data):
    """Where each block begins, and the end."""
    reader = Reader(io.BytesIO(data))
    at = len(reader.header.pack())
    found = [at]
    for block in reader:
        size = len(block.payload)
        found.append(found[-1] + size + (1 if size < 128 else 2) + 2)
    assert found[-1] == len(data)
    return found


def _broken(data, *blocks):
    changed = bytearray(data)
    for block in blocks:
        changed[_offsets(data)[block] + 10] ^= 1
    return bytes(changed)


def test_there_and_back():
    done = vcae("compress", SOURCE, "--json")
    assert done.exit_code == 0, done.output
    assert not done.stderr
    said = json.loads(done.stdout)
    data = Path("source.vcz").read_bytes()
    seconds = soundfile.info(SOURCE).duration
    assert said == said | {"output": "source.vcz", "bytes": len(data), "kbps_asked": 1.5, "duration_s": round(seconds, 3)}
    assert said["kbps"] == round(len(data) * 8 / 1000 / seconds, 3)
    assert said["sha256"] == hash_file(find("codec"))
    done = vcae("decompress", "source.vcz")
    assert done.exit_code == 0, done.output
    assert not done.stderr
    assert done.stdout.startswith(f"wrote source.decompressed.wav: {seconds:.2f} s in its own voice, ")
    wav, rate = soundfile.read("source.decompressed.wav")
    before, _ = soundfile.read(SOURCE)
    assert (rate, len(wav)) == (16000, len(before))
    assert np.abs(wav - before)[::4].max() < 0.01
    assert read_comment("source.decompressed.wav").startswith("decompressed by vcae 0.")


def test_the_sentence_of_compress_counts():
    done = vcae("compress", SOURCE, "-o", "new/a.vcz", "--kbps", "6")
    size = Path("new/a.vcz").stat().st_size
    seconds = soundfile.info(SOURCE).duration
    assert f"wrote new/a.vcz: {size} bytes, {seconds:.2f} s, {size * 8e-3 / seconds:.2f} kbit/s (6 asked for)" in done.stdout


def test_pipes():
    done = vcae("compress", "-", stdin=SOURCE.read_bytes())
    assert done.exit_code == 0, done.stderr
    assert done.stdout_bytes[:3] == b"VCZ"
    assert "wrote -" in done.stderr
    back = vcae("decompress", "-", "-q", stdin=done.stdout_bytes)
    assert back.exit_code == 0, back.stderr
    assert not back.stderr
    assert soundfile.info(io.BytesIO(back.stdout_bytes)).frames == soundfile.info(SOURCE).frames


def test_another_voice(monkeypatch, compressed):
    asked = []
    monkeypatch.setattr(
        "vcae.batch.workers.find_voice", lambda model, speakers, clips, denoise, **_: asked.append(speakers) or -1.0
    )
    Path("a.vcz").write_bytes(compressed)
    vcae("decompress", "a.vcz", "-o", "own.wav")
    done = vcae("decompress", "a.vcz", "-o", "other.wav", "-s", CLIPS / "reference.flac", "-s", CLIPS / "reference2.flac")
    assert done.exit_code == 0, done.output
    assert f"in the voice of {CLIPS / 'reference.flac'}, {CLIPS / 'reference2.flac'}" in done.stdout
    assert [[s.path for s in speakers] for speakers in asked] == [[CLIPS / "reference.flac", CLIPS / "reference2.flac"]]
    np.testing.assert_allclose(soundfile.read("other.wav")[0], -soundfile.read("own.wav")[0], atol=1e-4)


@pytest.mark.parametrize("kbps", ["0.59", "6.01", "nan", "inf", "-1"])
def test_rates_that_there_are_not(kbps):
    refused(vcae("compress", SOURCE, f"--kbps={kbps}"), "kbps is", "allowed are 0.6 to 6")


CASES = {
    "missing": (["decompress", "no.vcz"], "no.vcz does not exist"),
    "folder without a place": (["decompress", "."], "is a folder; give a folder for the outputs with --out-dir"),
    "folder and -o": (["compress", ".", "-o", "x.vcz"], "is a folder; give a folder for the outputs with --out-dir"),
    "info on a folder": (["info", "d.vcz"], "d.vcz holds no files"),
    "a wav": (["decompress", SOURCE], "not compressed speech (it begins with b'fLaC')"),
    "not a sound": (["compress", "good.vcz", "-o", "new.vcz"], "is not a sound file"),
    "empty": (["decompress", "empty.vcz"], "empty.vcz is empty"),
    "empty input": (["decompress", "-"], "standard input is empty"),
    "half a header": (["decompress", "half.vcz"], "half.vcz ends inside its header"),
    "there already": (["decompress", "good.vcz", "-o", "there.wav"], "there.wav exists; add --force"),
    "compressed already": (["compress", SOURCE, "-o", "good.vcz"], "good.vcz exists; add --force"),
    "suffix": (["compress", SOURCE, "-o", "x.wav"], "the suffix '.wav'; allowed is .vcz"),
    "sound suffix": (["decompress", "good.vcz", "-o", "x.vcz"], "the suffix '.vcz'; allowed are .wav"),
    "itself": (["compress", "sound.vcz", "-o", "sound.vcz", "--force"], "is an input too"),
    "two places": (["compress", SOURCE, "-o", "x.vcz", "--out-dir", "x"], "give one of the two"),
    "resume": (["decompress", "good.vcz", "--resume"], "go with --out-dir"),
    "nobody": (["decompress", "good.vcz", "-s", "nobody"], "no saved voice is called 'nobody'"),
    "no such clip": (["decompress", "good.vcz", "-s", "no.wav"], "no.wav does not exist"),
    "empty folder": (["decompress", "d.vcz", "--out-dir", "x"], "holds no .vcz files among its 0 files"),
    "zero byte": (["decompress", "a\0b.vcz"], "zero byte"),
}


@pytest.mark.parametrize("case", CASES)
def test_mistakes_are_one_line(case, compressed, tmp_path):
    args, message = CASES[case]
    (tmp_path / "good.vcz").write_bytes(compressed)
    (tmp_path / "empty.vcz").write_bytes(b"")
    (tmp_path / "half.vcz").write_bytes(compressed[:9])
    (tmp_path / "there.wav").write_bytes(b"x")
    (tmp_path / "sound.vcz").write_bytes(SOURCE.read_bytes())
    (tmp_path / "d.vcz").mkdir()
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    refused(vcae(*args), message)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_damage_is_told_and_the_rest_is_decoded(compressed, tmp_path):
    right = codec_standin.Codec().stream(io.BytesIO(compressed))
    right = np.concatenate(list(right))
    (tmp_path / "a.vcz").write_bytes(_broken(compressed, 2, 7))
    offsets = _offsets(compressed)
    done = vcae("decompress", "a.vcz", "--quiet")
    assert done.exit_code == 0
    assert done.stderr.splitlines() == [
        f"damaged: a.vcz: 1.02 to 1.53 s, byte {offsets[2]}: the checksum of the block does not fit",
        f"damaged: a.vcz: 3.58 to 4.09 s, byte {offsets[7]}: the checksum of the block does not fit",
    ]
    wav, _ = soundfile.read("a.decompressed.wav")
    lost = np.isin(np.arange(len(wav)) // 8192, (2, 7))
    assert not wav[lost].any()
    assert np.abs(wav - right[: len(wav)])[~lost].max() < 1e-3
    said = json.loads(vcae("decompress", "a.vcz", "--json", "--force").stdout)
    assert [d["offset"] for d in said["damage"]] == [offsets[2], offsets[7]]
    assert "damaged, " in vcae("decompress", "a.vcz", "--force").stdout


def test_strict_refuses_and_writes_nothing(compressed, tmp_path):
    (tmp_path / "good.vcz").write_bytes(compressed)
    assert vcae("decompress", "good.vcz", "--strict").exit_code == 0
    for n, data in enumerate((_broken(compressed, 8), compressed[:-1], compressed + b"x")):
        (tmp_path / "a.vcz").write_bytes(data)
        refused(vcae("decompress", "a.vcz", "-o", f"out/{n}.wav", "--strict"), "a.vcz is damaged at byte ")
        refused(vcae("decompress", "-", "-o", f"out/{n}.wav", "--strict", stdin=data), "standard input is damaged")
        piped = vcae("decompress", "-", "--strict", stdin=data)
        refused(piped, "standard input is damaged")
        assert not piped.stdout_bytes
    assert not list((tmp_path / "out").iterdir())


def test_a_file_that_is_cut_plays_up_to_there(compressed, tmp_path):
    (tmp_path / "a.vcz").write_bytes(compressed[: _offsets(compressed)[4] + 5])
    done = vcae("decompress", "a.vcz", "-o", "a.wav", "--json")
    assert done.exit_code == 0
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("damaged: a.vcz: 2.04 to 5.00 s, byte ")
    assert "the file ends within a block" in done.stderr
    said = json.loads(done.stdout)
    assert (said["duration_s"], said["compressed_duration_s"]) == (4 * 8192 / 16000, 4.995)
    assert soundfile.info("a.wav").frames == 4 * 8192
    assert "2.05 s of 5.00 s in its own voice, damaged" in vcae("decompress", "a.vcz", "-o", "b.wav").stdout


def test_nothing_that_can_be_decoded_is_an_error(compressed, tmp_path):
    n = _offsets(compressed)
    for name, data in (
        ("cut", compressed[: n[0]]),
        ("half", compressed[: n[0] + 20]),
        ("all", _broken(compressed, *range(10))),
    ):
        (tmp_path / "a.vcz").write_bytes(data)
        refused(vcae("decompress", "a.vcz", "-o", f"{name}.wav"), "a.vcz has nothing that can be decoded (")
    assert [path.name for path in tmp_path.iterdir()] == ["a.vcz"]


def test_so_many_lines_and_no_more(tmp_path):
    header = Header(bytes(4), 8192 * 300, block_steps=16)
    data = write(header, [zlib.compress(b"\x01" * 2048)] * header.n_blocks)
    (tmp_path / "a.vcz").write_bytes(_broken(data, *range(1, 300, 2)))
    done = vcae("decompress", "a.vcz")
    assert done.exit_code == 0
    lines = done.stderr.splitlines()
    assert len(lines) == MAX_LINES + 1
    assert lines[-1] == "damaged: a.vcz: and in 50 more places"


def test_info(compressed, tmp_path):
    (tmp_path / "a.vcz").write_bytes(compressed)
    said = json.loads(vcae("info", "a.vcz", "--json").stdout)
    seconds = (10 * 8192 - 2000) / 16000
    assert said == said | {
        "format": "vcz 1",
        "bytes": len(compressed),
        "duration_s": seconds,
        "kbps": round(len(compressed) * 8 / 1000 / seconds, 3),
        "quality": 15,
        "checkpoint": "0123abcd",
        "speaker_bytes": 2,
        "blocks": 10,
        "lost_blocks": 0,
        "damage": [],
    }
    offsets = _offsets(compressed)
    assert said["header_bytes"] == offsets[0]
    assert said["header_bytes"] + said["payload_bytes"] + 4 * 10 == len(compressed)


def test_info_shows_damage(compressed, tmp_path):
    # The suffix need not be right.
    (tmp_path / "b.dat").write_bytes(_broken(compressed, 3)[:-1])
    done = vcae("info", "b.dat")
    assert done.exit_code == 0
    rows = [line.split(None, 1) for line in done.stdout.splitlines()]
    damage = [row[1] for row in rows if row[0] == "damage"]
    assert damage[0].startswith("1.53 to 2.04 s, byte ")
    assert damage[1].endswith("the file ends within a block")
    assert ["lost_blocks", "2"] in rows
    (tmp_path / "c.vcz").write_bytes(compressed[:50])
    said = json.loads(vcae("info", "c.vcz", "--json").stdout)
    assert (said["kbps"], said["lost_blocks"]) == (None, 10)


def test_info_loads_no_model(compressed, tmp_path):
    (tmp_path / "a.vcz").write_bytes(compressed)
    code = (
        "import sys; from vcae.cli.info import info; info(['a.vcz']); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'soundfile')))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"kbps" in done.stdout


@pytest.fixture
def here(monkeypatch):
    """Folders are worked on in this process, where the stand-in is."""

    def run(jobs, build, n_workers):
        work = build()
        return (work(job) for job in jobs)

    monkeypatch.setattr(pool, "run_jobs", run)


@pytest.fixture
def recordings(tmp_path, speech):
    root = tmp_path / "in"
    for n, name in enumerate(("a.wav", "b.flac", "sub/c.ogg")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / name, speech[30000 : 50000 + 1000 * n], 16000)
    (root / "bad.wav").write_text("no sound")
    return root


def test_folders_there_and_back(here, recordings, tmp_path):
    done = vcae("compress", recordings, "--out-dir", "code", "--json")
    assert done.exit_code == 1
    said = json.loads(done.stdout)
    assert (said["compressed"], said["failed"], said["total"]) == (3, 1, 4)
    made = sorted(p.relative_to("code").as_posix() for p in Path("code").rglob("*.vcz"))
    assert made == ["a.vcz", "b.vcz", "sub/c.vcz"]
    assert said["n_bytes"] == sum((tmp_path / "code" / name).stat().st_size for name in made)
    assert "bad.wav is not a sound file" in done.stderr
    (recordings / "bad.wav").unlink()
    sentence = vcae("compress", recordings, "--out-dir", "code", "--resume", "--kbps", "3").stdout
    assert "3 compressed, 0 skipped, 0 failed of 3" in sentence
    size = sum((tmp_path / "code" / name).stat().st_size for name in made)
    assert f"{size} bytes, {size * 8e-3 / (63000 / 16000):.2f} kbit/s" in sentence
    again = vcae("compress", recordings, "--out-dir", "code", "--resume", "--kbps", "3").stdout
    assert "0 compressed, 3 skipped" in again
    assert "of 3 outputs are in code already" in vcae("compress", recordings, "--out-dir", "code").stderr
    back = vcae("decompress", "code", "--out-dir", "back")
    assert back.exit_code == 0, back.output
    assert "3 decompressed, 0 skipped, 0 failed of 3: 3.9 s of sound in" in back.stdout
    assert not back.stderr
    for name, n in (("a", 20000), ("b", 21000), ("sub/c", 22000)):
        assert soundfile.info(f"back/{name}.wav").frames == n
    only = vcae("decompress", "code", "--out-dir", "some", "--glob", "sub/*")
    assert "1 decompressed" in only.stdout


def test_damage_in_folders(here, compressed, tmp_path):
    code = tmp_path / "code"
    code.mkdir()
    (code / "a.vcz").write_bytes(compressed)
    (code / "b.vcz").write_bytes(_broken(compressed, 1, 4))
    (code / "c.vcz").write_bytes(compressed[:40])
    done = vcae("decompress", "code", "--out-dir", "out")
    assert done.exit_code == 1
    assert "2 decompressed, 0 skipped, 1 failed of 3" in done.stdout
    lines = sorted(done.stderr.splitlines())
    assert len(lines) == 2
    assert lines[0].startswith("damaged: code/b.vcz: 0.50 to 1.02 s, byte ")
    assert "; 2.04 to 2.55 s, byte " in lines[0]
    assert lines[1].startswith("failed: code/c.vcz has nothing that can be decoded")
    again = vcae("decompress", "code", "--out-dir", "out", "--resume")
    assert "0 decompressed, 2 skipped, 1 failed" in again.stdout
    assert sorted(again.stderr.splitlines()) == lines
    strict = vcae("decompress", "code", "--out-dir", "strict", "--strict")
    assert "1 decompressed, 0 skipped, 2 failed" in strict.stdout
    assert [path.name for path in (tmp_path / "strict").glob("*.wav")] == ["a.wav"]
    assert json.loads((tmp_path / "out" / "report.jsonl").read_text().splitlines()[0])["status"] == "skipped"
