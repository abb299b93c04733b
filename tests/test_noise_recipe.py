"""Recorded noises from packages of Debian: a package made here, with sounds in it and in an archive."""

import csv
import gzip
import io
import shutil
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import soundfile

from tests.conftest import ROOT

SCRIPT = ROOT / "recipes/prepare/noise.py"
COLUMNS = ["path", "class", "licence", "author", "source", "package", "members"]


def sound(seconds, level):
    rng = np.random.default_rng(0)
    wav = np.pad(level * rng.standard_normal((round(seconds * 22050), 2)), ((3000, 3000), (0, 0)))
    written = io.BytesIO()
    soundfile.write(written, wav, 22050, format="WAV")
    return written.getvalue()


def group(files):
    """Return an unpacked group of OpenClonk; a dictionary among the files is a group in it."""
    header, entries, contents = bytearray(204), b"", b""
    struct.pack_into("<i", header, 36, len(files))
    header[0:202:3], header[2:204:3] = header[2:204:3], header[0:202:3]
    for name, content in files.items():
        inner = group(content) if isinstance(content, dict) else content
        numbers = (1, int(isinstance(content, dict)), len(inner), 0, len(contents))
        entries += name.encode().ljust(260, b"\0") + struct.pack("<5i", *numbers).ljust(56, b"\0")
        contents += inner
    return bytes(byte ^ 237 for byte in header) + entries + contents


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed; Debian and Ubuntu have it")
    folder = tmp_path_factory.mktemp("packages")
    tree = folder / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: sounds\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: sounds\n"
    )
    (tree / "usr/share").mkdir(parents=True)
    (tree / "usr/share/rain1.wav").write_bytes(sound(1, 0.001))
    (tree / "usr/share/rain2.wav").write_bytes(sound(1, 0.001))
    with zipfile.ZipFile(tree / "usr/share/more.zip", "w") as archive:
        archive.writestr("wind.wav", sound(62, 0.1))
    packed = gzip.compress(group({"names.txt": b"bark", "Animals.ocg": {"Bark.wav": sound(3, 0.1)}}))
    (tree / "usr/share/Sound.ocg").write_bytes(b"\x1e\x8c" + packed[2:])
    with zipfile.ZipFile(folder / "more_sounds-2.0-py3-none-any.whl", "w") as archive:
        archive.writestr("more/cow.wav", sound(1, 0.1))
    subprocess.run(
        ["dpkg-deb", "--build", "--root-owner-group", "-Znone", str(tree), str(folder / "sounds_1_all.deb")], check=True
    )
    return folder


def run(packages, folder, *members, package="sounds", kind="kind"):
    rows = [[f"kind/{n}.opus", kind, "CC0-1.0", "somebody", "somewhere", package, m] for n, m in enumerate(members)]
    with (folder / "catalogue.csv").open("w", newline="") as opened:
        csv.writer(opened).writerows([COLUMNS, *rows])
    command = [sys.executable, str(SCRIPT), str(folder / "catalogue.csv"), str(folder / "out"), "--packages", str(packages)]
    return subprocess.run(command, capture_output=True, text=True)


def test_sounds_of_a_package_are_joined_cut_and_listed(packages, tmp_path):
    done = run(packages, tmp_path, "usr/share/rain*.wav", "usr/share/more.zip::wind.wav")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out/manifest.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["author"] for row in rows] == ["somebody", "somebody"]
    assert [float(row["duration_s"]) for row in rows] == pytest.approx([2, 60], abs=0.05)
    for row in rows:
        wav, rate = soundfile.read(tmp_path / "out" / row["path"])
        assert (rate, wav.ndim) == (16000, 1)
        assert np.abs(wav).max() == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize(
    ("package", "member", "kind", "expected_s"),
    [
        ("sounds", "usr/share/Sound.ocg::Animals.ocg/Bark.wav", "dog", 3),
        ("sounds", "usr/share/more.zip::wind.wav", "music", 15),
        ("pypi:more-sounds==2.0", "more/cow.wav", "cow", 1),
    ],
    ids=["group", "music", "wheel"],
)
def test_sounds_of_other_archives(packages, tmp_path, package, member, kind, expected_s):
    done = run(packages, tmp_path, member, package=package, kind=kind)
    assert done.returncode == 0, done.stderr
    assert soundfile.info(tmp_path / "out/kind/0.opus").duration == pytest.approx(expected_s, abs=0.05)


def test_what_a_package_lacks_is_told(packages, tmp_path):
    done = run(packages, tmp_path, "usr/share/snow.wav")
    assert done.returncode != 0
    assert "sounds has no file 'usr/share/snow.wav' for kind/0.opus" in done.stderr


def test_every_listed_noise_has_a_licence_that_allows_training_what_ships():
    with (ROOT / "recipes/prepare/noises.csv").open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    assert len({row["path"] for row in rows}) == len(rows) > 100
    assert {row["licence"] for row in rows} <= {"CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "public-domain"}
    assert all(row["author"] and row["source"] for row in rows)
