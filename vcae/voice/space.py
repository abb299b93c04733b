"""The space of voice features from which new voices are sampled, and the file of the priors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vcae import checkpoint
from vcae.audio.f0 import log_f0_statistics
from vcae.config import from_dict, to_dict
from vcae.engine.engine import Engine
from vcae.errors import CheckpointError, ConfigError
from vcae.model.config import VoicePriorConfig
from vcae.model.voice_prior import VoicePrior
from vcae.model.weights import hash_weights
from vcae.model_file import find, read_metadata
from vcae.voice.matching import N_QUANTILES, Quantiles
from vcae.voice.voice import Voice

FORMAT = 1
VOICES = "voices"
# Ranges of a voice's median (natural log of Hz) and standard deviation (nats) of log-F0.
MEDIANS = (math.log(65.0), math.log(420.0))
SPREADS = (0.03, 0.5)
# Tensors of the space and of the bank, with their numbers of dimensions.
SPACE = {"mean": 1, "whiten": 2, "unwhiten": 2, "quantile_mean": 1, "quantile_basis": 2}
# Required keys of the metadata.
FACTS = ("speaker_sha256", "limit", "directions", "medians")
BANK = {"mel": 2, "f0": 1}


@dataclass(frozen=True)
class Description:
    """Features of a voice, as sampled from the prior.

    Attributes:
        speaker_embedding: (1, speaker_dim), unit norm.
        log_f0_median: Median of log-F0, natural log of Hz.
        log_f0_spread: Standard deviation of log-F0 in nats.
        quantiles: Quantiles of the mel bands, as from `vcae.voice.matching.band_quantiles`.
    """

    speaker_embedding: Tensor
    log_f0_median: float
    log_f0_spread: float
    quantiles: Quantiles


@dataclass(frozen=True)
class VoiceSpace:
    """Linear map between voices and whitened features, whose variance within speakers is equal in all directions.

    Attributes:
        mean: (F,), mean of embedding, median and standard deviation of log-F0, and the quantiles' principal components.
        whiten: (F, F), whitening matrix, to be multiplied from the right.
        unwhiten: (F, F), its inverse.
        quantile_mean: (2 * n_mels * N_QUANTILES,).
        quantile_basis: (2 * n_mels * N_QUANTILES, Q), orthonormal columns.
    """

    mean: Tensor
    whiten: Tensor
    unwhiten: Tensor
    quantile_mean: Tensor
    quantile_basis: Tensor

    def features(self, voice: Voice | Description) -> Tensor:
        """Return the whitened features (1, F) of a voice; unknown ones are replaced by the mean."""
        average = self.quantile_mean.view(2, -1, N_QUANTILES)
        quantiles = torch.stack([known if q is None else q.cpu() for q, known in zip(voice.quantiles, average, strict=True)])
        components = (quantiles.flatten() - self.quantile_mean) @ self.quantile_basis
        dim = voice.speaker_embedding.shape[-1]
        pitch = torch.tensor([voice.log_f0_median, voice.log_f0_spread])
        pitch = torch.where(pitch.isnan(), self.mean[dim : dim + 2], pitch.float())
        return ((torch.cat([voice.speaker_embedding.cpu()[0], pitch, components]) - self.mean) @ self.whiten)[None]

    def describe(self, features: Tensor) -> Description:
        """Return the voice for whitened features (1, F)."""
        numbers = (features @ self.unwhiten + self.mean)[0]
        dim = len(numbers) - 2 - self.quantile_basis.shape[1]
        flat = self.quantile_mean + self.quantile_basis @ numbers[dim + 2 :]
        unvoiced, voiced = flat.view(2, -1, N_QUANTILES).cummax(dim=-1).values
        median, spread = float(numbers[dim]), float(numbers[dim + 1])
        return Description(
            nn.functional.normalize(numbers[None, :dim], dim=-1),
            min(max(median, MEDIANS[0]), MEDIANS[1]),
            min(max(spread, SPREADS[0]), SPREADS[1]),
            (unvoiced.contiguous(), voiced.contiguous()),
        )


@dataclass(frozen=True)
class Priors:
    """Prior of voices with its space, training speakers and bank of speech, as used by `vcae generate`.

    Attributes:
        path: The file.
        sha256: SHA-256 of the file, hex.
        metadata: Metadata stored with the weights.
        prior: Prior of voices.
        space: Space of voice features.
        known: (S, speaker_dim), embeddings of the training speakers, to which new voices must not be close.
        bank_mel: (1, n_mels, T), natural log magnitude, speech from which new voices are measured after conversion.
        bank_f0: (1, T) in Hz, 0 where unvoiced, F0 of that speech.
    """

    path: Path
    sha256: str
    metadata: dict[str, Any]
    prior: VoicePrior
    space: VoiceSpace
    known: Tensor
    bank_mel: Tensor
    bank_f0: Tensor

    @property
    def bank_pitch(self) -> tuple[float, float]:
        """Median and standard deviation of the bank's log-F0."""
        return log_f0_statistics(self.bank_f0[0])

    @cached_property
    def directions(self) -> Tensor:
        """Principal components of the training speakers' embeddings along which voices are sampled (speaker_dim, D)."""
        centred = (self.known - self.known.mean(0)).double()
        axes: Tensor = torch.linalg.svd(centred, full_matrices=False).Vh[: int(self.metadata["directions"])].T.float()
        return axes

    def confine(self, drawn: Description) -> Description:
        """Return the sample with its embedding projected onto `directions` and normalised."""
        middle = self.known.mean(0)
        kept = middle + (drawn.speaker_embedding - middle) @ self.directions @ self.directions.T
        return replace(drawn, speaker_embedding=nn.functional.normalize(kept, dim=-1))

    def is_new(self, drawn: Description) -> bool:
        """Return whether a voice differs enough from every training speaker and is within their range of F0."""
        low, high = self.metadata["medians"]
        nearest = float((self.known @ drawn.speaker_embedding[0]).max())
        return nearest <= float(self.metadata["limit"]) and low <= drawn.log_f0_median <= high

    def check(self, model: Engine) -> None:
        """Refuse a checkpoint with another speaker encoder than the one of these priors.

        Raises:
            CheckpointError: If it has another speaker encoder, or none.
        """
        found = hash_weights(model.autoencoder.the_speaker_encoder())
        if self.metadata["speaker_sha256"] != found:
            raise CheckpointError(
                f"{self.path.name} samples embeddings of the speaker encoder {self.metadata['speaker_sha256'][:12]}..., and that of "
                f"{model.checkpoint.path.name} is another ({found[:12]}...); use the checkpoint default"
            )


def save_priors(
    path: Path,
    prior: VoicePrior,
    space: VoiceSpace,
    known: Tensor,
    bank: tuple[Tensor, Tensor],
    metadata: Mapping[str, Any],
) -> None:
    """Save priors in float16.

    Args:
        path: File to write.
        prior: Prior of voices.
        space: Space of voice features.
        known: (S, speaker_dim), embeddings of the training speakers.
        bank: Mel (1, n_mels, T) and F0 (1, T) of speech from which new voices are measured after conversion.
        metadata: `speaker_sha256` (see `hash_weights`), `limit` (the cosine to a known speaker up to which a voice is new),
            `directions` (see `Priors`), `medians` (lowest and highest median of log-F0), and plain data.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    tensors = {f"prior.{key}": value for key, value in prior.state_dict().items()}
    tensors |= {f"space.{key}": getattr(space, key) for key in SPACE}
    tensors |= {"known": known, "bank.mel": bank[0][0], "bank.f0": bank[1][0]}
    facts = {"format": FORMAT, "voice_prior": to_dict(prior.config), **metadata}
    checkpoint.write_tensors(path, {k: v.half() for k, v in tensors.items()}, {"vcae": json.dumps(facts)})


def load_priors(name: str | Path = VOICES) -> Priors:
    """Load priors, strictly, by the name of shipped ones or by path.

    Raises:
        CheckpointError: If they are missing, damaged, not finite or of another kind.
    """
    path = find(name)
    metadata = read_metadata(path)
    tensors, digest = checkpoint.read_tensors(path)
    try:
        prior = VoicePrior(from_dict(VoicePriorConfig, metadata["voice_prior"], "voice_prior"))
        prior.load_state_dict({k[6:]: v.float() for k, v in tensors.items() if k.startswith("prior.")}, strict=True)
        prior.eval().requires_grad_(False)
        space = VoiceSpace(**{key: tensors[f"space.{key}"].float() for key in SPACE})
        mel, f0, known = (tensors[key].float() for key in ("bank.mel", "bank.f0", "known"))
        for key in FACTS:
            metadata[key]
    except (KeyError, TypeError, RuntimeError, ConfigError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} is not a prior of voices ({reason}); give {VOICES}, or reinstall vcae") from error
    _check_sizes(path, space, prior.config, known, mel, f0)
    if not all(bool(value.isfinite().all()) for value in tensors.values()):
        raise CheckpointError(f"{path} holds weights that are not finite; get a fresh copy of it")
    return Priors(path, digest, metadata, prior, space, known, mel[None], f0[None])


def _check_sizes(path: Path, space: VoiceSpace, config: VoicePriorConfig, known: Tensor, mel: Tensor, f0: Tensor) -> None:
    n, flat = config.n_features, space.quantile_mean.shape
    fits = (
        space.mean.shape == (n,)
        and space.whiten.shape == space.unwhiten.shape == (n, n)
        and mel.ndim == 2
        and f0.shape == mel.shape[1:]
        and flat == (2 * mel.shape[0] * N_QUANTILES,)
        and space.quantile_basis.shape == (*flat, config.quantile_dim)
        and known.shape[1:] == (config.speaker_dim,)
    )
    if not fits:
        raise CheckpointError(f"{path} does not fit its own config; get a fresh copy of it")
