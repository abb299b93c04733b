"""Output files: checks before writing, atomic writing, hashes, and the provenance comment. Without torch."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from vcae.errors import DataError, VcaeError
from vcae.version import __version__

# The beginning of a web address; a single letter is a drive of Windows.
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# Names standard input and standard output.
STDIO = "-"
# Whether signal 0 asks if a process is running. On Windows it would be Ctrl-C.
CAN_PROBE = os.name != "nt"
# Age in seconds from which a temporary file is taken to be left by a killed process, where that cannot be asked.
STALE_S = 86400.0


class ModelFile(Protocol):
    """Interface of objects that were loaded from a file, such as checkpoints."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, hex."""


def provenance(checkpoint: ModelFile, verb: str) -> str:
    """Return the provenance comment of an output file: the processing, the version and the checkpoint."""
    return f"{verb} by vcae {__version__}, checkpoint {checkpoint.path.stem} sha256:{checkpoint.sha256[:16]}"


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while piece := opened.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def check_target(
    path: str | Path, force: bool = False, suffixes: Collection[str] | None = None, refuse: type[VcaeError] = DataError
) -> None:
    """Check that an output path can be written, before any work is done.

    Args:
        path: Path of the output; `-` for standard output.
        force: Replace an existing file.
        suffixes: Allowed suffixes in lower case; any when None.
        refuse: Class of the error.

    Raises:
        VcaeError: If the suffix is not allowed, the file exists and `force` is off, it is a folder, or its folder is not writable.
    """
    if str(path) == STDIO:
        return
    file = Path(path)
    if suffixes is not None and file.suffix.lower() not in suffixes:
        allowed = f"allowed are {', '.join(suffixes)}" if len(suffixes) > 1 else f"allowed is {', '.join(suffixes)}"
        raise refuse(f"{file} has the suffix {file.suffix!r}; {allowed}")
    if os.path.isdir(file):
        raise refuse(f"{file} is a folder; give a file name for the output")
    if os.path.lexists(file) and not force:
        raise refuse(f"{file} exists; add `force=True` to replace it, or choose another name")
    parent = file.absolute().parent
    while not os.path.exists(parent):
        parent = parent.parent
    if not os.path.isdir(parent) or not os.access(parent, os.W_OK | os.X_OK):
        raise refuse(f"{file} cannot be written: {parent} is not a writable folder; choose another place")


@contextmanager
def replacing(path: str | Path, refuse: type[VcaeError] = DataError) -> Iterator[Path]:
    """Yield a temporary file that replaces `path` on success, so that no incomplete file is ever visible.

    Args:
        path: Path of the output; missing folders are created.
        refuse: Class of the error.

    Raises:
        VcaeError: If writing fails.
    """
    file, temporary = Path(path), ""
    try:
        with writing(str(file), refuse):
            file.parent.mkdir(parents=True, exist_ok=True)
            # Named before it is created, so that a signal in between leaves nothing.
            temporary = str(file.parent / f".vcae-{os.getpid()}-{secrets.token_hex(6)}.part")
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            yield Path(temporary)
            # Windows flushes only files that are open for writing.
            with open(temporary, "rb+") as written:
                os.fsync(written.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, file)
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)


@contextmanager
def writing(name: str, refuse: type[VcaeError] = DataError) -> Iterator[None]:
    """Turn errors while `name` is written into a VcaeError, except a BrokenPipeError of a closed reader."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise refuse(f"{name} could not be written ({reason}); choose another place") from error


def write_file(
    path: str | Path, content: str | bytes, stdout: BinaryIO | None = None, refuse: type[VcaeError] = DataError
) -> None:
    """Write a file as `replacing` does; `-` writes to `stdout`.

    Args:
        path: Path of the output.
        content: Bytes; or text, which is written as UTF-8.
        stdout: Standard output, for `-`.
        refuse: Class of the error.

    Raises:
        VcaeError: If writing fails.
    """
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    if str(path) != STDIO:
        with replacing(path, refuse) as temporary:
            temporary.write_bytes(data)
        return
    if stdout is None:
        raise refuse("there is no standard output to write to; name a file")
    with writing("standard output", refuse):
        stdout.write(data)
        stdout.flush()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, so that processes change a file in it one after another; without effect where a folder has no lock."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that killed processes left in a folder."""
    for file in folder.glob(".vcae-*-*.part"):
        with suppress(OSError):
            if not _in_use(file):
                file.unlink(missing_ok=True)


def _in_use(file: Path) -> bool:
    """Return whether the process that writes a temporary file is running, or may be."""
    if not CAN_PROBE:
        return time.time() - file.stat().st_mtime < STALE_S
    try:
        os.kill(int(file.name.split("-")[1]), 0)
    except (ProcessLookupError, ValueError):
        return False
    except OSError:
        pass
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
