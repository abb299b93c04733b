"""Answers whose sound is sent while the rest of it is made."""

from __future__ import annotations

import queue
import struct
import threading
from collections.abc import Callable, Iterator

import numpy as np

from vcae.demo.studio import StoppedError

# Blocks that may wait for the client, and seconds after which a client that takes none has gone.
MOST_WAITING, PATIENCE_S = 4, 60.0
FULL_SCALE = 32767
# Largest size that a wav header can say.
LARGEST = (1 << 32) - 1


def wav_header(sample_rate: int, channels: int, n_samples: int) -> bytes:
    """Return the header of a 16-bit wav whose samples follow; one that is too long for its header says the largest size."""
    size = min(2 * channels * n_samples, LARGEST - 36)
    form = struct.pack("<HHIIHH", 1, channels, sample_rate, 2 * channels * sample_rate, 2 * channels, 16)
    return (
        b"RIFF" + struct.pack("<I", size + 36) + b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", size)
    )


def wav_blocks(blocks: Iterator[np.ndarray], sample_rate: int, channels: int, n_samples: int) -> Iterator[bytes]:
    """Yield a 16-bit wav of blocks (n,) or (n, channels); it has `n_samples`, as its header says.

    Args:
        blocks: Samples, -1..1.
        sample_rate: Hz.
        channels: Number of channels.
        n_samples: Length; what is missing is silence, and more is left out.
    """
    # The first sound and the header are sent together: an error before it is still an answer with a status.
    head, left = wav_header(sample_rate, channels, n_samples), n_samples
    for block in blocks:
        made = np.round(np.clip(block[:left], -1, 1) * FULL_SCALE).astype("<i2")
        left -= len(made)
        if len(made):
            yield head + made.tobytes()
            head = b""
    yield head + bytes(2 * channels * left)


class Stream:
    """Bytes that a worker thread makes and a client takes.

    Args:
        work: Function of a check that makes the bytes; it is called on the worker thread. The check raises StoppedError when the client has
            gone.
        finish: Called when the work has ended, however it did.
    """

    def __init__(self, work: Callable[[Callable[[], None]], Iterator[bytes]], finish: Callable[[], None]) -> None:
        self._work, self._finish = work, finish
        self._blocks = queue.Queue[bytes | BaseException | None](MOST_WAITING)
        self._gone = threading.Event()

    def make(self) -> None:
        """Make the bytes, on the worker thread."""
        try:
            for block in self._work(self._check):
                self._put(block)
            self._put(None)
        except BaseException as error:
            if not self._gone.is_set():
                self._put(error)
        finally:
            self._finish()

    def _check(self) -> None:
        if self._gone.is_set():
            raise StoppedError

    def _put(self, item: bytes | BaseException | None) -> None:
        self._check()
        try:
            self._blocks.put(item, timeout=PATIENCE_S)
        except queue.Full:
            self._gone.set()
            raise StoppedError from None

    def first(self) -> bytes:
        """Wait for the first bytes and return them.

        Raises:
            Exception: What the work raised before it had made any.
        """
        item = self._blocks.get()
        if isinstance(item, BaseException):
            raise item
        return item or b""

    def rest(self, first: bytes) -> Iterator[bytes]:
        """Yield the first bytes and then the others; an error ends the answer early, which its client sees as an incomplete one."""
        try:
            yield first
            while (item := self._blocks.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self._gone.set()
