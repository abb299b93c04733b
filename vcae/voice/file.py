"""Saved voices: safetensors, with the checkpoint that measured them in the metadata."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

from torch import Tensor

from vcae import checkpoint
from vcae.config import to_dict
from vcae.engine.engine import Engine
from vcae.errors import CheckpointError
from vcae.model.decoder import Decoder
from vcae.voice.matching import Errors
from vcae.voice.retrieval import Frames
from vcae.voice.voice import Recording, Voice, describe_reference, measure_again

# Format 2 had no recordings.
VOICE_FORMAT, READABLE = 3, (2, 3)
# Prefix of the tensors of a fine-tuned decoder.
DECODER = "decoder."


def save_voice(path: Path, voice: Voice, model: Engine, provenance: dict[str, Any]) -> None:
    """Save a voice as safetensors.

    Args:
        path: File to write.
        voice: Voice to save.
        model: Model that measured it. Its checkpoint's hash is stored, as another checkpoint measures the voice again.
        provenance: Plain data for the metadata: clips, time, author.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    tensors = {
        "speaker_embedding": voice.speaker_embedding,
        "error_keys": voice.errors.keys,
        "error_values": voice.errors.values,
        "error_log_weights": voice.errors.log_weights,
        # They are rounded to half precision already.
        "frame_keys": voice.frames.keys.half(),
        "frame_envelopes": voice.frames.envelopes.half(),
        "frame_log_weights": voice.frames.log_weights,
    }
    for name, quantiles in zip(("unvoiced", "voiced"), voice.quantiles, strict=True):
        if quantiles is not None:
            tensors[f"{name}_quantiles"] = quantiles
    if voice.decoder is not None:
        tensors |= {f"{DECODER}{key}": value.half() for key, value in voice.decoder.state_dict().items()}
    for n, recording in enumerate(voice.recordings):
        tensors |= {f"recording_{n}_mel": recording.mel.contiguous(), f"recording_{n}_f0": recording.f0.contiguous()}
    facts = {
        "format": VOICE_FORMAT,
        "mel": to_dict(model.mel_config),
        "recordings": len(voice.recordings),
        "checkpoint": model.checkpoint.path.stem,
        "sha256": model.checkpoint.sha256,
        # JSON has no NaN.
        "log_f0_median": None if math.isnan(voice.log_f0_median) else voice.log_f0_median,
        "log_f0_spread": None if math.isnan(voice.log_f0_spread) else voice.log_f0_spread,
        "speech_s": voice.speech_s,
        "error_bandwidth": voice.errors.bandwidth,
        "provenance": provenance,
    }
    checkpoint.write_tensors(path, tensors, {"vcae_voice": json.dumps(facts)})


def read_voice_facts(path: Path) -> dict[str, Any]:
    """Read the metadata of a saved voice, without its tensors.

    Raises:
        CheckpointError: If the file is damaged or not a voice.
    """
    try:
        facts = json.loads(checkpoint.read_header(path)["vcae_voice"])
        if facts["format"] not in READABLE:
            raise CheckpointError(
                f"{path} has voice format {facts['format']}; this version reads {' and '.join(map(str, READABLE))}: save the voice again"
            )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is a safetensors file of something else; make a voice with `vcae voice save`") from error
    return dict(facts)


def load_voice(path: Path, model: Engine) -> Voice:
    """Load a saved voice; if another checkpoint measured it, it is measured again from the recordings in its file.

    A fine-tuned decoder belongs to its own checkpoint, and is not used with another one.

    Raises:
        CheckpointError: If it is missing, damaged, not a voice, or measured by another checkpoint and without recordings.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    facts = read_voice_facts(path)
    own = facts["sha256"] == model.checkpoint.sha256
    if not own and not (facts.get("recordings") and facts.get("mel") == to_dict(model.mel_config)):
        raise CheckpointError(
            f"the voice {path} was measured by checkpoint {facts['checkpoint']} ({facts['sha256'][:12]}...), which is not the one in use "
            f"({model.checkpoint.sha256[:12]}...), and it has no recordings to measure it again; save it again from its clips, or give its checkpoint"
        )
    checkpoint.read_shapes(path)
    try:
        tensors = {key: value.to(model.device) for key, value in load_file(path).items()}
        recordings = tuple(
            Recording(tensors[f"recording_{n}_mel"], tensors[f"recording_{n}_f0"])
            for n in range(int(facts.get("recordings", 0)))
        )
        if not own:
            return measure_again(model, recordings)
        errors = Errors(
            tensors["error_keys"], tensors["error_values"], tensors["error_log_weights"], float(facts["error_bandwidth"])
        )
        frames = Frames(tensors["frame_keys"].float(), tensors["frame_envelopes"].float(), tensors["frame_log_weights"])
        embedding = tensors["speaker_embedding"]
        decoder = _load_decoder(model, tensors)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"the voice {path} is damaged ({error}); save it again from its clips") from error
    median, spread = (math.nan if facts[key] is None else float(facts[key]) for key in ("log_f0_median", "log_f0_spread"))
    quantiles = (tensors.get("unvoiced_quantiles"), tensors.get("voiced_quantiles"))
    reference = describe_reference(model, [r.mel.float() for r in recordings])
    speech_s = float(facts["speech_s"])
    return Voice(embedding, median, spread, quantiles, errors, frames, speech_s, decoder, reference, recordings)


def _load_decoder(model: Engine, tensors: dict[str, Tensor]) -> Decoder | None:
    state = {key.removeprefix(DECODER): value.float() for key, value in tensors.items() if key.startswith(DECODER)}
    if not state:
        return None
    decoder = copy.deepcopy(model.autoencoder.decoder)
    decoder.load_state_dict(state)
    return decoder.eval()
