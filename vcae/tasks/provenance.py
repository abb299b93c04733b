"""What a made file says of itself. No import of torch here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcae import __version__

if TYPE_CHECKING:
    from vcae.checkpoint import Checkpoint


def provenance(checkpoint: Checkpoint, verb: str) -> str:
    """Return the comment that an output file carries: what was done, by which version and which checkpoint."""
    return f"{verb} by vcae {__version__}, checkpoint {checkpoint.path.stem} sha256:{checkpoint.sha256[:16]}"
