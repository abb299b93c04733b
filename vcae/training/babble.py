"""Learning the prior of units, and what simpler ones make of the same speech."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vcae.config import BabbleConfig
from vcae.model.babble import UnitPrior

BATCH = 16
STEPS = 96
# What is added to every count of a pair, in shares of the unigram.
PSEUDO_COUNTS = 20.0
MAX_GRADIENT = 1.0


def fit_unit_prior(
    units: Tensor,
    ends: Tensor,
    config: BabbleConfig,
    n_steps: int,
    learning_rate: float,
    dropout: float,
    seed: int,
    say: Callable[[str], None] = lambda line: None,
) -> UnitPrior:
    """Fit a prior to the beginnings and middles of utterances.

    Args:
        units: (n,), utterances after each other.
        ends: (u,), where each ends.
        config: Sizes.
        n_steps: Of the optimizer.
        learning_rate: The highest.
        dropout: Share of numbers that is left out in training.
        seed: Fixes everything.
        say: Called with a line now and then.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        prior, started = UnitPrior(config, dropout), time.monotonic()
        optimizer = torch.optim.AdamW(prior.parameters(), learning_rate, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, n_steps, pct_start=0.1)
        starts = torch.cat([ends.new_zeros(1), ends[:-1]])
        for step in range(n_steps):
            rows = torch.stack([_crop(units, starts, ends) for _ in range(BATCH)])
            # Where an utterance is shorter than a crop, nothing is learned from what is not there.
            loss = F.cross_entropy(prior(rows.clamp(min=0)).flatten(0, 1), rows.flatten(), ignore_index=-1)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(prior.parameters(), MAX_GRADIENT)
            optimizer.step()
            schedule.step()
            if (step + 1) % 200 == 0:
                say(
                    f"step {step + 1}: {float(loss.detach()) / math.log(2):.3f} bits a unit, {time.monotonic() - started:.0f} s"
                )
    return prior.eval().requires_grad_(False)


def _crop(units: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    at = int(torch.randint(len(ends), (1,)))
    start, end = int(starts[at]), int(ends[at])
    first = start + int(torch.randint(max(end - start - STEPS, 0) + 1, (1,)))
    piece = units[first : min(first + STEPS, end)].long()
    return F.pad(piece, (0, STEPS - len(piece)), value=-1)


@torch.no_grad()
def prior_bits(prior: UnitPrior, units: Tensor, ends: Tensor) -> float:
    """Return what a unit of held-out utterances costs under a prior, in bits."""
    total, start = 0.0, 0
    for end in ends.tolist():
        row = units[start:end].long()
        total += float(F.cross_entropy(prior(row[None])[0], row, reduction="sum"))
        start = end
    return total / len(units) / math.log(2)


def counted_bits(learned: Tensor, ends: Tensor, tested: Tensor, tested_ends: Tensor, n_units: int) -> tuple[float, float]:
    """Return what a unit of held-out utterances costs by counts of single units and of pairs, in bits.

    Args:
        learned: (n,), units that are counted.
        ends: Where its utterances end; a pair across two of them is none.
        tested: (m,), held out.
        tested_ends: Likewise.
        n_units: How many different units there are.

    Returns:
        Bits a unit of the unigram, with one count added to each, and of the bigram, backed off to it.
    """
    single = torch.bincount(learned.long(), minlength=n_units).double() + 1
    unigram = single / single.sum()
    before, after = _pairs(learned, ends)
    counts = torch.bincount(before * n_units + after, minlength=n_units * n_units).double().view(n_units, n_units)
    bigram = (counts + PSEUDO_COUNTS * unigram) / (counts.sum(1, keepdim=True) + PSEUDO_COUNTS)
    left, right = _pairs(tested, tested_ends)
    firsts = tested.long()[torch.cat([tested_ends.new_zeros(1), tested_ends[:-1]])]
    bits = -torch.log2(bigram[left, right]).sum() - torch.log2(unigram[firsts]).sum()
    return float(-torch.log2(unigram[tested.long()]).mean()), float(bits / len(tested))


def _pairs(units: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    within = torch.ones(len(units) - 1, dtype=torch.bool)
    within[ends[:-1] - 1] = False
    return units[:-1].long()[within], units[1:].long()[within]
