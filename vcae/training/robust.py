"""Training of robust encoders: from a degraded recording they have to give the content, or the voice, of the clean one.

A frozen copy of the encoders says what these are for the clean recording. Only the encoders learn, so what reads their output, also saved
voices, stays as it is. The end of the recording is hidden from the content encoder, as the future is in live conversion.

Source: the encoder trained to give the codes of clean speech to a frozen decoder, LED in the LRAC 2025 challenge; see `recipes/conversion/README.md`.
"""

from __future__ import annotations

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
# Weight of the speaker embedding's distance relative to that of the reference's features.
VOICE_WEIGHT = 3.0
# Batches on which the importance of the content's directions is measured.
N_MEASURED = 12


class RobustObjective(Objective):
    """Distance between the content and voice of degraded speech and those of the clean recording.

    Args:
        recipe: Settings.

    Raises:
        CheckpointError: If the checkpoint has no autoencoder.
        ConfigError: If crops are not longer than what is hidden.
    """

    def __init__(self, recipe: RobustRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        # In a list, so that the teacher is neither trained nor saved.
        self._teacher = [_load_autoencoder(recipe.initial).eval().requires_grad_(False)]
        self.model: Autoencoder = _load_autoencoder(recipe.started or recipe.initial).train().requires_grad_(False)
        if "content" in recipe.parts:
            self.model.content_encoder.requires_grad_(True)
        if "voice" in recipe.parts:
            self.model.the_speaker_encoder().requires_grad_(True)
            if self.model.decoder.reference_encoder is not None:
                self.model.decoder.reference_encoder.requires_grad_(True)
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
        self._content, self._voice = ready(self._encode), ready(self._encode_voice)

    def initialize(self, batches: Iterable[dict[str, Tensor]]) -> None:
        """Measure how much a change of the content in each direction changes the decoded mel, in the voice of the batch's next crop."""
        dim, n = self.model.config.content.latent_dim, 0
        total = torch.zeros_like(self.importance)
        for batch in itertools.islice(batches, N_MEASURED):
            mel = self.log_mel(batch["wav"])
            draws = Draws.of(batch, 1)
            with torch.no_grad():
                embedding = self.model.encode_speaker(mel).roll(1, 0)
                reference = roll_reference(self.model.encode_reference(mel), 1)
                content = self._teacher[0].to(mel.device).encode_content(mel)
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
        """Return the loss of a batch, and the distances of its parts.

        For the content they are the mean over all steps (`distance`) and where the future is hidden (`edge`); for the voice, of the speaker
        embedding (`speaker`, 1 less the cosine) and of the features of the reference (`reference`).
        """
        wav = batch["wav"]
        with torch.no_grad(), torch.autocast(wav.device.type, enabled=False):
            mel = self.log_mel(wav)
            degraded = self.log_mel(self.degrade(wav, batch["reference"], Draws.of(batch, 1)))
        losses: dict[str, Tensor] = {}
        if "content" in self.recipe.parts:
            losses |= self._content_losses(mel, self.perturb(degraded, Draws.of(batch, 2)), self._recorded(wav))
        if "voice" in self.recipe.parts:
            losses |= self._voice_losses(mel, degraded, self._recorded(wav))
        losses["loss"] = sum((losses[part] for part in self.recipe.parts), torch.zeros((), device=wav.device))
        return losses

    def _content_losses(self, mel: Tensor, degraded: Tensor, recorded: Tensor) -> dict[str, Tensor]:
        n = self.recipe.edge_steps
        with torch.no_grad(), torch.autocast(mel.device.type, enabled=False):
            wanted = self._teacher[0].to(mel.device).encode_content(mel)
        seen = degraded[..., : degraded.shape[-1] - self.hidden * self.stride]
        content = self._content(seen, active_frames(seen)).float()
        wanted, recorded = wanted[..., : content.shape[-1]], recorded[:, : content.shape[-1]]
        difference = self.importance @ (content - wanted)
        errors = F.smooth_l1_loss(difference, torch.zeros_like(difference), beta=ROUND_BELOW, reduction="none").mean(dim=1)
        distances = (content - wanted).detach().abs().mean(dim=1)
        weight, edge = recorded.clone(), recorded[:, -n:]
        weight[:, -n:] *= self.recipe.edge_weight
        return {
            "content": (errors * weight).sum() / weight.sum(),
            "distance": (distances * recorded).sum() / recorded.sum(),
            "edge": (distances[:, -n:] * edge).sum() / edge.sum().clamp(min=1),
        }

    def _voice_losses(self, mel: Tensor, degraded: Tensor, recorded: Tensor) -> dict[str, Tensor]:
        with torch.no_grad(), torch.autocast(mel.device.type, enabled=False):
            wanted = self._teacher[0].to(mel.device)
            speaker, reference = wanted.encode_speaker(mel), wanted.encode_reference(mel)
        embedding, values = self._voice(degraded, active_frames(degraded))
        losses = {"speaker": 1 - F.cosine_similarity(embedding.float(), speaker, dim=-1).mean()}
        losses["voice"] = VOICE_WEIGHT * losses["speaker"]
        if reference is not None and values is not None:
            scale = reference.values.square().mean().sqrt().clamp(min=1e-5)
            errors = F.smooth_l1_loss(
                values.float() / scale, reference.values / scale, beta=ROUND_BELOW, reduction="none"
            ).mean(-1)
            weight = recorded[:, : errors.shape[1]]
            losses["reference"] = (errors * weight).sum() / weight.sum()
            losses["voice"] = losses["voice"] + losses["reference"]
        return losses

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

    def _encode_voice(self, mel: Tensor, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        normalized, encoder = self.model.normalize(mel), self.model.decoder.reference_encoder
        return self.model.the_speaker_encoder()(normalized, weight, None), None if encoder is None else encoder(normalized)


def _load_autoencoder(name: str) -> Autoencoder:
    found = load(name).autoencoder
    if found is None:
        raise CheckpointError(f"{name} has no autoencoder; give a checkpoint that has one")
    return found
