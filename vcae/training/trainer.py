"""The training loop, on accelerate: one CPU process, several processes or a GPU with the same call."""

from __future__ import annotations

import json
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vcae.errors import CheckpointError
from vcae.signals import NUMBERS
from vcae.training.config import DataConfig, TrainConfig
from vcae.training.data import CropDataset, SpeechCache
from vcae.training.objectives import Objective
from vcae.training.resume import git_commit, load_state, save_state

log = logging.getLogger(__name__)

INITIALIZE_BATCHES = 8
# Largest gradient norm over all weights.
CLIP_NORM = 1.0
# First index of the batches for validation and initialisation, which training never reaches.
VALIDATION_INDEX = 1 << 40


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the learning rate at `step`: linear warm-up, then half a cosine down to a hundredth."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    share = (step - config.warmup_steps) / max(config.max_steps - config.warmup_steps, 1)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))


class _Prepared(Dataset[dict[str, Tensor]]):
    """Batches of a dataset, to which the objective's preparation has added what it needs, in the processes that load them."""

    def __init__(self, dataset: CropDataset, prepare: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
        self.dataset, self._prepare = dataset, prepare

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self._prepare(self.dataset[index])


class Trainer:
    """Training loop of one objective with logging, validation, saving and exact resume.

    Args:
        make_objective: Builds the objective from the number of training speakers, after seeding.
        data: Data settings.
        config: Training settings.
        resolved: The whole resolved config as plain data, stored in the state.
        save_model: Writes the model as a checkpoint: called with the objective, a path and the step.
    """

    def __init__(
        self,
        make_objective: Callable[[int], Objective],
        data: DataConfig,
        config: TrainConfig,
        resolved: dict[str, Any],
        save_model: Callable[[Objective, Path, int], None],
    ) -> None:
        self.config, self.resolved, self.save_model = config, resolved, save_model
        if config.threads:
            torch.set_num_threads(config.threads)
        if torch.cuda.is_available():
            torch.set_float32_matmul_precision("high")
        # Some parameters get no gradient: a classifier with weight 0, a frozen part.
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        cpu = not torch.cuda.is_available()
        self.accelerator = Accelerator(mixed_precision=config.precision, cpu=cpu, kwargs_handlers=[unused])
        self.output = Path(config.output_dir)
        # Read now: the working tree may change while this process runs the code it started with.
        self.commit = git_commit()
        train_cache, validation_cache = SpeechCache(data.cache), SpeechCache(data.validation_cache)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        dataset, validation = (
            CropDataset(train_cache, data, config.seed, (rank, world)),
            CropDataset(validation_cache, data, config.seed),
        )
        self.workers = data.workers
        torch.manual_seed(config.seed)
        self.objective = make_objective(len(train_cache.speakers))
        self.dataset, self.validation = (
            _Prepared(dataset, self.objective.prepare),
            _Prepared(validation, self.objective.prepare),
        )
        self.optimizer = torch.optim.AdamW(
            self.objective.parameters(), config.learning_rate, (0.9, 0.98), weight_decay=config.weight_decay
        )
        # Moving average of the trained weights, or None.
        self.average: dict[str, Tensor] | None = None
        if config.average_decay:
            self.average = {k: v.detach().clone() for k, v in self.objective.model.state_dict().items()}
        self.step = 0
        self.best = math.inf
        self._stop = False
        # The signal that stopped this process; the others of a training that stopped it count as Ctrl-C.
        self.stopped_by: int = signal.SIGINT
        self._state_path = self.output / "state.safetensors"
        if self._state_path.exists():
            facts = load_state(self._state_path, self.objective, self.optimizer, self.average)
            self.step, self.best = int(facts["step"]), float(facts["best"])
            log.info("resuming %s at step %d", self.output, self.step)
        else:
            parts = [CropDataset(train_cache, data, config.seed, (part, world)) for part in range(world)]
            self.objective.initialize(part[VALIDATION_INDEX + i] for i in range(INITIALIZE_BATCHES) for part in parts)
            if self.average is not None:
                self.average = {k: v.detach().clone() for k, v in self.objective.model.state_dict().items()}
        self.wrapped, self.prepared_optimizer = self.accelerator.prepare(self.objective, self.optimizer)
        if self.average is not None:
            self.average = {k: v.to(self.accelerator.device) for k, v in self.average.items()}
        self._check_together()

    def run(self, until: int | None = None, on_step: Callable[[int, dict[str, float]], None] | None = None) -> bool:
        """Train up to `max_steps`, or stop earlier after step `until`.

        Args:
            until: Stop after this many optimizer steps in total; the schedule remains that of `max_steps`.
            on_step: Called after every step with its number and losses, for a progress bar.

        Returns:
            True if the end was reached, False if Ctrl-C (or SIGTERM, SIGHUP) stopped the training; the state is saved in both cases.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        end = min(self.config.max_steps, until or self.config.max_steps)
        # SIGHUP stays ignored under nohup.
        chosen = [s for s in (signal.SIGINT, *NUMBERS) if signal.getsignal(s) != signal.SIG_IGN]
        previous = {s: signal.signal(s, self._on_signal) for s in chosen}
        writer = self._tensorboard()
        started = time.monotonic()
        saved, stopped = self.step, False
        try:
            for batch in self._batches(end):
                losses = self._train_step(batch)
                self.step += 1
                if on_step is not None:
                    on_step(self.step, losses)
                if self.step % self.config.log_every == 0 or self.step == end:
                    rate = learning_rate(self.config, self.step)
                    self._log(writer, {"step": self.step, "lr": rate, "wall_s": time.monotonic() - started, **losses})
                if self.step % self.config.validate_every == 0 or self.step == end:
                    self._validate(writer)
                if self.step % self.config.save_every == 0 or self.step == end:
                    self._save()
                    saved = self.step
                stopped = self._stopped()
                if stopped:
                    break
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            if writer is not None:
                writer.close()
        if saved != self.step:
            self._save()
        return not stopped

    def _check_together(self) -> None:
        steps = self.accelerator.gather(torch.tensor([self.step], device=self.accelerator.device)).tolist()
        if len(set(steps)) > 1:
            raise CheckpointError(
                f"the processes would resume from different steps ({', '.join(map(str, steps))}); "
                f"copy {self._state_path} from the main machine to the others, or share the folder"
            )

    def _stopped(self) -> bool:
        """Return whether any process received a stop signal: all must stop together, or the others would wait forever."""
        if self.accelerator.num_processes > 1:
            stop = torch.tensor([int(self._stop)], device=self.accelerator.device)
            # A signal that comes meanwhile counts after the next step, so it is not overwritten.
            return bool(self.accelerator.gather(stop).any())
        return self._stop

    def _on_signal(self, number: int, frame: object) -> None:
        self._stop, self.stopped_by = True, number

    def _batches(self, end: int) -> Iterator[dict[str, Tensor]]:
        loader = DataLoader(self.dataset, batch_size=None, sampler=range(self.step, end), num_workers=self.workers)
        for batch in loader:
            yield self._to_device(batch)

    def _to_device(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {k: v if k in ("index", "part") else v.to(self.accelerator.device) for k, v in batch.items()}

    def _train_step(self, batch: dict[str, Tensor]) -> dict[str, float]:
        self.wrapped.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step)
        # Noise inside a model uses torch's generator; seeded by batch and rank, it is the same after a resume and differs between processes.
        rank, world = batch["part"].tolist()
        torch.manual_seed((self.config.seed << 32) + int(batch["index"]) * world + rank)
        losses = self.wrapped(batch)
        self.accelerator.backward(losses["loss"])
        norm = self._clip()
        self.prepared_optimizer.step()
        self.prepared_optimizer.zero_grad()
        self._follow()
        values = [
            *(v.detach().float() for v in losses.values()),
            torch.as_tensor(norm or 0.0, device=losses["loss"].device).float(),
        ]
        # In one transfer: an accelerator is waited for once a step.
        return dict(zip([*losses, "gradient_norm"], torch.stack(values).tolist(), strict=True))

    def _clip(self) -> Tensor | float | None:
        """Clip the gradients of each part of the objective apart, so that a critic's do not shrink the model's; return the model's norm."""
        norms = {
            name: self.accelerator.clip_grad_norm_(list(part.parameters()), CLIP_NORM)
            for name, part in self.objective.named_children()
            if any(p.requires_grad for p in part.parameters())
        }
        return norms.get("model")

    @torch.no_grad()
    def _follow(self) -> None:
        """Update the moving average; it moves faster in the first steps, to forget the initial weights."""
        if self.average is None:
            return
        decay = min(self.config.average_decay, (self.step + 1) / (self.step + 10))
        state = self.objective.model.state_dict()
        moving = [key for key, value in state.items() if value.dtype.is_floating_point]
        torch._foreach_lerp_([self.average[key] for key in moving], [state[key] for key in moving], 1 - decay)
        for key in state.keys() - set(moving):
            self.average[key].copy_(state[key])

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Replace the weights by their moving average, if there is one, inside a `with` block."""
        if self.average is None:
            yield
            return
        own = {k: v.detach().clone() for k, v in self.objective.model.state_dict().items()}
        self.objective.model.load_state_dict(self.average)
        try:
            yield
        finally:
            self.objective.model.load_state_dict(own)

    def _write_model(self, name: str) -> None:
        with self._averaged():
            self.save_model(self.objective, self.output / name, self.step)

    @torch.no_grad()
    def _validate(self, writer: Any) -> None:
        self.wrapped.eval()
        totals: dict[str, float] = {}
        n = self.config.validation_batches
        with self._averaged():
            for i in range(n):
                losses = self.wrapped(self._to_device(self.validation[VALIDATION_INDEX + i]))
                for key, value in losses.items():
                    totals[key] = totals.get(key, 0.0) + float(value) / n
        self._log(writer, {"step": self.step, **{f"validation_{k}": v for k, v in totals.items()}})
        if totals["loss"] < self.best:
            self.best = totals["loss"]
            if self.accelerator.is_main_process:
                self._write_model("best.safetensors")

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            self._write_model("last.safetensors")
            # JSON has no infinity, so the best loss before the first validation is a huge number.
            facts = {"best": min(self.best, 1e30), "config": self.resolved, "git_commit": self.commit}
            save_state(self._state_path, self.objective, self.optimizer, self.step, facts, self.average)
        self.accelerator.wait_for_everyone()

    def _log(self, writer: Any, values: dict[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        with (self.output / "log.jsonl").open("a", encoding="utf-8") as opened:
            opened.write(json.dumps({k: round(v, 6) for k, v in values.items()}) + "\n")
        for key, value in values.items():
            if writer is not None and key != "step":
                writer.add_scalar(key, value, int(values["step"]))

    def _tensorboard(self) -> Any:
        if not self.accelerator.is_main_process:
            return None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            log.warning("tensorboard is not installed; only log.jsonl is written")
            return None
        return SummaryWriter(str(self.output / "tensorboard"))
