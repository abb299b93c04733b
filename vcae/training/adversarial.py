"""Adversarial training of the vocoder, on mels of recordings and on decoded ones."""

from __future__ import annotations

import torch
from torch import Tensor

from vcae.errors import ConfigError
from vcae.training.config import VocoderRecipe
from vcae.training.objectives import VocoderObjective, move_f0
from vcae.training.wave_critic import WaveCritic, wave_critic_losses
from vcae.vocoder.excitation import PitchTrack

# Samples at each end of a crop that the discriminators do not see: there the vocoder lacks context.
EDGE = 512
LARGEST_RATIO = 10.0


class AdversarialVocoderObjective(VocoderObjective):
    """Copies of recordings under the spectral loss, and all that the vocoder makes under discriminators of waveforms.

    The first rows of a batch get mels that the autoencoder decodes: in the voice of the next row, where only the discriminators judge, then in
    their own voice, where a mel loss and feature matching apply too. The others get mels of recordings and the full spectral loss. Decoded
    mels are corrected as often as in use, which leaves the vocoder free to add what the decoder smooths away.

    Pulses of copies follow the phase of the recording, as in use; without that, features of waveforms could not be compared.

    Args:
        recipe: Settings, with those of the critic.

    Raises:
        CheckpointError: If a checkpoint in the recipe lacks the needed part, or has another mel.
        ConfigError: If the recipe has no critic.
    """

    def __init__(self, recipe: VocoderRecipe) -> None:
        super().__init__(recipe)
        if recipe.critic is None:
            raise ConfigError("critic is null; adversarial training needs its settings, as in conf/critic.yaml")
        self.settings = recipe.critic
        self.critic = WaveCritic(recipe.critic)
        for autoencoder in self._autoencoder:
            autoencoder.eval().requires_grad_(False)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        wav, r = batch["wav"], self.settings
        n = round(len(wav) * self.recipe.decoded_share) if self._autoencoder else 0
        n_other = round(n * r.other_share)
        index = int(batch["index"])
        with torch.autocast(wav.device.type, enabled=False):
            mel = self.log_mel(wav)
            seen, f0 = self._decoded(mel, batch["f0"], batch["reference"], n, n_other)
        made = self._synthesise(seen, f0, wav, n, n_other, r.decoded_corrections[index % len(r.decoded_corrections)])
        with torch.autocast(wav.device.type, enabled=False):
            losses = dict(self.criterion(made[n:], wav[n:]))
            if n > n_other:
                losses["decoded"] = (self.log_mel(made[n_other:n]) - mel[n_other:n]).abs().mean()
                losses["loss"] = losses["loss"] + r.decoded_weight * losses["decoded"]
        losses |= wave_critic_losses(self.critic, wav[:, EDGE:-EDGE], made[:, EDGE:-EDGE], n_other)
        # The index of a training batch is its step, so the weight is the same after a resume; those of validation are beyond the warm-up.
        grown = min(1.0, (index + 1) / max(r.warmup_steps, 1))
        parts = [(losses["loss"], 1.0), (losses["passing"], grown * r.adversarial_weight)]
        parts.append((losses["features"], grown * r.feature_weight))
        vocoder = balanced(made, self.model.output.weight, parts) if made.requires_grad else losses["loss"]
        return {**{name: value.detach() for name, value in losses.items()}, "loss": vocoder + losses["critic"]}

    @torch.no_grad()
    def _decoded(self, mel: Tensor, f0: Tensor, reference: Tensor, n: int, n_other: int) -> tuple[Tensor, Tensor]:
        """Replace the first `n` mels by decoded ones, the first `n_other` of them in the voice of the next row, with its mean of F0."""
        if n == 0:
            return mel, f0
        autoencoder = self._autoencoder[0]
        if autoencoder.mel_mean.device != mel.device:
            autoencoder.to(mel.device)
        voices = self.log_mel(reference[:n])
        voices = torch.cat([voices.roll(-1, dims=0)[:n_other], voices[n_other:]])
        f0 = torch.cat([move_f0(f0[:n_other], f0[:n].roll(-1, dims=0)[:n_other]), f0[n_other:]])
        speaker = None if autoencoder.speaker_encoder is None else autoencoder.encode_speaker(voices)
        latent = autoencoder.encode_content(mel[:n])
        decoded = autoencoder.decode(latent, f0[:n], speaker, reference=autoencoder.encode_reference(voices))
        return torch.cat([decoded.float(), mel[n:]]), f0

    def _synthesise(self, mel: Tensor, f0: Tensor, wav: Tensor, n: int, n_other: int, n_corrections: int) -> Tensor:
        c = self.recipe.model.mel
        pitch = PitchTrack.of(f0, c.sample_rate, c.hop_length)
        copies = PitchTrack(*(x[n_other:] for x in (pitch.log_f0, pitch.voiced, pitch.turns)))
        turns = torch.cat([pitch.turns[:n_other], copies.follow(wav[n_other:], c.sample_rate, c.hop_length).turns])
        pitch = PitchTrack(pitch.log_f0, pitch.voiced, turns)
        raw = self.model.synthesise(mel, pitch, torch.randn_like(wav), 0)
        with torch.autocast(wav.device.type, enabled=False):
            return torch.cat(
                [
                    self.model.correct(raw[:n], mel[:n], n_corrections),
                    self.model.correct(raw[n:], mel[n:], self.recipe.n_corrections),
                ]
            )


def balanced(made: Tensor, layer: Tensor, parts: list[tuple[Tensor, float]]) -> Tensor:
    """Return a loss whose value is that of the first part, and whose gradient is the sum of those of all parts, of comparable norms.

    Each is multiplied by its weight, and by the ratio of the first one's norm at a layer to its own, which is at most `LARGEST_RATIO`: the
    gradients of discriminators that do not distinguish anything yet are small, and meaningless.

    Args:
        made: (B, N), what all parts were computed from.
        layer: Weight of the last layer that `made` was computed with.
        parts: Losses and their weights.

    Source: the adaptive weight of Esser et al., Taming Transformers for High-Resolution Image Synthesis (2021), equation 7.
    """
    gradients = [torch.autograd.grad(loss, made, retain_graph=True)[0] for loss, _ in parts]
    norms = [torch.autograd.grad(made, layer, gradient, retain_graph=True)[0].norm() for gradient in gradients]
    total = torch.zeros_like(made)
    for gradient, norm, (_, weight) in zip(gradients, norms, parts, strict=True):
        total = total + weight * (norms[0] / norm.clamp(min=1e-8)).clamp(max=LARGEST_RATIO) * gradient
    moving = (made * total).sum()
    return parts[0][0].detach() + moving - moving.detach()
