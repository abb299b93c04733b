"""Training objective of the codec's polish, with a discriminator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vcae.audio.mel import LogMel
from vcae.codec.pitch import dequantize_f0, quantize_f0
from vcae.codec.polish import MelCritic, Polish
from vcae.model.autoencoder import Autoencoder
from vcae.training.codec import base_autoencoder, medians
from vcae.training.config import PolishRecipe
from vcae.training.objectives import Objective

# Weights of the critic's score and of the distance of its features, relative to the distance of the mels.
ADVERSARIAL_WEIGHT, FEATURE_WEIGHT = 0.2, 1.0


class PolishObjective(Objective):
    """Adversarial refinement of the base layer's mel: a critic, feature matching, and the distance to the recording.

    Args:
        recipe: Settings.
    """

    def __init__(self, recipe: PolishRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        base = base_autoencoder(recipe.base)
        self._base: list[Autoencoder] = [base]
        assert base.config.speaker is not None
        self.model: Polish = Polish(recipe.model, base.config.mel.n_mels, base.config.speaker.speaker_dim)
        self.critic = MelCritic(recipe.critic_channels)
        self.log_mel = LogMel(base.config.mel)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        base = self._base[0].to(batch["wav"].device)
        with torch.no_grad():
            with torch.autocast(batch["wav"].device.type, enabled=False):
                mel, reference = self.log_mel(batch["wav"]), self.log_mel(batch["reference"])
                f0 = batch["f0"][:, : mel.shape[-1]]
                centre = medians(f0)
                heard = dequantize_f0(*quantize_f0(f0, centre), centre, mel.shape[-1])
            speaker = base.encode_speaker(torch.cat([mel, reference], dim=-1)).float()
            rough = base.normalize(base.decode(base.decode_units(base.encode_units(mel)), heard, speaker).float())
            real = base.normalize(mel)
        made = self.model(rough, speaker).float()
        still = {name: value.detach() for name, value in self.critic.named_parameters()}
        seen = torch.func.functional_call(self.critic, still, (made, rough))
        with torch.no_grad():
            wanted = self.critic(real, rough)
        losses = {
            "distance": (made - real).abs().mean(),
            "features": torch.stack(
                [(a - b).abs().mean() / b.abs().mean() for a, b in zip(seen[:-1], wanted[:-1], strict=True)]
            ).mean(),
            "adversarial": (seen[-1] - 1).square().mean(),
        }
        judged, fooled = self.critic(real, rough)[-1], self.critic(made.detach(), rough)[-1]
        losses["critic"] = (judged - 1).square().mean() + fooled.square().mean()
        maker = losses["distance"] + FEATURE_WEIGHT * losses["features"] + ADVERSARIAL_WEIGHT * losses["adversarial"]
        # Contrast between neighbouring bands relative to recordings, which smoothing reduces; for the log.
        losses["sharpness"] = F.l1_loss(made[:, 1:], made[:, :-1]) / F.l1_loss(real[:, 1:], real[:, :-1])
        return {"loss": maker + losses["critic"], **losses}
