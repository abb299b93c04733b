"""What a made file says of itself. No import of torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from vcae import __version__


class ModelFile(Protocol):
    """A checkpoint, or anything else that was read from a file."""

    @property
    def path(self) -> Path:
        """Where it was read from."""

    @property
    def sha256(self) -> str:
        """Of the file, hex."""


def provenance(checkpoint: ModelFile, verb: str) -> str:
    """Return the comment that an output file carries: what was done, by which version and which checkpoint."""
    return f"{verb} by vcae {__version__}, checkpoint {checkpoint.path.stem} sha256:{checkpoint.sha256[:16]}"
