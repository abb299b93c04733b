"""`vcae doctor`: what this installation is, what works, and what is missing for which command."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json as json_module
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import typer

from vcae.cli.common import JsonOption, user_errors
from vcae.cli.defaults import config_path
from vcae.errors import VcaeError
from vcae.version import __version__

PACKAGES = (
    "torch",
    "torchaudio",
    "numpy",
    "scipy",
    "librosa",
    "soundfile",
    "soxr",
    "av",
    "swift-f0",
    "onnxruntime",
    "safetensors",
    "typer",
)
# Modules that commands need beside the package's own requirements, and the extra that brings them.
OPTIONAL = {
    "vcae demo, vcae serve": (("gradio", "matplotlib"), "demo"),
    "vcae plot, --plot": (("matplotlib",), "demo"),
    "vcae stream --device-in, vcae voice play": (("sounddevice",), "live"),
    "vcae evaluate": (
        ("faster_whisper", "moonshine_cpp", "distillmos", "resemblyzer", "speechmos", "pesq", "pystoi", "matplotlib"),
        "eval",
    ),
    "vcae embed -o FILE.parquet": (("pyarrow",), "parquet"),
    "vcae convert --engine ray": (("ray",), "ray"),
    "training (recipes)": (("accelerate", "tensorboard"), "train"),
}
# Free space in bytes below which long recordings and temporary files may not fit.
LITTLE_BYTES = 1 << 30


@user_errors
def doctor(json: JsonOption = False) -> None:
    """Describe this installation: versions, threads, device, formats, sound devices, free space, checkpoints, and what is missing.

    Exits with 1 if something that every command needs does not work.

    Example: vcae doctor
    """
    found = {
        "versions": _versions(),
        "threads": _threads(),
        "device": _device(),
        "formats": _formats(),
        "microphones": _microphones(),
        "folders": _folders(),
        "free_bytes": _free(),
        "checkpoints": _checkpoints(),
        "missing": _missing(),
    }
    problems = _problems(found)
    if json:
        typer.echo(json_module.dumps({**found, "problems": problems}))
    else:
        for name, value in found.items():
            for key, text in _lines(name, value):
                typer.echo(f"{key:<36} {text}")
        for problem in problems:
            typer.echo(f"problem: {problem}")
        typer.echo("everything that is needed works" if not problems else f"{len(problems)} problems")
    if problems:
        raise typer.Exit(1)


def _lines(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [line for key, below in value.items() for line in _lines(f"{name}: {key}", below)] or [(name, "none")]
    if isinstance(value, list):
        return [(name, ", ".join(map(str, value)) or "none")]
    if name.startswith("free_bytes"):
        return [(name.replace("free_bytes", "free space"), f"{value / 1e9:.1f} GB")]
    return [(name, "-" if value is None else str(value))]


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"vcae": __version__, "python": platform.python_version(), "system": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _threads() -> dict[str, Any]:
    import torch

    from vcae.environment import THREADS, allowed_cores, cores_by_affinity, prepare_torch, quota_of_cores

    prepare_torch()
    quota = quota_of_cores()
    return {
        "cores of the machine": os.cpu_count(),
        "cores by affinity": cores_by_affinity(),
        "cores by control group": None if quota is None else round(quota, 2),
        "cores used": allowed_cores(),
        "torch": torch.get_num_threads(),
        THREADS: os.environ.get(THREADS),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY"),
    }


def _device() -> dict[str, Any]:
    import torch

    from vcae.engine.engine import choose_device

    cuda = torch.cuda.is_available()
    return {
        "auto": choose_device("auto").type,
        "cuda": torch.cuda.get_device_name() if cuda else "not available",
        "mps": "available" if torch.backends.mps.is_available() else "not available",
    }


def _formats() -> dict[str, list[str]]:
    import av
    import soundfile

    from vcae.audio.io import FORMATS
    from vcae.audio.suffixes import SUFFIXES

    wanted = {"mp3": "libmp3lame", "aac": "aac", "opus": "libopus", "vorbis": "libvorbis", "flac": "flac"}
    return {
        "read": list(SUFFIXES),
        "written": list(FORMATS),
        "of libsndfile": sorted(soundfile.available_formats()),
        "encoders of ffmpeg": [name for name, codec in wanted.items() if codec in av.codecs_available],
        "decoders of ffmpeg": [
            name for name in ("aac", "mp3", "opus", "vorbis", "wmav2", "amrnb", "alac", "ac3") if name in av.codecs_available
        ],
    }


def _microphones() -> list[str] | str:
    from vcae.cli.devices import need_sounddevice

    try:
        devices = need_sounddevice().query_devices()
        return [f"{n} {device['name']}" for n, device in enumerate(devices) if device["max_input_channels"]]
    except VcaeError as error:
        return str(error)
    except Exception as error:  # PortAudio's own errors, without which the rest of the page is still of use.
        return f"sound devices cannot be listed ({error})"


def _folders() -> dict[str, str]:
    from vcae.voice.shelf import voices_folder

    config = config_path()
    return {
        "saved voices": str(voices_folder()),
        "config file": str(config) + ("" if config.is_file() else " (none)"),
        "temporary": tempfile.gettempdir(),
    }


def _free() -> dict[str, int]:
    from vcae.voice.shelf import voices_folder

    found = {}
    for name, folder in {"here": Path.cwd(), "temporary": Path(tempfile.gettempdir()), "saved voices": voices_folder()}.items():
        there = folder
        while not there.exists():
            there = there.parent
        found[name] = shutil.disk_usage(there).free
    return found


def _checkpoints() -> dict[str, str]:
    """Return the beginning of the hash of each shipped checkpoint, or the reason why it cannot be used."""
    from vcae.model_file import verify, weights_folder

    found = {}
    for path in sorted(weights_folder().glob("*.safetensors")):
        try:
            found[path.stem] = f"verified, sha256 {verify(path)[:16]}"
        except VcaeError as error:
            found[path.stem] = str(error)
    return found


def _missing() -> dict[str, str]:
    found = {}
    for command, (modules, extra) in OPTIONAL.items():
        absent = [name for name in modules if importlib.util.find_spec(name) is None]
        if absent:
            found[command] = f"{', '.join(absent)}; pip install 'vcae[{extra}]'"
    return found


def _problems(found: dict[str, Any]) -> list[str]:
    problems = [f"{name} is not installed" for name, version in found["versions"].items() if version is None]
    problems += [f"checkpoint {name}: {said}" for name, said in found["checkpoints"].items() if not said.startswith("verified")]
    problems += [] if "default" in found["checkpoints"] else ["the checkpoint default is missing; reinstall vcae"]
    problems += [f"less than 1 GB is free {place}" for place, free in found["free_bytes"].items() if free < LITTLE_BYTES]
    problems += [] if sys.version_info >= (3, 10) else ["Python is older than 3.10"]
    return problems
