"""Lists of words, compressed."""

from __future__ import annotations

import lzma
from collections.abc import Iterable

# Most bytes of anything that is unpacked.
MOST_BYTES = 1 << 24
# Most letters that a word can share with the one before it.
MOST_SHARED = 40


def pack_words(words: Iterable[str]) -> bytes:
    """Compress words; least is needed if they are sorted.

    Each word begins with a character for the number of letters that it shares with the one before it.
    """
    lines, before = [], ""
    for word in words:
        same = 0
        while same < min(len(word), len(before), MOST_SHARED) and word[same] == before[same]:
            same += 1
        lines.append(chr(48 + same) + word[same:])
        before = word
    return lzma.compress("\n".join(lines).encode("ascii"), preset=9)


def unpack_words(packed: bytes) -> list[str]:
    """Return the words of `pack_words`.

    Raises:
        ValueError: If they are damaged.
    """
    found, word = [], ""
    for line in unpack(packed).decode("ascii").split("\n"):
        word = word[: ord(line[0]) - 48] + line[1:]
        found.append(word)
    return found


def unpack(packed: bytes) -> bytes:
    """Return the bytes that lzma compressed.

    Raises:
        ValueError: If they are damaged.
    """
    try:
        return lzma.LZMADecompressor().decompress(packed, MOST_BYTES)
    except lzma.LZMAError as error:
        raise ValueError(str(error)) from error
