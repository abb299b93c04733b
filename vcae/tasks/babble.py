"""Babble: units sampled one after another from the codec's priors, and spoken in a voice."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch

from vcae import checkpoint
from vcae.codec.integer import ONE, IntegerNetwork
from vcae.codec.prior import CODE_CONTEXT, table_sizes
from vcae.engine.engine import Engine
from vcae.errors import CheckpointError
from vcae.model_file import find, read_metadata
from vcae.options import BabbleOptions, SpeakOptions
from vcae.tasks.unit_files import STEP_S, Units
from vcae.tasks.units import Speech, speak_units
from vcae.voice.voice import Voice

CODEC = "codec"


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


class UnitPrior:
    """Prior of units: the codec's priors of both codes, with a context of four steps (128 ms).

    Args:
        name: Name or path of a codec.

    Raises:
        CheckpointError: If it is missing, damaged or not a codec.
    """

    def __init__(self, name: str = CODEC) -> None:
        path = find(name)
        tensors, metadata = checkpoint.read_tensors(path)[0], read_metadata(path)
        try:
            self.n_units, self.base_sha256 = int(metadata["codec"]["codebook_size"]), str(metadata["codec"]["base_sha256"])
            sizes, self._networks = table_sizes(self.n_units), []
            for part in ("first", "second"):
                own = {k.removeprefix(f"prior.{part}."): v for k, v in tensors.items() if k.startswith(f"prior.{part}.")}
                self._networks.append(IntegerNetwork(own, sizes[part]))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is not a codec ({error}); give one, such as the shipped codec") from error

    def logits(self, known: np.ndarray, stage: int = 0) -> np.ndarray:
        """Return logits (N, n_units) in nats of the first code for contexts (N, 8), or of the second for (N, 9)."""
        return self._networks[stage](known) / ONE

    def sample(self, n: int, seed: int, temperature: float = 1.0, top_p: float = 1.0) -> list[int]:
        """Sample n units; their second codes are sampled too, as they are part of the context."""
        rng = np.random.default_rng(seed)
        past = np.full(2 * CODE_CONTEXT, self.n_units)
        drawn: list[int] = []
        for _ in range(n):
            known, pair = past, []
            for stage in (0, 1):
                pair.append(self._draw(self.logits(known[None], stage)[0], rng, temperature, top_p))
                known = np.append(known, pair[-1])
            drawn.append(pair[0])
            past = np.concatenate([pair, past[:-2]])
        return drawn

    def _draw(self, logits: np.ndarray, rng: np.random.Generator, temperature: float, top_p: float) -> int:
        share = np.exp((logits - logits.max()) / temperature)
        share = nucleus(share / share.sum(), top_p)
        return min(int(np.searchsorted(np.cumsum(share), rng.random())), self.n_units - 1)


@lru_cache(maxsize=1)
def unit_prior() -> UnitPrior:
    """Return the shipped codec's priors, loaded once."""
    return UnitPrior()


def sample_units(model: Engine, options: BabbleOptions) -> Units:
    """Sample meaningless units whose sequence resembles speech.

    Raises:
        CheckpointError: For another checkpoint than `vq`, to which the prior belongs.
    """
    prior, where = unit_prior(), model.checkpoint
    if where.sha256 != prior.base_sha256:
        raise CheckpointError(
            f"the prior of babble belongs to the units of the checkpoint vq, not of {where.path.stem}; use vq"
        )
    n_samples = math.ceil(options.seconds * options.speed * model.sample_rate) + 1
    n = math.ceil(n_samples / (STEP_S * model.sample_rate)) + 1
    drawn = prior.sample(n, options.seed, options.temperature, options.top_p)
    return Units("babble", tuple(drawn), (1,) * n, n_samples, STEP_S, prior.n_units, where.path.stem, where.sha256)


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
