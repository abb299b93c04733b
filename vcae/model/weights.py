"""Weights in 8 bits, and the hash of a network's weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vcae.model_file import STEPS

# The smallest tensor that is stored in 8 bits.
MIN_EIGHT_BIT = 1024
# The speaker encoder stays as it is: voices that were saved, and the prior of new voices, hold its embeddings.
UNROUNDED = "autoencoder.speaker_encoder."


def round_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Round weights to 8 bits: each output channel is a float16 step times whole numbers from -127 to 127.

    Args:
        tensors: A model's state. Vectors, small tensors and the speaker encoder stay as they are.

    Returns:
        The state, in which a rounded tensor is of int8 and its steps (channels, 1, ...) stand beside it; `restore_weights` turns it back.
    """
    rounded: dict[str, Tensor] = {}
    for name, value in tensors.items():
        rounds = not name.startswith(UNROUNDED) and value.is_floating_point()
        if rounds and value.dim() >= 2 and value.numel() >= MIN_EIGHT_BIT:
            steps = (value.float().abs().amax(dim=tuple(range(1, value.dim())), keepdim=True) / 127).half()
            # A step that float16 cannot hold would be 0: such a channel is as good as 0.
            whole = value.float() / steps.float().clamp(min=torch.finfo(torch.float16).tiny)
            rounded |= {name: whole.round().clamp(-127, 127).to(torch.int8), name + STEPS: steps}
        else:
            rounded[name] = value
    return rounded


def restore_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn back what `round_weights` rounded, into float32; other tensors stay as they are."""
    return {
        name: value.float() * tensors[name + STEPS].float() if name + STEPS in tensors else value
        for name, value in tensors.items()
        if not name.endswith(STEPS)
    }


def hash_weights(module: nn.Module) -> str:
    """Return a SHA-256, hex, of a network's weights as float16: the same whether it was stored in 16 bits or trained in 32."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode() + b"\0" + value.detach().cpu().half().contiguous().numpy().tobytes())
    return digest.hexdigest()
