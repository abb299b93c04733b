"""The container of compressed speech, specified in `docs/bitstream.md`: a header, then blocks with a checksum each. Without torch.

Block payloads are opaque bytes here. Reading goes forward only, in bounded memory and time for any input, and damage to one block does
not affect the others.
"""

from __future__ import annotations

import struct
from binascii import crc_hqx
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from vcae.errors import BitstreamError

MAGIC, VERSION = b"VCZ", 1
SAMPLE_RATE = 16000
HOP_SAMPLES = 256
FRAMES_A_STEP = 2
STEP_SAMPLES = FRAMES_A_STEP * HOP_SAMPLES
# Allowed rates, in kbit/s.
# A block's number of steps is a multiple of this: 16 to 256 steps, 0.5 to 8.2 s.
STEPS_UNIT = 16
MAX_BLOCK_UNITS = 16
MAX_STEP_BYTES = 256
MAX_SAMPLES = 1 << 34
MAX_SPEAKER_BYTES = 64
CHECKPOINT_BYTES = 4
CRC_START = 0xFFFF
CRC_BYTES = 2
# Smallest block: a length of one byte, no payload, a checksum.
MIN_BLOCK_BYTES = 1 + CRC_BYTES
# After damage, the next block is searched for within this many times the longest block.
REACH = 2
# Most blocks that may be missing without any bytes left of them; one more is allowed per this many skipped bytes.
MAX_MISSING = 4
BYTES_A_MISSING = 8
# Number of valid blocks that must follow a block found in a search; more after a long search, as a checksum matches by chance once in 65,536.
FOLLOWERS, FAR_FOLLOWERS = 1, 2
FAR_BYTES = 4096
# Most bytes checked in searches: a constant, plus a number for each byte read before.
SEARCH_BYTES = 1 << 27
SEARCH_A_BYTE = 512


@dataclass(frozen=True)
class Header:
    """Header of a compressed file.

    Attributes:
        checkpoint: The first 4 bytes of the SHA-256 of the codec's checkpoint.
        n_samples: Length of the sound at 16 kHz, 1 to 2**34.
        quality: 0 (base layer only) to 255.
        block_steps: Steps of 512 samples per block: 16, 32 ... 256.
        level: 0 to 255; interpreted by the codec, as are `f0` and `speaker`.
        f0: 0 to 255.
        speaker: At most 64 bytes.

    Raises:
        BitstreamError: For values outside the format's ranges.
    """

    checkpoint: bytes
    n_samples: int
    quality: int = 0
    block_steps: int = 128
    level: int = 0
    f0: int = 0
    speaker: bytes = b""

    def __post_init__(self) -> None:
        units, rest = divmod(self.block_steps, STEPS_UNIT)
        most = STEPS_UNIT * MAX_BLOCK_UNITS
        for name, value, fits, allowed in (
            ("checkpoint", self.checkpoint, len(self.checkpoint) == CHECKPOINT_BYTES, f"{CHECKPOINT_BYTES} bytes"),
            ("n_samples", self.n_samples, 1 <= self.n_samples <= MAX_SAMPLES, f"1 to {MAX_SAMPLES}"),
            ("quality", self.quality, 0 <= self.quality <= 255, "0 to 255"),
            (
                "block_steps",
                self.block_steps,
                1 <= units <= MAX_BLOCK_UNITS and not rest,
                f"{STEPS_UNIT} to {most} in steps of {STEPS_UNIT}",
            ),
            ("level", self.level, 0 <= self.level <= 255, "0 to 255"),
            ("f0", self.f0, 0 <= self.f0 <= 255, "0 to 255"),
            ("speaker", self.speaker, len(self.speaker) <= MAX_SPEAKER_BYTES, f"at most {MAX_SPEAKER_BYTES} bytes"),
        ):
            if not fits:
                raise BitstreamError(f"a header with {name} {value!r:.80} is impossible; allowed are {allowed}")

    @property
    def n_frames(self) -> int:
        """Number of mel frames."""
        return 1 + self.n_samples // HOP_SAMPLES

    @property
    def n_steps(self) -> int:
        """Number of steps of two frames, counting a partial one at the end."""
        return -(-self.n_frames // FRAMES_A_STEP)

    @property
    def n_blocks(self) -> int:
        """Number of blocks, of which the last may have fewer steps."""
        return -(-self.n_steps // self.block_steps)

    @property
    def duration_s(self) -> float:
        """Length of the sound in seconds."""
        return self.n_samples / SAMPLE_RATE

    @property
    def block_samples(self) -> int:
        """Samples of a full block."""
        return self.block_steps * STEP_SAMPLES

    @property
    def max_block_bytes(self) -> int:
        """Longest payload of a block, in bytes."""
        return self.block_steps * MAX_STEP_BYTES

    def steps_of(self, index: int) -> int:
        """Return the number of steps of a block: `block_steps` for all except the last."""
        return min(self.block_steps, self.n_steps - index * self.block_steps)

    def span(self, index: int, count: int = 1) -> tuple[float, float]:
        """Return start and end of consecutive blocks in the sound, in seconds; the spans of all blocks cover it without gaps.

        Frames are centred on multiples of 256 samples, so a step begins half a frame before its first one's centre.
        """
        edges = []
        for edge in (index, index + count):
            sample = edge * self.block_samples - HOP_SAMPLES // 2
            edges.append((self.n_samples if edge >= self.n_blocks else min(max(sample, 0), self.n_samples)) / SAMPLE_RATE)
        return edges[0], edges[1]

    def pack(self) -> bytes:
        """Return the header as bytes."""
        packed = MAGIC + bytes([VERSION]) + self.checkpoint + bytes([self.quality, self.block_steps // STEPS_UNIT])
        packed += _varint(self.n_samples) + bytes([self.level, self.f0, len(self.speaker)]) + self.speaker
        return packed + _crc_bytes(crc_hqx(packed, CRC_START))


@dataclass(frozen=True)
class Block:
    """Intact block.

    Attributes:
        index: Number of the block, from 0.
        payload: Its bytes.
        offset: Byte of the file where it begins.
    """

    index: int
    payload: bytes
    offset: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Lost:
    """Damaged part of a file.

    Attributes:
        index: Number of the first lost block or, if none is lost, of the next block.
        offset: Byte of the file where the damage begins.
        reason: Description of the damage.
        count: Number of lost blocks; 0 for bytes that belong to no block.
    """

    index: int
    offset: int
    reason: str
    count: int = 1


def write(header: Header, payloads: Iterable[bytes]) -> bytes:
    """Return the bytes of a whole file.

    Args:
        header: Header of the file.
        payloads: One payload for each block.

    Raises:
        BitstreamError: If there are too few or too many payloads, or one is longer than `header.max_block_bytes`.
    """
    pieces = list(pack(header, payloads))
    if len(pieces) != 1 + header.n_blocks:
        raise BitstreamError(f"{len(pieces) - 1} blocks were given; {header.n_samples} samples need {header.n_blocks}")
    return b"".join(pieces)


def pack(header: Header, payloads: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bytes of a header, then those of a block for each payload.

    Raises:
        BitstreamError: If a payload is longer than `header.max_block_bytes`.
    """
    packed = header.pack()
    yield packed
    seed = _seed(packed)
    for index, payload in enumerate(payloads):
        if len(payload) > header.max_block_bytes:
            raise BitstreamError(
                f"block {index} has {len(payload)} bytes; at most {header.max_block_bytes} fit into {header.block_steps} steps"
            )
        body = _varint(len(payload)) + payload
        yield body + _crc_bytes(crc_hqx(struct.pack("<I", index), crc_hqx(body, seed)))


def _name_of(opened: BinaryIO) -> str:
    name = getattr(opened, "name", None)
    return "standard input" if name == "<stdin>" else name if isinstance(name, str) else "the compressed data"


def _varint(value: int) -> bytes:
    """Return a number as LEB128: seven bits per byte, the lowest first, the highest bit set if another byte follows."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _crc_bytes(crc: int) -> bytes:
    return struct.pack("<H", crc)


def _seed(packed: bytes) -> int:
    """Return the initial value of block checksums: the header's checksum, so that a block of another file does not match."""
    return crc_hqx(packed[-CRC_BYTES:], CRC_START)


class _Ahead:
    """Buffer for looking ahead in a stream: bytes stay in it until they are skipped."""

    def __init__(self, opened: BinaryIO, name: str) -> None:
        self._opened, self._name = opened, name
        self._bytes, self._ended = bytearray(), False
        self.offset = 0

    def has(self, n: int) -> bool:
        """Return whether `n` more bytes exist; reads no more than these, as a pipe could block."""
        while len(self._bytes) < n and not self._ended:
            try:
                piece = self._opened.read(n - len(self._bytes))
            except OSError as error:
                raise BitstreamError(f"{self._name} cannot be read ({error.strerror}); copy it again") from error
            self._bytes += piece or b""
            self._ended = not piece
        return len(self._bytes) >= n

    def peek(self, start: int, stop: int) -> bytes:
        """Return bytes `start` to `stop`, counted from the present position; fewer at the end."""
        self.has(stop)
        return bytes(self._bytes[start:stop])

    def varint(self, start: int, most: int) -> tuple[int, int] | None:
        """Return a number and the position after it; None if it is cut off, above `most`, or not in its shortest form."""
        value, shift, at = 0, 0, start
        while self.has(at + 1) and value <= most and shift < 64:
            byte = self._bytes[at]
            value |= (byte & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if byte < 0x80:
                return (value, at) if value <= most and (byte or shift == 7) else None
        return None

    def skip(self, n: int) -> None:
        """Skip `n` bytes."""
        del self._bytes[:n]
        self.offset += n


class Reader:
    """Reader of a compressed file from its start to its end.

    It can be iterated over once and yields a `Block` or a `Lost` for all blocks in order: the number of blocks plus the counts of the lost
    ones is `header.n_blocks`. If the file ends too early, one `Lost` counts all blocks that are missing.

    Args:
        opened: Stream of bytes; need not be seekable.
        name: Name of the file for messages; that of the stream if None.
        strict: Raise for damage instead of yielding `Lost`.

    Attributes:
        header: Header of the file.

    Raises:
        BitstreamError: If it is not a compressed file, has another version or a damaged header; when iterating, for damage if `strict`.
    """

    def __init__(self, opened: BinaryIO, name: str | None = None, strict: bool = False) -> None:
        self._name, self._strict = name or _name_of(opened), strict
        self._ahead = _Ahead(opened, self._name)
        self._searched = 0
        self.header, self._seed = self._read_header()
        self._most = self.header.max_block_bytes

    def __iter__(self) -> Iterator[Block | Lost]:
        for item in self._read():
            if self._strict and isinstance(item, Lost):
                raise BitstreamError(
                    f"{self._name} is damaged at byte {item.offset}: {item.reason}; strict decoding refuses it"
                )
            yield item

    def _read_header(self) -> tuple[Header, int]:
        ahead = self._ahead
        start = ahead.peek(0, len(MAGIC) + 1)
        if not start:
            raise BitstreamError(f"{self._name} is empty; give a file that `vcae compress` wrote")
        if start[: len(MAGIC)] != MAGIC[: len(start)]:
            raise BitstreamError(f"{self._name} is not compressed speech (it begins with {start!r}); give a .vcz file")
        if len(start) > len(MAGIC) and start[-1] != VERSION:
            raise BitstreamError(f"{self._name} has version {start[-1]}; this version of vcae reads {VERSION}, so update vcae")
        at = len(start) + CHECKPOINT_BYTES + 2
        fixed, length = ahead.peek(len(start), at), ahead.varint(at, MAX_SAMPLES)
        # Fields of variable length follow, starting with the longest number.
        end = at + 5
        if length is not None:
            small = ahead.peek(length[1], length[1] + 3)
            end = length[1] + 3 + (small[2] if len(small) == 3 else 0) + CRC_BYTES
        if not ahead.has(end):
            raise BitstreamError(f"{self._name} ends inside its header; get a complete copy of it")
        packed = ahead.peek(0, end)
        if length is None or _crc_bytes(crc_hqx(packed[:-CRC_BYTES], CRC_START)) != packed[-CRC_BYTES:]:
            raise BitstreamError(f"{self._name} has a damaged header; get a fresh copy of it")
        speaker = packed[length[1] + 3 : -CRC_BYTES]
        header = Header(fixed[:-2], length[0], fixed[-2], fixed[-1] * STEPS_UNIT, small[0], small[1], speaker)
        ahead.skip(end)
        return header, _seed(packed)

    def _read(self) -> Iterator[Block | Lost]:
        index, n, ahead = 0, self.header.n_blocks, self._ahead
        while index < n:
            if not ahead.has(1):
                yield Lost(index, ahead.offset, "the file ends here", n - index)
                return
            found = self._block(0)
            if found is not None and found.has_index(index):
                payload = ahead.peek(found.start, found.end - CRC_BYTES)
                block = Block(index, payload, ahead.offset)
                ahead.skip(found.end)
                yield block
                index += 1
                continue
            go_on = self._after_damage(index, found)
            if go_on is None:
                # Nothing after this can be decoded, so it is not read.
                cut = found is None and not ahead.has(self._most + MIN_BLOCK_BYTES)
                reason = "the file ends within a block" if cut else "from here on no block could be found"
                yield Lost(index, ahead.offset, reason, n - index)
                return
            yield Lost(index, ahead.offset, go_on.reason, go_on.index - index)
            ahead.skip(go_on.at)
            index = go_on.index
        if ahead.has(1):
            yield Lost(n, ahead.offset, "bytes follow the last block", 0)

    def _block(self, at: int) -> _Found | None:
        """Return the block at a position if it could be one, of any index; otherwise None."""
        length = self._ahead.varint(at, self._most)
        if length is None:
            return None
        end = length[1] + length[0] + CRC_BYTES
        if not self._ahead.has(end):
            return None
        state = crc_hqx(self._ahead.peek(at, end - CRC_BYTES), self._seed)
        return _Found(length[1], end, state, int.from_bytes(self._ahead.peek(end - CRC_BYTES, end), "little"))

    def _after_damage(self, index: int, found: _Found | None) -> _GoOn | None:
        """Find the next valid block after damage at the present position, where block `index` was expected."""
        # If its length is intact, the next block or the end of the file follows directly.
        if found is not None and self._follow(found.end, index + 1, 1):
            return _GoOn(found.end, index + 1, "the checksum of the block does not fit")
        return self._search(index)

    def _follow(self, at: int, index: int, count: int) -> bool:
        """Return whether `count` valid blocks from an index on are at a position, or fewer and then the end of the file."""
        for following in range(index, index + count):
            if following == self.header.n_blocks:
                return not self._ahead.has(at + 1)
            found = self._checked(at)
            if found is None or not found.has_index(following):
                return False
            at = found.end
        return True

    def _checked(self, at: int) -> _Found | None:
        """Return `_block(at)` in a search, whose total work is limited for any input."""
        if self._searched > SEARCH_BYTES + SEARCH_A_BYTE * self._ahead.offset:
            return None
        found = self._block(at)
        self._searched += 1 if found is None else found.end - at
        return found

    def _search(self, index: int) -> _GoOn | None:
        """Find the nearest position with a valid block, numbered `index` or higher, that is followed by enough valid blocks."""
        n, known, newest = self.header.n_blocks, dict[int, int](), index
        for at in range(REACH * self._most):
            if not self._ahead.has(at + MIN_BLOCK_BYTES):
                return None
            while newest < min(n, index + 1 + MAX_MISSING + at // BYTES_A_MISSING):
                known.setdefault(_index_crc(newest), newest)
                newest += 1
            found = self._checked(at)
            chosen = None if found is None else known.get(found.index_crc)
            followers = FOLLOWERS if at < FAR_BYTES else FAR_FOLLOWERS
            if found is not None and chosen is not None and self._follow(found.end, chosen + 1, followers):
                return _GoOn(at, chosen, _describe_gap(at, chosen - index))
        return None


@dataclass(frozen=True)
class _Found:
    """Candidate of a block: start of its payload, end, checksum before the index is included, and stored checksum."""

    start: int
    end: int
    state: int
    stored: int

    @property
    def index_crc(self) -> int:
        """Checksum that the block's index must have on its own; CRCs are linear."""
        return self.stored ^ crc_hqx(bytes(4), self.state)

    def has_index(self, index: int) -> bool:
        """Return whether the checksum matches an index."""
        return self.index_crc == _index_crc(index)


@dataclass(frozen=True)
class _GoOn:
    """Position after damage: bytes to skip, number of the next block, and description of the damage."""

    at: int
    index: int
    reason: str


def _index_crc(index: int) -> int:
    return crc_hqx(struct.pack("<I", index), 0)


def _describe_gap(skipped: int, missing: int) -> str:
    if not skipped:
        return "a block is missing" if missing == 1 else f"{missing} blocks are missing"
    return f"{skipped} bytes are damaged" if missing else f"{skipped} bytes belong to no block"
