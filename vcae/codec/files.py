"""Files of the codec: safetensors, with sizes, training and the base layer's checkpoint in the metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vcae import checkpoint
from vcae.codec.block import INVERSE_BITS, MAX_QUALITY, PHASES, BlockCoder
from vcae.codec.config import CodecConfig, PolishConfig
from vcae.codec.integer import (
    EXP_RANGE,
    EXP_STEPS,
    FRACTIONS,
    HALF,
    NUMBER_BITS,
    ONE,
    SCALES,
    exponentials,
    logistic_tables,
    to_integers,
)
from vcae.codec.model import CodecNetworks
from vcae.codec.network import Enhancement
from vcae.codec.polish import Polish
from vcae.codec.prior import QUALITIES, table_sizes
from vcae.codec.speaker import Levels, VoiceLevels
from vcae.config import from_dict, to_dict
from vcae.errors import CheckpointError, ConfigError
from vcae.model_file import find, read_metadata

FORMAT = 1
# Kinds of the files of networks in training.
NETWORKS, POLISH = "codec_networks", "polish"


@dataclass(frozen=True)
class CodecFile:
    """Loaded codec without its base layer.

    Attributes:
        path: The file.
        sha256: SHA-256 of the file, hex.
        metadata: Metadata stored with the weights.
        config: Settings of the networks.
        enhancement: The enhancement layer.
        polish: Refinement of the base layer's mel when there is no enhancement layer, or None.
        coder: Encoder and decoder of blocks.
        voice: Encoder and decoder of the voice.
        rates: (256,), bit rate of each quality on the training data in kbit/s, used as a first estimate.
    """

    path: Path
    sha256: str
    metadata: dict[str, Any]
    config: CodecConfig
    enhancement: Enhancement
    polish: Polish | None
    coder: BlockCoder
    voice: VoiceLevels
    rates: Tensor


def save_networks(path: Path, networks: CodecNetworks, codebook_size: int, info: Mapping[str, Any]) -> None:
    """Save networks in training, in floating point.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    sizes = to_dict(networks.config) | {"codebook_size": codebook_size, "n_mels": networks.enhancement.n_mels}
    checkpoint.save_module(path, NETWORKS, networks, sizes, info)


def load_networks(path: str | Path) -> CodecNetworks:
    """Load a file of `save_networks`.

    Raises:
        CheckpointError: If it is missing, damaged or of another kind.
    """

    def build(sizes: dict[str, Any]) -> CodecNetworks:
        codebook_size, n_mels = int(sizes.pop("codebook_size")), int(sizes.pop("n_mels"))
        return CodecNetworks(from_dict(CodecConfig, sizes, "codec"), n_mels, codebook_size)

    return checkpoint.load_module(path, NETWORKS, build, "no codec in training; give one from recipes/codec/train.py")[0]


def step_tables(enhancement: Enhancement) -> dict[str, Tensor]:
    """Return the quantiser's step sizes at every quality as integers: tables of (256, D), whose first row is unused."""
    quality = (torch.arange(MAX_QUALITY + 1).double() - 1).clamp(min=0) / (MAX_QUALITY - 1)
    low, slope = enhancement.log_step.detach().double().cpu()
    steps = torch.round(torch.exp(low + quality[:, None] * slope) * (1 << NUMBER_BITS)).clamp(min=1)
    exact = steps / (1 << NUMBER_BITS)
    return {
        "steps": steps.int(),
        "inverse_steps": torch.round((1 << INVERSE_BITS) / exact).int(),
        "log2_steps": torch.round(torch.log2(exact) * ONE).int(),
    }


def save_codec(
    path: Path,
    networks: CodecNetworks,
    codebook_size: int,
    extra: Mapping[str, Tensor],
    info: Mapping[str, Any],
    base_sha256: str,
    polish: Polish | None = None,
) -> None:
    """Save a codec for use: the enhancement layer in float16, all that the entropy coder needs in integers.

    Args:
        path: File to write.
        networks: Trained networks.
        codebook_size: Number of codes in a codebook of the base layer.
        extra: `phase` (PHASES + 1, PHASES) int32, `rates` (256,), and `speaker.*` and `timbre.*` from `fit_levels`.
        info: Plain data to store in the metadata.
        base_sha256: SHA-256 of the base layer's checkpoint.
        polish: Refinement of the base layer's mel when there is no enhancement layer.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    tensors = {f"enhancement.{key}": value.half() for key, value in networks.enhancement.state_dict().items()}
    for name in table_sizes(codebook_size):
        tensors |= {f"prior.{name}.{key}": value for key, value in to_integers(getattr(networks.priors, name)).items()}
    tables = {"exponentials": exponentials(), "logistic": logistic_tables(), **step_tables(networks.enhancement)}
    tensors |= {f"prior.{key}": value for key, value in tables.items()}
    tensors |= {("prior.phase" if key == "phase" else key): value for key, value in extra.items()}
    sizes: dict[str, Any] = {"codebook_size": codebook_size, "n_mels": networks.enhancement.n_mels, "base_sha256": base_sha256}
    sizes["speaker_dim"] = len(extra["speaker.mean"])
    if polish is not None:
        tensors |= {f"polish.{key}": value.half() for key, value in polish.state_dict().items()}
        sizes["polish"] = to_dict(polish.config)
    metadata = {"format": FORMAT, "codec": to_dict(networks.config) | sizes, "info": dict(info)}
    checkpoint.write_tensors(path, tensors, {"vcae": json.dumps(metadata)})


def load_codec(name: str | Path, device: torch.device) -> CodecFile:
    """Load a codec for use.

    Raises:
        CheckpointError: If it is missing, damaged or of another kind.
    """
    path = find(name)
    metadata = read_metadata(path)
    try:
        sizes = dict(metadata["codec"])
        base = str(sizes.pop("base_sha256"))
        codebook_size, n_mels, speaker_dim = (int(sizes.pop(key)) for key in ("codebook_size", "n_mels", "speaker_dim"))
        config = from_dict(CodecConfig, sizes, "codec")
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise CheckpointError(f"{path} is not a codec ({error}); give one, such as the shipped codec") from error
    tensors, digest = checkpoint.read_tensors(path)
    if not (2 <= codebook_size <= checkpoint.MAX_SIZE and 1 <= n_mels <= 1024 and 1 <= speaker_dim <= 1024):
        raise CheckpointError(
            f"{path} has a config this version does not know: {codebook_size} codes, {n_mels} bands, {speaker_dim} speaker dimensions"
        )
    _check(path, tensors, config, codebook_size, n_mels, speaker_dim)

    def part(name: str) -> dict[str, Tensor]:
        return {key.removeprefix(name + "."): value for key, value in tensors.items() if key.startswith(name + ".")}

    enhancement = Enhancement(config, n_mels)
    enhancement.load_state_dict({key: value.float() for key, value in part("enhancement").items()}, strict=True)
    polish = None
    if config.polish is not None:
        polish = Polish(config.polish, n_mels, speaker_dim)
        polish.load_state_dict({key: value.float() for key, value in part("polish").items()}, strict=True)
        polish.to(device).eval().requires_grad_(False)
    return CodecFile(
        path,
        digest,
        metadata | {"base_sha256": base},
        config,
        enhancement.to(device).eval().requires_grad_(False),
        polish,
        BlockCoder(part("prior"), codebook_size, config.latent_dim),
        VoiceLevels(Levels(part("speaker")), Levels(part("timbre"))),
        tensors["rates"].float(),
    )


def _check(
    path: Path, tensors: Mapping[str, Tensor], config: CodecConfig, codebook_size: int, n_mels: int, speaker_dim: int
) -> None:
    """Compare the tensors' shapes with those of networks built from the config on the meta device."""
    wanted = _shapes(config, codebook_size, n_mels, speaker_dim)
    have = {key: tuple(value.shape) for key, value in tensors.items() if not key.startswith(("speaker.", "timbre."))}
    for key in sorted(wanted.keys() | have.keys()):
        if wanted.get(key) != have.get(key):
            said = f"{key} is {have.get(key, 'not there')} and should be {wanted.get(key, 'absent')}"
            raise CheckpointError(f"{path} does not fit its own config: {said}; get a fresh copy of it")
    for name, dim in (("speaker", speaker_dim), ("timbre", n_mels)):
        own = {key.removeprefix(name + "."): value for key, value in tensors.items() if key.startswith(name + ".")}
        if own.keys() != {"mean", "basis", "bits", "levels"} or not Levels.fit(own, dim):
            raise CheckpointError(f"{path} has levels of the {name} that do not fit each other; get a fresh copy of it")
    if not all(bool(value.isfinite().all()) for value in tensors.values() if value.is_floating_point()):
        raise CheckpointError(f"{path} holds weights that are not finite; get a fresh copy of it")


def _shapes(config: CodecConfig, codebook_size: int, n_mels: int, speaker_dim: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors except those of the voice's levels."""
    with torch.device("meta"):
        networks = CodecNetworks(config, n_mels, codebook_size)
        polish = None if config.polish is None else Polish(config.polish, n_mels, speaker_dim)
    d, shapes = config.latent_dim, {f"enhancement.{k}": tuple(v.shape) for k, v in networks.enhancement.state_dict().items()}
    if polish is not None:
        shapes |= {f"polish.{key}": tuple(value.shape) for key, value in polish.state_dict().items()}
    for name, sizes in table_sizes(codebook_size).items():
        n_out, width = getattr(networks.priors, name).output.weight.shape
        own = {"table": (sum(sizes), width), "bias": (width,), "hidden.weight": (width, width), "hidden.bias": (width,)}
        own |= {"output.weight": (n_out, width), "output.bias": (n_out,)}
        if name == "latent":
            own["numbers.weight"] = (width, 2 * d + QUALITIES)
        shapes |= {f"prior.{name}.{key}": shape for key, shape in own.items()}
    shapes |= {f"prior.{name}": (MAX_QUALITY + 1, d) for name in ("steps", "inverse_steps", "log2_steps")}
    shapes |= {"prior.exponentials": (EXP_RANGE * EXP_STEPS + 1,), "prior.logistic": (SCALES, FRACTIONS, 2 * HALF)}
    return shapes | {"prior.phase": (PHASES + 1, PHASES), "rates": (MAX_QUALITY + 1,)}


def save_polish(path: Path, polish: Polish, info: Mapping[str, Any]) -> None:
    """Save a polish in training.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    sizes = to_dict(polish.config) | {"n_mels": polish.output.out_features, "speaker_dim": polish.speaker_dim}
    checkpoint.save_module(path, POLISH, polish, sizes, info)


def load_polish(path: str | Path) -> Polish:
    """Load a file of `save_polish`.

    Raises:
        CheckpointError: If it is missing, damaged or of another kind.
    """

    def build(sizes: dict[str, Any]) -> Polish:
        n_mels, speaker_dim = int(sizes.pop("n_mels")), int(sizes.pop("speaker_dim"))
        return Polish(from_dict(PolishConfig, sizes, "polish"), n_mels, speaker_dim)

    return checkpoint.load_module(path, POLISH, build, "no polish in training; give one from recipes/codec/polish.py")[0]
