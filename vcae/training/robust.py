"""Training of a robust content encoder: from a degraded recording it has to give the content of the clean one.

A frozen copy of the encoder says what the content of the clean recording is. Only the encoder learns, so the decoder, saved voices and
everything else that reads the content stay as they are. The end of the recording is hidden from the encoder, as the future is in live conversion.

Source: the encoder trained to give the codes of clean speech to a frozen decoder, LED in the LRAC 2025 challenge; see `recipes/conversion/README.md`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
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
from vcae.training.denoise import Noising, active_rms
from vcae.training.draws import Draws
from vcae.training.objectives import Objective
from vcae.training.perturb import Perturbation

# Errors below this are counted by their square, larger ones by their size.
ROUND_BELOW = 0.5


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
        ready: Callable[[Any], Any] = torch.compile if recipe.train.compile else lambda f: f
        self._student = ready(self._encode)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss of a batch, and the distance of contents (`distance`) and where the future is hidden (`edge`)."""
        wav, r = batch["wav"], self.recipe
        with torch.no_grad(), torch.autocast(wav.device.type, enabled=False):
            mel = self.log_mel(wav)
            wanted = self._teacher[0].to(wav.device)(self.model.normalize(mel), active_frames(mel), None)
            heard = self.perturb(self.log_mel(self.degrade(wav, batch["reference"], Draws.of(batch, 1))), Draws.of(batch, 2))
            heard = heard[..., : heard.shape[-1] - self.hidden * self.stride]
        content = self._student(heard, active_frames(heard)).float()
        wanted = wanted[..., : content.shape[-1]]
        errors = F.smooth_l1_loss(content, wanted, beta=ROUND_BELOW, reduction="none").mean(dim=1)
        distances = (content - wanted).detach().abs().mean(dim=1)
        heard_steps = self._recorded(wav)[:, : content.shape[-1]]
        weight, edge = heard_steps.clone(), heard_steps[:, -r.edge_steps :]
        weight[:, -r.edge_steps :] *= r.edge_weight
        return {
            "loss": (errors * weight).sum() / weight.sum(),
            "distance": (distances * heard_steps).sum() / heard_steps.sum(),
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
