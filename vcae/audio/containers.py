"""Structure of sound files: parts of joined files, stated lengths, and truncation.

Decoders trust the header or stop at the first end of a stream: they read only the first part of joined MP3s and chained Ogg streams, find no
samples in a file whose recorder lost power, and do not notice truncation.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import BinaryIO

# Lengths from here on stand for unknown, as written into pipes: sox 0x7FFFF000 and more, ffmpeg 0xFFFFFFFF.
UNKNOWN_SIZE = 0x7FFF0000
# Fewest MP3 frames of a part of a joined file; fewer are an encoder's counting error.
MIN_MP3_FRAMES = 4
WINDOW = 1 << 20


@dataclass(frozen=True)
class Part:
    """Part of a file that a decoder can read as a whole file.

    Attributes:
        start, stop: Range of bytes.
        patches: Bytes that replace the file's, by offset from `start`.
    """

    start: int
    stop: int
    patches: Mapping[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """Layout of a file: its parts and problems.

    Attributes:
        parts: Parts in order; concatenated, they are the recording.
        cut: Whether the end is missing.
        stated_s: Duration stated in the file if it differs from the actual one, else None.
        notes: Other problems, such as `pages are missing`.
    """

    parts: tuple[Part, ...]
    cut: bool = False
    stated_s: float | None = None
    notes: tuple[str, ...] = ()


class _Bytes:
    """Random access to the bytes of a file, buffered by a window."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._start, self._data = file, 0, b""
        self.size = file.seek(0, 2)

    def at(self, start: int, n: int) -> bytes:
        """Return up to n bytes from `start`."""
        if not self._start <= start <= start + n <= self._start + len(self._data):
            self._file.seek(start)
            self._start, self._data = start, self._file.read(max(WINDOW, n))
        return self._data[start - self._start : start - self._start + n]

    def find(self, wanted: bytes, start: int) -> int:
        """Return the position of bytes at or after `start`, or the end of the file."""
        while start < self.size:
            window = self.at(start, min(WINDOW, self.size - start))
            place = window.find(wanted)
            if place >= 0:
                return start + place
            start += max(len(window) - len(wanted) + 1, 1)
        return self.size


def examine(file: BinaryIO) -> Layout | None:
    """Examine the structure of a file: headers of wav, aiff, au and caf, all frames of MP3, all pages of Ogg.

    Args:
        file: File opened for reading, seekable; it is left at its start.

    Returns:
        The layout; None for ordinary files and other formats.
    """
    data = _Bytes(file)
    head = data.at(0, 16)
    try:
        if head[:4] == b"fLaC":
            layout = _examine_flac(data)
        elif head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
            layout = _examine_wav(data, ">" if head[:4] == b"RIFX" else "<")
        elif head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
            layout = _examine_aiff(data)
        elif head[:4] == b".snd":
            layout = _examine_au(data)
        elif head[:4] == b"caff":
            layout = _examine_caf(data)
        elif head[:4] == b"OggS":
            layout = _examine_ogg(data)
        else:
            layout = _examine_mp3(data)
    except struct.error:
        # It ends inside its header, which the decoder reports.
        layout = None
    file.seek(0)
    return layout


def _chunks(data: _Bytes, start: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, position of the content, and size of each chunk of an IFF file."""
    while start + 8 <= data.size:
        name, size = struct.unpack(f"{order}4sI", data.at(start, 8))
        yield name, start + 8, size
        start += 8 + size + size % 2


def _are_chunks(data: _Bytes, start: int, order: str) -> bool:
    """Return whether the bytes after the sound are further chunks up to the end, and not sound missing in the header's count."""
    for name, place, size in _chunks(data, start, order):
        if not all(32 <= letter < 127 for letter in name) or place + size > data.size:
            return False
        start = place + size + size % 2
    return data.size - start < 8


def _examine_wav(data: _Bytes, order: str) -> Layout | None:
    form, block, rate, per_second, long_size = 0, 0, 0, 0, None
    for name, place, size in _chunks(data, 12, order):
        if name == b"fmt ":
            form, _, rate, per_second, block = struct.unpack(f"{order}HHIIH", data.at(place, 14))
        elif name == b"ds64":
            long_size = struct.unpack("<Q", data.at(place + 8, 8))[0]
        elif name == b"data":
            stated = long_size if long_size is not None and size == 0xFFFFFFFF else size
            there = data.size - place
            speed = block * rate if form in (1, 3, 0xFFFE) else per_second
            # Written into a pipe with an unknown length.
            if UNKNOWN_SIZE <= stated <= 0xFFFFFFFF and there < stated:
                return None
            if stated > there:
                return Layout((Part(0, data.size),), True, stated / speed if speed else None)
            behind = place + stated + stated % 2
            if (
                data.at(0, 4) in (b"RIFF", b"RIFX")
                and data.at(behind, 4) == data.at(0, 4)
                and data.at(behind + 8, 4) == b"WAVE"
            ):
                return _joined(data, data.at(0, 4))
            if there - stated > max(stated, 1) and not _are_chunks(data, behind, order):
                whole = there // max(block, 1) * max(block, 1)
                stop = place + whole
                sizes = {4: _size32(order, stop - 8), place - 4: _size32(order, whole)}
                return Layout((Part(0, stop, sizes),), notes=(_uncounted(stated, speed),))
            return None
    return None


def _joined(data: _Bytes, head: bytes) -> Layout:
    """Return the layout of concatenated wavs, each with the length in its header."""
    starts, order = [0], ">" if head == b"RIFX" else "<"
    while True:
        size = struct.unpack(f"{order}I", data.at(starts[-1] + 4, 4))[0]
        after = starts[-1] + 8 + size + size % 2
        if data.at(after, 4) != head or data.at(after + 8, 4) != b"WAVE":
            break
        starts.append(after)
    cut = after > data.size + 1
    return Layout(tuple(Part(a, b) for a, b in zip(starts, [*starts[1:], data.size], strict=True)), cut)


def _examine_flac(data: _Bytes) -> Layout | None:
    # Marker and header of the mandatory first block, with which every stream begins.
    starts, marker = [0], b"fLaC\0\0\0\x22"
    while (after := data.find(marker, starts[-1] + 8)) < data.size:
        starts.append(after)
    parts = tuple(Part(a, b) for a, b in zip(starts, [*starts[1:], data.size], strict=True))
    return Layout(parts) if len(parts) > 1 else None


def _size32(order: str, size: int) -> bytes:
    return struct.pack(f"{order}I", min(size, 0xFFFFFFFF))


def _uncounted(stated: int, speed: float) -> str:
    seconds = stated / speed if speed else 0.0
    return f"states a length of {seconds:.2f} s and has more sound after it (usually from a recorder that was cut off), which was read too"


def _examine_aiff(data: _Bytes) -> Layout | None:
    channels, frames, bits, rate, common = 0, 0, 0, 0.0, 0
    for name, place, size in _chunks(data, 12, ">"):
        if name == b"COMM":
            channels, frames, bits = struct.unpack(">hIh", data.at(place, 8))
            rate, common = _extended(data.at(place + 8, 10)), place
        elif name == b"SSND":
            there, width = data.size - place - 8, channels * ((bits + 7) // 8)
            if size > there + 8:
                return Layout((Part(0, data.size),), True, frames / rate if rate else None)
            if width and (size <= 8 or not frames) and there >= width and not _are_chunks(data, place + size, ">"):
                n = there // width
                stop = place + 8 + n * width
                sizes = {4: _size32(">", stop - 8), common + 2: _size32(">", n), place - 4: _size32(">", 8 + n * width)}
                return Layout((Part(0, stop, sizes),), notes=(_uncounted(frames, rate),))
            return None
    return None


def _extended(data: bytes) -> float:
    """Decode an 80-bit floating-point number, the format of AIFF's sample rate."""
    exponent, fraction = struct.unpack(">HQ", data)
    return math.ldexp(float(fraction), (exponent & 0x7FFF) - 16383 - 63)


def _examine_au(data: _Bytes) -> Layout | None:
    start, stated, kind, rate, channels = struct.unpack(">IIIII", data.at(4, 20))
    there = data.size - start
    width = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}.get(kind, 0) * channels
    if stated == 0xFFFFFFFF or there <= 0:
        return None
    if stated > there:
        return Layout((Part(0, data.size),), True, stated / (width * rate) if width and rate else None)
    if stated == 0:
        return Layout((Part(0, data.size, {8: _size32(">", there)}),), notes=(_uncounted(0, 0.0),))
    return None


def _examine_caf(data: _Bytes) -> Layout | None:
    start, speed = 8, 0.0
    while start + 12 <= data.size:
        name, size = struct.unpack(">4sq", data.at(start, 12))
        place = start + 12
        if name == b"desc":
            rate, _, _, packet, frames = struct.unpack(">d4sIII", data.at(place, 24))
            speed = rate * packet / frames if frames else 0.0
        elif name == b"data":
            there = data.size - place
            if size > there:
                return Layout((Part(0, data.size),), True, (size - 4) / speed if speed else None)
            if 0 <= size <= 4 and there > 4 and not _are_caf_chunks(data, place + size):
                return Layout((Part(0, data.size, {start + 4: struct.pack(">q", -1)}),), notes=(_uncounted(0, 0.0),))
            return None
        if size < 0:
            return None
        start = place + size
    return None


def _are_caf_chunks(data: _Bytes, start: int) -> bool:
    while start + 12 <= data.size:
        name, size = struct.unpack(">4sq", data.at(start, 12))
        if not all(32 <= letter < 127 for letter in name) or not 0 <= size <= data.size - start - 12:
            return False
        start += 12 + size
    return data.size == start


def _examine_ogg(data: _Bytes) -> Layout | None:
    """Find the links of a chained stream. Source: RFC 3533, sections 4 and 6."""
    starts, at, cut, gaps, ended, began = [0], 0, False, 0, False, False
    numbers = dict[int, int]()
    while at < data.size:
        head = data.at(at, 27)
        if head[:4] != b"OggS" or len(head) < 27:
            after = data.find(b"OggS", at + 1)
            # The rest at the end may be an incomplete page, or a tag of another program.
            cut, gaps = cut or (after == data.size and head[:4] == b"OggS"), gaps + (after < data.size)
            at = after
            continue
        flags, serial, number, n = head[5], *struct.unpack("<II", head[14:22]), head[26]
        size = 27 + n + sum(data.at(at + 27, n))
        if at + size < data.size and data.at(at + size, 4) != b"OggS":
            inside = data.find(b"OggS", at + 4)
            if inside < at + size:
                # A page that was truncated before another stream was appended.
                ended, at = False, inside
                continue
        if at + size > data.size:
            cut = True
            break
        first = bool(flags & 2)
        if first and not began and at:
            # A link without its last page was truncated before it was joined.
            gaps += not ended
            starts.append(at)
            numbers.clear()
        elif serial in numbers and number != numbers[serial] + 1:
            gaps += 1
        began, numbers[serial], ended = first, number, bool(flags & 4) or (ended and not first and number == 0)
        at += size
    cut = cut or not ended
    if len(starts) == 1 and not cut and not gaps:
        return None
    parts = tuple(Part(start, stop) for start, stop in zip(starts, [*starts[1:], data.size], strict=True))
    return Layout(parts, cut, notes=(f"lacks pages at {gaps} places, where sound is missing",) if gaps else ())


_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_KBPS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBPS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)


@dataclass(frozen=True)
class _Frame:
    """Header of a frame of MPEG layer III: size of the frame in bytes, samples, rate in Hz, and offset of an information tag."""

    size: int
    samples: int
    rate: int
    tag: int


def _frame(head: bytes) -> _Frame | None:
    """Read the header of a frame. Source: ISO/IEC 11172-3, 2.4.1.3; ISO/IEC 13818-3 for the lower rates."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, bits, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or bits in (0, 15) or rate == 3:
        return None
    hz, full = _RATES[version][rate], version == 3
    kbps = (_KBPS_1 if full else _KBPS_2)[bits]
    size = (144 if full else 72) * kbps * 1000 // hz + (head[2] >> 1 & 1)
    mono = head[3] >> 6 == 3
    return _Frame(size, 1152 if full else 576, hz, {(True, False): 36, (False, True): 13}.get((full, mono), 21))


def _stated_frames(data: _Bytes, at: int, frame: _Frame) -> int | None:
    """Return the number of frames stated in an information tag, 0 if it is not stated; None if the frame is not a tag."""
    if data.at(at + frame.tag, 4) in (b"Xing", b"Info"):
        flags, n = struct.unpack(">II", data.at(at + frame.tag + 4, 8))
        return n if flags & 1 else 0
    if data.at(at + 36, 4) == b"VBRI":
        return int(struct.unpack(">I", data.at(at + 50, 4))[0])
    return None


def _tag_size(data: _Bytes, at: int) -> int:
    """Return the size of an ID3 or APE tag, 0 if there is none."""
    head = data.at(at, 32)
    if head[:3] == b"ID3" and len(head) >= 10:
        return 10 + sum((head[6 + i] & 127) << 7 * (3 - i) for i in range(4)) + (10 if head[5] & 16 else 0)
    if head[:3] == b"TAG":
        return 128
    if head[:8] == b"APETAGEX" and len(head) == 32:
        return int(struct.unpack("<I", head[12:16])[0]) + (32 if head[23] & 0x20 else 0)
    return 0


@dataclass
class _Stream:
    """MP3 inside a joined one: first byte, number of frames stated in its tag (0: unknown), actual number, and position of the tag."""

    start: int
    stated: int = 0
    n: int = 0
    seconds: float = 0.0
    frame_s: float = 0.0
    sizes: int = 0


def _true_size(data: _Bytes, stream: _Stream, stop: int) -> dict[int, bytes]:
    """Return a patch that sets the actual size in an information tag, as mpg123 prints warnings on standard error otherwise."""
    flags = struct.unpack(">I", data.at(stream.sizes + 4, 4))[0] if stream.sizes else 0
    if not flags & 2 or data.at(stream.sizes, 4) not in (b"Xing", b"Info"):
        return {}
    return {stream.sizes + 8 + 4 * (flags & 1) - stream.start: struct.pack(">I", stop - stream.start)}


def _examine_mp3(data: _Bytes) -> Layout | None:
    at = 0
    while size := _tag_size(data, at):
        at += size
    first = _frame(data.at(at, 4))
    if first is None or (at + first.size < data.size and _frame(data.at(at + first.size, 4)) is None):
        return None
    streams, cut, lost = [_Stream(0)], False, 0
    tagged = False
    while at + 4 <= data.size:
        frame = _frame(data.at(at, 4))
        if frame is None:
            size = _tag_size(data, at)
            if size:
                if data.at(at, 3) == b"ID3" and streams[-1].n:
                    streams.append(_Stream(at))
                    tagged = True
                at += size
                continue
            after = _next_frame(data, at + 1)
            lost, at = lost + (after < data.size), after
            continue
        if at + frame.size > data.size:
            cut = True
            break
        stream, stated = streams[-1], _stated_frames(data, at, frame)
        if stated is not None:
            if stream.n or stream.stated:
                stream = _Stream(at)
                streams.append(stream)
            stream.stated, stream.sizes = stated, at + frame.tag
        else:
            if stream.stated and stream.n == stream.stated and not tagged:
                stream = _Stream(at)
                streams.append(stream)
            stream.n, stream.frame_s = stream.n + 1, frame.samples / frame.rate
            stream.seconds += stream.frame_s
        tagged = False
        at += frame.size
    streams = [s for i, s in enumerate(streams) if not i or s.n >= (1 if s.stated else MIN_MP3_FRAMES)]
    missing = [max(s.stated - s.n, 0) if s.stated else 0 for s in streams]
    # The stated number may be wrong by one.
    cut = cut or missing[-1] > 1
    lost += sum(n > 1 for n in missing[:-1])
    if len(streams) == 1 and not cut and not lost:
        return None
    stops = [*(stream.start for stream in streams[1:]), data.size]
    parts = tuple(Part(s.start, stop, _true_size(data, s, stop)) for s, stop in zip(streams, stops, strict=True))
    whole = sum(s.seconds for s in streams) + sum(n * s.frame_s for n, s in zip(missing, streams, strict=True))
    layout = Layout(parts, cut, whole if missing[-1] > 1 else None)
    return replace(layout, notes=(f"is damaged at {lost} places, where sound is missing",)) if lost else layout


def _next_frame(data: _Bytes, at: int) -> int:
    """Return the position of the next tag, or of the next frame that is followed by another one; the end if there is none."""
    while (at := data.find(b"\xff", at)) < data.size:
        frame = _frame(data.at(at, 4))
        if frame is not None and (at + frame.size >= data.size or _frame(data.at(at + frame.size, 4)) is not None):
            return at
        at += 1
    return data.size


class PartFile:
    """File object for a part of a file, with the methods that libsndfile needs.

    Args:
        file: The whole file.
        part: The part.
    """

    def __init__(self, file: BinaryIO, part: Part) -> None:
        self._file, self._part, self._at = file, part, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """Set the position."""
        base = (0, self._at, self._part.stop - self._part.start)[whence]
        self._at = max(base + offset, 0)
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def read(self, n: int = -1) -> bytes:
        """Read up to n bytes."""
        left = self._part.stop - self._part.start - self._at
        n = max(left if n < 0 else min(n, left), 0)
        self._file.seek(self._part.start + self._at)
        data = bytearray(self._file.read(n))
        for place, patch in self._part.patches.items():
            for i, byte in enumerate(patch, place - self._at):
                if 0 <= i < len(data):
                    data[i] = byte
        self._at += len(data)
        return bytes(data)

    def readinto(self, buffer: bytearray) -> int:
        """Read into a buffer and return the number of bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def write(self, data: bytes) -> int:
        """Raise; libsndfile needs the method to exist."""
        raise OSError("this file is only read")
