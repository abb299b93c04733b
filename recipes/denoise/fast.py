"""Train the denoiser for a given time, with all data in the device's memory: `python recipes/denoise/fast.py CONF SECONDS OUTPUT [name=value ...]`.

The learning rate follows the elapsed time. Weights (averaged, float16) are written to the folder OUTPUT every minute and at the end.
"""

import math
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from vcae.checkpoint import save_module
from vcae.config import load_config, to_dict
from vcae.errors import VcaeError
from vcae.model.denoiser import PART
from vcae.training.config import DenoiseRecipe
from vcae.training.denoise import DenoiseObjective
from vcae.training.resident import ResidentCrops

Forward = Callable[..., tuple[torch.Tensor, torch.Tensor]]

# Part of the time in which the learning rate rises.
WARM_UP = 0.04
SAVE_EVERY_S, SAY_EVERY_S = 60.0, 10.0


class Run:
    """One training on one device."""

    def __init__(self, recipe: DenoiseRecipe, seconds: float, output: Path) -> None:
        self.recipe, self.seconds, self.output, self.step, self.seen_s = recipe, seconds, output, 0, 0.0
        self.started = time.monotonic()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(recipe.train.seed)
        torch.set_float32_matmul_precision("high")
        self.crops = ResidentCrops(recipe.data.cache, recipe.data, recipe.train.seed, self.device)
        self.objective = DenoiseObjective(recipe).to(self.device).train()
        keep_precise(self.objective, self.device)
        self.weights = list(self.objective.parameters())
        self.average = [p.detach().clone() for p in self.weights]
        self.optimizer = torch.optim.AdamW(
            self.weights, recipe.train.learning_rate, (0.9, 0.98), weight_decay=recipe.train.weight_decay, fused=True
        )
        self.batch_size = recipe.data.batch_size

    @property
    def share(self) -> float:
        """Part of the time that is over, 0 to 1."""
        return min((time.monotonic() - self.started) / self.seconds, 1.0)

    def rate(self) -> float:
        share = self.share
        if share < WARM_UP:
            return self.recipe.train.learning_rate * max(share / WARM_UP, 0.02)
        return self.recipe.train.learning_rate * (
            0.005 + 0.995 * 0.5 * (1 + math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP)))
        )

    def learn(self) -> dict[str, torch.Tensor]:
        """Do one step and return its losses, on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        batch = self.crops.batch(self.step)
        with torch.autocast(self.device.type, torch.bfloat16):
            losses = self.objective(batch)
        losses["loss"].backward()
        gradients = [p.grad for p in self.weights if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        # A step whose gradients are not finite is left out.
        scale = torch.where(norm.isfinite(), (1.0 / (norm + 1e-6)).clamp(max=1.0), 0.0)
        for gradient in gradients:
            torch.nan_to_num_(gradient, 0.0, 0.0, 0.0)
        torch._foreach_mul_(gradients, scale)
        self.optimizer.step()
        self.optimizer.zero_grad()
        decay = min(self.recipe.train.average_decay, (self.step + 1) / (self.step + 20))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.weights], 1 - decay)
        self.step += 1
        self.seen_s += batch["wav"].shape[0] * self.recipe.data.crop_s
        return {"norm": norm, **{k: v.detach() for k, v in losses.items()}}

    def run(self) -> None:
        said = saved = time.monotonic()
        total: dict[str, torch.Tensor] = {}
        n = 0
        while self.share < 1 and self.step < self.recipe.train.max_steps:
            try:
                losses = self.learn()
            except torch.cuda.OutOfMemoryError:
                self.shrink()
                continue
            total = {k: v.float() + total.get(k, 0.0) for k, v in losses.items()}
            n += 1
            # Work is queued far ahead of a device; without a wait the clock would not tell how much of it is done.
            if self.step % 4 == 0 and self.device.type == "cuda":
                torch.cuda.synchronize()
            now = time.monotonic()
            if now - said > SAY_EVERY_S or self.step in (1, 5):
                told = "  ".join(f"{k} {float(v) / n:.4f}" for k, v in total.items())
                memory = torch.cuda.max_memory_reserved() / 1e9 if self.device.type == "cuda" else 0.0
                print(
                    f"{now - self.started:6.1f} s  step {self.step}  {self.seen_s / 3600:.1f} h  rate {self.rate():.2e}  {told}  {memory:.1f} GB",
                    flush=True,
                )
                said, total, n = now, {}, 0
            if now - saved > SAVE_EVERY_S:
                self.save()
                saved = now
        self.save()

    def shrink(self) -> None:
        """Go on with smaller batches after the device's memory was too small."""
        from dataclasses import replace

        self.optimizer.zero_grad()
        torch.cuda.empty_cache()
        self.batch_size = self.batch_size * 2 // 3
        self.crops.config = replace(self.crops.config, batch_size=self.batch_size)
        print(f"out of memory: batches of {self.batch_size} from here on", flush=True)

    def save(self) -> None:
        """Write the averaged weights (last), and those that learn (raw)."""
        self.output.mkdir(parents=True, exist_ok=True)
        model = self.objective.model
        facts = {"step": self.step, "seed": self.recipe.train.seed, "hours": round(self.seen_s / 3600, 1)}
        own = [p.detach().clone() for p in self.weights]
        for name, values in (("last.safetensors", self.average), ("raw.safetensors", own)):
            with torch.no_grad():
                torch._foreach_copy_(self.weights, values)
            save_module(self.output / name, PART, model, to_dict(self.recipe.model), facts, half=True)
        print(f"saved {self.output} at step {self.step}", flush=True)


def keep_precise(module: torch.nn.Module, device: torch.device) -> None:
    """Run GRUs in float32 where bfloat16 is not faster."""
    if device.type != "cuda":
        return
    seconds = {dtype: time_gru(dtype, device) for dtype in (torch.float32, torch.bfloat16)}
    print("GRU: " + ", ".join(f"{str(k)[6:]} {1000 * v:.1f} ms" for k, v in seconds.items()), flush=True)
    if seconds[torch.bfloat16] < 0.9 * seconds[torch.float32]:
        return
    for layer in module.modules():
        if isinstance(layer, torch.nn.GRU):
            layer.forward = partial(in_float32, layer.forward)  # type: ignore[method-assign]


def in_float32(forward: Forward, x: torch.Tensor, memory: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a GRU in float32 within autocast."""
    with torch.autocast(x.device.type, enabled=False):
        return forward(x.float(), memory)


def time_gru(dtype: torch.dtype, device: torch.device) -> float:
    """Return the seconds of a GRU's forward and backward pass, or infinity if it fails."""
    try:
        layer = torch.nn.GRU(64, 64).to(device)
        x = torch.randn(160, 3072, 64, device=device, requires_grad=True)
        best = math.inf
        for _ in range(4):
            torch.cuda.synchronize()
            start = time.monotonic()
            with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                made, _state = layer(x)
            made.float().square().mean().backward()
            torch.cuda.synchronize()
            best = min(best, time.monotonic() - start)
        return best
    except RuntimeError as error:
        print(f"{dtype}: {error}", flush=True)
        return math.inf


def main() -> None:
    # `timeout` and `kill` end it with what was saved.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        run = Run(load_config(DenoiseRecipe, sys.argv[1], sys.argv[4:]), float(sys.argv[2]), Path(sys.argv[3]))
        n = sum(p.numel() for p in run.weights)
        print(f"{n:,} parameters on {run.device}, ready after {time.monotonic() - run.started:.1f} s", flush=True)
        run.run()
    except VcaeError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
