"""Writing of a checkpoint as a folder of ONNX graphs, with weights in 32, 16 or 8 bits."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from vcae.engine.denoise import GUIDE_HZ, shared_cleaner
from vcae.engine.engine import DECODED_CORRECTIONS, Engine
from vcae.errors import AudioError, ConfigError
from vcae.export.graphs import (
    ContentGraph,
    CorrectionGraph,
    DecoderGraph,
    DenoiserGraph,
    MelGraph,
    ReferenceGraph,
    SpeakerGraph,
)
from vcae.version import __version__
from vcae.vocoder.excitation import PitchTrack
from vcae.vocoder.export import RealVocoder

if TYPE_CHECKING:
    import onnx

OPSET = 18
# The newest that onnxruntime 1.17 reads.
IR_VERSION = 9
BITS = (32, 16, 8)
# Smaller tensors stay in 32 bits.
LEAST = 1024
SETTINGS = "vcae.json"
FRAMES, STEPS = 40, 24


@dataclass(frozen=True)
class Graph:
    """A graph to write.

    Attributes:
        name: Name of its file, without suffix.
        module: Computation.
        inputs: Example inputs by name.
        outputs: Names of the outputs.
        moving: Axes of variable length by input or output, such as `{"mel": {2: "T"}}`.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    moving: dict[str, dict[int, str]]


def _graphs(model: Engine) -> list[Graph]:
    autoencoder, c = model.autoencoder, model.mel_config
    if autoencoder.speaker_encoder is None or not autoencoder.config.decoder.use_f0 or not autoencoder.config.decoder.attention:
        raise ConfigError(
            f"{model.checkpoint.path.stem} has no decoder that attends to a reference; export the checkpoint 'default', or one like it"
        )
    stride, latent_dim, n = autoencoder.config.content.stride, autoencoder.config.content.latent_dim, FRAMES
    speaker_dim, width = autoencoder.config.speaker.speaker_dim, autoencoder.config.decoder.reference_width  # type: ignore[union-attr]
    mel, f0 = torch.randn(1, c.n_mels, n) - 5, torch.full((1, n), 120.0)
    f0[:, : n // 4] = 0
    wav, count = torch.randn(1, n * c.hop_length) * 0.1, torch.tensor([n * c.hop_length - 7])
    active, latent = torch.ones(1, 1, n), torch.randn(1, latent_dim, -(-n // stride))
    pitch = PitchTrack.of(f0, c.sample_rate, c.hop_length)
    one, frames, steps = torch.ones(1), {2: "T"}, {2: "S"}
    cleaner = shared_cleaner("cpu").network
    first = round(GUIDE_HZ * cleaner.config.n_fft / cleaner.config.sample_rate)
    voice = {
        "keys": torch.randn(1, STEPS, latent_dim),
        "values": torch.randn(1, STEPS, width),
        "log_weights": torch.zeros(1, STEPS),
    }
    errors = {
        "keys": torch.randn(STEPS, latent_dim + 1),
        "values": torch.randn(STEPS, c.n_mels),
        "log_weights": torch.zeros(STEPS),
    }
    decoder_inputs = {"latent": latent, "f0": f0, "f0_mean": torch.full((1, 1), 4.8)}
    decoder_inputs |= {"speaker_embedding": torch.randn(1, speaker_dim), **voice, "gate": torch.ones(1, 1, 1)}
    return [
        Graph("mel", MelGraph(c), {"wav": wav, "n_samples": count}, ("mel",), {"wav": {1: "N"}, "mel": frames}),
        Graph(
            "content",
            ContentGraph(autoencoder),
            {"mel": mel, "active": active},
            ("latent",),
            {"mel": frames, "active": frames, "latent": steps},
        ),
        Graph(
            "speaker",
            SpeakerGraph(autoencoder),
            {"mel": mel, "active": active},
            ("speaker_embedding",),
            {"mel": frames, "active": frames},
        ),
        Graph("reference", ReferenceGraph(autoencoder), {"mel": mel}, ("values",), {"mel": frames, "values": {1: "S"}}),
        Graph(
            "decoder",
            DecoderGraph(autoencoder),
            decoder_inputs,
            ("mel",),
            {"latent": steps, "f0": {1: "T"}, "keys": {1: "M"}, "values": {1: "M"}, "log_weights": {1: "M"}, "mel": frames},
        ),
        Graph(
            "correction",
            CorrectionGraph(stride),
            {"mel": mel, "latent": latent, "f0": f0, **errors, "scale": one, "strength": one},
            ("corrected",),
            {
                **{"mel": frames, "latent": steps, "f0": {1: "T"}, "corrected": frames},
                **{name: {0: "M"} for name in ("keys", "values", "log_weights")},
            },
        ),
        Graph(
            "vocoder",
            RealVocoder(model.the_vocoder(), DECODED_CORRECTIONS),
            {
                **{"mel": mel, "log_f0": pitch.log_f0, "voiced": pitch.voiced, "turns": pitch.turns},
                **{"noise": torch.randn(1, n * c.hop_length), "n_samples": count},
            },
            ("wav",),
            {
                **{"mel": frames, "log_f0": {1: "T"}, "voiced": {1: "T"}, "turns": {1: "T"}},
                **{"noise": {1: "N"}, "wav": {1: "N"}},
            },
        ),
        Graph(
            "denoiser",
            DenoiserGraph(cleaner, first),
            {"wav": wav, "strength": one},
            ("clean", "gains"),
            {"wav": {1: "N"}, "clean": {1: "N"}, "gains": {1: "T"}},
        ),
    ]


def to_onnx(graph: Graph) -> onnx.ModelProto:
    """Convert a module to ONNX; axes named in `moving` have any length."""
    import io

    import onnx

    buffer = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        # The tracer warns of every number that it takes for a constant; tests compare the graphs at other lengths.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.module.eval(),
            tuple(graph.inputs.values()),
            buffer,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_axes=graph.moving,
            opset_version=OPSET,
            do_constant_folding=False,
            dynamo=False,
        )
    made = onnx.load_from_string(buffer.getvalue())
    made.ir_version = IR_VERSION
    return made
