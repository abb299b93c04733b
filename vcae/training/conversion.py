"""Training on own conversions: a wide code without information on the voice.

The input of the content encoder is each crop converted to another voice by a frozen checkpoint, and the decoder has to reconstruct the recording.
A code with information on the voice would have the wrong voice, so it need not be narrow and may contain everything that both voices share.

Source: training on own conversions as in CFLOW-VC and Palindromic VC; roles of synthetic and real speech as in X-VC; see
`recipes/conversion/README.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vcae.audio.f0 import F0_MAX_HZ, F0_MIN_HZ
from vcae.audio.frames import active_frames
from vcae.audio.loudness import TARGET_LEVEL
from vcae.audio.mel import LogMel
from vcae.checkpoint import load
from vcae.errors import CheckpointError
from vcae.model.autoencoder import Autoencoder
from vcae.model.decoder import log_f0_mean
from vcae.model.reference import Reference
from vcae.training.config import ConversionRecipe
from vcae.training.critic import MelCritic, critic_losses, read_critic
from vcae.training.denoise import Noising, active_rms
from vcae.training.draws import Draws
from vcae.training.listeners import Listeners
from vcae.training.objectives import Objective, borrow, set_mel_moments
from vcae.training.perturb import Perturbation

# Bounds on the ratio of two speakers' standard deviations of log-F0, which are unreliable for crops.
DEVIATION_BOUNDS = (0.7, 1.4)
HIDDEN = -1e4


class ConversionObjective(Objective):
    """Reconstruction of recordings from their conversions to other voices of the batch.

    The speaker encoder is copied from a checkpoint and frozen. The embedding and the reference of each crop are from other crops of its speaker.

    Args:
        recipe: Settings.

    Raises:
        CheckpointError: If the teacher has no autoencoder, or another mel.
    """

    def __init__(self, recipe: ConversionRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.model: Autoencoder = Autoencoder(recipe.model)
        self.log_mel = LogMel(recipe.model.mel)
        self.perturb = Perturbation(recipe.perturb, recipe.model.mel)
        if recipe.borrowed is not None:
            borrow(self.model, recipe.borrowed)
        self.model.the_speaker_encoder().requires_grad_(False)
        teacher = load(recipe.teacher).autoencoder
        if teacher is None:
            raise CheckpointError(f"{recipe.teacher} has no autoencoder; give a teacher that has one")
        if teacher.config.mel != recipe.model.mel:
            raise CheckpointError(f"{recipe.teacher} has another mel than the recipe; take a teacher with the recipe's mel")
        # In a list, so that the teacher is neither trained nor saved.
        self._teacher = [teacher]
        speaker = recipe.model.speaker
        assert speaker is not None
        self.critic = (
            MelCritic(speaker.speaker_dim, recipe.critic_width) if recipe.critic_weight or recipe.feature_weight else None
        )
        if self.critic is not None and recipe.critic_state is not None:
            read_critic(self.critic, recipe.critic_state)
        self.noising = Noising(recipe.noising, recipe.model.mel.sample_rate) if recipe.n_degraded else None
        speaks = recipe.recogniser_weight > 0 or recipe.verifies
        self.listeners = Listeners(recipe.vocoder, recipe.recogniser_weight > 0, recipe.verifies) if speaks else None
        ready: Callable[[Any], Any] = torch.compile if recipe.train.compile else lambda f: f
        self._losses, self._convert, self._exchange = ready(self._rebuild), ready(self.convert), ready(self.exchange)

    def initialize(self, batches: Iterable[dict[str, Tensor]]) -> None:
        """Set the mel's mean and standard deviation per band from data, unless they come from a checkpoint."""
        if self.recipe.borrowed is None:
            set_mel_moments(self.model, self.log_mel, batches)

    def prepare(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add to a batch the degraded sound of the crops with noise, at the models' level."""
        if self.noising is None:
            return batch
        rows = slice(self.recipe.n_spoken - self.recipe.n_degraded, self.recipe.n_spoken)
        others = batch["wav"].roll(-self.recipe.n_spoken, dims=0)[: self.recipe.n_degraded]
        noisy, _ = self.noising(batch["wav"][rows], others, Draws.of(batch, 3))
        return batch | {"degraded": noisy * (TARGET_LEVEL / active_rms(noisy).clamp(min=1e-4))}

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the losses of a batch whose rows are in groups of `crops_a_speaker`."""
        r, draws = self.recipe, Draws.of(batch, 1)
        n, group = len(batch["wav"]), r.data.crops_a_speaker
        with torch.no_grad(), torch.autocast(batch["wav"].device.type, enabled=False):
            mel = self.log_mel(batch["wav"])
            f0 = batch["f0"][:, : mel.shape[-1]]
        change = r.change_min + (r.change_max - r.change_min) * draws.uniform(n, 1, 1)
        seen = self.perturb(self._convert(mel, f0, change.to(mel.device)).float(), Draws.of(batch, 2))
        # Masked reference for each crop: itself, a random number of the group's other crops, and some steps of the rest.
        hidden = ~_draw_some(~torch.eye(group, dtype=torch.bool).repeat(n // group, 1), draws)
        steps = -(-mel.shape[-1] // r.model.content.stride)
        some = draws.uniform(n, group, steps) < r.hidden_reference * draws.uniform(n, 1, 1)
        log_weights = torch.where(hidden[..., None] | some, HIDDEN, 0.0).flatten(1).to(mel.device)
        gate = (draws.uniform(n, 1, 1) >= r.no_reference).float().to(mel.device)
        noise = draws.normal(n, r.model.content.latent_dim, steps).to(mel.device) if self.training else None
        losses = dict(self._losses(mel, seen, f0, log_weights, gate, noise))
        losses["loss"] = losses["mel"] + r.difference_weight * losses["difference"]
        if self.critic is not None:
            # The index of a training batch is its step, so the weight is the same after a resume; those of validation are beyond the warm-up.
            grown = min(1.0, (int(batch["index"]) + 1) / max(r.critic_warmup_steps, 1))
            passing = r.critic_weight * losses["passing"] + r.feature_weight * losses["features"]
            losses["loss"] = losses["loss"] + losses["critic"] + grown * passing
        if r.converts:
            losses |= self._converted_losses(mel, f0, batch, noise, draws)
            losses["loss"] = losses["loss"] + losses["converted"]
        return losses

    def _converted_losses(
        self, mel: Tensor, f0: Tensor, batch: dict[str, Tensor], noise: Tensor | None, draws: Draws
    ) -> dict[str, Tensor]:
        r, losses, wav = self.recipe, {}, batch["wav"]
        degraded = None
        if "degraded" in batch:
            with torch.no_grad(), torch.autocast(wav.device.type, enabled=False):
                degraded = self.log_mel(batch["degraded"])
        decoded, f0, embedding = self._exchange(
            mel, f0, noise, self._choose_references(len(mel), draws).to(wav.device), degraded
        )
        total = torch.zeros((), device=wav.device)
        # The voice is that of the sound where there is one.
        voiced = decoded[r.n_own :]
        if self.listeners is not None:
            n = r.n_spoken
            spoken = self.listeners.speak(decoded[:n], f0[:n], wav.shape[-1])
            if r.recogniser_weight:
                losses["recogniser"] = self.listeners.words_distance(spoken, wav[:n])
                total = total + r.recogniser_weight * losses["recogniser"]
            if r.verifies:
                losses["verifier"], losses["leak"] = self.listeners.voice_distances(
                    spoken, wav, r.data.crops_a_speaker, r.n_own
                )
                total = total + r.verifier_weight * losses["verifier"] + r.leak_weight * losses["leak"]
            voiced = self.log_mel(spoken[r.n_own :])
        if r.voice_weight:
            found, wanted = self.model.encode_speaker(voiced), embedding[r.n_own : r.n_own + len(voiced)]
            losses["voice"] = 1 - F.cosine_similarity(found.float(), wanted.float(), dim=-1).mean()
            total = total + r.voice_weight * losses["voice"]
        if r.converted_critic_weight and self.critic is not None:
            # The next speaker's recordings are what the critic compares with.
            real = mel.roll(r.data.crops_a_speaker, dims=0)[r.n_own :]
            judged = critic_losses(
                self.critic, self.model.normalize(real), self.model.normalize(decoded[r.n_own :]), embedding[r.n_own :]
            )
            losses["converted_critic"], losses["converted_passing"] = judged["critic"], judged["passing"]
            total = total + judged["critic"] + r.converted_critic_weight * judged["passing"]
        return {**losses, "converted": total}

    def _choose_references(self, n: int, draws: Draws) -> Tensor:
        """Choose for each crop (B, group) which crops of its voice are its reference: a random number of them, or all but itself."""
        group = self.recipe.data.crops_a_speaker
        own = torch.arange(n)[:, None] < self.recipe.n_own
        allowed = ~(torch.eye(group, dtype=torch.bool).repeat(n // group, 1) & own)
        return _draw_some(allowed, draws) if self.recipe.few_references else allowed

    def exchange(
        self, mel: Tensor, f0: Tensor, noise: Tensor | None, chosen: Tensor, degraded: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Convert crops to the voice of the batch's next speaker, and the first `n_own` of them to their own, by the model that learns.

        Args:
            mel: (B, n_mels, T), natural log magnitude.
            f0: (B, T) in Hz, 0 where unvoiced.
            noise: (B, latent_dim, steps), standard normal, or None.
            chosen: (B, group), which crops of the voice's group are the reference, at least one a row.
            degraded: (n_degraded, n_mels, T), the input for the last of the spoken crops, or None.

        Returns:
            mel: (B, n_mels, T), decoded.
            f0: (B, T), with which it was decoded.
            speaker_embedding: (B, speaker_dim), of the voices.
        """
        model, r, group = self.model, self.recipe, self.recipe.data.crops_a_speaker
        every = mel if degraded is None else torch.cat([mel, degraded])
        latents = model.content_encoder(model.normalize(every), active_frames(every), None)
        inputs = latent = latents[: len(mel)]
        if degraded is not None:
            inputs = torch.cat([latent[: r.n_spoken - r.n_degraded], latents[len(mel) :], latent[r.n_spoken :]])
        content = inputs if noise is None else inputs + r.model.content.latent_noise * noise
        own = torch.arange(len(mel), device=mel.device) < r.n_own

        def taken(own_voice: Tensor) -> Tensor:
            keep = own.view(-1, *[1] * (own_voice.dim() - 1))
            return torch.where(keep, own_voice, own_voice.roll(group, dims=0))

        with torch.no_grad():
            voices = model.encode_speaker(mel)
            embedding = F.normalize((taken(_shared(voices[:, None], group)) * chosen[..., None]).sum(1), dim=-1)
        reference = None
        if model.decoder.reference_encoder is not None:
            values, keys = model.decoder.reference_encoder(model.normalize(mel)), latent.transpose(1, 2)
            hidden = torch.where(chosen, 0.0, HIDDEN)[..., None].expand(-1, -1, keys.shape[1]).flatten(1)
            reference = Reference(taken(_shared(keys, group)), taken(_shared(values, group)), hidden)
        moved = torch.where(own[:, None], f0, _move_f0(f0, f0.roll(group, dims=0)))
        decoded = model.decoder(content, f0.shape[-1], embedding, moved, None, log_f0_mean(moved), reference, None)
        return decoded.float() * model.mel_deviation + model.mel_mean, moved, embedding

    def embeddings(self, mel: Tensor) -> Tensor:
        """Return for each crop (B, n_mels, T) the speaker embedding (B, speaker_dim) of the other crops of its group."""
        own = self.model.encode_speaker(mel)
        own = own.view(-1, self.recipe.data.crops_a_speaker, own.shape[-1])
        return F.normalize(own.sum(1, keepdim=True) - own, dim=-1).flatten(0, 1)

    @torch.no_grad()
    def convert(self, mel: Tensor, f0: Tensor, change: Tensor) -> Tensor:
        """Convert crops (B, n_mels, T) to the voice of the next speaker of the batch, by the teacher.

        Args:
            mel: (B, n_mels, T), natural log magnitude.
            f0: (B, T) in Hz, 0 where unvoiced.
            change: (B, 1, 1), factor on the change of voice; see `add_change`.
        """
        teacher, group = self._teacher[0].to(mel.device), self.recipe.data.crops_a_speaker
        latent = teacher.encode_content(mel)
        speaker = teacher.encode_speaker(mel)
        voice, reference = speaker.roll(group, dims=0), roll_reference(teacher.encode_reference(mel), group)
        other = teacher.decode(latent, _move_f0(f0, f0.roll(group, dims=0)), voice, reference=reference)
        if not self.recipe.add_change:
            return other
        return mel + change * (other - teacher.decode(latent, f0, speaker))

    def _rebuild(
        self, mel: Tensor, seen: Tensor, f0: Tensor, log_weights: Tensor, gate: Tensor, noise: Tensor | None
    ) -> dict[str, Tensor]:
        model, group = self.model, self.recipe.data.crops_a_speaker
        with torch.no_grad():
            embedding = self.embeddings(mel)
        latent = model.content_encoder(model.normalize(seen), active_frames(seen), None)
        content = latent if noise is None else latent + self.recipe.model.content.latent_noise * noise
        reference = None
        if model.decoder.reference_encoder is not None:
            values = model.decoder.reference_encoder(model.normalize(mel))
            reference = Reference(_shared(content.transpose(1, 2), group), _shared(values, group), log_weights)
        rebuilt = model.decoder(content, f0.shape[-1], embedding, f0, None, log_f0_mean(f0), reference, gate).float()
        wanted = model.normalize(mel)
        error = rebuilt - wanted
        losses = {"mel": error.abs().mean(), "difference": error.diff(dim=-1).abs().mean()}
        return losses if self.critic is None else losses | critic_losses(self.critic, wanted, rebuilt, embedding)


def _draw_some(allowed: Tensor, draws: Draws) -> Tensor:
    """Choose a random number, at least one, of what is allowed in each row of (B, group)."""
    n, group = allowed.shape
    rank = draws.uniform(n, group).masked_fill(~allowed, -1.0).argsort(dim=1, descending=True).argsort(dim=1)
    n_chosen = 1 + (draws.uniform(n, 1) * allowed.sum(dim=1, keepdim=True)).long()
    return allowed & (rank < n_chosen)


def _shared(x: Tensor, group: int) -> Tensor:
    """Repeat the rows of each group (B, M, D) for all of its members: (B, group M, D)."""
    return x.reshape(-1, group * x.shape[1], x.shape[2]).repeat_interleave(group, dim=0)


def roll_reference(reference: Reference | None, n: int) -> Reference | None:
    """Give each item of a batch the reference of the one `n` places before."""
    return None if reference is None else Reference(reference.keys.roll(n, dims=0), reference.values.roll(n, dims=0))


def _move_f0(f0: Tensor, like: Tensor) -> Tensor:
    """Shift log-F0 (B, T) to the mean and (bounded) standard deviation of others (B, T'); without voiced frames in both it is unchanged."""

    def moments(x: Tensor) -> tuple[Tensor, Tensor]:
        voiced, log_f0 = (x > 0).float(), torch.log(x.clamp(min=F0_MIN_HZ))
        n = voiced.sum(-1, keepdim=True).clamp(min=1)
        mean = (log_f0 * voiced).sum(-1, keepdim=True) / n
        return mean, (((log_f0 - mean).square() * voiced).sum(-1, keepdim=True) / n).sqrt().clamp(min=0.05)

    (mean, deviation), (wanted, spread) = moments(f0), moments(like)
    known = (f0 > 0).any(-1, keepdim=True) & (like > 0).any(-1, keepdim=True)
    moved = wanted + (torch.log(f0.clamp(min=F0_MIN_HZ)) - mean) * (spread / deviation).clamp(*DEVIATION_BOUNDS)
    return torch.where(known & (f0 > 0), torch.exp(moved).clamp(F0_MIN_HZ, F0_MAX_HZ), f0)
