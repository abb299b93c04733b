"""Discriminator of mel patches against over-smoothing: it learns to distinguish recorded from decoded patches."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from vcae.errors import CheckpointError

SLOPE = 0.2
# (channels, kernel over bands and frames, stride) of each layer, times the width.
LAYERS = ((1, (5, 5), (2, 1)), (2, (5, 5), (2, 2)), (4, (5, 5), (2, 1)), (4, (5, 3), (2, 2)), (4, (5, 3), (1, 1)))


class MelCritic(nn.Module):
    """Discriminator of mel patches, conditioned on the target voice.

    Shape:
        - mel: (B, n_mels, T), normalised
        - speaker_embedding: (B, speaker_dim)
        - score: (B, 1, patches of bands, patches of frames); target 1 for recordings, 0 for decoded mels
        - features: outputs of every layer, for feature matching

    Source: patch discriminators, Isola et al., Image-to-Image Translation with Conditional Adversarial Networks (2017); the voice by
    projection, Miyato and Koyama, cGANs with Projection Discriminator (2018); least squares, Mao et al. (2017).
    """

    def __init__(self, speaker_dim: int, width: int = 32) -> None:
        super().__init__()
        self.layers, n = nn.ModuleList(), 1
        for times, kernel, stride in LAYERS:
            padding = (kernel[0] // 2, kernel[1] // 2)
            self.layers.append(weight_norm(nn.Conv2d(n, times * width, kernel, stride, padding)))
            n = times * width
        self.output = nn.Conv2d(n, 1, 1)
        self.voice = nn.Linear(speaker_dim, n)

    def forward(self, mel: Tensor, speaker_embedding: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, features = mel.unsqueeze(1), []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
            features.append(x)
        fitting = (x * self.voice(speaker_embedding)[:, :, None, None]).sum(1, keepdim=True) / x.shape[1] ** 0.5
        return self.output(x) + fitting, features


def critic_losses(critic: MelCritic, real: Tensor, decoded: Tensor, speaker_embedding: Tensor) -> dict[str, Tensor]:
    """Return the losses of the critic and those of the decoder under the critic; one backward pass serves both.

    Args:
        critic: Discriminator of mels.
        real: (B, n_mels, T), mels of recordings, normalised.
        decoded: (B, n_mels, T), decoded mels, normalised.
        speaker_embedding: (B, speaker_dim).

    Returns:
        `critic`: squared error of the critic, whose gradient reaches the critic only. `passing`: squared distance of the decoded patches'
        scores from a recording's; `features`: mean absolute distance of the critic's features. The gradients of these two reach the decoder
        only.
    """
    on_real, wanted = critic(real, speaker_embedding)
    on_decoded, _ = critic(decoded.detach(), speaker_embedding)
    still = {name: parameter.detach() for name, parameter in critic.named_parameters()}
    judged, found = torch.func.functional_call(critic, still, (decoded, speaker_embedding))
    matching = sum((a - b.detach()).abs().mean() for a, b in zip(found, wanted, strict=True)) / len(wanted)
    return {
        "critic": (on_real - 1).square().mean() + on_decoded.square().mean(),
        "passing": (judged - 1).square().mean(),
        "features": torch.as_tensor(matching),
    }


def read_critic(critic: MelCritic, path: str | Path) -> None:
    """Give a critic the weights that it has in the state of a training of `recipes/conversion`.

    Raises:
        CheckpointError: If the file cannot be read, or has no critic of this width.
    """
    start = "objective.critic."
    try:
        weights = {k.removeprefix(start): v for k, v in load_file(path).items() if k.startswith(start)}
        critic.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"no critic of this width was found in {path} ({str(error).splitlines()[0]}); "
            "critic_state names the state.safetensors of a training with a critic"
        ) from error
