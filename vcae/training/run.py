"""Command-line front of the trainer for all recipes: progress on a terminal, errors, and how to resume."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vcae.errors import VcaeError
from vcae.signals import exit_on_signals
from vcae.training.config import DataConfig, TrainConfig
from vcae.training.objectives import Objective
from vcae.training.trainer import Trainer


def train(
    make_objective: Callable[[int], Objective],
    data: DataConfig,
    config: TrainConfig,
    resolved: dict[str, Any],
    save_model: Callable[[Any, Path, int], None],
) -> None:
    """Train with a progress bar; exit with code 2 and one line for a user's mistake, 130, 143 or 129 when it is ended.

    Args:
        make_objective: Builds the objective from the number of training speakers.
        data: Data settings.
        config: Training settings.
        resolved: The whole resolved config as plain data.
        save_model: Writes a checkpoint: called with the objective, a path and the step.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    exit_on_signals()
    console = Console(stderr=True)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        trainer = Trainer(make_objective, data, config, resolved, save_model)
        n = sum(p.numel() for p in trainer.objective.model.parameters())
        console.print(f"{n:,} parameters, device {trainer.accelerator.device}, step {trainer.step} of {config.max_steps}")
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task("training", total=config.max_steps, completed=trainer.step)

            def show(step: int, losses: dict[str, float]) -> None:
                bar.update(task, completed=step, description=f"loss {losses['loss']:.3f}")

            finished = trainer.run(on_step=show)
        if finished:
            # Without it, a process that is still at work can be aborted when another has left.
            trainer.accelerator.end_training()
    except VcaeError as error:
        console.print(f"error: {error}", style="red", soft_wrap=True, markup=False)
        sys.exit(2)
    if not finished:
        again = shlex.join(["python", *sys.argv])
        console.print(f"stopped and saved at step {trainer.step}; to resume, run the same command: {again}", soft_wrap=True)
        sys.exit(128 + trainer.stopped_by)
    console.print(f"done: {config.output_dir}/last.safetensors, best validation loss {trainer.best:.4f}", soft_wrap=True)
