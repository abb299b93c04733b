"""vcae: voice conversion and friends from one small spectrogram autoencoder.

Axis letters in every docstring: B items of a batch, N samples, T frames, D features, K entries of a codebook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vcae.errors import AudioError, CheckpointError, ConfigError, DataError, VcaeError

if TYPE_CHECKING:
    from vcae.tasks.model import Encoding, Model, load
    from vcae.tasks.voice import Voice, mix_voices

__version__ = "0.1.0"
__all__ = [
    "AudioError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Encoding",
    "Model",
    "VcaeError",
    "Voice",
    "__version__",
    "load",
    "mix_voices",
]


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for, so that the command line answers at once."""
    if name in ("Encoding", "Model", "load"):
        from vcae.tasks import model

        return getattr(model, name)
    if name in ("Voice", "mix_voices"):
        from vcae.tasks import voice

        return getattr(voice, name)
    raise AttributeError(f"module 'vcae' has no attribute {name!r}")
