"""Recorded noises from packages of Debian: a package made here, with sounds in it and in an archive."""

import csv
import io
import shutil
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
    subprocess.run(
        ["dpkg-deb", "--build", "--root-owner-group", "-Znone", str(tree), str(folder / "sounds_1_all.deb")], check=True
    )
    return folder


def run(packages, folder, *members):
    rows = [[f"kind/{n}.opus", "kind", "CC0-1.0", "somebody", "somewhere", "sounds", m] for n, m in enumerate(members)]
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
