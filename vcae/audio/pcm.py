"""Endless streams of sound: raw PCM, or a wav whose header is used except for its length."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from vcae.audio.channels import RunningMixer
from vcae.audio.io import check_rate
from vcae.errors import AudioError

# Longest chunk accepted before the samples in a wav header, in bytes.
MAX_CHUNK = 1 << 16
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
UNKNOWN_LENGTH = 0xFFFFFFFF
# Resampling filter: zero crossings on each side, shape parameter of the Kaiser window, and start of the roll-off.
ZERO_CROSSINGS = 24
KAISER = 8.0
ROLL_OFF = 0.92


class PcmReader:
    """Reader of samples from a stream as they arrive.

    Args:
        stream: Stream of bytes.
        sample_rate: Rate of raw PCM (16 bit, little-endian, mono) in Hz; None for a wav.

    Attributes:
        sample_rate: Hz.

    Raises:
        AudioError: If the rate is not supported, or a wav's header cannot be used.
    """

    def __init__(self, stream: BinaryIO, sample_rate: int | None = None) -> None:
        self._stream = stream
        if sample_rate is None:
            self.sample_rate, self._channels, self._type = _read_header(stream)
        else:
            self.sample_rate, self._channels, self._type = sample_rate, 1, "<i2"
        check_rate(self.sample_rate, "the stream")

    def blocks(self, block_s: float) -> Iterator[np.ndarray]:
        """Yield mono samples (n,), float32, mixed by `RunningMixer`, `block_s` seconds at a time; the last block may be shorter.

        Raises:
            AudioError: For samples that are NaN or infinite.
        """
        mixer = RunningMixer(self._channels, self.sample_rate)
        width = 3 if self._type == "i24" else np.dtype(self._type).itemsize
        size = max(round(block_s * self.sample_rate), 1) * self._channels * width
        while True:
            data = _read_fully(self._stream, size)
            whole = len(data) // (self._channels * width) * self._channels * width
            if whole:
                block = _decode(data[:whole], self._type).reshape(-1, self._channels)
                if not np.isfinite(block).all():
                    raise AudioError("the stream holds samples that are NaN or infinite; repair the program that writes it")
                yield mixer(block)
            if len(data) < size:
                return


class QuickResampler:
    """Resampler of a stream with a delay under 2 ms, where soxr's longer filters take 20 to 115 ms.

    A Kaiser-windowed sinc. Source: Smith, Digital Audio Resampling (2002).

    Args:
        sample_rate: Hz.
        new_sample_rate: Hz.

    Attributes:
        delay_ms: Delay from input to output, in ms.
    """

    def __init__(self, sample_rate: int, new_sample_rate: int) -> None:
        shared = math.gcd(sample_rate, new_sample_rate)
        self._up, self._down = new_sample_rate // shared, sample_rate // shared
        narrow = min(1.0, new_sample_rate / sample_rate)
        self._half = math.ceil(ZERO_CROSSINGS / narrow)
        self.delay_ms = 0.0 if self._up == self._down else 1000 * self._half / sample_rate
        away = np.arange(1 - self._half, self._half + 1) - np.arange(self._up)[:, None] / self._up
        window = np.i0(KAISER * np.sqrt(np.clip(1 - np.square(away / self._half), 0, 1)))
        kernel = np.sinc(ROLL_OFF * narrow * away) * window
        self._kernel = (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)
        self._wav, self._first = np.zeros(self._half - 1, np.float32), 1 - self._half
        self._taken = self._given = 0

    def __call__(self, wav: np.ndarray) -> np.ndarray:
        """Add samples (n,) and return the output that is ready."""
        self._taken += len(wav)
        return wav if self._up == self._down else self._resample(wav, max(self._taken - self._half, 0))

    def finish(self) -> np.ndarray:
        """Return the remaining output after the last input."""
        if self._up == self._down:
            return np.zeros(0, np.float32)
        return self._resample(np.zeros(self._half, np.float32), self._taken)

    def _resample(self, wav: np.ndarray, until: int) -> np.ndarray:
        """Add samples and return the output up to input sample `until`, counted from the start of the stream."""
        self._wav = np.concatenate([self._wav, wav])
        stop = -(-until * self._up // self._down)
        position = np.arange(self._given, stop) * self._down
        self._given = max(stop, self._given)
        left = position // self._up - self._half + 1 - self._first
        taps = self._wav[left[:, None] + np.arange(2 * self._half)]
        made = np.einsum("nk,nk->n", taps, self._kernel[position % self._up])
        drop = max(self._given * self._down // self._up - self._half + 1 - self._first, 0)
        self._wav, self._first = self._wav[drop:], self._first + drop
        return np.asarray(made, dtype=np.float32)


def _read_fully(stream: BinaryIO, size: int) -> bytes:
    """Read `size` bytes, or fewer at the end; a pipe may deliver them in several reads."""
    pieces, left = [], size
    while left:
        piece = stream.read(left)
        if not piece:
            break
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _decode(data: bytes, kind: str) -> np.ndarray:
    if kind == "i24":
        raw = np.frombuffer(data, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(raw), 4), np.uint8)
        wide[:, 1:] = raw
        return np.asarray(wide.view("<i4")[:, 0] / np.float32(1 << 31), dtype=np.float32)
    samples = np.frombuffer(data, kind)
    if kind == "u1":
        return ((samples.astype(np.float32) - 128) / 128).astype(np.float32)
    if kind.startswith("<i"):
        return np.asarray(samples / np.float32(1 << (8 * samples.itemsize - 1)), dtype=np.float32)
    return samples.astype(np.float32)


def _read_header(stream: BinaryIO) -> tuple[int, int, str]:
    head = _read_fully(stream, 12)
    if not head:
        raise AudioError("standard input is empty; pipe a wav or raw PCM into it")
    if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        raise AudioError("standard input is not a wav; for raw PCM (16 bit, mono) give its rate, such as `rate=16000`")
    found: tuple[int, int, str] | None = None
    while True:
        chunk = _read_fully(stream, 8)
        if len(chunk) < 8:
            raise AudioError("the wav on standard input ends inside its header; pipe a complete one")
        name, size = chunk[:4], struct.unpack("<I", chunk[4:])[0]
        if name == b"data":
            if found is None:
                raise AudioError("the wav on standard input has no format chunk before its samples; pipe another")
            return found
        if size > MAX_CHUNK:
            raise AudioError(
                f"the wav on standard input has a chunk {name!r} of {size} bytes before its samples; at most {MAX_CHUNK} are read"
            )
        body = _read_fully(stream, size + size % 2)
        if name == b"fmt ":
            found = _read_format(body)


def _read_format(body: bytes) -> tuple[int, int, str]:
    if len(body) < 16:
        raise AudioError("the wav on standard input has a damaged header; pipe another")
    kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
    if kind == EXTENSIBLE and len(body) >= 26:
        kind = struct.unpack("<H", body[24:26])[0]
    types = {(PCM, 8): "u1", (PCM, 16): "<i2", (PCM, 24): "i24", (PCM, 32): "<i4", (FLOAT, 32): "<f4", (FLOAT, 64): "<f8"}
    if (kind, bits) not in types or not channels:
        raise AudioError(
            f"the wav on standard input has format {kind} of {bits} bits and {channels} channels; stream PCM or float"
        )
    return rate, channels, types[kind, bits]


def wav_header(sample_rate: int) -> bytes:
    """Return the header of a wav of unknown length: mono, 16 bit."""
    fmt = struct.pack("<HHIIHH", PCM, 1, sample_rate, 2 * sample_rate, 2, 16)
    length = struct.pack("<I", UNKNOWN_LENGTH)
    return b"RIFF" + length + b"WAVEfmt " + struct.pack("<I", 16) + fmt + b"data" + length


def to_pcm(wav: np.ndarray) -> bytes:
    """Return samples (n,), -1..1, as 16 bit, little-endian."""
    return np.asarray(np.round(np.clip(wav, -1, 1) * 32767), "<i2").tobytes()
