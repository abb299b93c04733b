"""Saved voices: safetensors, with the checkpoint that measured them in the metadata."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vcae import checkpoint
from vcae.audio.config import MelConfig
from vcae.audio.high_band import BandProfile
from vcae.config import from_dict, to_dict
from vcae.engine.engine import Engine
from vcae.errors import CheckpointError, ConfigError
from vcae.files import check_target
from vcae.model_file import read_header, read_shapes
from vcae.version import __version__
from vcae.voice.fitting import fit_voice
from vcae.voice.matching import Errors
from vcae.voice.shelf import SUFFIX, find_saved, voice_target
from vcae.voice.spectrum import SpectrumMap
from vcae.voice.voice import Origin, Recording, Voice

# Format 2 had no recordings; 5 is that of voices with a map of spectra, which earlier versions would leave out.
VOICE_FORMAT, MAPPED_FORMAT, READABLE = 4, 5, (2, 3, 4, 5)
# Prefix of the tensors of a fine-tuned decoder.
DECODER = "decoder."


def save_voice(
    voice: Voice, path: str | Path, provenance: Mapping[str, Any] | None = None, force: bool = False, **deprecated: Any
) -> Path:
    """Save a voice as safetensors, for `load_voice` and `vcae convert --speaker`.

    Args:
        voice: Voice to save. The hash of the checkpoint that measured it is stored, as another one measures the voice again.
        path: A name, such as `alice`, by which this user can load the voice; or a file with the suffix .safetensors.
        provenance: Plain data for the metadata: clips, time, author.
        force: Replace an existing file.
        deprecated: Old arguments: until version 0.2 they were path, voice, model and provenance.

    Returns:
        The path of the file.

    Raises:
        ConfigError: If the name is not valid, or the checkpoint that measured the voice is unknown.
        CheckpointError: If the file exists and `force` is off, or it cannot be written.
    """
    if isinstance(voice, str | Path):
        return _save_as_before(voice, path, provenance, force, **deprecated)
    if deprecated:
        raise TypeError(f"save_voice takes voice, path, provenance and force, and not {', '.join(deprecated)}")
    if voice.origin is None:
        raise ConfigError("the checkpoint that measured the voice is unknown; measure it by model.voice(clips) to save it")
    file = voice_target(path)
    check_target(file, force, (SUFFIX,), CheckpointError)
    _write(file, voice, voice.origin, provenance or {"made_by": f"vcae {__version__}"})
    return file


def _save_as_before(path: str | Path, voice: Any, model: Any = None, provenance: Any = None, **named: Any) -> Path:
    warnings.warn(
        "save_voice(path, voice, model, provenance) is now save_voice(voice, path, provenance)",
        DeprecationWarning,
        stacklevel=3,
    )
    model, provenance = named.get("model", model), named.get("provenance", provenance)
    _write(Path(path), voice, Origin.of(model), provenance or {})
    return Path(path)


def _write(path: Path, voice: Voice, origin: Origin, provenance: Mapping[str, Any]) -> None:
    tensors = {
        "speaker_embedding": voice.speaker_embedding,
        "error_keys": voice.errors.keys,
        "error_values": voice.errors.values,
        "error_log_weights": voice.errors.log_weights,
    }
    for name, quantiles in zip(("unvoiced", "voiced"), voice.quantiles, strict=True):
        if quantiles is not None:
            tensors[f"{name}_quantiles"] = quantiles
    weights = voice.decoder_weights if voice.decoder is None else voice.decoder.state_dict()
    tensors |= {f"{DECODER}{key}": value.half() for key, value in (weights or {}).items()}
    if voice.spectrum_map is not None:
        tensors |= {"spectrum_weight": voice.spectrum_map.weight, "spectrum_bias": voice.spectrum_map.bias}
    for n, recording in enumerate(voice.recordings):
        tensors |= {f"recording_{n}_mel": recording.mel.contiguous(), f"recording_{n}_f0": recording.f0.contiguous()}
    facts = {
        "format": VOICE_FORMAT if voice.spectrum_map is None else MAPPED_FORMAT,
        "mel": to_dict(origin.mel),
        "recordings": len(voice.recordings),
        "checkpoint": origin.checkpoint,
        "sha256": origin.sha256,
        # JSON has no NaN.
        "log_f0_median": None if math.isnan(voice.log_f0_median) else voice.log_f0_median,
        "log_f0_spread": None if math.isnan(voice.log_f0_spread) else voice.log_f0_spread,
        "speech_s": voice.speech_s,
        "error_bandwidth": voice.errors.bandwidth,
        "bands": None if voice.bands is None else {"levels_db": voice.bands.levels_db, "seconds": voice.bands.seconds},
        "provenance": dict(provenance),
    }
    checkpoint.write_tensors(path, tensors, {"vcae_voice": json.dumps(facts)})


def read_voice_facts(path: Path) -> dict[str, Any]:
    """Read the metadata of a saved voice, without its tensors.

    Raises:
        CheckpointError: If the file is damaged or not a voice.
    """
    try:
        facts = json.loads(read_header(path)["vcae_voice"])
        if facts["format"] not in READABLE:
            raise CheckpointError(
                f"{path} has voice format {facts['format']}; this version reads {' and '.join(map(str, READABLE))}: save the voice again"
            )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is a safetensors file of something else; make a voice with `vcae voice save`") from error
    return dict(facts)


def load_voice(name: str | Path, model: Engine | None = None) -> Voice:
    """Load a saved voice.

    Args:
        name: Name of a saved voice, or path of its file.
        model: Model to fit the voice to by `fit_voice`; with None that is done when the voice is used.

    Raises:
        ConfigError: If no saved voice has this name.
        CheckpointError: If the file is missing, damaged, or not a voice; with a model, as `fit_voice`.
    """
    path = find_saved(name)
    voice = _read(path)
    try:
        return voice if model is None else fit_voice(model, voice, f"the voice {path}")
    except RuntimeError as error:
        raise CheckpointError(f"the voice {path} is damaged ({error}); save it again from its clips") from error


def _read(path: Path) -> Voice:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    facts = read_voice_facts(path)
    read_shapes(path)
    try:
        tensors = load_file(path)
        n = int(facts.get("recordings", 0))
        median, spread = (math.nan if facts[key] is None else float(facts[key]) for key in ("log_f0_median", "log_f0_spread"))
        return Voice(
            tensors["speaker_embedding"],
            median,
            spread,
            (tensors.get("unvoiced_quantiles"), tensors.get("voiced_quantiles")),
            Errors(
                tensors["error_keys"], tensors["error_values"], tensors["error_log_weights"], float(facts["error_bandwidth"])
            ),
            float(facts["speech_s"]),
            recordings=tuple(Recording(tensors[f"recording_{k}_mel"], tensors[f"recording_{k}_f0"]) for k in range(n)),
            origin=Origin(str(facts["checkpoint"]), str(facts["sha256"]), _mel(facts)),
            bands=_bands(facts.get("bands")),
            spectrum_map=SpectrumMap(tensors["spectrum_weight"], tensors["spectrum_bias"])
            if "spectrum_weight" in tensors
            else None,
            decoder_weights={k.removeprefix(DECODER): v for k, v in tensors.items() if k.startswith(DECODER)} or None,
        )
    except (ConfigError, SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"the voice {path} is damaged ({error}); save it again from its clips") from error


def _bands(facts: Mapping[str, Any] | None) -> BandProfile | None:
    # Files of earlier versions have none.
    return None if facts is None else BandProfile(tuple(map(float, facts["levels_db"])), float(facts["seconds"]))


def _mel(facts: Mapping[str, Any]) -> MelConfig:
    # Format 2 does not store it; all checkpoints had the same mel then.
    return from_dict(MelConfig, facts["mel"], "mel") if "mel" in facts else MelConfig()
