"""vcae: voice conversion and friends from one small spectrogram autoencoder.

Axis letters in every docstring: B items of a batch, N samples, T frames, D features, K entries of a codebook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vcae.errors import AudioError, BitstreamError, CheckpointError, ConfigError, DataError, VcaeError
from vcae.version import __version__

if TYPE_CHECKING:
    from vcae.anomaly.config import AnomalyConfig
    from vcae.anomaly.detector import Anomaly, Detector
    from vcae.audio.io import Sound, read_sound, resample, write_sound
    from vcae.codec.codec import Codec, compress, decompress
    from vcae.engine.denoise import denoise
    from vcae.options import BabbleOptions, ConvertOptions, SayOptions, SpeakOptions
    from vcae.tasks.embed import Embedding
    from vcae.tasks.live import LiveConverter
    from vcae.tasks.model import Encoding, Model, load
    from vcae.tasks.unit_files import Units, read_units
    from vcae.text.edit import Edited, edit
    from vcae.text.say import say
    from vcae.text.transcribe import transcribe
    from vcae.text.transcript import Transcript
    from vcae.voice.file import load_voice, save_voice
    from vcae.voice.voice import Voice, mix_voices

__all__ = [
    "Anomaly",
    "AnomalyConfig",
    "AudioError",
    "BabbleOptions",
    "BitstreamError",
    "CheckpointError",
    "Codec",
    "ConfigError",
    "ConvertOptions",
    "DataError",
    "Detector",
    "Edited",
    "Embedding",
    "Encoding",
    "LiveConverter",
    "Model",
    "SayOptions",
    "Sound",
    "SpeakOptions",
    "Transcript",
    "Units",
    "VcaeError",
    "Voice",
    "__version__",
    "compress",
    "decompress",
    "denoise",
    "edit",
    "load",
    "load_voice",
    "mix_voices",
    "read_sound",
    "read_units",
    "resample",
    "save_voice",
    "say",
    "transcribe",
    "write_sound",
]
# Modules of the names that are imported at their first use.
_ROOMS = {
    **dict.fromkeys(("Encoding", "Model", "load"), "tasks.model"),
    **dict.fromkeys(("Voice", "mix_voices"), "voice.voice"),
    **dict.fromkeys(("load_voice", "save_voice"), "voice.file"),
    **dict.fromkeys(("Sound", "read_sound", "resample", "write_sound"), "audio.io"),
    **dict.fromkeys(("Codec", "compress", "decompress"), "codec.codec"),
    **dict.fromkeys(("BabbleOptions", "ConvertOptions", "SayOptions", "SpeakOptions"), "options"),
    **dict.fromkeys(("Anomaly", "Detector"), "anomaly.detector"),
    **dict.fromkeys(("Units", "read_units"), "tasks.unit_files"),
    **dict.fromkeys(("Edited", "edit"), "text.edit"),
    "AnomalyConfig": "anomaly.config",
    "Embedding": "tasks.embed",
    "LiveConverter": "tasks.live",
    "Transcript": "text.transcript",
    "denoise": "engine.denoise",
    "say": "text.say",
    "transcribe": "text.transcribe",
}


def __getattr__(name: str) -> Any:
    """Import names that need torch at their first use, so that the command line answers at once."""
    if name in _ROOMS:
        from importlib import import_module

        from vcae.environment import prepare

        prepare()
        return getattr(import_module(f"vcae.{_ROOMS[name]}"), name)
    raise AttributeError(f"module 'vcae' has no attribute {name!r}")


def __dir__() -> list[str]:
    # What this file imports for itself is left out.
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
