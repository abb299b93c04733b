"""Compressed files: open, describe without a model, and list their damage. Without torch."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from vcae.codec.bitstream import MAGIC, VERSION, Lost, Reader
from vcae.errors import BitstreamError
from vcae.files import STDIO

if TYPE_CHECKING:
    import numpy as np

    from vcae.codec.base import Damage
    from vcae.codec.playback import Stream

SUFFIX = ".vcz"
# Most damaged places that are listed.
MAX_LINES = 100


@contextmanager
def open_code(path: str, stdin: BinaryIO | None = None) -> Iterator[BinaryIO]:
    """Open a compressed file and check its header, before a model is loaded.

    Args:
        path: Path of the file, or `-` for `stdin`, from which nothing is read here.
        stdin: Standard input, or None.

    Raises:
        BitstreamError: If it cannot be read, or is not compressed speech.
    """
    if path == STDIO:
        if stdin is None:
            raise BitstreamError("there is no standard input to read from; name a file")
        yield stdin
        return
    try:
        if os.path.isdir(path):
            raise BitstreamError(f"{path} is a folder; give one {SUFFIX} file")
        opened = Path(path).open("rb")  # noqa: SIM115, closed below
    except FileNotFoundError as error:
        raise BitstreamError(f"{path} does not exist; check the path") from error
    except (OSError, ValueError) as error:
        raise BitstreamError(f"{path!r:.200} cannot be read ({getattr(error, 'strerror', None) or error}); check it") from error
    with opened:
        if opened.seekable():
            Reader(opened)
            opened.seek(0)
        yield opened


def duration_of(data: bytes) -> float:
    """Return the duration of compressed data in seconds."""
    return Reader(io.BytesIO(data)).header.duration_s


def is_code(path: str) -> bool:
    """Return whether a file is compressed speech, by its suffix or its first bytes."""
    if Path(path).suffix.lower() == SUFFIX:
        return True
    try:
        with Path(path).open("rb") as opened:
            return opened.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):
        return False


def describe_code(path: str) -> dict[str, Any]:
    """Return the header's values and the damage of a compressed file.

    Raises:
        BitstreamError: If it cannot be opened.
    """
    with open_code(path) as opened:
        reader = Reader(opened, path)
        header, n_lost, lost_s, payload_bytes, damage = reader.header, 0, 0.0, 0, list[str]()
        for item in reader:
            if isinstance(item, Lost):
                start_s, stop_s = header.span(item.index, item.count)
                n_lost, lost_s = n_lost + item.count, lost_s + stop_s - start_s
                damage.append(damage_line(start_s, stop_s, item.offset, item.reason))
            else:
                payload_bytes += len(item.payload)
        n_bytes = os.fstat(opened.fileno()).st_size
    heard_s = header.duration_s - lost_s
    return {
        "file": path,
        "format": f"vcz {VERSION}",
        "bytes": n_bytes,
        "duration_s": round(header.duration_s, 3),
        # Bit rate of the part that can be decoded.
        "kbps": round(8e-3 * n_bytes / heard_s, 3) if n_lost < header.n_blocks else None,
        "quality": header.quality,
        "checkpoint": header.checkpoint.hex(),
        "n_samples": header.n_samples,
        "level": header.level,
        "f0": header.f0,
        "speaker_bytes": len(header.speaker),
        "header_bytes": len(header.pack()),
        "block_steps": header.block_steps,
        "block_s": round(header.block_samples / 16000, 3),
        "blocks": header.n_blocks,
        "lost_blocks": n_lost,
        "payload_bytes": payload_bytes,
        "damage": [*damage[:MAX_LINES], *_more(len(damage))],
    }


def damage_line(start_s: float, stop_s: float, offset: int, reason: str) -> str:
    """Describe damage in a sentence: its place in the sound and in the file, and the reason."""
    where = f"{start_s:.2f} to {stop_s:.2f} s" if stop_s > start_s else f"at {start_s:.2f} s, nothing lost"
    return f"{where}, byte {offset}: {reason}"


def damage_lines(damage: Sequence[Damage]) -> list[str]:
    """Return a sentence for each damaged place, at most `MAX_LINES`, and the number of the others."""
    lines = [damage_line(d.start_s, d.stop_s, d.offset, d.reason) for d in damage[:MAX_LINES]]
    return [*lines, *_more(len(damage))]


def _more(n: int) -> list[str]:
    return [f"and in {n - MAX_LINES} more places"] if n > MAX_LINES else []


class CheckedStream:
    """Iterator over a stream that raises at the end if no block could be decoded; it can be iterated over once.

    Args:
        stream: From `Codec.stream`.
        name: Name of the file for messages.

    Attributes:
        n_samples: Samples yielded so far.

    Raises:
        BitstreamError: When iterating.
    """

    def __init__(self, stream: Stream, name: str) -> None:
        self._stream, self._name = stream, name
        self.n_samples = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for piece in self._stream:
            self.n_samples += len(piece)
            yield piece
        damage, whole_s = self._stream.damage, self._stream.header.duration_s
        if not self.n_samples or sum(d.stop_s - d.start_s for d in damage) > whole_s - 1e-6:
            reason = damage[0].reason if damage else "it gave no sound"
            raise BitstreamError(f"{self._name} has nothing that can be decoded ({reason}); get a fresh copy of it")
