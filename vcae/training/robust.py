"""Training of a robust content encoder: from a degraded recording it has to give the content of the clean one.

A frozen copy of the encoder says what the content of the clean recording is. Only the encoder learns, so the decoder, saved voices and
everything else that reads the content stay as they are. The end of the recording is hidden from the encoder, as the future is in live conversion.

Source: the encoder trained to give the codes of clean speech to a frozen decoder, LED in the LRAC 2025 challenge; see `recipes/conversion/README.md`.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vcae.audio.frames import active_frames
from vcae.audio.mel import LogMel
from vcae.checkpoint import load
from vcae.errors import CheckpointError, ConfigError
from vcae.model.autoencoder import Autoencoder
from vcae.training.config import RobustRecipe
from vcae.training.conversion import roll_reference
from vcae.training.denoise import Noising, active_rms
from vcae.training.draws import Draws
from vcae.training.objectives import Objective
from vcae.training.perturb import Perturbation

# Errors below this are counted by their square, larger ones by their size.
ROUND_BELOW = 0.5
# Batches on which the importance of the content's directions is measured.
N_MEASURED = 12


class RobustObjective(Objective):
    """Distance between the content of degraded speech and that of the clean recording.

    Args:
        recipe: Settings.

    Raises:
        CheckpointError: If the checkpoint has no autoencoder.
        ConfigError: If crops are not longer than what is hidden.
    """

    def __init__(self, recipe: RobustRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        found = load(recipe.initial).autoencoder
        if found is None:
            raise CheckpointError(f"{recipe.initial} has no autoencoder; give a checkpoint that has one")
        self.model: Autoencoder = found.train()
        self.model.requires_grad_(False)
        # In a list, so that the teacher is neither trained nor saved.
        self._teacher = [copy.deepcopy(self.model.content_encoder).eval()]
        if recipe.started is not None:
            copied = load(recipe.started).autoencoder
            if copied is None:
                raise CheckpointError(f"{recipe.started} has no autoencoder; give a checkpoint that has one")
            self.model.content_encoder.load_state_dict(copied.content_encoder.state_dict())
        self.model.content_encoder.requires_grad_(True)
        config = self.model.config
        self.log_mel = LogMel(config.mel)
        self.perturb = Perturbation(recipe.perturb, config.mel)
        self.noising = Noising(recipe.noising, config.mel.sample_rate)
        self.stride = config.content.stride
        self.hidden = round(recipe.hidden_end_s * config.mel.frame_rate) // self.stride
        if recipe.hidden_end_s >= recipe.data.crop_s / 2:
            raise ConfigError(
                f"hidden_end_s is {recipe.hidden_end_s}; it must be less than half of data.crop_s ({recipe.data.crop_s} s)"
            )
        # Transform of content (latent_dim, latent_dim) after which all directions matter equally to the decoder.
        self.importance: Tensor
        self.register_buffer("importance", torch.eye(config.content.latent_dim))
        ready: Callable[[Any], Any] = torch.compile if recipe.train.compile else lambda f: f
        self._student = ready(self._encode)

    def initialize(self, batches: Iterable[dict[str, Tensor]]) -> None:
        """Measure how much a change of the content in each direction changes the decoded mel, in the voice of the batch's next crop."""
        dim, n = self.model.config.content.latent_dim, 0
        total = torch.zeros_like(self.importance)
        for batch in itertools.islice(batches, N_MEASURED):
            mel = self.log_mel(batch["wav"])
            draws = Draws.of(batch, 1)
            with torch.no_grad():
                embedding, reference = (
                    self.model.encode_speaker(mel).roll(1, 0),
                    roll_reference(self.model.encode_reference(mel), 1),
                )
                content = self._teacher[0].to(mel.device)(self.model.normalize(mel), active_frames(mel), None)
            content.requires_grad_(True)
            decoded = self.model.normalize(
                self.model.decode(content, batch["f0"][:, : mel.shape[-1]], embedding, reference=reference)
            )
            (slope,) = torch.autograd.grad((decoded * draws.normal(*decoded.shape).to(mel.device)).sum(), content)
            slope = slope.transpose(1, 2).reshape(-1, dim)
            total, n = total + slope.T @ slope, n + len(slope)
        values, vectors = torch.linalg.eigh(total / n)
        self.importance.copy_((values.clamp(min=0) / values.mean()).sqrt()[:, None] * vectors.T)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss of a batch, and the distance of contents (`distance`) and where the future is hidden (`edge`)."""
        wav, r = batch["wav"], self.recipe
        with torch.no_grad(), torch.autocast(wav.device.type, enabled=False):
            mel = self.log_mel(wav)
            wanted = self._teacher[0].to(wav.device)(self.model.normalize(mel), active_frames(mel), None)
            seen = self.perturb(self.log_mel(self.degrade(wav, batch["reference"], Draws.of(batch, 1))), Draws.of(batch, 2))
            seen = seen[..., : seen.shape[-1] - self.hidden * self.stride]
        content = self._student(seen, active_frames(seen)).float()
        wanted = wanted[..., : content.shape[-1]]
        difference = self.importance @ (content - wanted)
        errors = F.smooth_l1_loss(difference, torch.zeros_like(difference), beta=ROUND_BELOW, reduction="none").mean(dim=1)
        distances = (content - wanted).detach().abs().mean(dim=1)
        recorded = self._recorded(wav)[:, : content.shape[-1]]
        weight, edge = recorded.clone(), recorded[:, -r.edge_steps :]
        weight[:, -r.edge_steps :] *= r.edge_weight
        return {
            "loss": (errors * weight).sum() / weight.sum(),
            "distance": (distances * recorded).sum() / recorded.sum(),
            "edge": (distances[:, -r.edge_steps :] * edge).sum() / edge.sum().clamp(min=1),
        }

    def _recorded(self, wav: Tensor) -> Tensor:
        """Return 1.0 for the steps (B, steps) of the recording, and 0.0 where it was padded with zeros."""
        step = self.stride * self.model.config.mel.hop_length
        loudest: Tensor = F.max_pool1d(wav[:, None].abs(), step, ceil_mode=True)[:, 0]
        return F.pad((loudest > 0).float(), (0, 1))

    def degrade(self, wav: Tensor, others: Tensor, draws: Draws) -> Tensor:
        """Return recordings (B, N), all but a share of them degraded, at the level that they had; `others` (B, N') are voices in the background."""
        noisy, _ = self.noising(wav, others, draws)
        noisy = noisy * (active_rms(wav) / active_rms(noisy).clamp(min=1e-5))
        clean = draws.uniform(len(wav), 1).to(wav.device) < self.recipe.clean_share
        return torch.where(clean, wav, noisy)

    def _encode(self, mel: Tensor, weight: Tensor) -> Tensor:
        content: Tensor = self.model.content_encoder(self.model.normalize(mel), weight, None)
        return content
