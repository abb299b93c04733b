"""Training of one network on windows of normal mels, with early stopping on held-out mels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from vcae.anomaly.config import AnomalyConfig
from vcae.anomaly.models import Network, make_network, window_length

# Fraction of the training after which a trimmed loss begins to trim; before, the loss of all frames is high.
TRIM_AFTER = 0.1
# Frames in an evaluation of the held-out loss.
LOOKED_AT = 5000


def train_network(
    kind: str,
    config: AnomalyConfig,
    train: Sequence[Tensor],
    held_out: Sequence[Tensor],
    seed: int,
    progress: Callable[[int], None] = lambda step: None,
) -> Network:
    """Train a network of a kind.

    Args:
        kind: One of `models.NETWORKS`.
        config: Settings of the detector.
        train: Normalised mels (n_mels, T).
        held_out: Other mels, whose loss determines when to stop.
        seed: Seed of weights and batches.
        progress: Called with the number of steps done.

    Returns:
        The network with the lowest held-out loss, in evaluation mode.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = make_network(kind, config)
        length = window_length(kind, config)
        size = config.batch_size if kind != "convolutional" else max(1, config.batch_size * config.context // config.crop)
        padded = [m if m.shape[1] >= length else m.repeat(1, -(-length // m.shape[1])) for m in train]
        frames = torch.cat([m.T for m in padded])
        offsets = np.cumsum([0, *(m.shape[1] for m in padded)])
        first_frames = np.concatenate(
            [np.arange(o, o + m.shape[1] - length + 1) for o, m in zip(offsets[:-1], padded, strict=True)]
        )
        within = np.arange(length)
        looked_at = _thin(held_out, length)
        optimizer = torch.optim.AdamW(net.parameters(), config.learning_rate, weight_decay=1e-2)
        best, best_loss, worse = copy.deepcopy(net.state_dict()), float("inf"), 0
        for step in range(config.max_steps):
            rng = np.random.default_rng((seed, step))
            net.train()
            for group in optimizer.param_groups:
                group["lr"] = (
                    config.learning_rate * min(1, (step + 1) / 20) * 0.5 * (1 + np.cos(np.pi * step / config.max_steps))
                )
            firsts = first_frames[rng.integers(len(first_frames), size=size)]
            windows = frames[torch.from_numpy(firsts[:, None] + within)].transpose(1, 2)
            losses = (net(windows)[0] - net.target(windows)).square().mean(dim=(1, 2))
            if config.robust == "trimmed" and step > TRIM_AFTER * config.max_steps:
                losses = losses.sort().values[: max(1, round(len(losses) * (1 - config.trim)))]
            optimizer.zero_grad()
            losses.mean().backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            progress(step + 1)
            if (step + 1) % config.look_every == 0 or step + 1 == config.max_steps:
                loss = _held_out_loss(net, looked_at)
                if loss < best_loss:
                    best, best_loss, worse = copy.deepcopy(net.state_dict()), loss, 0
                else:
                    worse += 1
                    if worse >= config.patience:
                        break
        net.load_state_dict(best)
    progress(config.max_steps)
    return net.eval().requires_grad_(False)


def _thin(mels: Sequence[Tensor], length: int) -> Tensor:
    """Return evenly spaced windows (B, n_mels, length), about `LOOKED_AT` frames in all."""
    windows = torch.cat([m.unfold(1, length, 1).transpose(0, 1) for m in mels if m.shape[1] >= length])
    return windows[:: max(1, len(windows) * length // LOOKED_AT)]


@torch.no_grad()
def _held_out_loss(net: Network, windows: Tensor) -> float:
    """Return the median over windows of the mean squared error, which a single odd recording does not affect."""
    net.eval()
    return float((net(windows)[0] - net.target(windows)).square().mean(dim=(1, 2)).median())
