"""Store a trained network for shipping: float16 or 8 bits, with its metadata and its hash."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from vcae.checkpoint import save_module
from vcae.config import to_dict
from vcae.files import hash_file


def release_module(path: Path, part: str, network: nn.Module, info: Mapping[str, Any], eight_bit: bool = False) -> str:
    """Write a network, and beside it its SHA-256.

    Args:
        path: File to write, with the suffix .safetensors.
        part: Kind of the network, as given to `load_module`.
        network: The network, which has its `config`.
        info: Plain data for the metadata.
        eight_bit: Store large weights in 8 bits, the rest in float16.

    Returns:
        The path, size in bytes and hash, as a line to print.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    save_module(path, part, network, to_dict(network.config), info, half=True, eight_bit=eight_bit)
    path.with_suffix(".sha256").write_text(f"{hash_file(path)}  {path.name}\n")
    return f"{path}: {path.stat().st_size} bytes, sha256 {hash_file(path)}"
