"""The bundled recordings."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent


def clip(name: str) -> Path:
    """Return a bundled recording: next to this file in an installed package, in the repository's `demo/clips` otherwise."""
    installed = HERE / "clips" / name
    return installed if installed.exists() else HERE.parent.parent / "demo" / "clips" / name
