"""Collecting recorded noise from packages: what a catalogue lists is found in packages and archives, joined, and written with its licence."""

import csv
import importlib.util
import io
import re
import shutil
import struct
import subprocess
import zipfile
import zlib

import numpy as np
import pytest
import soundfile

from tests.conftest import ROOT
from tests.forked import python

SCRIPT = ROOT / "recipes/prepare/noise.py"
FREE = {"CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "public-domain"}


@pytest.fixture(scope="module")
def noise():
    spec = importlib.util.spec_from_file_location("noise", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wav_file(n, seed=0, rate=22050):
    written = io.BytesIO()
    soundfile.write(written, 0.2 * np.random.default_rng(seed).standard_normal(n), rate, format="WAV")
    return written.getvalue()


def test_the_catalogue_has_only_free_noises_with_their_authors():
    rows = list(csv.DictReader((ROOT / "recipes/prepare/noise.csv").open(newline="", encoding="utf-8")))
    assert len(rows) > 100
    assert {row["licence"] for row in rows} <= FREE
    assert all(row["author"] and row["source"] and row["package"] and row["members"] for row in rows)
    assert len({row["path"] for row in rows}) == len(rows)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="packages are made and opened by dpkg-deb")
def test_sounds_of_a_package_are_joined_and_listed(tmp_path):
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text("Package: toy\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: toy\n")
    (tree / "usr/share/toy").mkdir(parents=True)
    for k in range(2):
        (tree / f"usr/share/toy/step{k}.wav").write_bytes(wav_file(11025, k))
    with zipfile.ZipFile(tree / "usr/share/toy/data.zip", "w") as archive:
        archive.writestr("rain.wav", wav_file(22050, 5))
    packages = tmp_path / "packages"
    packages.mkdir()
    subprocess.run(["dpkg-deb", "--build", str(tree), str(packages / "toy_1_all.deb")], check=True, capture_output=True)
    rows = [
        ("steps/toy.opus", "steps", "CC0-1.0", "A", "toy", "toy", "usr/share/toy/step*.wav"),
        ("rain/toy.opus", "rain", "CC-BY-3.0", "B", "toy", "toy", "usr/share/toy/data.zip::rain.wav"),
    ]

    def collect(rows):
        with (tmp_path / "catalogue.csv").open("w", newline="") as opened:
            csv.writer(opened).writerows([("path", "class", "licence", "author", "source", "package", "members"), *rows])
        command = [*python(), str(SCRIPT), str(tmp_path / "catalogue.csv"), str(tmp_path / "out"), "--packages", str(packages)]
        return subprocess.run(command, capture_output=True, text=True)

    done = collect(rows)
    assert done.returncode == 0, done.stderr
    found = list(csv.DictReader((tmp_path / "out/manifest.csv").open(newline="")))
    assert [(row["path"], row["fold"], row["licence"], row["author"]) for row in found] == [
        ("rain/toy.opus", "6", "CC-BY-3.0", "B"),
        ("steps/toy.opus", "6", "CC0-1.0", "A"),
    ]
    for row in found:
        assert soundfile.info(tmp_path / "out" / row["path"]).subtype == "OPUS"
        wav, rate = soundfile.read(tmp_path / "out" / row["path"])
        assert len(wav) / rate == pytest.approx(1.0, abs=0.02)
        assert wav.std() > 0.01
    done = collect([(*rows[0][:-1], "usr/share/toy/none*.wav")])
    assert done.returncode != 0
    assert re.search(r"toy has no file 'usr/share/toy/none\*\.wav' for steps/toy.opus", done.stderr)


def test_sounds_in_a_file_of_openttd(noise):
    sounds = [wav_file(100, 1), wav_file(200, 2)]
    entries = [struct.pack("<B", 4) + b"name" + sound for sound in sounds]
    offsets = np.cumsum([16, *map(len, entries)])
    table = b"".join(struct.pack("<II", offsets[k], len(sounds[k])) for k in range(2))
    assert noise.openttd_sounds(table + b"".join(entries)) == sounds


def test_files_in_compiled_resources_of_qt(noise):
    def named(name):
        return struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")

    names = named("sounds") + named("a.wav") + named("b.wav")
    at = [0, 6 + 12, 6 + 12 + 6 + 10]
    packed = struct.pack(">I", 4) + zlib.compress(b"long" * 9)
    data = struct.pack(">I", 5) + b"short" + struct.pack(">I", len(packed)) + packed
    # Name, flags (2: folder, 1: compressed), then children and the first of them, or a territory and an offset of the data.
    tree = struct.pack(">IHII", 0, 2, 1, 1) + struct.pack(">IHII", at[0], 2, 2, 2)
    tree += struct.pack(">IHII", at[1], 0, 0, 0) + struct.pack(">IHII", at[2], 1, 0, 9)
    start = 20
    header = b"qres" + struct.pack(">4I", 1, start, start + len(tree), start + len(tree) + len(data))
    found = dict(noise.qt_resources(header + tree + data + names))
    assert found == {"sounds/a.wav": b"short", "sounds/b.wav": b"long" * 9}


def test_of_a_long_sound_the_minute_that_changes_most_is_kept(noise):
    rng = np.random.default_rng(0)
    n = noise.SAMPLE_RATE
    steady = 0.1 * rng.standard_normal(100 * n)
    steady[30 * n : 90 * n] *= np.repeat(rng.uniform(0.01, 3, 6000), n // 100)
    kept = noise.most_varied(steady.astype(np.float32))
    assert len(kept) == 60 * n
    assert np.array_equal(kept, steady[30 * n : 90 * n].astype(np.float32))
