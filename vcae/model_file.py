"""Model files without their tensors: where they are, their metadata, shapes and hash. Without torch."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from vcae.errors import CheckpointError
from vcae.files import hash_file

FORMAT = 1
DEFAULT = "default"
PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")
# Largest header in bytes.
MAX_HEADER_BYTES = 1 << 20
# Largest number of tensors, and of their dimensions.
MAX_TENSORS = 4096
MAX_DIMENSIONS = 4
# Supported types, and bytes per value.
DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1}
# Added to the name of an 8-bit tensor for the one that holds its steps.
STEPS = ":steps"


@dataclass(frozen=True)
class FoundFile:
    """Model file that was found but not loaded.

    Attributes:
        path: The file.
    """

    path: Path

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the whole file, hex, computed when it is first needed.

        Raises:
            CheckpointError: As `verify`.
        """
        return verify(self.path)


def weights_folder() -> Path:
    """Return the folder of the shipped model files."""
    return Path(str(resources.files("vcae") / "weights"))


def shipped_as(sha256: str) -> str | None:
    """Return the name of the shipped file that has a SHA-256, by the recorded ones; None if there is none."""
    for recorded in sorted(weights_folder().glob("*.sha256")):
        if recorded.read_text().split()[:1] == [sha256]:
            return recorded.stem
    return None


def is_shipped(path: Path) -> bool:
    """Say whether a file belongs to the package. Its hash then vouches for its shapes; torch takes a second to get ready to compare them."""
    return path.parent == weights_folder()


def find(name: str | Path) -> Path:
    """Find a checkpoint by the name of a shipped one or by path.

    Raises:
        CheckpointError: If there is none, or it is a pickle.
    """
    path = Path(name)
    if path.suffix.lower() in PICKLES:
        raise CheckpointError(
            f"{path} is a pickle ({path.suffix}), which can run any code when it is opened; only .safetensors is loaded, so convert it first"
        )
    # A folder that happens to be called like a shipped checkpoint is none.
    if path.suffix != ".safetensors" and not path.is_file():
        shipped = weights_folder() / f"{name}.safetensors"
        if shipped.exists():
            return shipped
        if path.is_dir():
            raise CheckpointError(f"{path} is a folder; give a .safetensors file")
        names = sorted(p.stem for p in shipped.parent.glob("*.safetensors"))
        raise CheckpointError(
            f"no checkpoint is called {str(name)!r}; shipped are: {', '.join(names) or 'none'}; or give a .safetensors file"
        )
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; check the path")
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; give a .safetensors file")
    return path


def read_header(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file, without its tensors.

    Raises:
        CheckpointError: If there is no such file, or it is damaged.
    """
    metadata = _read_json_header(path)[0].get("__metadata__", {})
    return metadata if isinstance(metadata, dict) else {}


def _read_json_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header, and the number of bytes after it."""
    try:
        size = path.stat().st_size
        with path.open("rb") as opened:
            head = opened.read(8)
            length = int.from_bytes(head, "little")
            if len(head) < 8 or not 0 < length <= min(size - 8, MAX_HEADER_BYTES):
                raise CheckpointError(f"{path} is not a complete safetensors file ({size} bytes); get a fresh copy of it")
            header = json.loads(opened.read(length))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} has a damaged header ({error}); get a fresh copy of it") from error
    return (header if isinstance(header, dict) else {}), size - 8 - length


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the tensors' shapes, and check the header's description of them before memory is allocated.

    Raises:
        CheckpointError: If there are too many tensors, or one has an unsupported type, a size that does not match its shape, or a position
            outside of the file.
    """
    header, n_bytes = _read_json_header(path)
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise CheckpointError(f"{path} holds {len(header)} tensors; at most {MAX_TENSORS} are read")
    shapes = {}
    for name, entry in header.items():
        try:
            shape, width, (start, stop) = tuple(entry["shape"]), DTYPES[entry["dtype"]], entry["data_offsets"]
            fits = all(type(n) is int and n >= 0 for n in (*shape, start, stop)) and start <= stop <= n_bytes
        except (KeyError, TypeError, ValueError):
            fits = False
        if not fits or len(shape) > MAX_DIMENSIONS or math.prod(shape) * width != stop - start:
            raise CheckpointError(
                f"{path} is damaged: its header says {str(entry)[:120]} of {name[:60]!r}; get a fresh copy of it"
            )
        shapes[name] = shape
    return _without_steps(path, shapes)


def _without_steps(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's own tensors, after checking that the tensors of steps match them."""
    for name in [n for n in shapes if n.endswith(STEPS)]:
        steps, whole = shapes.pop(name), shapes.get(name.removesuffix(STEPS))
        if whole is None or steps != (whole[:1] + (1,) * (len(whole) - 1)):
            raise CheckpointError(f"{path} is damaged: the steps {name[:60]!r} fit no tensor; get a fresh copy of it")
    return shapes


def read_metadata(path: Path) -> dict[str, Any]:
    """Read the metadata, without the weights.

    Raises:
        CheckpointError: If the file is damaged, not from vcae, or of another format version.
    """
    try:
        metadata = json.loads(read_header(path)["vcae"])
        version = metadata["format"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is a safetensors file from another program (no vcae metadata); give a vcae checkpoint"
        ) from error
    if version != FORMAT:
        raise CheckpointError(
            f"{path} has checkpoint format {version}; this version reads format {FORMAT}: update vcae or the file"
        )
    return dict(metadata)


def verify(path: Path) -> str:
    """Return the SHA-256 of a file, after comparing it with the .sha256 file next to it, if there is one.

    Raises:
        CheckpointError: If they differ, or the file cannot be read.
    """
    recorded = path.with_suffix(".sha256")
    try:
        digest = hash_file(path)
        known = (recorded.read_text().split() or [""])[0] if recorded.exists() else digest
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if known != digest:
        raise CheckpointError(f"{path} does not match its SHA-256 ({digest[:12]}...); reinstall vcae")
    return digest
