"""What visitors may ask for: sizes, lengths, numbers, and how long their files are kept. No import of gradio here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vcae import AudioError, BitstreamError, Sound, read_sound

MAX_FILES = 40
MAX_REFERENCES = 10
MAX_VOICES = 8
# What a second of compressed speech may take; real files take a tenth of it at most, and what is damaged is searched byte by byte.
CODE_BYTES_A_SECOND = 10_000


@dataclass(frozen=True)
class Limits:
    """What a visitor may ask for.

    Attributes:
        seconds: Of a recording, and of all references together.
        megabytes: Of a file.
        queue: Jobs that may wait; more are refused.
        jobs: Worked on at once.
        minutes: That files are kept.
    """

    seconds: float = 180.0
    megabytes: float = 30.0
    queue: int = 20
    jobs: int = 1
    minutes: float = 30.0

    @property
    def max_bytes(self) -> int:
        """Of a file."""
        return int(self.megabytes * 1e6)

    @property
    def code_bytes(self) -> int:
        """Of a compressed file."""
        return int(self.seconds * CODE_BYTES_A_SECOND)

    @property
    def total_seconds(self) -> float:
        """Of the recordings that a detector is fitted to, or that are scored at once, together."""
        return 4 * self.seconds

    @property
    def sentence(self) -> str:
        """What the page says of all this."""
        return (
            f"Up to {self.seconds:g} s and {self.megabytes:g} MB a recording. {self.jobs} at a time, {self.queue} may wait. "
            f"Files are removed {self.minutes:g} minutes after their last use, and when the server stops."
        )


def read_upload(path: str | Path | None, what: str, max_s: float) -> Sound:
    """Read what a visitor sent, by its content; a length over the limit is refused by the header, before anything is decoded.

    Args:
        path: Of the file; None when nothing was sent.
        what: Such as `the source`, for messages.
        max_s: Longest allowed.

    Raises:
        AudioError: If there is none, or it cannot be used. No message names a folder.
    """
    if path is None:
        raise AudioError(f"{what} is missing; upload a recording or use the microphone")
    return read_sound(str(path), name=f"{what} ({Path(path).name})", max_s=max_s)


def read_uploads(paths: Sequence[str | Path], what: str, most: int, max_s: float, total_s: float) -> list[Sound]:
    """Read several recordings of at most `max_s` seconds each and `total_s` together.

    Raises:
        AudioError: As `read_upload`, or if they are too many.
    """
    if len(paths) > most:
        raise AudioError(f"{len(paths)} files were given as {what}; at most {most} are allowed")
    sounds, left = [], total_s
    for path in paths:
        sounds.append(read_upload(path, what, min(max_s, max(left, 0.0))))
        left -= sounds[-1].duration_s
    return sounds


def read_code(path: str | Path | None, most: int) -> tuple[str, bytes]:
    """Read a compressed file that a visitor sent.

    Args:
        path: Of the file; None when nothing was sent.
        most: Bytes to read; of a longer file, one more is read.

    Returns:
        What to call it in messages, and its bytes.

    Raises:
        BitstreamError: If there is none, or it cannot be read.
    """
    if path is None:
        raise BitstreamError("there is no compressed file; upload one")
    name = f"the file {Path(path).name}"
    try:
        with Path(path).open("rb") as opened:
            return name, opened.read(most + 1)
    except OSError as error:
        raise BitstreamError(f"{name} cannot be read ({error.strerror}); upload it again") from error
