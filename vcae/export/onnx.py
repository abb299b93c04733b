"""Writing of a checkpoint as a folder of ONNX graphs, with weights in 32, 16 or 8 bits."""

from __future__ import annotations

import io
import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from vcae import options
from vcae.audio import f0_detection, frames, loudness, speech
from vcae.audio.f0 import F0_MAX_HZ, F0_MIN_HZ
from vcae.engine.denoise import GUIDE_HZ, LOUDER, QUIETER, shared_cleaner
from vcae.engine.engine import DECODED_CORRECTIONS, Engine
from vcae.errors import ConfigError
from vcae.export.graphs import (
    ContentGraph,
    CorrectionGraph,
    DecoderGraph,
    DenoiserGraph,
    MelGraph,
    ReferenceGraph,
    SpeakerGraph,
    WatermarkGraph,
)
from vcae.files import check_target, provenance, write_file
from vcae.light.graphs import FORMAT, SETTINGS
from vcae.model.weights import restore_weights, round_weights
from vcae.model_file import STEPS
from vcae.vocoder.excitation import PitchTrack
from vcae.vocoder.export import RealVocoder
from vcae.vocoder.neural import HarmonicNoiseVocoder
from vcae.voice import matching, pitch, speaking

if TYPE_CHECKING:
    import onnx

OPSET = 18
# The newest that onnxruntime 1.17 reads.
IR_VERSION = 9
BITS = (32, 16, 8)
# Smaller tensors stay in 32 bits.
LEAST = 1024
EXAMPLE_FRAMES, EXAMPLE_STEPS = 40, 24


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
    stride, latent_dim, n = autoencoder.config.content.stride, autoencoder.config.content.latent_dim, EXAMPLE_FRAMES
    speaker_dim, width = autoencoder.config.speaker.speaker_dim, autoencoder.config.decoder.reference_width  # type: ignore[union-attr]
    mel, f0 = torch.randn(1, c.n_mels, n) - 5, torch.full((1, n), 120.0)
    f0[:, : n // 4] = 0
    wav, count = torch.randn(1, n * c.hop_length) * 0.1, torch.tensor([n * c.hop_length - 7])
    active, latent = torch.ones(1, 1, n), torch.randn(1, latent_dim, -(-n // stride))
    one, whole, steps = torch.ones(1), {2: "T"}, {2: "S"}
    cleaner = shared_cleaner("cpu").network
    first = round(GUIDE_HZ * cleaner.config.n_fft / cleaner.config.sample_rate)
    voice = {
        "keys": torch.randn(1, EXAMPLE_STEPS, latent_dim),
        "values": torch.randn(1, EXAMPLE_STEPS, width),
        "log_weights": torch.zeros(1, EXAMPLE_STEPS),
    }
    errors = {
        "keys": torch.randn(EXAMPLE_STEPS, latent_dim + 1),
        "values": torch.randn(EXAMPLE_STEPS, c.n_mels),
        "log_weights": torch.zeros(EXAMPLE_STEPS),
    }
    decoder_inputs = {"latent": latent, "f0": f0, "f0_mean": torch.full((1, 1), 4.8)}
    decoder_inputs |= {"speaker_embedding": torch.randn(1, speaker_dim), **voice, "gate": torch.ones(1, 1, 1)}
    return [
        Graph("mel", MelGraph(c), {"wav": wav, "n_samples": count}, ("mel",), {"wav": {1: "N"}, "mel": whole}),
        Graph(
            "content",
            ContentGraph(autoencoder),
            {"mel": mel, "active": active},
            ("latent",),
            {"mel": whole, "active": whole, "latent": steps},
        ),
        Graph(
            "speaker",
            SpeakerGraph(autoencoder),
            {"mel": mel, "active": active},
            ("speaker_embedding",),
            {"mel": whole, "active": whole},
        ),
        Graph("reference", ReferenceGraph(autoencoder), {"mel": mel}, ("values",), {"mel": whole, "values": {1: "S"}}),
        Graph(
            "decoder",
            DecoderGraph(autoencoder),
            decoder_inputs,
            ("mel",),
            {"latent": steps, "f0": {1: "T"}, "keys": {1: "M"}, "values": {1: "M"}, "log_weights": {1: "M"}, "mel": whole},
        ),
        Graph(
            "correction",
            CorrectionGraph(stride),
            {"mel": mel, "latent": latent, "f0": f0, **errors, "scale": one, "strength": one},
            ("corrected",),
            {
                **{"mel": whole, "latent": steps, "f0": {1: "T"}, "corrected": whole},
                **{name: {0: "M"} for name in ("keys", "values", "log_weights")},
            },
        ),
        vocoder_graph(model.the_vocoder(), DECODED_CORRECTIONS),
        Graph("watermark", WatermarkGraph(c.sample_rate), {"wav": wav}, ("marked",), {"wav": {1: "N"}, "marked": {1: "N"}}),
        Graph(
            "denoiser",
            DenoiserGraph(cleaner, first),
            {"wav": wav, "strength": one},
            ("clean", "gains"),
            {"wav": {1: "N"}, "clean": {1: "N"}, "gains": {1: "T"}},
        ),
    ]


def vocoder_graph(vocoder: HarmonicNoiseVocoder, n_corrections: int | None = None) -> Graph:
    """Return the graph of a vocoder; `n_corrections` is as of `RealVocoder`."""
    c, n = vocoder.config.mel, EXAMPLE_FRAMES
    pitch = PitchTrack.of(torch.full((1, n), 120.0), c.sample_rate, c.hop_length)
    inputs = {"mel": torch.randn(1, c.n_mels, n) - 5, "log_f0": pitch.log_f0, "voiced": pitch.voiced, "turns": pitch.turns}
    inputs |= {"noise": torch.randn(1, n * c.hop_length), "n_samples": torch.tensor([n * c.hop_length - 7])}
    moving = {"mel": {2: "T"}, "log_f0": {1: "T"}, "voiced": {1: "T"}, "turns": {1: "T"}, "noise": {1: "N"}, "wav": {1: "N"}}
    return Graph("vocoder", RealVocoder(vocoder, n_corrections), inputs, ("wav",), moving)


def to_onnx(graph: Graph) -> onnx.ModelProto:
    """Convert a module to ONNX; axes named in `moving` have any length."""
    import onnx

    buffer: Any = io.BytesIO()
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


def store_weights(made: onnx.ModelProto, weights: frozenset[str], bits: int) -> None:
    """Store the named weights of a graph in fewer bits; they are turned into 32 bits when the graph is loaded.

    Args:
        made: The graph, which is changed.
        weights: Names of the tensors.
        bits: 16 stores a tensor in 8 bits if that is exact, as it is for a checkpoint whose weights have 8 bits, and in 16 if not. 8 stores
            every matrix in 8 bits. 32 changes nothing.
    """
    from onnx import TensorProto, helper, numpy_helper

    nodes, kept = [], []
    for tensor in made.graph.initializer:
        if bits == 32 or tensor.name not in weights:
            kept.append(tensor)
            continue
        values, stored = numpy_helper.to_array(tensor), f"{tensor.name}_stored"
        rounded = round_weights({"": torch.from_numpy(values.copy())})
        if len(rounded) > 1 and (bits == 8 or np.array_equal(restore_weights(rounded)[""].numpy(), values)):
            names = [stored, f"{tensor.name}_whole", f"{tensor.name}_steps", f"{tensor.name}_scale"]
            kept.append(numpy_helper.from_array(rounded[""].numpy(), names[0]))
            kept.append(numpy_helper.from_array(rounded[STEPS].numpy(), names[2]))
            nodes += [helper.make_node("Cast", [name], [to], to=TensorProto.FLOAT) for name, to in (names[:2], names[2:])]
            nodes.append(helper.make_node("Mul", names[1::2], [tensor.name]))
        else:
            kept.append(numpy_helper.from_array(values.astype(np.float16), stored))
            nodes.append(helper.make_node("Cast", [stored], [tensor.name], to=TensorProto.FLOAT))
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)
    body = list(made.graph.node)
    del made.graph.node[:]
    made.graph.node.extend([*nodes, *body])


def _constants() -> dict[str, float | list[float]]:
    """Return the constants of the steps around the graphs, by their names in lower case."""
    names: dict[Any, str] = {
        frames: "ACTIVE_RANGE",
        matching: "N_QUANTILES OUTERMOST MIN_FRAMES FULL_MATCH_S BANDWIDTH BANDWIDTH_FRAMES BANDWIDTH_EXPONENT VOICING_WEIGHT MAX_MEMORY",
        speaking: "DISTRIBUTION DISTRIBUTION_S",
        pitch: "SPREAD_BOUNDS",
        f0_detection: "VOICED_CONFIDENCE BLOCK_FRAMES LEFT_FRAMES RIGHT_FRAMES",
        loudness: "TARGET_LEVEL PEAK_LIMIT SILENCE_LEVEL FRAME SMOOTH_FRAMES MAX_RAISE_DB MAX_CUT_DB LOW_CUT_HZ LOW_CUT_ORDER LOUD "
        "MAX_POWER MAX_CREST MAX_OFFSET LIMITER_WINDOW",
        speech: "MIN_SPEECH_S GOOD_SPEECH_S MIN_RUN_FRAMES MIN_PITCH_STEP NEAR_S AROUND_S PAUSE_S STEADY_DB NOISY_DB NOISY_REFERENCE_DB "
        "MIN_JUDGED_S",
        options: "DENOISE_STRENGTH",
    }
    return {name.lower(): getattr(module, name) for module, words in names.items() for name in words.split()}


def _settings(model: Engine, bits: int) -> dict[str, Any]:
    """Return the plain data that the graphs' users need."""
    config, cleaner = model.autoencoder.config, shared_cleaner("cpu").network.config
    return {
        "format": FORMAT,
        "origin": provenance(model.checkpoint, "").removeprefix(" by "),
        "bits": bits,
        "mel": asdict(model.mel_config),
        "stride": config.content.stride,
        "latent_dim": config.content.latent_dim,
        "reference_width": config.decoder.reference_width,
        "decoder_reach": model.autoencoder.decoder.reach,
        "vocoder_reach": model.the_vocoder().receptive_frames(DECODED_CORRECTIONS),
        "constants": _constants(),
        "f0_min_hz": F0_MIN_HZ,
        "f0_max_hz": F0_MAX_HZ,
        "denoiser": {
            "sample_rate": cleaner.sample_rate,
            "hop_length": cleaner.hop_length,
            "quieter": QUIETER,
            "louder": LOUDER,
        },
    }


def export_onnx(model: Engine, folder: str | Path, bits: int = 16, force: bool = False) -> list[Path]:
    """Write all that converts as ONNX graphs: mel, F0, content, speaker, reference, decoder, correction, vocoder, denoiser.

    `vcae.light` runs them, and so does the page in `web`. Needs the extra `onnx`.

    Args:
        model: Model with a speaker part and attention to the reference.
        folder: Folder for the files, made if it is missing.
        bits: Bits of a weight: 32, 16 (or 8 where that is exact, so that nothing is lost of a shipped checkpoint), or 8.
        force: Replace files that are there.

    Returns:
        The files.

    Raises:
        ConfigError: For another number of bits, or a model that cannot be exported.
        DataError: If a file is there and `force` is off, or one cannot be written.
    """
    if bits not in BITS:
        raise ConfigError(f"bits is {bits}; allowed are {', '.join(map(str, BITS))}")
    graphs, place = _graphs(model), Path(folder)
    files = [place / f"{name}.onnx" for name in (*(graph.name for graph in graphs), "f0")]
    for file in (*files, place / SETTINGS):
        check_target(file, force)
    for graph, file in zip(graphs, files, strict=False):
        made = to_onnx(graph)
        weights = frozenset(name for name, value in graph.module.named_parameters() if value.numel() >= LEAST)
        store_weights(made, weights, bits)
        write_file(file, made.SerializeToString())
    write_file(files[-1], _f0_graph())
    write_file(place / SETTINGS, json.dumps(_settings(model, bits), indent=1) + "\n")
    return [*files, place / SETTINGS]


def _f0_graph() -> bytes:
    """Return the graph of swift-f0 in an IR version that onnxruntime 1.17 reads too."""
    from importlib.resources import files

    import onnx

    made = onnx.load_from_string(files("swift_f0").joinpath("model.onnx").read_bytes())
    made.ir_version = min(made.ir_version, IR_VERSION)
    return bytes(made.SerializeToString())
