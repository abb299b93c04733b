"""Shared state of the server: models, a temporary folder of files, worker threads, and error reporting."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import quote

import gradio as gr

from vcae import Codec, ConfigError, Model, VcaeError, load
from vcae.demo.limits import Limits
from vcae.demo.pictures import note_html

P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger(__name__)

# A path with folders; messages show only its file name.
PATH = re.compile(r"(?:/[^\s/:;,'\"()]+){2,}")
ERROR_S = 20.0
# Largest total of all visitors' files, in files of the largest size.
MAX_KEPT_FILES = 60
SAVED = ".safetensors"
# Path of the routes of the page's own parts.
PREFIX = "/studio"


class StoppedError(Exception):
    """Error that ends a job whose visitor pressed stop."""


def plain(message: str) -> str:
    """Return a message without paths of this machine."""
    return PATH.sub(lambda found: found.group().rsplit("/", 1)[-1], " ".join(message.split()))


class Studio:
    """Shared models, folder of files and worker threads.

    Args:
        limits: Limits for visitors.
        device: See `vcae.load`.
        voices: Folder of saved voices that every visitor may use, or None.
        root: Empty folder for all files, which is removed at the end; a new temporary one when None.
        local: The page is for the user of this machine only: it offers and saves the voices in the user's folder.

    Attributes:
        private: Folder of results, each in a folder with an unguessable name.
        uploads: Folder of gradio's files.
        cards: Folder of bundled and generated voices and of their samples, which are made once.
    """

    def __init__(
        self,
        limits: Limits,
        device: str = "auto",
        voices: Path | None = None,
        root: Path | None = None,
        local: bool = False,
    ) -> None:
        self.limits, self.device, self.voices, self.local = limits, device, voices, local
        self.root = root or Path(tempfile.mkdtemp(prefix="vcae-demo-"))
        self.uploads, self.private, self.cards = self.root / "uploads", self.root / "private", self.root / "cards"
        for folder in (self.uploads, self.private, self.cards):
            folder.mkdir()
        self._models: dict[str, Model] = {}
        self._codec: Codec | None = None
        self._lock = threading.RLock()
        # Permanent threads: torch keeps memory for every thread that ever computed, which would grow with gradio's threads.
        self._pool = ThreadPoolExecutor(limits.jobs, "vcae")
        self._stops: dict[str, threading.Event] = {}
        self._used = set[Path]()
        self._closed = threading.Event()
        threading.Thread(target=self._sweep_for_ever, daemon=True).start()

    def model(self, name: str = "default") -> Model:
        """Return a shipped checkpoint's model, loaded once."""
        with self._lock:
            if name not in self._models:
                self._models[name] = load(name, self.device)
            return self._models[name]

    @property
    def ready(self) -> bool:
        """Whether the model is loaded."""
        return "default" in self._models

    def codec(self) -> Codec:
        """Return the shipped codec, loaded once; its base layer is the checkpoint from `model`."""
        with self._lock:
            if self._codec is None:
                self._codec = Codec(device=self.device, load=self.model)
            return self._codec

    def new_file(self, name: str) -> Path:
        """Return a path with that name in a new folder with an unguessable name; it is removed some time after its last use."""
        folder = self.private / secrets.token_urlsafe(18)
        folder.mkdir()
        return folder / name

    @contextmanager
    def room(self) -> Iterator[Path]:
        """Yield an empty folder that stays for the duration of a block, however long it waits, and is removed afterwards."""
        folder = self.new_file("")
        self._used.add(folder)
        try:
            yield folder
        finally:
            self._used.discard(folder)
            shutil.rmtree(folder, ignore_errors=True)

    def url(self, path: Path) -> str:
        """Return the address of a file from `new_file`, relative to the page."""
        return f"{PREFIX}/made/{path.parent.name}/{quote(path.name)}".lstrip("/")

    def kept(self, path: str | Path, what: str) -> Path:
        """Return a file created earlier, and extend its lifetime.

        Raises:
            ConfigError: If it was removed.
        """
        file = Path(path)
        if not file.is_relative_to(self.private) or not file.exists():
            raise ConfigError(f"{what} was removed after {self.limits.minutes:g} minutes without use; make or upload it again")
        os.utime(file)
        return file

    def forget(self, path: str | Path) -> None:
        """Remove a file created earlier."""
        file = Path(path)
        if file.is_relative_to(self.private):
            shutil.rmtree(file.parent, ignore_errors=True)

    def shared_voices(self) -> dict[str, Path]:
        """Return the voices that every visitor may use, by name."""
        return {} if self.voices is None else {p.stem: p for p in sorted(self.voices.glob(f"*{SAVED}"))}

    def do(self, work: Callable[[], R]) -> R:
        """Run work on one of the worker threads and return its result."""
        # Gradio's progress finds its visitor in the context.
        context = contextvars.copy_context()
        return self._pool.submit(context.run, work).result()

    def begin(self, work: Callable[[], object]) -> None:
        """Begin work on one of the worker threads."""
        self._pool.submit(work)

    @contextmanager
    def job(self, session: str | None) -> Iterator[Callable[[], None]]:
        """Yield a function that raises StoppedError after the visitor of this session has pressed stop."""
        stop = threading.Event()
        key = session or secrets.token_hex(8)
        self._stops[key] = stop

        def check() -> None:
            if stop.is_set() or self._closed.is_set():
                raise StoppedError

        try:
            check()
            yield check
        finally:
            if self._stops.get(key) is stop:
                del self._stops[key]

    def stop(self, session: str | None) -> None:
        """Stop the job of a session, if there is one."""
        found = self._stops.get(session or "")
        if found is not None:
            found.set()

    def full(self) -> bool:
        """Return whether the visitors' files have reached their limit."""
        total = 0
        for folder, _, names in os.walk(self.root):
            for name in names:
                try:
                    total += os.stat(os.path.join(folder, name)).st_size
                except OSError:
                    continue
        return total > MAX_KEPT_FILES * self.limits.max_bytes

    def sweep(self) -> None:
        """Remove files whose lifetime has ended.

        Gradio removes its own uploads, but leaves copies of files that it already had and empty folders, which are removed here.
        """
        oldest = time.time() - 60 * self.limits.minutes
        for folder in self.private.iterdir():
            with contextlib.suppress(OSError):
                if folder not in self._used and max(p.stat().st_mtime for p in [folder, *folder.iterdir()]) < oldest:
                    shutil.rmtree(folder, ignore_errors=True)
        for left in self.uploads.iterdir():
            with contextlib.suppress(OSError):
                if left.stat().st_mtime < oldest:
                    left.rmdir() if left.is_dir() else left.unlink()

    def _sweep_for_ever(self) -> None:
        while not self._closed.wait(min(30.0, 15 * self.limits.minutes)):
            self.sweep()

    def close(self) -> None:
        """Stop all jobs and remove all files."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        shutil.rmtree(self.root, ignore_errors=True)


def session_of(request: Any) -> str | None:
    """Return the session of a request, which is None outside a server."""
    return None if request is None else request.session_hash


def reports_errors(studio: Studio) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate work to run on one of the studio's threads, with errors reported to the visitor.

    The message of a VcaeError is shown without paths; other exceptions are logged, and the visitor gets a general message.
    """

    def wrap(work: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(work)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return studio.do(functools.partial(work, *args, **kwargs))
            except gr.Error:
                raise
            except (StoppedError, CancelledError):
                said = "Stopped, as you asked."
            except VcaeError as error:
                text = plain(str(error))
                said = text[:1].upper() + text[1:] + "."
            except Exception:
                log.exception("a job failed")
                said = (
                    "An internal error occurred and was written to the server's log; it was probably not caused by your input."
                )
            raise gr.Error(said, duration=ERROR_S, print_exception=False)

        return guarded

    return wrap


def shows_errors(studio: Studio, place: gr.HTML) -> Callable[[Callable[P, R]], Callable[P, R | dict[gr.HTML, str]]]:
    """Decorate work like `reports_errors`, but show its errors permanently in a place of the page; nothing else on the page changes."""

    def wrap(work: Callable[P, R]) -> Callable[P, R | dict[gr.HTML, str]]:
        telling = reports_errors(studio)(work)

        @functools.wraps(work)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R | dict[gr.HTML, str]:
            try:
                return telling(*args, **kwargs)
            except gr.Error as error:
                return {place: note_html(error.message, "error")}

        return guarded

    return wrap
