"""Voices: measured from clips, mixed, saved under a name and found again."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vcae import checkpoint
from vcae.audio.f0 import log_f0_statistics
from vcae.audio.frames import active_frames
from vcae.errors import CheckpointError, ConfigError
from vcae.voice.matching import Errors, Quantiles, band_quantiles, measure_errors
from vcae.voice.retrieval import Frames, keep_frames

if TYPE_CHECKING:
    from vcae.model.decoder import Decoder
    from vcae.tasks.model import Analysis, Model

VOICE_FORMAT = 2
# What the names of a fine-tuned decoder's tensors start with.
DECODER = "decoder."


@dataclass(frozen=True)
class Voice:
    """What is known of a voice to convert to.

    Attributes:
        speaker_embedding: (1, speaker_dim), unit norm.
        log_f0_median: Natural log of Hz; nan when the reference has no voiced frame.
        log_f0_spread: In nats; nan likewise.
        quantiles: (n_mels, Q) of unvoiced and of voiced frames, the distribution of each mel band.
        errors: What the autoencoder gets wrong about this voice.
        frames: What it sounds like, frame by frame.
        speech_s: Seconds of sound, pauses left out.
        decoder: A decoder fine-tuned to this voice; None takes the checkpoint's.
    """

    speaker_embedding: Tensor
    log_f0_median: float
    log_f0_spread: float
    quantiles: Quantiles
    errors: Errors
    frames: Frames
    speech_s: float
    decoder: Decoder | None = None


def decode_voice(
    model: Model,
    latent: Tensor,
    f0: Tensor,
    speaker_embedding: Tensor,
    decoder: Decoder | None = None,
    f0_mean: Tensor | None = None,
) -> Tensor:
    """Decode content (1, D, ceil(T / stride)) and F0 (1, T) to a log-mel (1, n_mels, T), by a voice's own decoder if it has one.

    Of a section, `f0_mean` (1, 1) is the whole's mean log-F0.
    """
    autoencoder = model.autoencoder
    mel: Tensor = (decoder or autoencoder.decoder)(latent, f0.shape[-1], speaker_embedding, f0, f0_mean=f0_mean)
    return mel * autoencoder.mel_deviation + autoencoder.mel_mean


@torch.inference_mode()
def describe_voice(model: Model, references: Sequence[Analysis], decoder: Decoder | None = None) -> Voice:
    """Describe the voice of one or several references, each weighted by its seconds of sound.

    Args:
        model: A model whose checkpoint has an autoencoder with a speaker part.
        references: At least one.
        decoder: Fine-tuned to this voice, or None.
    """
    total, speech_s = torch.zeros((), device=model.device), 0.0
    for seen in references:
        seconds = float(active_frames(seen.mel).sum()) / model.mel_config.frame_rate
        total = total + seconds * model.autoencoder.encode_speaker(seen.mel)
        speech_s += seconds
    embedding = torch.nn.functional.normalize(total, dim=-1)
    mels, f0s = [seen.mel for seen in references], [seen.f0 for seen in references]
    latents = [model.autoencoder.encode_content(mel) for mel in mels]
    copies = [decode_voice(model, latent, f0, embedding, decoder) for latent, f0 in zip(latents, f0s, strict=True)]
    errors = measure_errors(mels, copies, latents, f0s, model.autoencoder.config.content.stride)
    frames = keep_frames(mels, [model.autoencoder.normalize(mel) for mel in mels], f0s)
    statistics = log_f0_statistics(torch.cat(f0s, dim=1)[0])
    return Voice(embedding, *statistics, band_quantiles(mels, f0s), errors, frames, speech_s, decoder)


def mix_voices(voices: Sequence[Voice], weights: Sequence[float]) -> Voice:
    """Mix voices.

    Embeddings, log-F0, its spread and the bands' quantiles are averaged by weight; errors and frames are looked up in all of them.

    Args:
        voices: At least one.
        weights: One for each, not negative, not all 0; only their ratios count.

    Raises:
        ConfigError: For unusable weights.
    """
    if len(voices) != len(weights) or not voices:
        raise ConfigError(f"{len(voices)} voices and {len(weights)} weights were given; each voice needs one weight")
    total = sum(weights)
    if not all(math.isfinite(w) and w >= 0 for w in weights) or total <= 0:
        raise ConfigError(f"the voices' weights are {list(weights)}; they must not be negative and not all 0")
    kept = [(voice, w / total) for voice, w in zip(voices, weights, strict=True) if w > 0]
    if len(kept) == 1:
        return kept[0][0]
    if any(voice.decoder is not None for voice, _ in kept):
        raise ConfigError(
            "a fine-tuned voice cannot be mixed, nor taken at a strength under 1; save it from its clips to mix it"
        )
    embedding = torch.nn.functional.normalize(torch.stack([w * v.speaker_embedding for v, w in kept]).sum(0), dim=-1)
    quantiles = tuple(_mean([(v.quantiles[i], w) for v, w in kept]) for i in (0, 1))
    # Each voice weighs as much in a look-up as in the mix, however many frames it brings.
    errors = Errors(
        torch.cat([v.errors.keys for v, _ in kept]),
        torch.cat([v.errors.values for v, _ in kept]),
        torch.cat([v.errors.log_weights + math.log(w / len(v.errors.keys)) for v, w in kept]),
        sum(w * v.errors.bandwidth for v, w in kept),
    )
    frames = Frames(
        torch.cat([v.frames.keys for v, _ in kept]),
        torch.cat([v.frames.envelopes for v, _ in kept]),
        torch.cat([v.frames.log_weights + math.log(w / len(v.frames.keys)) for v, w in kept]),
    )
    return Voice(
        embedding,
        _mean_number([(v.log_f0_median, w) for v, w in kept]),
        _mean_number([(v.log_f0_spread, w) for v, w in kept]),
        (quantiles[0], quantiles[1]),
        errors,
        frames,
        sum(w * v.speech_s for v, w in kept),
    )


def _mean(parts: list[tuple[Tensor | None, float]]) -> Tensor | None:
    known = [(x, w) for x, w in parts if x is not None]
    if not known:
        return None
    return torch.stack([x * w for x, w in known]).sum(0) / sum(w for _, w in known)


def _mean_number(parts: list[tuple[float, float]]) -> float:
    known = [(x, w) for x, w in parts if not math.isnan(x)]
    return sum(x * w for x, w in known) / sum(w for _, w in known) if known else math.nan


def save_voice(path: Path, voice: Voice, model: Model, provenance: dict[str, Any]) -> None:
    """Save a voice as safetensors.

    Args:
        path: Of the file.
        voice: What to save.
        model: That measured it; its checkpoint's hash is stored, as a voice means nothing to another one.
        provenance: Plain data to keep beside it: which clips, when, by whom.

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
    facts = {
        "format": VOICE_FORMAT,
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
    """Read what is stored beside a saved voice, without its tensors.

    Raises:
        CheckpointError: If the file is damaged or no voice.
    """
    try:
        facts = json.loads(checkpoint.read_header(path)["vcae_voice"])
        if facts["format"] != VOICE_FORMAT:
            raise CheckpointError(
                f"{path} has voice format {facts['format']}; this version reads {VOICE_FORMAT}: save the voice again"
            )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is a safetensors file of something else; make a voice with `vcae voice save`") from error
    return dict(facts)


def load_voice(path: Path, model: Model) -> Voice:
    """Load a saved voice.

    Raises:
        CheckpointError: If it is missing, damaged, no voice, or measured by another checkpoint.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    facts = read_voice_facts(path)
    if facts["sha256"] != model.checkpoint.sha256:
        raise CheckpointError(
            f"the voice {path} was measured by checkpoint {facts['checkpoint']} ({facts['sha256'][:12]}...), which is not the one in use "
            f"({model.checkpoint.sha256[:12]}...); save it again from its clips, or give its checkpoint"
        )
    checkpoint.read_shapes(path)
    try:
        tensors = {key: value.to(model.device) for key, value in load_file(path).items()}
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
    return Voice(embedding, median, spread, quantiles, errors, frames, float(facts["speech_s"]), decoder)


def _load_decoder(model: Model, tensors: dict[str, Tensor]) -> Decoder | None:
    state = {key.removeprefix(DECODER): value.float() for key, value in tensors.items() if key.startswith(DECODER)}
    if not state:
        return None
    decoder = copy.deepcopy(model.autoencoder.decoder)
    decoder.load_state_dict(state)
    return decoder.eval()


def interpolate_voices(source: Voice, target: Voice, strength: float) -> Voice:
    """Return the voice between the source's own (0) and the target's (1), as trustworthy as the target's.

    Raises:
        ConfigError: If the strength is not within 0 to 1.
    """
    if not 0 <= strength <= 1:
        raise ConfigError(f"strength is {strength}; allowed are 0 (the source's own voice) to 1 (the reference's)")
    return replace(mix_voices([source, target], [1 - strength, strength]), speech_s=target.speech_s)
