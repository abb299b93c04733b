"""The trainable networks of the codec in one module."""

from __future__ import annotations

from torch import nn

from vcae.codec.config import CodecConfig
from vcae.codec.network import Enhancement
from vcae.codec.prior import Priors


class CodecNetworks(nn.Module):
    """Enhancement layer and priors of all coded values.

    Args:
        config: Settings of the networks.
        n_mels: Bands of the base layer's mel.
        codebook_size: Number of codes in a codebook of the base layer.
    """

    def __init__(self, config: CodecConfig, n_mels: int, codebook_size: int) -> None:
        super().__init__()
        self.config = config
        self.enhancement = Enhancement(config, n_mels)
        self.priors = Priors(config, codebook_size)
