"""Settings of the speech codec."""

from __future__ import annotations

from dataclasses import dataclass

from vcae.config import within


@dataclass(frozen=True)
class PolishConfig:
    """Settings of the network that refines the base layer's mel when there is no enhancement layer."""

    width: int = 192
    n_blocks: int = 4

    def __post_init__(self) -> None:
        within(self, 1, 1024, "width", "n_blocks", where="polish")


@dataclass(frozen=True)
class CodecConfig:
    """Settings of the speech codec: an enhancement layer on top of a checkpoint's units, and priors of all coded values."""

    # Checkpoint whose two codes per step are the base layer.
    base: str = "vq-narrow"
    width: int = 192
    n_blocks: int = 4
    latent_dim: int = 64
    prior_width: int = 256
    pitch_width: int = 64
    # Refinement of the base layer's mel when there is no enhancement layer.
    polish: PolishConfig | None = None

    def __post_init__(self) -> None:
        within(self, 1, 1024, "width", "n_blocks", "latent_dim", "prior_width", "pitch_width", where="codec")
