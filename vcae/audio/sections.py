"""Arrays along time that are read in sections: stored in memory or on disk, or computed when they are read.

Long recordings are processed as a chain of these in bounded memory. A short recording is a single section of the same chain, so both
give the same result.
"""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import BinaryIO, TypeVar

import numpy as np
import torch
from torch import Tensor

from vcae.deprecation import renamed
from vcae.errors import AudioError

T = TypeVar("T")
# Sections processed at the same time.
WORKERS = 2


class Sections(ABC):
    """Array of `n` time steps, any range of which can be read.

    Attributes:
        n: Number of time steps.
    """

    n: int

    @abstractmethod
    def read(self, start: int, stop: int) -> Tensor:
        """Return steps `start` to `stop`: (1, D, stop - start)."""


class LazySections(Sections):
    """Sections that are computed whenever they are read.

    Args:
        n: Number of time steps.
        compute: Function of `start` and `stop` that returns (1, D, stop - start), correct except for `reach` steps at interior edges.
        reach: Receptive field in steps to each side.
        multiple: `compute` is called with values of `start` that are multiples of this.
    """

    def __init__(self, n: int, compute: Callable[[int, int], Tensor], reach: int = 0, multiple: int = 1) -> None:
        self.n = n
        self._compute, self._reach, self._multiple = compute, reach, multiple

    def read(self, start: int, stop: int) -> Tensor:
        """Compute steps `start` to `stop`: (1, D, stop - start)."""
        first = max(start - self._reach, 0) // self._multiple * self._multiple
        last = min(stop + self._reach, self.n)
        return self._compute(first, last)[..., start - first : stop - first]


class StoredSections(Sections):
    """Sections that are appended one after another and stored, in memory or in an unnamed temporary file.

    Args:
        on_disk: Store in a temporary file instead of memory.
        device: Device of the tensors that `read` returns.
    """

    def __init__(self, on_disk: bool, device: torch.device) -> None:
        self.n = 0
        self._device, self._parts, self._dim = device, list[Tensor](), 0
        # Of the file's position, where reads need one.
        self._lock = Lock()
        self._file: BinaryIO | None = None
        if on_disk:
            try:
                self._file = tempfile.TemporaryFile(prefix="vcae-", buffering=0)  # noqa: SIM115, kept open
            except OSError as error:
                raise _no_room(error) from error

    def append(self, section: Tensor) -> None:
        """Add a section (1, D, n), float32.

        Raises:
            AudioError: If the disk is full.
        """
        self.n += section.shape[-1]
        self._dim = section.shape[1]
        if self._file is None:
            self._parts.append(section)
            return
        # Time is the outer dimension in the file, so that a range of steps is one range of bytes.
        data = memoryview(np.ascontiguousarray(section[0].T.cpu().numpy()).view(np.uint8).reshape(-1).data)
        try:
            with self._lock:
                while data:
                    data = data[self._file.write(data) :]
        except OSError as error:
            raise _no_room(error) from error

    def read(self, start: int, stop: int) -> Tensor:
        """Return steps `start` to `stop`: (1, D, stop - start)."""
        if self._file is None:
            if len(self._parts) > 1:
                self._parts = [torch.cat(self._parts, dim=-1)]
            return self._parts[0][..., start:stop]
        size, offset = (stop - start) * self._dim * 4, start * self._dim * 4
        data = bytearray(size)
        view = memoryview(data)
        while view:
            got = self._read_into(self._file, view, offset)
            assert got, "a section was read that was never written"
            view, offset = view[got:], offset + got
        rows = torch.frombuffer(data, dtype=torch.float32).view(-1, self._dim)
        return rows.T.contiguous()[None].to(self._device)

    def _read_into(self, file: BinaryIO, view: memoryview, offset: int) -> int:
        """Read bytes from an offset on, from any thread; return how many."""
        if hasattr(os, "preadv"):
            return os.preadv(file.fileno(), [view], offset)
        # Windows has one position for all readers and the writer, who is at the end.
        with self._lock:
            end = file.tell()
            file.seek(offset)
            got = int(file.readinto(view))  # type: ignore[attr-defined]
            file.seek(end)
        return got


def _no_room(error: OSError) -> AudioError:
    reason = error.strerror or error
    return AudioError(
        f"a long recording needs temporary disk space, and {tempfile.gettempdir()} has none ({reason}); "
        "free some there (0.8 GB per hour of sound), or set TMPDIR to another folder"
    )


@dataclass(frozen=True)
class SectionRunner:
    """Runner of computations over the sections of a recording.

    Attributes:
        step: Frames per section.
        on_disk: Store results on disk, and process two sections at the same time where there are two cores.
        device: Device to compute on.
    """

    step: int
    on_disk: bool
    device: torch.device

    def spans(self, n: int, parts: int = 1) -> Iterator[tuple[int, int]]:
        """Yield start and stop of each section of `n` steps, where a frame has `parts` steps."""
        yield from ((start, min(start + self.step * parts, n)) for start in range(0, n, self.step * parts))

    def store(self, sections: Sections) -> StoredSections:
        """Read all sections once and store them."""
        kept = StoredSections(self.on_disk, self.device)
        for section in self.run(sections.read, self.spans(sections.n)):
            kept.append(section)
        return kept

    def run(self, read: Callable[[int, int], T], spans: Iterable[tuple[int, int]]) -> Iterator[T]:
        """Yield `read(start, stop)` for each span, in order.

        One core per section is faster than all cores on one section, as the threads of many small operations wait for each other.
        """
        n_threads = torch.get_num_threads()
        if not self.on_disk or self.device.type != "cpu" or n_threads == 1:
            yield from (read(start, stop) for start, stop in spans)
            return

        def alone(start: int, stop: int) -> T:
            with torch.inference_mode():
                return read(start, stop)

        under_way: deque[Future[T]] = deque()
        pool = ThreadPoolExecutor(WORKERS, initializer=torch.set_num_threads, initargs=(n_threads // WORKERS,))
        try:
            for start, stop in spans:
                under_way.append(pool.submit(alone, start, stop))
                if len(under_way) > WORKERS:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
            # torch's thread count is per thread, and new threads inherit the last one set; so it is set again here.
            torch.set_num_threads(n_threads)


__getattr__ = renamed(__name__, {"Computed": "LazySections", "Kept": "StoredSections", "Workshop": "SectionRunner"})
