"""Babble: units sampled one after another from a prior, and spoken in a voice."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch

from vcae.checkpoint import load_module
from vcae.engine.engine import Engine
from vcae.errors import CheckpointError
from vcae.model.unit_prior import PART, UnitPrior, unit_prior_of
from vcae.options import BabbleOptions, SpeakOptions
from vcae.tasks.unit_files import STEP_S, Units
from vcae.tasks.units import Speech, speak_units
from vcae.voice.voice import Voice

# The shipped file of the prior.
BABBLE = "babble"


def nucleus(share: np.ndarray, top_p: float) -> np.ndarray:
    """Return probabilities (K,) restricted to the most likely units that together reach `top_p`, and renormalised.

    Source: Holtzman et al., The curious case of neural text degeneration (2020).
    """
    order = np.argsort(-share, kind="stable")
    ordered = share[order]
    kept = np.zeros_like(share)
    kept[order] = np.where(np.cumsum(ordered) - ordered < top_p, ordered, 0)
    shared: np.ndarray = kept / kept.sum()
    return shared


@dataclass(frozen=True)
class Babbler:
    """The shipped prior of units.

    Attributes:
        prior: The network.
        checkpoint_sha256: SHA-256 of the checkpoint whose units it predicts.
    """

    prior: UnitPrior
    checkpoint_sha256: str

    @torch.inference_mode()
    def sample(self, n: int, seed: int, temperature: float = 1.0, top_p: float = 1.0) -> list[int]:
        """Sample n units one after another."""
        rng, size = np.random.default_rng(seed), self.prior.config
        drawn = [size.n_units] * size.context
        for _ in range(n):
            logits = self.prior(torch.tensor(drawn[-size.context :])[None])[0].double().numpy()
            share = np.exp((logits - logits.max()) / temperature)
            share = nucleus(share / share.sum(), top_p)
            drawn.append(min(int(np.searchsorted(np.cumsum(share), rng.random())), size.n_units - 1))
        return drawn[size.context :]


@lru_cache(maxsize=1)
def babbler() -> Babbler:
    """Return the shipped prior of units, loaded once.

    Raises:
        CheckpointError: If it is missing or damaged.
    """
    prior, found = load_module(BABBLE, PART, unit_prior_of)
    return Babbler(prior.requires_grad_(False), str(found.metadata["info"]["checkpoint_sha256"]))


def sample_units(model: Engine, options: BabbleOptions) -> Units:
    """Sample meaningless units whose sequence resembles speech.

    Raises:
        CheckpointError: For another checkpoint than `vq`, to which the prior belongs.
    """
    known, where = babbler(), model.checkpoint
    if where.sha256 != known.checkpoint_sha256:
        raise CheckpointError(
            f"the prior of babble belongs to the units of the checkpoint vq, not of {where.path.stem}; use vq"
        )
    n_samples = math.ceil(options.seconds * options.speed * model.sample_rate) + 1
    n = math.ceil(n_samples / (STEP_S * model.sample_rate)) + 1
    drawn = known.sample(n, options.seed, options.temperature, options.top_p)
    n_units = known.prior.config.n_units
    return Units("babble", tuple(drawn), (1,) * n, n_samples, STEP_S, n_units, where.path.stem, where.sha256)


@torch.inference_mode()
def babble(model: Engine, voice: Voice, options: BabbleOptions | None = None) -> Speech:
    """Generate babble in a voice: units sampled from the prior and spoken as by `vcae speak`.

    Args:
        model: Model with the checkpoint `vq`.
        voice: Voice measured by it, or transferred to it by `vcae.voice.new.carry_voice`.
        options: Options of the babble; the defaults when None.

    Raises:
        CheckpointError: As `sample_units`.
    """
    options = options or BabbleOptions()
    spoken = SpeakOptions(seed=options.seed, speed=options.speed, formant=options.formant, expression=options.expression)
    spoken = replace(spoken, watermark=options.watermark)
    n_samples = round(options.seconds * model.sample_rate)
    return speak_units(model, sample_units(model, options), voice, spoken, n_samples)
