"""Settings of the speech codec."""

from __future__ import annotations

from dataclasses import dataclass

from vcae.config import within


@dataclass(frozen=True)
class PolishConfig:
    """What gives the codec's base layer, where it is alone, the texture of a recording."""

    width: int = 192
    n_blocks: int = 4

    def __post_init__(self) -> None:
        within(self, 1, 1024, "width", "n_blocks", where="polish")


@dataclass(frozen=True)
class CodecConfig:
    """The speech codec: an enhancement layer over a checkpoint's units, and the priors of all that is sent."""

    # The checkpoint whose two codes a step are the base layer.
    base: str = "vq"
    width: int = 192
    n_blocks: int = 4
    latent_dim: int = 64
    prior_width: int = 256
    pitch_width: int = 64
    # For the base layer where it is alone.
    polish: PolishConfig | None = None

    def __post_init__(self) -> None:
        within(self, 1, 1024, "width", "n_blocks", "latent_dim", "prior_width", "pitch_width", where="codec")
