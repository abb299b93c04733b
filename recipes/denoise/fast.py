"""Train the denoiser for a given time, with all data in the device's memory: `python recipes/denoise/fast.py CONF SECONDS OUTPUT [name=value ...]`.

The learning rate follows the elapsed time. The averaged weights are written to the file OUTPUT every minute and at the end.
"""

import math
import signal
import sys
import time
from pathlib import Path

import torch

from vcae.checkpoint import save_module
from vcae.config import load_config, to_dict
from vcae.errors import VcaeError
from vcae.model.denoiser import PART
from vcae.training.config import DenoiseRecipe
from vcae.training.denoise import DenoiseObjective
from vcae.training.resident import ResidentCrops

# Part of the time in which the learning rate rises.
WARM_UP = 0.04
SAVE_EVERY_S, SAY_EVERY_S = 60.0, 10.0


class Run:
    """Training on one device.

    Args:
        recipe: Settings; `train.max_steps` can end it early.
        seconds: Its time, with that for loading the data.
        output: File of the averaged weights.
    """

    def __init__(self, recipe: DenoiseRecipe, seconds: float, output: Path) -> None:
        self.recipe, self.seconds, self.output, self.step, self.seen_s = recipe, seconds, output, 0, 0.0
        self.started = time.monotonic()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(recipe.train.seed)
        torch.set_float32_matmul_precision("high")
        self.crops = ResidentCrops(recipe.data.cache, recipe.data, recipe.train.seed, self.device)
        self.objective = DenoiseObjective(recipe).to(self.device).train()
        self.weights = list(self.objective.parameters())
        self.average = [p.detach().clone() for p in self.weights]
        self.optimizer = torch.optim.AdamW(
            self.weights, recipe.train.learning_rate, (0.9, 0.98), weight_decay=recipe.train.weight_decay, fused=True
        )

    @property
    def share(self) -> float:
        """Part of the time that is over, 0 to 1."""
        return min((time.monotonic() - self.started) / self.seconds, 1.0)

    def rate(self) -> float:
        """Return the learning rate: linear warm-up, then half a cosine."""
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
        """Train until the time is over."""
        said = saved = time.monotonic()
        total: dict[str, torch.Tensor] = {}
        n = 0
        while self.share < 1 and self.step < self.recipe.train.max_steps:
            losses = self.learn()
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

    def save(self) -> None:
        """Write the averaged weights."""
        facts = {"step": self.step, "seed": self.recipe.train.seed, "hours": round(self.seen_s / 3600, 1)}
        own = [p.detach().clone() for p in self.weights]
        with torch.no_grad():
            torch._foreach_copy_(self.weights, self.average)
            save_module(self.output, PART, self.objective.model, to_dict(self.recipe.model), facts, half=True)
            torch._foreach_copy_(self.weights, own)
        print(f"saved {self.output} at step {self.step}", flush=True)


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
