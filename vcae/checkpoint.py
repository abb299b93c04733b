"""Model files: safetensors with everything needed to rebuild the model in the metadata. Loading them cannot run code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from vcae.config import from_dict, to_dict
from vcae.deprecation import renamed
from vcae.environment import prepare_torch
from vcae.errors import CheckpointError, ConfigError
from vcae.files import replacing
from vcae.model import weights
from vcae.model.autoencoder import Autoencoder
from vcae.model.config import AutoencoderConfig
from vcae.model.weights import restore_weights, round_weights
from vcae.model_file import DEFAULT, FORMAT, find, is_shipped, read_metadata, read_shapes, verify, weights_folder
from vcae.vocoder.config import VocoderConfig
from vcae.vocoder.neural import HarmonicNoiseVocoder

M = TypeVar("M", bound=nn.Module)
# Largest size in a config, number of blocks, and number of values in tables made from it.
MAX_SIZE = 1 << 16
MAX_BLOCKS = 256
MAX_BUFFERS = 1 << 26
NAME = re.compile(r"[A-Za-z0-9_-]+")
# Names of the tensors of an autoencoder that a file has of its own when it shares the rest.
OWN = ("autoencoder.quantizer.", "autoencoder.prosody.")


@dataclass(frozen=True)
class Checkpoint:
    """Loaded model file.

    Attributes:
        path: The file.
        sha256: SHA-256 of the whole file, hex.
        metadata: Metadata stored with the weights: author, data, licence, step and so on.
        autoencoder: The autoencoder, whose encoders and decoder may be those of a shipped file that this one refers to, or None.
        vocoder: The vocoder, from this file or from the shipped one it refers to, or None.
    """

    path: Path
    sha256: str
    metadata: dict[str, Any]
    autoencoder: Autoencoder | None
    vocoder: HarmonicNoiseVocoder | None


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file under a temporary name, then rename it.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    from safetensors.torch import save_file

    with replacing(path, CheckpointError) as temporary:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary, dict(metadata))


def save(
    path: str | Path,
    autoencoder: Autoencoder | None = None,
    vocoder: HarmonicNoiseVocoder | None = None,
    info: Mapping[str, Any] | None = None,
    half: bool = False,
    shared_vocoder: str | None = None,
    eight_bit: bool = False,
    shared_autoencoder: str | None = None,
) -> None:
    """Save one or both models as a checkpoint.

    Args:
        path: File to write, with the suffix .safetensors.
        autoencoder: Stored under `autoencoder.`.
        vocoder: Stored under `vocoder.`.
        info: Plain data for the metadata.
        half: Store weights in float16.
        shared_vocoder: Name of a shipped checkpoint whose vocoder is to be used, instead of one in this file.
        eight_bit: Store the autoencoder's weights in 8 bits, see `round_weights`.
        shared_autoencoder: Name of a shipped checkpoint whose encoders and decoder are to be used; the file holds quantizer and prosody only.

    Raises:
        CheckpointError: If there is nothing to save, there are two vocoders, the two models differ in their mel, the autoencoder is not the
            shared one, or the file cannot be written.
    """
    if autoencoder is None and vocoder is None:
        raise CheckpointError("there is no model to save; give an autoencoder, a vocoder or both")
    if shared_vocoder is not None:
        if vocoder is not None:
            raise CheckpointError(f"there is a vocoder to save and one to share ({shared_vocoder}); give one of them")
        _check_join(autoencoder, load(shared_vocoder).vocoder)
    _check_join(autoencoder, vocoder)
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, Any] = {"format": FORMAT, "info": dict(info or {})}
    if shared_vocoder is not None:
        metadata["shared_vocoder"] = shared_vocoder
    for name, model in (("autoencoder", autoencoder), ("vocoder", vocoder)):
        if model is not None:
            metadata[name] = to_dict(model.config)
            state = {f"{name}.{key}": value for key, value in model.state_dict().items()}
            tensors |= round_weights(state) if eight_bit and name == "autoencoder" else state
    if shared_autoencoder is not None:
        encoder = _check_same_encoder(autoencoder, shared_autoencoder)
        metadata |= {"shared_autoencoder": shared_autoencoder, "encoder_sha256": encoder}
        tensors = {key: value for key, value in tensors.items() if not key.startswith("autoencoder.") or key.startswith(OWN)}
    if half:
        tensors = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    write_tensors(path, tensors, {"vcae": json.dumps(metadata)})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read the tensors of a safetensors file and its SHA-256, which is checked against a .sha256 file next to it, if there is one.

    The header is checked before memory is allocated, see `read_shapes`.

    Raises:
        CheckpointError: If it is missing, damaged, or has another SHA-256.
    """
    digest = verify(path)
    read_shapes(path)
    return _load_file(path), digest


def _load_file(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return restore_weights(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); get a fresh copy of it") from error


def load(name: str | Path = DEFAULT, device: str | torch.device = "cpu") -> Checkpoint:
    """Load a checkpoint, strictly.

    Args:
        name: Name of a shipped checkpoint or path of a file. A shipped one is checked against its SHA-256.
        device: Device of the models.

    Returns:
        The models in evaluation mode and float32, with their metadata.

    Raises:
        CheckpointError: If it is missing, a pickle, damaged, of another format, or does not match its own config.
    """
    prepare_torch()
    path = find(name)
    metadata = read_metadata(path)
    digest = verify(path)
    if not is_shipped(path):
        _check_shapes(path, metadata)
    sharing = {part: _shared_file(path, metadata, part) for part in ("autoencoder", "vocoder")}
    owners = {owner: load(owner, device) for owner in {*sharing.values()} if owner is not None}
    shared, owner = sharing["autoencoder"], sharing["vocoder"]
    autoencoder, vocoder = _read_models(path, metadata, device, None if shared is None else owners[shared].autoencoder)
    if owner is not None:
        vocoder = owners[owner].vocoder
    if shared is not None:
        _check_encoder(path, metadata, shared, autoencoder)
    _check_join(autoencoder, vocoder)
    return Checkpoint(path, digest, metadata, autoencoder, vocoder)


def _read_models(
    path: Path, metadata: Mapping[str, Any], device: str | torch.device, shared: Autoencoder | None
) -> tuple[Autoencoder | None, HarmonicNoiseVocoder | None]:
    """Return the models of a file; weights of the autoencoder that the file lacks are those of the shared one."""
    tensors = _load_file(path)
    if shared is not None:
        tensors = {f"autoencoder.{key}": value for key, value in shared.state_dict().items()} | tensors
    models = _build(path, metadata)
    for part, model in models.items():
        if model is not None:
            fill(path, part, model, tensors)
            model.to(device).eval().requires_grad_(False)
    autoencoder, vocoder = models["autoencoder"], models["vocoder"]
    assert autoencoder is None or isinstance(autoencoder, Autoencoder)
    assert vocoder is None or isinstance(vocoder, HarmonicNoiseVocoder)
    return autoencoder, vocoder


def save_module(
    path: str | Path,
    part: str,
    module: nn.Module,
    sizes: Mapping[str, Any],
    info: Mapping[str, Any] | None = None,
    half: bool = False,
    eight_bit: bool = False,
) -> None:
    """Save a network other than an autoencoder or vocoder.

    Args:
        path: File to write, with the suffix .safetensors.
        part: Kind of the network, as given to `load_module`.
        module: The network.
        sizes: Plain data from which it is built.
        info: Plain data for the metadata.
        half: Store weights in float16.
        eight_bit: Store large weights in 8 bits, see `round_weights`.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    state = module.state_dict()
    tensors = round_weights(state) if eight_bit else state
    tensors = {k: v.half() if half and v.is_floating_point() else v for k, v in tensors.items()}
    write_tensors(path, tensors, {"vcae": json.dumps({"format": FORMAT, part: dict(sizes), "info": dict(info or {})})})


def load_module(
    name: str | Path, part: str, build: Callable[[dict[str, Any]], M], missing: str | None = None
) -> tuple[M, Checkpoint]:
    """Load a file of `save_module`, strictly.

    Args:
        name: Name of a shipped file, or a path.
        part: Kind of the network.
        build: Function that builds the network from the sizes; also called on the meta device, to compare shapes before memory is allocated.
        missing: End of the message for a file without this network: what it lacks, and what to do.

    Returns:
        The network in float32 and in evaluation mode, and the file's metadata.

    Raises:
        CheckpointError: If it is missing, a pickle, damaged, of another kind, or does not match its own sizes.
    """
    prepare_torch()
    path = find(name)
    metadata = read_metadata(path)
    if not isinstance(metadata.get(part), dict):
        raise CheckpointError(f"{path} holds {missing or f'no {part}; give a file that does'}")
    check_sizes(path, {part: metadata[part]})
    shapes = read_shapes(path)
    if is_shipped(path):
        verify(path)
    try:
        if not is_shipped(path):
            with torch.device("meta"):
                empty = build(dict(metadata[part]))
            compare_shapes(path, "", empty, shapes)
        module = build(dict(metadata[part]))
    except (ConfigError, KeyError, RuntimeError, TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise CheckpointError(f"{path} has a config this version does not know: {error}") from error
    tensors, digest = read_tensors(path)
    fill(path, "", module, tensors)
    return module.eval(), Checkpoint(path, digest, metadata, None, None)


def fill(path: Path, prefix: str, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy a file's weights with names of a prefix (all of them without a prefix) into a model, as float32.

    Raises:
        CheckpointError: If they do not match the model, or are not finite.
    """
    start = prefix and prefix + "."
    weights = {k.removeprefix(start): v.float() for k, v in tensors.items() if k.startswith(start)}
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} does not fit its own config: {reason}") from error
    if not all(bool(value.isfinite().all()) for value in weights.values()):
        raise CheckpointError(f"{path} holds weights that are not finite; get a fresh copy of it")


def _build(path: Path, metadata: Mapping[str, Any]) -> dict[str, nn.Module | None]:
    models: dict[str, nn.Module | None] = {"autoencoder": None, "vocoder": None}
    try:
        if "autoencoder" in metadata:
            models["autoencoder"] = Autoencoder(from_dict(AutoencoderConfig, metadata["autoencoder"], "autoencoder"))
        if "vocoder" in metadata:
            models["vocoder"] = HarmonicNoiseVocoder(from_dict(VocoderConfig, metadata["vocoder"], "vocoder"))
    except (ConfigError, RuntimeError, TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise CheckpointError(f"{path} has a config this version does not know: {error}") from error
    return models


def _check_shapes(path: Path, metadata: Mapping[str, Any]) -> None:
    """Compare the file's tensors with its config on the meta device, so that neither can allocate too much memory."""
    check_sizes(path, {part: metadata.get(part) for part in ("autoencoder", "vocoder")})
    shapes = read_shapes(path)
    shared = _shared_file(path, metadata, "autoencoder")
    if shared is not None:
        shapes = {key: shape for key, shape in read_shapes(shared).items() if key.startswith("autoencoder.")} | shapes
    with torch.device("meta"):
        models = _build(path, metadata)
    for part, model in models.items():
        if model is not None:
            compare_shapes(path, part, model, shapes)


def check_sizes(path: Path, config: Mapping[str, Any]) -> None:
    """Check the sizes in a config before a model is built from it.

    Raises:
        CheckpointError: If one of them is too large.
    """
    for name, number in _integers("", dict(config)):
        most = MAX_BLOCKS if name in ("n_blocks", "n_normalized", "n_stages") else MAX_SIZE
        if abs(number) > most:
            raise CheckpointError(
                f"{path} has a config this version does not know: {name} is {number}; at most {most} is allowed"
            )


def compare_shapes(path: Path, prefix: str, model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compare the shapes of a file's tensors with names of a prefix with those of a model, which may be on the meta device.

    Without a prefix, all tensors of the file are compared.

    Raises:
        CheckpointError: If they differ, or the model's tables are too large.
    """
    start = prefix and prefix + "."
    wanted = {start + key: tuple(value.shape) for key, value in model.state_dict().items()}
    have = {key: shape for key, shape in shapes.items() if key.startswith(start)}
    for key in sorted(wanted.keys() | have.keys()):
        if wanted.get(key) != have.get(key):
            said = f"{key} is {have.get(key, 'not there')} and should be {wanted.get(key, 'absent')}"
            raise CheckpointError(f"{path} does not fit its own config: {said}; get a fresh copy of it")
    if sum(buffer.numel() for buffer in model.buffers()) > MAX_BUFFERS:
        raise CheckpointError(f"{path} has a config this version does not know: its mel is too large; get a fresh copy of it")


def _integers(name: str, value: Any) -> Iterator[tuple[str, int]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _integers(str(key), inner)
    elif isinstance(value, int):
        yield name, value


def _shared_file(path: Path, metadata: Mapping[str, Any], part: str) -> Path | None:
    """Return the shipped file whose autoencoder or vocoder another file shares, or None."""
    if f"shared_{part}" not in metadata:
        return None
    name = metadata[f"shared_{part}"]
    if (part == "vocoder" and part in metadata) or not NAME.fullmatch(str(name)):
        raise CheckpointError(f"{path} shares the {part} of {name!r}, which is not a valid name; get a fresh copy of it")
    shipped = weights_folder() / f"{name}.safetensors"
    if not shipped.exists():
        raise CheckpointError(f"{path} shares the {part} of {name!r}, which is not shipped; reinstall vcae")
    if f"shared_{part}" in read_metadata(shipped):
        raise CheckpointError(f"{path} shares the {part} of {name!r}, which has none of its own; give a checkpoint that has")
    return shipped


def _check_same_encoder(autoencoder: Autoencoder | None, name: str) -> str:
    """Return the hash of a shipped checkpoint's content encoder, after comparing its autoencoder's state with that of another one."""
    theirs = load(name).autoencoder
    state = {} if autoencoder is None else autoencoder.state_dict()
    same = {} if theirs is None else theirs.state_dict()
    if not same or not all(key in state and torch.equal(state[key].cpu(), value) for key, value in same.items()):
        raise CheckpointError(f"the autoencoder to save is not that of {name}; save it with its own weights")
    assert theirs is not None
    return weights.hash_weights(theirs.content_encoder)


def _check_encoder(path: Path, metadata: Mapping[str, Any], shared: Path, autoencoder: Autoencoder | None) -> None:
    wanted = str(metadata.get("encoder_sha256"))
    have = "" if autoencoder is None else weights.hash_weights(autoencoder.content_encoder)
    if have != wanted:
        raise CheckpointError(
            f"{path} was made for the content encoder {wanted[:12]}..., and that of {shared.stem} is {have[:12]}...; "
            "reinstall vcae, or make it again with recipes/vq"
        )


def _check_join(autoencoder: Autoencoder | None, vocoder: HarmonicNoiseVocoder | None) -> None:
    if autoencoder is not None and vocoder is not None and autoencoder.config.mel != vocoder.config.mel:
        raise CheckpointError(
            f"autoencoder and vocoder differ in their mel: {autoencoder.config.mel} and {vocoder.config.mel}; "
            "train one again with the other's mel settings"
        )


__getattr__ = renamed(
    __name__,
    {
        **{name: f"vcae.model_file.{name}" for name in ("read_header", "PICKLES", "STEPS", "MAX_HEADER_BYTES", "MAX_TENSORS")},
        "hash_weights": "vcae.model.weights.hash_weights",
    },
)
