"""The codec's own networks in one module, and the file they are kept in."""

from __future__ import annotations

from torch import nn

from vcae.codec.config import CodecConfig
from vcae.codec.network import Enhancement
from vcae.codec.prior import Priors


class CodecNetworks(nn.Module):
    """The enhancement layer and the priors of all that is sent.

    Args:
        config: Sizes.
        n_mels: Bands of the base layer's mel.
        codebook_size: Of the base layer's codes.
    """

    def __init__(self, config: CodecConfig, n_mels: int, codebook_size: int) -> None:
        super().__init__()
        self.config = config
        self.enhancement = Enhancement(config, n_mels)
        self.priors = Priors(config, codebook_size)
