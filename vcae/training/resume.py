"""The training state as a second file: all that an exact resume needs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vcae.checkpoint import write_tensors
from vcae.errors import CheckpointError

STATE_FORMAT = 1


def git_commit() -> str:
    """Return the commit of the working tree, or `unknown` outside a checkout."""
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def save_state(
    path: Path,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    facts: dict[str, Any],
    average: Mapping[str, Tensor] | None = None,
) -> None:
    """Write weights, their moving average if any, optimizer moments, step, torch's random state and `facts` (plain data) atomically.

    Batches, perturbations and noise are functions of (seed, step), so the step also gives the position in the data.
    """
    tensors = {f"objective.{k}": v for k, v in objective.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in (average or {}).items()}
    for name, parameter in objective.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value)
    tensors["random.torch"] = torch.get_rng_state()
    metadata = {"format": STATE_FORMAT, "step": step, **facts}
    write_tensors(path, tensors, {"vcae_state": json.dumps(metadata)})


def load_state(
    path: Path, objective: nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, Tensor] | None = None
) -> dict[str, Any]:
    """Read a training state into an objective, its optimizer and, if given, the weights' moving average.

    Returns:
        The metadata, with `step`.

    Raises:
        CheckpointError: If the file is damaged or belongs to another config.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = json.loads((opened.metadata() or {})["vcae_state"])
            tensors: dict[str, Tensor] = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        if metadata["format"] != STATE_FORMAT:
            raise CheckpointError(f"{path} has state format {metadata['format']}; this version reads {STATE_FORMAT}")
        weights = {k.removeprefix("objective."): v for k, v in tensors.items() if k.startswith("objective.")}
        objective.load_state_dict(weights, strict=True)
        if average is not None:
            average.update({key: tensors[f"average.{key}"] for key in list(average)})
    except (OSError, KeyError, ValueError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} cannot be resumed from ({reason}); start again with another output_dir") from error
    for name, parameter in objective.named_parameters():
        state = {
            key: tensors[f"optimizer.{key}.{name}"]
            for key in ("step", "exp_avg", "exp_avg_sq")
            if f"optimizer.{key}.{name}" in tensors
        }
        if state:
            optimizer.state[parameter] = {k: v if k == "step" else v.to(parameter.device) for k, v in state.items()}
    torch.set_rng_state(tensors["random.torch"])
    return dict(metadata)
