"""The ladder: plain autoencoders that differ only in the size of their code, in one file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vcae import checkpoint
from vcae.config import from_dict, to_dict
from vcae.errors import CheckpointError, ConfigError
from vcae.files import hash_file
from vcae.model.autoencoder import Autoencoder
from vcae.model.config import AutoencoderConfig
from vcae.model.weights import round_weights
from vcae.model_file import FORMAT, find, read_metadata, read_shapes

LADDER = "ladder"
MAX_RUNGS = 64


def save_ladder(path: str | Path, rungs: Mapping[int, Autoencoder], info: Mapping[str, Any]) -> None:
    """Save rungs in 8 bits (see `round_weights`) under their number of dimensions.

    Args:
        path: Ends in .safetensors.
        rungs: Autoencoders by values per step, otherwise with the same settings.
        info: Plain data to keep beside the weights.

    Raises:
        CheckpointError: If there are none, they differ in more, or the file cannot be written.
    """
    if not rungs:
        raise CheckpointError("there is no rung to save; give at least one")
    common = next(iter(rungs.values())).config
    for dim, rung in rungs.items():
        if rung.config != with_dim(common, dim):
            raise CheckpointError(
                f"the rung of {dim} differs from the others in more than the size of its code; train it with the same settings"
            )
    tensors = round_weights({f"{dim}.{k}": v for dim, rung in rungs.items() for k, v in rung.state_dict().items()})
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    ladder = {"dims": sorted(rungs), "autoencoder": to_dict(common)}
    metadata = {"format": FORMAT, "ladder": ladder, "info": dict(info)}
    checkpoint.write_tensors(path, tensors, {"vcae": json.dumps(metadata)})


def ladder_dims(name: str | Path = LADDER) -> list[int]:
    """Return the sizes of the codes of a ladder, in values per step.

    Raises:
        CheckpointError: As `load_rung`.
    """
    return _read(find(name))[0]


def load_rung(code_dim: int, device: str | torch.device = "cpu", name: str | Path = LADDER) -> Autoencoder:
    """Load the plain autoencoder whose code has `code_dim` values per step.

    Args:
        code_dim: One of the ladder's sizes.
        device: Device of the autoencoder.
        name: Name or path of the ladder.

    Returns:
        The autoencoder in evaluation mode and float32.

    Raises:
        ConfigError: If the ladder has no autoencoder of this size.
        CheckpointError: If it is missing, damaged, or does not fit its own config.
    """
    path = find(name)
    dims, common = _read(path)
    if code_dim not in dims:
        raise ConfigError(
            f"code_dim is {code_dim}; the ladder has {', '.join(map(str, dims[:-1]))} and {dims[-1]} values per step"
        )
    rung = Autoencoder(with_dim(common, code_dim))
    checkpoint.fill(path, str(code_dim), rung, checkpoint.read_tensors(path)[0])
    return rung.to(device).eval().requires_grad_(False)


def describe_ladder(name: str | Path = LADDER) -> dict[str, Any]:
    """Describe a ladder for `vcae info`: size, SHA-256, parameters of each rung, and metadata.

    Raises:
        CheckpointError: As `load_rung`.
    """
    path = find(name)
    dims, _ = _read(path)
    rungs = {dim: load_rung(dim, name=path) for dim in dims}
    return {
        "checkpoint": path.name,
        "bytes": path.stat().st_size,
        "sha256": hash_file(path),
        "parameters": {str(dim): sum(p.numel() for p in rung.parameters()) for dim, rung in rungs.items()},
        **read_metadata(path),
    }


def with_dim(config: AutoencoderConfig, dim: int) -> AutoencoderConfig:
    """Return a config with another size of the code."""
    return dataclasses.replace(config, content=dataclasses.replace(config.content, latent_dim=dim))


def _read(path: Path) -> tuple[list[int], AutoencoderConfig]:
    """Return the sizes and the common config of a file's rungs, after checking its tensors against them; no weights are read."""
    metadata = read_metadata(path)
    try:
        dims, values = metadata["ladder"]["dims"], metadata["ladder"]["autoencoder"]
        if not 0 < len(dims) <= MAX_RUNGS or any(type(dim) is not int or dim < 1 for dim in dims):
            raise ValueError(f"its dims are {str(dims)[:60]}")
        checkpoint.check_sizes(path, {"latent_dim": max(dims), "autoencoder": values})
        common = from_dict(AutoencoderConfig, values, "autoencoder")
        shapes = read_shapes(path)
        with torch.device("meta"):
            rungs = {dim: Autoencoder(with_dim(common, dim)) for dim in dims}
    except (KeyError, TypeError, ValueError, RuntimeError, ZeroDivisionError, OverflowError, ConfigError) as error:
        raise CheckpointError(
            f"{path} is not a ladder of autoencoders ({error}); give one, such as the shipped ladder"
        ) from error
    for dim, rung in rungs.items():
        checkpoint.compare_shapes(path, str(dim), rung, shapes)
    strangers = sorted(key for key in shapes if key.partition(".")[0] not in map(str, dims))
    if strangers:
        raise CheckpointError(
            f"{path} does not fit its own config: {strangers[0][:60]} belongs to no rung; get a fresh copy of it"
        )
    return list(dims), common
