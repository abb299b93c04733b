"""Training objective of the codec: an enhancement layer for all rates at once, and the priors of all coded values."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vcae.audio.mel import LogMel
from vcae.checkpoint import load
from vcae.codec.model import CodecNetworks
from vcae.codec.pitch import dequantize_f0, quantize_f0
from vcae.codec.prior import logistic_bits
from vcae.errors import CheckpointError
from vcae.model.autoencoder import Autoencoder
from vcae.training.config import CodecRecipe
from vcae.training.draws import Draws
from vcae.training.objectives import Objective

DB = 20 / math.log(10)
# Errors this far below the loudest part of the spectrogram have half the weight; the fraction is the lowest weight.
MASKED_DB, MASKED_SHARE = 50.0, 0.2


def base_autoencoder(name: str) -> Autoencoder:
    """Load the autoencoder whose codes are the base layer.

    Raises:
        CheckpointError: If it cannot be loaded, or does not have two codes per step and a speaker encoder.
    """
    found = load(name).autoencoder
    if found is None or found.config.quantizer is None or found.config.speaker is None or found.config.quantizer.n_stages != 2:
        raise CheckpointError(f"{name} needs two codes per step and a speaker encoder; give a checkpoint like vq-narrow")
    return found


class CodecObjective(Objective):
    """Rate-distortion objective of the enhancement layer, with a random quality for each item of a batch.

    Rounding is replaced by noise for counting bits, and is straight-through for rebuilding the mel (Minnen and Singh, Channel-wise
    autoregressive entropy models, 2020). The base layer is frozen.

    Args:
        recipe: Settings.
    """

    def __init__(self, recipe: CodecRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        found = base_autoencoder(recipe.model.base)
        assert found.config.quantizer is not None
        # In a list, so that the frozen base layer is neither trained nor saved.
        self._base: list[Autoencoder] = [found]
        self.codebook_size = found.config.quantizer.codebook_size
        self.model: CodecNetworks = CodecNetworks(recipe.model, found.config.mel.n_mels, self.codebook_size)
        self.log_mel = LogMel(found.config.mel)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        base, networks = self._base[0].to(batch["wav"].device), self.model
        with torch.no_grad():
            with torch.autocast(batch["wav"].device.type, enabled=False):
                mel, reference = self.log_mel(batch["wav"]), self.log_mel(batch["reference"])
                f0 = batch["f0"][:, : mel.shape[-1]]
                centre = medians(f0)
                voicing, place = quantize_f0(f0, centre)
                heard = dequantize_f0(voicing, place, centre, mel.shape[-1])
            codes = base.encode_units(mel)
            speaker = base.encode_speaker(torch.cat([mel, reference], dim=-1))
            rough = base.decode(base.decode_units(codes), heard, speaker).float()
        draws = Draws.of(batch, 1)
        quality = draws.uniform(len(mel)).to(mel.device) if self.training else torch.linspace(0, 1, len(mel), device=mel.device)
        wanted, known = base.normalize(mel), base.normalize(rough)
        latent = networks.enhancement.encode(wanted, known, quality)
        log_steps = networks.enhancement.log_steps(quality)[:, :, None]
        steps = log_steps.exp()
        scaled = latent / steps
        noise = draws.uniform(*scaled.shape).to(mel.device) - 0.5
        noisy = scaled + noise
        rounded = scaled + (scaled.round() - scaled).detach()
        rebuilt = networks.enhancement.decode(rounded * steps, known, quality).float() * base.mel_deviation + base.mel_mean
        with torch.autocast(mel.device.type, enabled=False):
            mean, log2_scale = networks.priors.latent_guess(codes, voicing, noisy * steps, quality)
            bits = logistic_bits(noisy, mean / steps, log2_scale - log_steps / math.log(2))
            code_bits = networks.priors.code_bits(codes)
            pitch_bits = networks.priors.pitch_bits(codes, voicing, place)
        step_rate = self.log_mel.config.frame_rate / 2 / 1000
        rate = bits.sum(dim=1).mean(dim=1) * step_rate
        error = self._error(rebuilt, mel)
        weight = self.recipe.rate_weight * (self.recipe.final_rate_weight / self.recipe.rate_weight) ** quality
        # Divided by the square root of the weight, so that all qualities contribute alike.
        loss = ((error + weight * rate) / weight.sqrt()).mean()
        base_rate = (code_bits.sum(dim=1).mean() + pitch_bits.mean()) * step_rate
        return {
            "loss": loss + base_rate,
            "error_db2": error.mean(),
            "rate_kbps": rate.mean(),
            "codes_kbps": code_bits.sum(dim=1).mean() * step_rate,
            "pitch_kbps": pitch_bits.mean() * step_rate,
            "low_kbps": (rate * (quality < 0.3)).sum() / (quality < 0.3).sum().clamp(min=1),
            "low_db2": (error * (quality < 0.3)).sum() / (quality < 0.3).sum().clamp(min=1),
        }

    def _error(self, rebuilt: Tensor, mel: Tensor) -> Tensor:
        """Return the mean squared error (B,) in dB, with a lower weight on parts that louder ones mask."""
        under = (mel.amax(dim=(1, 2), keepdim=True) - mel) * DB - MASKED_DB
        weight = MASKED_SHARE + (1 - MASKED_SHARE) * torch.sigmoid(-under / 6)
        return ((rebuilt - mel) * DB).square().mul(weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2))


def medians(f0: Tensor) -> Tensor:
    """Return the median (B,) of F0 (B, T) over voiced frames, in Hz; 100 without any."""
    median = torch.where(f0 > 0, f0, torch.full_like(f0, torch.nan)).nanmedian(dim=-1).values
    return torch.where(median.isnan(), torch.full_like(median, 100.0), median)
