"""The container of compressed speech: exact bytes, every error, damage that stays where it is, hostile files."""

import io
import itertools
import os
import random
import re
import struct
import subprocess
import sys
import threading
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT
from tests.mutations import mutate, take_apart
from vcae.codec.bitstream import SEARCH_BYTES, Block, Header, Lost, Reader, write
from vcae.errors import BitstreamError

SEED = b"\xa1\xb2\xc3\xd4"
# 40 steps of 32 ms in blocks of 16: 16, 16 and 8.
SMALL = Header(SEED, n_samples=20000, quality=3, block_steps=16, level=200, f0=97, speaker=b"voice")
# 12 blocks of about 45 bytes.
LONG = Header(SEED, n_samples=12 * 8192 - 300, block_steps=16)
EASY = settings(deadline=None, max_examples=150, derandomize=True)


def _crc(data, crc=0xFFFF):
    """The checksum bit by bit: polynomial x^16 + x^12 + x^5 + 1, highest bit first."""
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ (0x1021 if crc & 0x8000 else 0)
            crc &= 0xFFFF
    return crc


def _payloads(header, seed=0, smallest=30, largest=60):
    rng = random.Random(seed)
    return [rng.randbytes(rng.randint(smallest, largest)) for _ in range(header.n_blocks)]


def _read(data, strict=False):
    reader = Reader(io.BytesIO(data), strict=strict)
    items = list(reader)
    n_lost = sum(item.count for item in items if isinstance(item, Lost))
    assert n_lost + sum(isinstance(item, Block) for item in items) == reader.header.n_blocks
    indices = [item.index for item in items]
    assert indices == sorted(indices)
    return reader.header, items


def _blocks(items):
    return {item.index: item.payload for item in items if isinstance(item, Block)}


def _lost(items):
    return [item for item in items if isinstance(item, Lost)]


def _pieces(header, payloads):
    """The bytes of the header and of each block."""
    data, start = write(header, payloads), len(header.pack())
    pieces = [data[:start]]
    for payload in payloads:
        size = len(payload) + 2 + (1 if len(payload) < 128 else 2)
        pieces.append(data[start : start + size])
        start += size
    assert start == len(data)
    return pieces


HEADERS = st.builds(
    Header,
    checkpoint=st.binary(min_size=4, max_size=4),
    n_samples=st.integers(1, 300_000),
    quality=st.integers(0, 255),
    block_steps=st.integers(1, 16).map(lambda n: 16 * n),
    level=st.integers(0, 255),
    f0=st.integers(0, 255),
    speaker=st.binary(max_size=64),
)


@EASY
@given(header=HEADERS, data=st.data())
def test_what_is_written_is_read(header, data):
    payloads = [data.draw(st.binary(max_size=300)) for _ in range(header.n_blocks)]
    found, items = _read(write(header, payloads), strict=True)
    assert found == header
    assert items == [Block(n, payload) for n, payload in enumerate(payloads)]
    pieces = _pieces(header, payloads)
    assert [item.offset for item in items] == [sum(map(len, pieces[: n + 1])) for n in range(len(payloads))]


def test_the_longest_header_and_block():
    header = Header(SEED, 1 << 34, 255, 256, 255, 255, bytes(range(64)))
    assert Reader(io.BytesIO(header.pack() + b"x")).header == header
    short = Header(SEED, 5000, block_steps=16)
    payload = random.Random(0).randbytes(short.max_block_bytes)
    assert _read(write(short, [payload]))[1] == [Block(0, payload)]


# Not to be changed while the version is 1: files with these bytes exist.
STORED = "56435a01 a1b2c3d4 03 01 a09c01 c8 61 05 766f696365 677f04 00010203 31db00 bbad8101" + "55" * 129 + "f2cb"


def test_the_bytes_of_a_known_file():
    payloads = [bytes(range(4)), b"", b"\x55" * 129]
    stored = bytes.fromhex(STORED)
    assert write(SMALL, payloads).hex() == stored.hex()
    assert _read(stored, strict=True) == (SMALL, [Block(n, payload) for n, payload in enumerate(payloads)])


def test_checksums_against_an_independent_one():
    assert _crc(b"123456789") == 0x29B1
    head, *blocks = _pieces(SMALL, _payloads(SMALL))
    assert struct.unpack("<H", head[-2:])[0] == _crc(head[:-2])
    for index, block in enumerate(blocks):
        covered = head[-2:] + block[:-2] + struct.pack("<I", index)
        assert struct.unpack("<H", block[-2:])[0] == _crc(covered)


def test_the_documented_example_is_this_file():
    text = (ROOT / "docs" / "bitstream.md").read_text()
    example = re.search(r"<!-- example -->\n\n```\n(.*?)```", text, re.S)[1]
    rows = re.findall(r"^([0-9a-f]{4})  ((?:[0-9a-f]{2} ?)+)", example, re.M)
    data = bytes.fromhex("".join(row for _, row in rows))
    assert [int(at, 16) for at, _ in rows] == [sum(len(bytes.fromhex(r)) for _, r in rows[:n]) for n in range(len(rows))]
    header = Header(bytes.fromhex("a1b2c3d4"), 20000, 3, 16, 200, 97, b"voice")
    assert data == write(header, [b"\x00\x01\x02\x03", b"", b"\x2a" * 3])
    assert "0x1021" in text
    assert "0x29B1" in text


def test_counts_and_times():
    assert (SMALL.n_frames, SMALL.n_steps, SMALL.n_blocks) == (79, 40, 3)
    assert [SMALL.steps_of(n) for n in range(3)] == [16, 16, 8]
    assert SMALL.duration_s == 1.25
    assert SMALL.block_samples == 8192
    edges = [0.0, (8192 - 128) / 16000, (2 * 8192 - 128) / 16000, 1.25]
    assert [SMALL.span(n) for n in range(3)] == list(itertools.pairwise(edges))
    assert SMALL.span(1, 2) == (edges[1], 1.25)
    assert SMALL.span(3, 0) == (1.25, 1.25)
    for n_samples in (1, 255, 256, 511, 512, 8191, 8192, 8193):
        header = Header(SEED, n_samples, block_steps=16)
        assert header.n_steps == -(-(1 + n_samples // 256) // 2)
        assert header.span(0, header.n_blocks) == (0, n_samples / 16000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoint": b"abc"}, "checkpoint b'abc' is impossible; allowed are 4 bytes"),
        ({"n_samples": 0}, "n_samples 0 is impossible; allowed are 1 to 17179869184"),
        ({"n_samples": (1 << 34) + 1}, "n_samples 17179869185"),
        ({"quality": 256}, "quality 256 is impossible; allowed are 0 to 255"),
        ({"block_steps": 0}, "block_steps 0 is impossible; allowed are 16 to 256 in steps of 16"),
        ({"block_steps": 24}, "block_steps 24"),
        ({"block_steps": 272}, "block_steps 272"),
        ({"level": -1}, "level -1"),
        ({"f0": 256}, "f0 256"),
        ({"speaker": bytes(65)}, "allowed are at most 64 bytes"),
    ],
)
def test_impossible_headers_are_not_made(change, message):
    values = {"checkpoint": SEED, "n_samples": 20000} | change
    with pytest.raises(BitstreamError, match=message):
        Header(**values)


def test_blocks_that_cannot_be_written():
    with pytest.raises(BitstreamError, match="2 blocks were given; 20000 samples need 3"):
        write(SMALL, [b"", b""])
    with pytest.raises(BitstreamError, match="4 blocks were given"):
        write(SMALL, [b""] * 4)
    with pytest.raises(BitstreamError, match="block 1 has 4097 bytes; at most 4096 fit into 16 steps"):
        write(SMALL, [b"", bytes(4097), b""])


def _sealed(head):
    """A header with a right checksum."""
    return head + struct.pack("<H", _crc(head))


PACKED = SMALL.pack()
UNREADABLE = {
    "nothing": (b"", "is empty"),
    "a wav": (b"RIFF\x00\x00\x00\x00WAVE", r"not compressed speech \(it begins with b'RIFF'\)"),
    "one wrong letter": (b"VCX\x01" + PACKED[4:], "not compressed speech"),
    "another version": (b"VCZ\x02" + PACKED[4:], "has version 2; this version of vcae reads 1"),
    "checksum": (PACKED[:-1] + bytes([PACKED[-1] ^ 1]), "damaged header"),
    "no samples": (_sealed(PACKED[:10] + b"\x00" + PACKED[13:-2]), "n_samples 0"),
    "no steps": (_sealed(PACKED[:9] + b"\x00" + PACKED[10:-2]), "block_steps 0"),
    "too many steps": (_sealed(PACKED[:9] + b"\x11" + PACKED[10:-2]), "block_steps 272"),
    "too many samples": (_sealed(PACKED[:10] + b"\x81\x80\x80\x80\x40" + PACKED[13:-2]), "damaged header"),
    "a number longer than needed": (_sealed(PACKED[:10] + b"\xa0\x9c\x81\x00" + PACKED[13:-2]), "damaged header"),
    "a number without an end": (PACKED[:10] + b"\xff" * 100, "damaged header"),
    "a long speaker": (_sealed(PACKED[:15] + b"\x41" + bytes(65)), "at most 64 bytes"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_opened_says_why(case):
    data, message = UNREADABLE[case]
    with pytest.raises(BitstreamError, match=message):
        Reader(io.BytesIO(data))


def test_a_header_that_is_cut_anywhere():
    for n in range(1, len(PACKED)):
        with pytest.raises(BitstreamError, match="ends inside its header"):
            Reader(io.BytesIO(PACKED[:n]))


def test_errors_name_the_file_and_a_disk_that_fails_is_one():
    class Broken(io.RawIOBase):
        def read(self, size=-1):
            raise OSError(5, "Input/output error")

    with pytest.raises(BitstreamError, match=r"^talk.vcz cannot be read \(Input/output error\)"):
        Reader(Broken(), "talk.vcz")
    with pytest.raises(BitstreamError, match=r"^talk.vcz is empty"):
        Reader(io.BytesIO(), "talk.vcz")


def test_a_file_that_is_cut_anywhere_is_read_up_to_there():
    payloads = _payloads(SMALL)
    pieces = _pieces(SMALL, payloads)
    data = b"".join(pieces)
    ends = [sum(len(piece) for piece in pieces[:n]) for n in range(1, len(pieces) + 1)]
    for n in range(len(pieces[0]), len(data)):
        whole = sum(end <= n for end in ends) - 1
        _, items = _read(data[:n])
        assert items[:whole] == [Block(k, payloads[k]) for k in range(whole)]
        assert items[whole:] == [
            Lost(whole, ends[whole], "the file ends here" if n in ends else "the file ends within a block", 3 - whole)
        ]
        with pytest.raises(BitstreamError, match=f"is damaged at byte {ends[whole]}: the file ends"):
            _read(data[:n], strict=True)


def _check_change(data, changed, payloads):
    """A change of one byte is found, and costs no more than its block."""
    try:
        _, items = _read(changed)
    except BitstreamError:
        assert changed[: len(PACKED)] != data[: len(PACKED)]
        return
    assert changed[: len(PACKED)] == data[: len(PACKED)]
    lost = _lost(items)
    assert [item.count for item in lost] == [1]
    assert _blocks(items) == {n: p for n, p in enumerate(payloads) if n != lost[0].index}
    with pytest.raises(BitstreamError, match="strict decoding refuses it"):
        _read(changed, strict=True)


def test_every_flip_of_a_bit_or_a_byte_is_found_and_stays_in_its_block():
    payloads = _payloads(SMALL)
    data = write(SMALL, payloads)
    rng = random.Random(1)
    for at in range(len(data)):
        for mask in [1 << bit for bit in range(8)] + [0xFF, rng.randint(1, 255)]:
            changed = bytearray(data)
            changed[at] ^= mask
            _check_change(data, bytes(changed), payloads)


def _joined(pieces, order):
    return pieces[0] + b"".join(pieces[1 + n] for n in order)


@pytest.mark.parametrize(
    ("order", "lost"),
    [
        ([0, 2, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11], [1, 2]),
        ([1, 0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [0, 1]),
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 10], [10, 11]),
        ([0, 7, 2, 3, 4, 5, 6, 1, 8, 9, 10, 11], [1, 7]),
        ([0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], []),
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 11], []),
        ([0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11], [2]),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [0]),
        ([0, 1, 2, 7, 8, 9, 10, 11], [3, 4, 5, 6]),
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [11]),
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11], [10]),
    ],
    ids=["swapped", "first", "last", "far", "doubled", "last-doubled", "dropped", "no-first", "four", "no-last", "no-10"],
)
def test_blocks_that_are_swapped_doubled_or_missing(order, lost):
    payloads = _payloads(LONG)
    data = _joined(_pieces(LONG, payloads), order)
    _, items = _read(data)
    assert _blocks(items) == {n: p for n, p in enumerate(payloads) if n not in lost}
    assert _lost(items)
    with pytest.raises(BitstreamError, match="damaged"):
        _read(data, strict=True)


def test_a_block_of_another_file_is_not_taken_for_this_ones():
    payloads = _payloads(LONG)
    other = Header(b"\0\0\0\0", LONG.n_samples, block_steps=16)
    for strangers in (_pieces(other, _payloads(LONG, 5)), _pieces(Header(SEED, 20000, 9, 16), _payloads(SMALL, 6))):
        pieces = _pieces(LONG, payloads)
        pieces[2] = strangers[2]
        _, items = _read(b"".join(pieces))
        assert _blocks(items) == {n: p for n, p in enumerate(payloads) if n != 1}


def test_bytes_after_the_end_are_told_and_not_all_read():
    class Endless(io.RawIOBase):
        """A file, and zeros for ever."""

        def __init__(self, data):
            self.data, self.given = data, 0

        def read(self, size=-1):
            assert 0 <= size < 1 << 20
            piece = self.data[:size]
            self.data = self.data[size:]
            self.given += size
            return piece or bytes(size)

    payloads = _payloads(SMALL)
    data = write(SMALL, payloads)
    source = Endless(data)
    items = list(Reader(source))
    assert items == [*(Block(n, p) for n, p in enumerate(payloads)), Lost(3, len(data), "bytes follow the last block", 0)]
    assert source.given < len(data) + 10


def test_after_a_damaged_length_the_next_block_is_found():
    payloads = _payloads(LONG, smallest=100, largest=400)
    pieces = _pieces(LONG, payloads)
    rng = random.Random(2)
    for index in range(LONG.n_blocks):
        at = sum(len(piece) for piece in pieces[: 1 + index])
        for size in (b"\x00", b"\x7f", b"\xff\xff\x03", b"\xff\xff\xff", rng.randbytes(2), rng.randbytes(3)):
            data = bytearray(b"".join(pieces))
            data[at : at + len(size)] = size
            _, items = _read(bytes(data))
            assert _blocks(items) == {n: p for n, p in enumerate(payloads) if n != index}
            assert [(item.index, item.offset, item.count) for item in _lost(items)] == [(index, at, 1)]


@pytest.mark.parametrize("size", [1, 50, 300, 1000])
def test_a_hole_of_noise_or_a_piece_cut_out_costs_only_its_blocks(size):
    header = Header(SEED, 60 * 8192 - 300, block_steps=16)
    payloads = _payloads(header, smallest=60, largest=200)
    pieces = _pieces(header, payloads)
    data = b"".join(pieces)
    ends = [sum(len(piece) for piece in pieces[: n + 1]) for n in range(len(pieces))]
    rng = random.Random(size)
    for _ in range(20):
        at = rng.randrange(len(pieces[0]), len(data) - size)
        hit = {n for n in range(header.n_blocks) if ends[n] < at + size and at < ends[n + 1]}
        for filling in (rng.randbytes(size), bytes(size), b"", rng.randbytes(size + 7)):
            if not filling and len(hit) > 4:
                continue
            _, items = _read(data[:at] + filling + data[at + size :])
            assert _blocks(items) == {n: p for n, p in enumerate(payloads) if n not in hit or data[at : at + size] == filling}


def test_a_pipe_is_read_as_it_comes():
    """Each block is given before the next one is written."""
    out, into = os.pipe()
    payloads = _payloads(SMALL)
    pieces = _pieces(SMALL, payloads)
    with os.fdopen(out, "rb", buffering=0) as opened:
        os.write(into, pieces[0])
        reader = Reader(opened)
        assert reader.header == SMALL
        items = iter(reader)
        for n, piece in enumerate(pieces[1:]):
            # In two parts, so that a read comes short.
            os.write(into, piece[:5])
            late = threading.Timer(0.02, os.write, (into, piece[5:]))
            late.start()
            assert next(items) == Block(n, payloads[n])
            late.join()
        os.close(into)
        assert list(items) == []


def test_claims_cost_nothing():
    """A file that claims 12 days and holds some bytes ends at once."""
    for steps in (16, 256):
        header = Header(SEED, 1 << 34, block_steps=steps)
        for rest in (b"", b"\xff\xff\x03", b"\x01", bytes(30), random.Random(0).randbytes(60)):
            start = time.perf_counter()
            _, items = _read(header.pack() + rest)
            assert time.perf_counter() - start < 0.5
            assert len(items) == 1
            assert items[0].count == header.n_blocks


def _hostile(kind, header, size):
    """Bytes that are made to be slow."""
    rng = random.Random(3)
    head = header.pack()
    if kind == "zeros":
        return head + bytes(size)
    if kind == "long lengths":
        return head + b"\x80\xff\x03" * (size // 3)
    if kind == "noise":
        return head + rng.randbytes(size)
    blocks = _pieces(header, [b""] * header.n_blocks)[1:]
    if kind == "two of three":
        # Every search finds the next block soon, and begins again.
        return head + b"".join(b"\x80\xff" + blocks[n] + blocks[n + 1] for n in range(0, len(blocks) - 1, 3))[:size]
    return head + b"".join(b"\x80\xff" * 50 + blocks[n] + blocks[n + 1] for n in range(0, len(blocks) - 1, 2))[:size]


KINDS = ["zeros", "long lengths", "noise", "two of three", "far between"]


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_bytes_take_little_time(kind):
    """The longest blocks there are, and so the longest searches."""
    header = Header(SEED, 30000 * 256 * 512, block_steps=256)
    data = _hostile(kind, header, 300_000)
    start = time.perf_counter()
    _, items = _read(data)
    assert time.perf_counter() - start < 5
    assert _lost(items)


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_bytes_take_little_memory(kind):
    header = Header(SEED, 30000 * 32 * 512, block_steps=32)
    source = io.BytesIO(_hostile(kind, header, 60_000))
    tracemalloc.start()
    n_lost = sum(isinstance(item, Lost) for item in Reader(source))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_lost
    # A search looks as far as two of the longest blocks, and at three of them from there on; and it knows some thousand numbers.
    assert peak < 500_000


def test_little_of_a_file_claims_little_sound():
    """What is missing in the middle is no more than what bytes passed over could have held."""
    header = Header(SEED, 30000 * 8192, block_steps=16)
    pieces = _pieces(header, [b"x" * 10] * header.n_blocks)
    data = pieces[0] + pieces[1] + pieces[20000] + pieces[20001] + pieces[20002]
    _, items = _read(data)
    assert items == [
        Block(0, b"x" * 10),
        Lost(1, len(pieces[0]) + 13, "from here on no block could be found", header.n_blocks - 1),
    ]
    assert SEARCH_BYTES < 1 << 28


def _outcome(data):
    """What is read, or nothing if it cannot be opened; any other exception is a failure."""
    try:
        return _read(data)
    except BitstreamError:
        return None, []


@EASY
@given(data=st.binary(max_size=400), head=st.sampled_from([b"", b"VCZ", b"VCZ\x01", SMALL.pack(), LONG.pack()]))
def test_any_bytes_are_read_or_refused(data, head):
    header, items = _outcome(head + data)
    assert header is None or len(items) <= header.n_blocks + len(data)


CHANGES = st.lists(
    st.tuples(st.sampled_from(["flip", "put", "insert", "delete", "cut", "copy"]), st.floats(0, 1), st.binary(max_size=20)),
    min_size=1,
    max_size=4,
)


def _change(data, changes):
    for kind, place, piece in changes:
        at = int(place * len(data))
        if kind == "flip":
            data = data[:at] + bytes(b ^ 1 << len(piece) % 8 for b in data[at : at + 1]) + data[at + 1 :]
        elif kind == "cut":
            data = data[:at]
        else:
            middle = {"put": piece, "insert": piece, "delete": b"", "copy": data[-at:][:60]}[kind]
            data = data[:at] + middle + data[at + (0 if kind in ("insert", "copy") else len(piece)) :]
    return data


@EASY
@given(changes=CHANGES)
def test_changed_files_are_read_or_refused_and_give_nothing_that_was_not_written(changes):
    payloads = _payloads(LONG)
    _, items = _outcome(_change(write(LONG, payloads), changes))
    assert all(payloads[n] == payload for n, payload in _blocks(items).items())


def test_reading_needs_no_torch():
    code = "import sys, vcae.codec.bitstream; sys.exit(any(m in sys.modules for m in ('torch', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_mutated_files_are_read_or_refused():
    """All kinds that the codec is fuzzed with; what disks do gives nothing that was not written."""
    files = [write(header, _payloads(header, n)) for n, header in enumerate((SMALL, LONG))]
    written = [dict(enumerate(take_apart(data)[1])) for data in files]
    kinds = set()
    for seed in range(1500):
        kind, data = mutate(seed, files)
        kinds.add(kind)
        header, items = _outcome(data)
        if header is not None and not kind.startswith("edit_"):
            assert any(_blocks(items).items() <= known.items() for known in written), seed
    assert len(kinds) == 10
