"""Compressed files with something wrong: what disks, networks and enemies do to them, the latter with all checksums put right."""

import io
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from vcae.codec.bitstream import Block, Header, Reader, pack


def take_apart(data: bytes) -> tuple[Header, list[bytes]]:
    """Return the header and the payloads of a file that is whole."""
    reader = Reader(io.BytesIO(data), strict=True)
    return reader.header, [item.payload for item in reader if isinstance(item, Block)]


def put_together(header: Header, payloads: Sequence[bytes]) -> bytes:
    """Return a file whose checksums are right, with as many blocks as there are payloads."""
    return b"".join(pack(header, payloads))


def _place(rng: random.Random, data: bytes) -> int:
    # The header is short, and every byte of it matters.
    return rng.randrange(min(len(data), 90) if rng.random() < 0.1 else len(data)) if data else 0


def flip_bits(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Flip 1 to 4 bits."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        changed[_place(rng, data)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def replace_bytes(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Put noise, zeros or ones over up to 64 bytes."""
    at, n = _place(rng, data), rng.randint(1, 64)
    return data[:at] + rng.choice([rng.randbytes(n), bytes(n), b"\xff" * n]) + data[at + n :]


def insert(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Put up to 2,000 bytes in between."""
    at = _place(rng, data)
    return data[:at] + rng.randbytes(rng.choice([1, 2, 7, 100, 2000])) + data[at:]


def delete(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Cut up to 1,000 bytes out."""
    at = _place(rng, data)
    return data[:at] + data[at + rng.choice([1, 2, 7, 100, 1000]) :]


def truncate(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Cut the end off."""
    return data[: rng.randrange(len(data))]


def splice(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Go on with another file, or with the same one somewhere else."""
    second = rng.choice([data, other])
    return data[: _place(rng, data)] + second[_place(rng, second) :]


def noise(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Put noise after the header, or after its beginning."""
    return data[: rng.choice([0, 3, 4, 10, 84])] + rng.randbytes(rng.randint(0, 3000))


def shuffle_blocks(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Exchange, double or drop blocks as they stand."""
    header, payloads = take_apart(data)
    head, *blocks = pack(header, payloads)
    for _ in range(rng.randint(1, 3)):
        a = rng.randrange(len(blocks))
        kind = rng.randrange(3)
        if kind == 0:
            b = rng.randrange(len(blocks))
            blocks[a], blocks[b] = blocks[b], blocks[a]
        elif kind == 1:
            blocks.insert(a, blocks[rng.randrange(len(blocks))])
        elif len(blocks) > 1:
            del blocks[a]
    return head + b"".join(blocks)


def edit_header(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Claim something else, with all checksums right: a length, a quality, a voice."""
    header, payloads = take_apart(data)
    n = header.n_samples
    for _ in range(rng.choice([1, 1, 2, 4])):
        change: dict[str, object] = rng.choice(
            [
                {"n_samples": max(rng.choice([1, 255, 512, n - 1, n + 1, n // 2, 2 * n, 100 * n, 1 << 26, 1 << 34]), 1)},
                {"quality": rng.choice([0, 1, 255, rng.randrange(256)])},
                {"block_steps": 16 * rng.randint(1, 16)},
                {"level": rng.choice([0, 255, rng.randrange(256)])},
                {"f0": rng.choice([0, 255, rng.randrange(256)])},
                {"speaker": rng.randbytes(rng.choice([0, 1, len(header.speaker), 64]))},
                {"speaker": rng.randbytes(len(header.speaker))},
                {"speaker": rng.choice([b"\0", b"\xff"]) * len(header.speaker)},
                {"checkpoint": rng.randbytes(4)},
            ]
        )
        header = replace(header, **change)  # type: ignore[arg-type]
    if rng.random() < 0.5:
        # As many blocks as are claimed, within reason.
        payloads = (payloads * 4)[: header.n_blocks]
    return put_together(header, [payload[: header.max_block_bytes] for payload in payloads])


def edit_payloads(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Change payloads, with all checksums right, so that what decodes them sees it."""
    header, payloads = take_apart(data)
    for _ in range(rng.choice([1, 1, 3])):
        at = rng.randrange(len(payloads))
        before = payloads[at]
        kind = rng.randrange(7)
        if kind < 3 and before:
            payloads[at] = rng.choice([flip_bits, replace_bytes, truncate])(rng, before, before)
        elif kind == 3:
            payloads[at] = rng.randbytes(rng.choice([0, 1, 3, 4, len(before), 200, header.max_block_bytes]))
        elif kind == 4:
            payloads[at] = rng.choice([b"", b"\0" * len(before), b"\xff" * len(before), b"\0" * 3000, b"\xff" * 3000])
        elif kind == 5:
            payloads[at] = payloads[rng.randrange(len(payloads))]
        else:
            payloads[at] = before + rng.randbytes(rng.choice([1, 4, 400]))
    return put_together(header, [payload[: header.max_block_bytes] for payload in payloads])


KINDS: tuple[Callable[[random.Random, bytes, bytes], bytes], ...] = (
    flip_bits,
    replace_bytes,
    insert,
    delete,
    truncate,
    splice,
    noise,
    shuffle_blocks,
    edit_header,
    edit_payloads,
    # Twice as often, as what they reach is the largest part.
    edit_payloads,
)


def mutate(seed: int, files: Sequence[bytes]) -> tuple[str, bytes]:
    """Return what was done and the file that came of it; the same seed does the same.

    Args:
        seed: Of what is chosen.
        files: That are whole.
    """
    rng = random.Random(seed)
    kind, data, other = KINDS[seed % len(KINDS)], rng.choice(files), rng.choice(files)
    return kind.__name__, kind(rng, data, other)
