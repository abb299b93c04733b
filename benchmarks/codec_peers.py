"""The peers of `benchmarks/codec.py`: widely used codecs, run as the programs of Debian's packages."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from vcae.audio.io import Sound, read_sound, resample
from vcae.errors import DataError

SAMPLE_RATE = 16000
# Raw files have no header: 16 bits, little-endian, at the rate of Codec 2, in multiples of its longest frame of 40 ms.
RAW_RATE, RAW_FRAME = 8000, 320
FULL_SCALE = 32768


@dataclass(frozen=True)
class Peer:
    """Codec at one of its rates.

    Attributes:
        codec: Its name, a line of the plot; the first word is the system's.
        setting: What its rate is set by.
        package: The Debian package that brings its programs.
        sample_rate: Of the sound that is given to it, in Hz.
        encoder: Command line; its last two words are the file read and the file written, in a folder of its own.
        decoder: Command line, likewise.
    """

    codec: str
    setting: str
    package: str
    sample_rate: int
    encoder: str
    decoder: str

    @property
    def system(self) -> str:
        """Name of the codec."""
        return self.codec.partition(" ")[0]

    @property
    def commands(self) -> list[str]:
        """How it is called."""
        return [self.encoder, self.decoder]

    @property
    def missing(self) -> str | None:
        """Message if a program is not installed, else None."""
        programs = dict.fromkeys(words.split()[0] for words in self.commands)
        absent = [program for program in programs if shutil.which(program) is None]
        if not absent:
            return None
        return f"{self.system} left out: no {' and no '.join(absent)} on PATH; apt-get install {self.package}"

    def encode(self, sound: Sound) -> tuple[bytes, float]:
        """Encode a sound; return the file, and the seconds that the process took.

        Raises:
            DataError: If the process fails.
        """
        wav = resample(sound.wav, sound.sample_rate, self.sample_rate)
        with tempfile.TemporaryDirectory(prefix="vcae-") as folder:
            source, coded = (Path(folder) / name for name in self.encoder.split()[-2:])
            if source.suffix == ".raw":
                _write_raw(source, wav)
            else:
                soundfile.write(source, np.clip(wav, -1.0, 1.0), self.sample_rate, subtype="PCM_16")
            elapsed = _run(self.encoder, coded)
            return coded.read_bytes(), elapsed

    def decode(self, data: bytes) -> tuple[Sound, float]:
        """Decode a file; return the sound at 16 kHz, and the seconds that the process took.

        Raises:
            DataError: If the process fails.
        """
        with tempfile.TemporaryDirectory(prefix="vcae-") as folder:
            coded, copy = (Path(folder) / name for name in self.decoder.split()[-2:])
            coded.write_bytes(data)
            elapsed = _run(self.decoder, copy)
            sound = _read_raw(copy) if copy.suffix == ".raw" else read_sound(copy)
            return Sound(resample(sound.wav, sound.sample_rate, SAMPLE_RATE), SAMPLE_RATE), elapsed

    def version(self) -> str:
        """Return the version that the encoder prints, or that of its package."""
        program = self.encoder.split()[0]
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
        # Codec 2's programs fail for this option.
        if said.returncode == 0 and said.stdout:
            return said.stdout.partition("\n")[0]
        if shutil.which("dpkg-query") is not None:
            words = ["dpkg-query", "-W", "-f", "${Package} ${Version}", self.package]
            return subprocess.run(words, capture_output=True, text=True, check=False).stdout or "unknown"
        return "unknown"


def _write_raw(path: Path, wav: np.ndarray) -> None:
    """Write whole frames, zero-padding the last one, as the encoder drops partial frames."""
    whole = np.pad(np.clip(wav, -1.0, 1.0 - 1 / FULL_SCALE), (0, -len(wav) % RAW_FRAME))
    np.round(whole * FULL_SCALE).astype("<i2").tofile(path)


def _read_raw(path: Path) -> Sound:
    return Sound(np.fromfile(path, "<i2").astype(np.float32) / FULL_SCALE, RAW_RATE)


def _run(command: str, made: Path) -> float:
    words, start = command.split(), time.perf_counter()
    try:
        done = subprocess.run(words, cwd=made.parent, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise DataError(f"{words[0]} could not be started ({error.strerror}); install it again, or leave it out") from error
    elapsed = time.perf_counter() - start
    if done.returncode or not made.exists() or not made.stat().st_size:
        said = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        raise DataError(f"`{command}` failed with exit code {done.returncode} ({said}); leave it out with --systems")
    return elapsed


def ogg_payload(data: bytes) -> int | None:
    """Return the bytes of an Ogg file's packets, without pages and without the two packets at its head; None for other files.

    Source: RFC 3533, section 6.
    """
    if not data.startswith(b"OggS"):
        return None
    packets, at = [0], 0
    while data[at : at + 4] == b"OggS" and at + 27 <= len(data):
        lacing = data[at + 27 : at + 27 + data[at + 26]]
        for size in lacing:
            packets[-1] += size
            if size < 255:
                packets.append(0)
        at += 27 + len(lacing) + sum(lacing)
    return sum(packets[2:])


def _opus(kbps: int) -> Peer:
    # Its comments and the room that it keeps for more would be a kilobit a second of a short file.
    encoder = f"opusenc --quiet --padding 0 --discard-comments --bitrate {kbps} in.wav coded.opus"
    decoder = "opusdec --quiet --no-dither --rate 48000 coded.opus out.wav"
    return Peer("opus", str(kbps), "opus-tools", SAMPLE_RATE, encoder, decoder)


def _codec2(mode: str) -> Peer:
    return Peer("codec2", mode, "codec2", RAW_RATE, f"c2enc {mode} in.raw coded.c2", f"c2dec {mode} coded.c2 out.raw")


def _speex(band: str, sample_rate: int, quality: int) -> Peer:
    # Ten frames a packet: the least of Ogg that it offers.
    encoder = f"speexenc --{band} --nframes 10 --quality {quality} in.wav coded.spx"
    return Peer(f"speex {band}", str(quality), "speex", sample_rate, encoder, "speexdec coded.spx out.wav")


def _mp3(kbps: int) -> Peer:
    encoder = f"lame --quiet -m m --resample 16 -b {kbps} in.wav coded.mp3"
    return Peer("mp3", str(kbps), "lame", SAMPLE_RATE, encoder, "lame --quiet --decode coded.mp3 out.wav")


PEERS = (
    *(_codec2(mode) for mode in ("700C", "1600", "3200")),
    *(_speex("narrowband", RAW_RATE, quality) for quality in (0, 2)),
    *(_speex("wideband", SAMPLE_RATE, quality) for quality in (0, 2)),
    *(_opus(kbps) for kbps in (6, 8)),
    *(_mp3(kbps) for kbps in (8, 16)),
)
