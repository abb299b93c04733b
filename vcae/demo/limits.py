"""Limits for visitors: sizes, lengths, numbers, and lifetime of their files. Without gradio."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vcae import AudioError, BitstreamError, Sound, read_sound

MAX_FILES = 40
MAX_REFERENCES = 10
MAX_VOICES = 8
# Most bytes per second of compressed speech; real files need at most a tenth, and damaged parts are searched byte by byte.
CODE_BYTES_A_SECOND = 10_000
# Longest compressed speech in seconds where recordings have no limit.
LONGEST_CODE_S = 100 * 3600.0
# Largest file in megabytes on a page for the user of this machine only.
LOCAL_MEGABYTES = 4000.0


@dataclass(frozen=True)
class Limits:
    """Limits for a visitor.

    Attributes:
        seconds: Longest recording, and longest total of all references, in seconds; infinite for no limit.
        megabytes: Largest file.
        queue: Most jobs that may wait; more are refused.
        jobs: Jobs that run at the same time.
        minutes: Lifetime of files after their last use.
    """

    seconds: float = 180.0
    megabytes: float = 30.0
    queue: int = 20
    jobs: int = 1
    minutes: float = 30.0

    @property
    def max_bytes(self) -> int:
        """Largest file, in bytes."""
        return int(self.megabytes * 1e6)

    @property
    def code_bytes(self) -> int:
        """Largest compressed file, in bytes."""
        return int(min(self.seconds, LONGEST_CODE_S) * CODE_BYTES_A_SECOND)

    @property
    def total_seconds(self) -> float:
        """Longest total of the recordings that a detector is fitted to or scores at once, in seconds."""
        return 4 * self.seconds

    @property
    def sentence(self) -> str:
        """Description of the limits for the page."""
        if math.isinf(self.seconds):
            return "Recordings of any length. Results are removed when the server stops; voices that you keep stay in your folder of voices."
        return (
            f"Up to {self.seconds:g} s and {self.megabytes:g} MB a recording. {self.jobs} at a time, {self.queue} may wait. "
            f"Files are removed {self.minutes:g} minutes after their last use, and when the server stops."
        )


def read_upload(path: str | Path | None, what: str, max_s: float, mixed: bool = True) -> Sound:
    """Read an upload by its content; if it is too long by its header, it is refused before anything is decoded.

    Args:
        path: The uploaded file; None if there is none.
        what: Description for messages, such as `the source`.
        max_s: Longest allowed duration in seconds.
        mixed: Mix the channels to mono; otherwise they are kept.

    Raises:
        AudioError: If there is no file, or it cannot be used. Messages do not name folders.
    """
    if path is None:
        raise AudioError(f"{what} is missing; upload a recording or use the microphone")
    return read_sound(str(path), name=f"{what} ({Path(path).name})", max_s=max_s, mixed=mixed)


def read_uploads(paths: Sequence[str | Path], what: str, most: int, max_s: float, total_s: float) -> list[Sound]:
    """Read several recordings of at most `max_s` seconds each and `total_s` together.

    Raises:
        AudioError: As `read_upload`, or if there are too many.
    """
    if len(paths) > most:
        raise AudioError(f"{len(paths)} files were given as {what}; at most {most} are allowed")
    sounds, left = [], total_s
    for path in paths:
        sounds.append(read_upload(path, what, min(max_s, max(left, 0.0))))
        left -= sounds[-1].duration_s
    return sounds


def read_code(path: str | Path | None, most: int) -> tuple[str, bytes]:
    """Read an uploaded compressed file.

    Args:
        path: The uploaded file; None if there is none.
        most: Bytes to read; one more is read of a longer file.

    Returns:
        Its name for messages, and its bytes.

    Raises:
        BitstreamError: If there is no file, or it cannot be read.
    """
    if path is None:
        raise BitstreamError("there is no compressed file; upload one")
    name = f"the file {Path(path).name}"
    try:
        with Path(path).open("rb") as opened:
            return name, opened.read(most + 1)
    except OSError as error:
        raise BitstreamError(f"{name} cannot be read ({error.strerror}); upload it again") from error
