"""Training objectives: one module per model, from batch to losses."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcae.audio.config import MelConfig
from vcae.audio.f0 import F0_MAX_HZ, F0_MIN_HZ, HOP_LENGTH
from vcae.audio.frames import active_frames, weighted_moments
from vcae.audio.mel import LogMel
from vcae.checkpoint import load
from vcae.config import to_dict
from vcae.errors import CheckpointError, ConfigError
from vcae.model.autoencoder import Autoencoder, AutoencoderOutput
from vcae.model.config import AutoencoderConfig
from vcae.model.variational import free_bits, kl_weight
from vcae.training.config import AutoencoderRecipe, VocoderRecipe
from vcae.training.draws import Draws
from vcae.training.losses import MultiResolutionLoss
from vcae.training.perturb import Perturbation
from vcae.training.prosody import prosody_losses
from vcae.vocoder.config import VocoderConfig
from vcae.vocoder.neural import HarmonicNoiseVocoder

# Softmax temperature on squared distances per feature between codes.
CONTRAST_TEMPERATURE = 0.2


class _ReverseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return -gradient


def _reverse_gradient(x: Tensor) -> Tensor:
    y: Tensor = _ReverseGradient.apply(x)  # type: ignore[no-untyped-call]
    return y


class Objective(nn.Module):
    """Base class of a model together with its losses.

    `forward(batch)` returns a dict of scalars, of which `loss` is minimised. `model` is saved in checkpoints.
    """

    model: nn.Module

    def initialize(self, batches: Iterable[dict[str, Tensor]]) -> None:
        """Compute statistics of the data once, before the first step."""

    def prepare(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a batch with what is best computed where it is loaded: on the CPU, in the workers if there are any."""
        return batch


class AutoencoderObjective(Objective):
    """Reconstruction of a clean mel from its perturbed version, a reference of the same speaker, and F0.

    With `speaker_weight`, a classifier learns the training speakers from their embedding; with `adversary_weight`, another one
    learns them from the latent and the encoder learns to prevent it (Ganin et al., gradient reversal, 2016).

    Args:
        recipe: Settings.
        n_speakers: Speakers of the training data, for the classifiers.
    """

    def __init__(self, recipe: AutoencoderRecipe, n_speakers: int) -> None:
        super().__init__()
        _check_hop(recipe.model.mel)
        self.recipe = recipe
        self.model: Autoencoder = Autoencoder(recipe.model)
        self.log_mel = LogMel(recipe.model.mel)
        self.perturb = Perturbation(recipe.perturb, recipe.model.mel)
        content, speaker = recipe.model.content, recipe.model.speaker
        self.speaker_classifier = (
            nn.Linear(speaker.speaker_dim, n_speakers) if speaker is not None and recipe.speaker_weight else None
        )
        self.adversary = (
            nn.Sequential(
                nn.Conv1d(content.latent_dim, 128, 5, padding=2), nn.GELU(), nn.Conv1d(128, 128, 5, padding=2), nn.GELU()
            )
            if recipe.adversary_weight
            else None
        )
        self.adversary_output = nn.Linear(256, n_speakers) if recipe.adversary_weight else None
        if recipe.conversion_weight and self.speaker_classifier is None:
            raise ConfigError(
                "conversion_weight needs a speaker classifier; set speaker_weight above 0, or conversion_weight to 0"
            )
        if recipe.initial is not None:
            found = load(recipe.initial)
            if found.autoencoder is None:
                raise CheckpointError(f"{found.path} has no autoencoder; give an initial checkpoint that has one")
            _check_shape(found.path, found.autoencoder.config, recipe.model)
            self.model.load_state_dict(found.autoencoder.state_dict())
        if recipe.borrowed is not None:
            borrow(self.model, recipe.borrowed)
        if recipe.trained == "decoder":
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(name.startswith(("decoder.", "prosody.")))

    def initialize(self, batches: Iterable[dict[str, Tensor]]) -> None:
        """Set the mel's mean and standard deviation per band from data, unless they come from a checkpoint."""
        if self.recipe.initial is None and self.recipe.borrowed is None:
            set_mel_moments(self.model, self.log_mel, batches)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad(), torch.autocast(batch["wav"].device.type, enabled=False):
            mel, reference = self.log_mel(batch["wav"]), self.log_mel(batch["reference"])
            seen = mel
            if self.training:
                seen = self.perturb(mel, Draws.of(batch, 1))
        out = self.model(seen, batch["f0"], reference)
        # The output is a log-mel; the loss of each band is in units of its standard deviation.
        rebuilt = ((out.mel - mel).abs() / self.model.mel_deviation).mean()
        losses = {"loss": rebuilt, "mel": rebuilt}
        if out.quantization is not None:
            losses["perplexity"] = out.quantization.perplexity[0]
            losses["commitment"] = out.quantization.commitment_loss
            losses["loss"] = losses["loss"] + self.recipe.commitment_weight * losses["commitment"]
            if self.model.prosody is not None:
                losses |= prosody_losses(self.model, out.quantization.codes[:, :1], batch["f0"])
                losses["loss"] = losses["loss"] + self.recipe.prosody_weight * losses["prosody"]
        if out.posterior is not None:
            # The index of a training batch is its step, so the weight is the same after a resume; those of validation are beyond the warm-up.
            weight = kl_weight(self.recipe.kl_weight, int(batch["index"]), self.recipe.kl_warmup_steps)
            kl = out.posterior.kl()
            losses["kl"] = kl.mean(dim=(0, 2)).sum()
            losses["loss"] = losses["loss"] + weight * free_bits(kl, self.recipe.free_bits)
        if self.speaker_classifier is not None and self.training:
            logits = 16 * F.linear(out.speaker_embedding, F.normalize(self.speaker_classifier.weight, dim=-1))
            losses["speaker"] = F.cross_entropy(logits, batch["speaker"])
            losses["loss"] = losses["loss"] + self.recipe.speaker_weight * losses["speaker"]
        if self.adversary is not None and self.adversary_output is not None and self.training:
            hidden = self.adversary(_reverse_gradient(out.latent))
            pooled = torch.cat([hidden.mean(dim=-1), hidden.amax(dim=-1)], dim=1)
            losses["adversary"] = F.cross_entropy(self.adversary_output(pooled), batch["speaker"])
            losses["loss"] = losses["loss"] + self.recipe.adversary_weight * losses["adversary"]
        if self.recipe.contrast_weight and self.training:
            with torch.no_grad(), torch.autocast(mel.device.type, enabled=False):
                again = self.perturb(mel, Draws.of(batch, 2))
            losses["contrast"] = contrast(out.latent.float(), self.model.encode_latent(again).float())
            losses["loss"] = losses["loss"] + self.recipe.contrast_weight * losses["contrast"]
        if self.speaker_classifier is not None and self.recipe.conversion_weight and self.training:
            losses["conversion"] = self._conversion_loss(
                mel, out, batch["f0"], batch["speaker"], self.speaker_classifier.weight
            )
            losses["loss"] = losses["loss"] + self.recipe.conversion_weight * losses["conversion"]
        return losses

    def _conversion_loss(self, mel: Tensor, out: AutoencoderOutput, f0: Tensor, speaker: Tensor, classes: Tensor) -> Tensor:
        """Return the frozen speaker classifier's loss after converting each item to the voice of the next one.

        The converted mel is the item's own plus the decoder's change of voice, as in `vcae convert`. The gradient reaches only the
        decoder.
        """
        assert out.speaker_embedding is not None
        voices = out.speaker_embedding.detach().roll(1, dims=0)
        moved = move_f0(f0, f0.roll(1, dims=0))
        converted = mel + self.model.decode(out.latent.detach(), moved, voices) - out.mel.detach()
        encoder = self.model.speaker_encoder
        assert encoder is not None
        still = {name: parameter.detach() for name, parameter in encoder.named_parameters()}
        heard = torch.func.functional_call(encoder, still, (self.model.normalize(converted), active_frames(mel)))
        logits = 16 * F.linear(heard, F.normalize(classes.detach(), dim=-1))
        return F.cross_entropy(logits, speaker.roll(1, dims=0))


def set_mel_moments(model: Autoencoder, log_mel: LogMel, batches: Iterable[dict[str, Tensor]]) -> None:
    """Set an autoencoder's mean and standard deviation of each mel band from the batches' `wav` (B, N)."""
    mels = torch.cat([log_mel(batch["wav"]) for batch in batches])
    flat = mels.transpose(0, 1).reshape(1, mels.shape[1], -1)
    mean, deviation = weighted_moments(flat, torch.ones_like(flat[:, :1]))
    model.mel_mean.copy_(mean[0])
    model.mel_deviation.copy_(deviation[0])


def borrow(model: Autoencoder, name: str, skip: str | None = None) -> list[str]:
    """Copy weights of the same name and shape from a checkpoint's autoencoder, and the mel's normalisation.

    Args:
        model: The autoencoder to change.
        name: Name or path of the checkpoint.
        skip: Prefix of the names of tensors that are not copied.

    Returns:
        Names of the tensors that were not copied.

    Raises:
        CheckpointError: If the checkpoint has no autoencoder or another mel.
    """
    found = load(name)
    if found.autoencoder is None:
        raise CheckpointError(f"{found.path} has no autoencoder; set borrowed to a checkpoint that has one")
    _check_mel(found.path, found.autoencoder.config.mel, model.config.mel)
    lent, own = found.autoencoder.state_dict(), model.state_dict()
    fitting = {
        key: value
        for key, value in lent.items()
        if key in own and own[key].shape == value.shape and not (skip and key.startswith(skip))
    }
    model.load_state_dict(fitting, strict=False)
    return [key for key in own if key not in fitting]


def contrast(latent: Tensor, other: Tensor) -> Tensor:
    """Return the contrastive loss of codes (B, D, T) against those of another view (B, D, T) of the same utterances.

    Positives are codes of the same step, negatives all others of the utterance: they share speaker and recording, so only the content
    distinguishes them.

    Source: the InfoNCE loss of van den Oord et al. (2018), with negatives of the same speaker as in van Niekerk et al., Vector-quantized
    neural networks for acoustic unit discovery (2020).
    """
    distance = torch.cdist(latent.transpose(1, 2), other.transpose(1, 2)).square() / latent.shape[1]
    moment = torch.arange(latent.shape[-1], device=latent.device).expand(len(latent), -1)
    return F.cross_entropy(-distance.transpose(1, 2) / CONTRAST_TEMPERATURE, moment)


def move_f0(f0: Tensor, like: Tensor) -> Tensor:
    """Shift the mean log-F0 of items to that of others; without voiced frames in both, an item is unchanged.

    Args:
        f0: (B, T) in Hz, 0 where unvoiced.
        like: (B, T') in Hz, F0 with the mean to take.

    Returns:
        (B, T).
    """

    def mean(x: Tensor) -> tuple[Tensor, Tensor]:
        voiced = x > 0
        total = (torch.log(x.clamp(min=F0_MIN_HZ)) * voiced).sum(dim=-1, keepdim=True)
        return total / voiced.sum(dim=-1, keepdim=True).clamp(min=1), voiced.any(dim=-1, keepdim=True)

    (present, here), (wanted, there) = mean(f0), mean(like)
    ratio = torch.where(here & there, torch.exp(wanted - present), torch.ones_like(present))
    return torch.where(f0 > 0, (f0 * ratio).clamp(F0_MIN_HZ, F0_MAX_HZ), f0)


class VocoderObjective(Objective):
    """Reconstruction of a signal from its mel and F0 under a multi-resolution spectral loss.

    Args:
        recipe: Settings.

    Raises:
        CheckpointError: If a checkpoint in the recipe lacks the needed part, or has another mel.
    """

    def __init__(self, recipe: VocoderRecipe) -> None:
        super().__init__()
        _check_hop(recipe.model.mel)
        self.recipe = recipe
        self.model: HarmonicNoiseVocoder = HarmonicNoiseVocoder(recipe.model)
        self.log_mel = LogMel(recipe.model.mel)
        self.criterion = MultiResolutionLoss(recipe.model.mel.sample_rate)
        # In a list, so that the frozen autoencoder is neither trained nor saved.
        self._autoencoder: list[Autoencoder] = []
        if recipe.decoded_by is not None:
            found = load(recipe.decoded_by)
            if found.autoencoder is None:
                raise CheckpointError(f"{found.path} has no autoencoder; set decoded_by to a checkpoint that has one")
            _check_mel(found.path, found.autoencoder.config.mel, recipe.model.mel)
            self._autoencoder.append(found.autoencoder)
        if recipe.initial is not None:
            found = load(recipe.initial)
            if found.vocoder is None:
                raise CheckpointError(f"{found.path} has no vocoder; give an initial checkpoint that has one")
            _check_shape(found.path, found.vocoder.config, recipe.model)
            self.model.load_state_dict(_spread_subframes(found.vocoder, recipe.model.subframes))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        wav, f0 = batch["wav"], batch["f0"]
        with torch.no_grad(), torch.autocast(wav.device.type, enabled=False):
            mel = self.log_mel(wav)
            noise = Draws.of(batch, 1).normal(*wav.shape).to(wav.device)
            if self._autoencoder:
                mel = self.decode(mel, f0, batch["reference"])
        predicted = self.model(mel, f0, wav.shape[-1], noise, self.recipe.n_corrections)
        with torch.autocast(wav.device.type, enabled=False):
            losses: dict[str, Tensor] = self.criterion(predicted.float(), wav)
        return losses

    def decode(self, mel: Tensor, f0: Tensor, reference: Tensor) -> Tensor:
        """Replace a fraction of the mels (B, n_mels, T) by the autoencoder's reconstructions in the speaker's own voice.

        Args:
            mel: (B, n_mels, T).
            f0: (B, T) in Hz.
            reference: (B, N), another utterance of each speaker.
        """
        autoencoder = self._autoencoder[0].to(mel.device)
        n = round(len(mel) * self.recipe.decoded_share)
        return torch.cat([autoencoder(mel[:n], f0[:n], self.log_mel(reference[:n])).mel, mel[n:]])


def _check_mel(path: Path, found: MelConfig, needed: MelConfig) -> None:
    if found != needed:
        raise CheckpointError(f"{path} has another mel than the recipe: {found} and {needed}; take one with the recipe's mel")


def _check_shape(path: Path, found: VocoderConfig | AutoencoderConfig, needed: VocoderConfig | AutoencoderConfig) -> None:
    has, wants = _flatten(to_dict(found)), _flatten(to_dict(needed))
    if has.get("subframes") == 1:
        has["subframes"] = wants["subframes"]
    # Settings that do not affect the shapes of the weights.
    free = ("n_corrections", "momentum", "content.latent_noise")
    different = [k for k in wants if has.get(k) != wants[k] and k not in free]
    if different:
        details = ", ".join(f"{k} {has.get(k)} instead of {wants[k]}" for k in different)
        raise CheckpointError(
            f"{path} has a model whose settings differ from the recipe's: {details}; give a checkpoint that matches, or change the recipe"
        )


def _flatten(values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= {f"{key}.{k}": v for k, v in _flatten(value).items()} if isinstance(value, dict) else {key: value}
    return flat


def _spread_subframes(vocoder: HarmonicNoiseVocoder, subframes: int) -> dict[str, Tensor]:
    """Copy the weights of a vocoder with one subframe to every subframe, at the bins that remain."""
    state = vocoder.state_dict()
    if vocoder.config.subframes == subframes:
        return state
    for name in ("output.weight", "output.bias"):
        kept = state[name].unflatten(0, (3, -1))[:, ::subframes]
        state[name] = kept.unsqueeze(0).repeat(subframes, *[1] * kept.dim()).flatten(0, 2)
    return state


def _check_hop(mel: MelConfig) -> None:
    if mel.hop_length != HOP_LENGTH:
        raise ConfigError(f"mel.hop_length is {mel.hop_length}; the cache has F0 every {HOP_LENGTH} samples, so set it to that")
