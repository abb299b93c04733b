"""`vcae info`: describe any file that vcae reads or writes."""

from __future__ import annotations

import json as json_module
import math
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from vcae.cli.collect import Failures
from vcae.cli.common import JsonOption, user_errors
from vcae.errors import VcaeError


@user_errors
def info(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="WHAT",
            help="Names of shipped checkpoints or saved voices; or files, and folders of them: models, voices, sounds, .vcz, units, features, "
            "reports or scores. Without any, the checkpoint default.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Describe files: what each is, what made it, and the figures in it.

    With --json, one line each.

    Example: vcae info default
    """
    names = [name for item in what or ["default"] for name in _expand(item)]
    failures = Failures(len(names))
    for name in names:
        try:
            values = _describe(name)
        except VcaeError as error:
            failures.tell(name, error)
            continue
        values = {"kind": values.pop("kind"), **values}
        if json:
            typer.echo(json_module.dumps(values))
            continue
        for key, value in _flatten(values):
            typer.echo(f"{key:<36} {value}")
    failures.leave()


def _expand(item: str) -> list[str]:
    """Return the files of a folder, or else the item."""
    from vcae.batch.jobs import EVERYTHING, find_sources
    from vcae.model_file import weights_folder

    if not os.path.isdir(item) or (weights_folder() / f"{item}.safetensors").exists():
        return [item]
    return [path for path, _ in find_sources([item], pattern=EVERYTHING)]


def _describe(what: str) -> dict[str, Any]:
    from vcae.codec.vcz import describe_code, is_code

    if is_code(what):
        return {"kind": "compressed speech", **describe_code(what)}
    if _is_checkpoint(what):
        return _describe_model(what)
    from vcae.cli.written import TEXTS, describe_features, describe_text
    from vcae.tasks.embed_files import SUFFIXES

    suffix = Path(what).suffix.lower()
    if suffix in SUFFIXES:
        return describe_features(what)
    if suffix in TEXTS:
        return describe_text(what)
    return {"kind": "sound", **_describe_sound(what)}


def _describe_model(what: str) -> dict[str, Any]:
    """Describe a checkpoint by name or path, a saved voice likewise, a detector or a classifier."""
    from vcae.cli.written import describe_model_file
    from vcae.errors import CheckpointError
    from vcae.model_file import find
    from vcae.voice.shelf import NAME, voice_path

    try:
        path = find(what)
    except CheckpointError:
        if not (NAME.fullmatch(what) and voice_path(what).exists()):
            raise
        path = voice_path(what)
    found = describe_model_file(path)
    return {"kind": "checkpoint", **_describe_checkpoint(str(path))} if found is None else found


def _is_checkpoint(what: str) -> bool:
    from vcae.model_file import PICKLES

    suffix = Path(what).suffix.lower()
    return suffix == ".safetensors" or suffix in PICKLES or (not suffix and not Path(what).is_file())


def _flatten(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, list):
            rows += [(prefix + key, entry) for entry in value]
        else:
            rows += _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return rows


def _describe_checkpoint(name: str) -> dict[str, Any]:
    from vcae.checkpoint import load
    from vcae.model_file import read_shapes

    loaded = load(name)
    if "ladder" in loaded.metadata:
        from vcae.tasks.ladder import describe_ladder

        return describe_ladder(loaded.path)
    models = {"autoencoder": loaded.autoencoder, "vocoder": loaded.vocoder}
    sizes = {k: sum(p.numel() for p in m.parameters()) for k, m in models.items() if m is not None}
    # For a file of other networks all tensors are counted.
    sizes = sizes or {"all": sum(math.prod(shape) for shape in read_shapes(loaded.path).values())}
    return {
        "checkpoint": loaded.path.name,
        "bytes": loaded.path.stat().st_size,
        "sha256": loaded.sha256,
        "parameters": sizes,
        **loaded.metadata,
    }


def _describe_sound(name: str) -> dict[str, Any]:
    import numpy as np
    import soundfile

    from vcae.audio.f0 import SAMPLE_RATE, estimate_f0
    from vcae.audio.io import read_comment, read_sound, resample
    from vcae.audio.loudness import active_level
    from vcae.audio.watermark import find_watermark

    sound = read_sound(name)
    header = soundfile.info(name)
    f0 = estimate_f0(resample(sound.wav, sound.sample_rate, SAMPLE_RATE))
    voiced = f0[f0 > 0]
    mark = find_watermark(sound.wav, sound.sample_rate)
    version = mark.version or "of an unknown version"
    level, peak = active_level(sound.wav, sound.sample_rate), float(np.abs(sound.wav).max())
    return {
        "file": name,
        "format": f"{header.format} {header.subtype}",
        "sample_rate_hz": sound.sample_rate,
        "channels": header.channels,
        "duration_s": round(sound.duration_s, 3),
        "peak": round(peak, 4),
        "active_level_db": round(20 * math.log10(level), 1) if level > 0 else None,
        "voiced_share": round(len(voiced) / max(len(f0), 1), 3),
        "median_f0_hz": round(float(np.median(voiced)), 1) if len(voiced) else None,
        "comment": read_comment(name),
        "watermark": f"vcae {version}" if mark.found else None,
        "watermark_p_value": float(f"{mark.p_value:.2g}"),
    }
