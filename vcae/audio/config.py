"""Settings of the mel."""

from __future__ import annotations

from dataclasses import dataclass

from vcae.config import positive, require


@dataclass(frozen=True)
class MelConfig:
    """The one mel definition of the project (HiFi-GAN's family: natural log of a slaney magnitude mel)."""

    sample_rate: int = 16000
    n_fft: int = 1024
    win_length: int = 1024
    hop_length: int = 256
    n_mels: int = 80
    f_min: float = 0.0
    f_max: float = 8000.0
    floor: float = 1e-5

    def __post_init__(self) -> None:
        positive(self, "sample_rate", where="mel")
        require(
            0 < self.hop_length <= self.win_length <= self.n_fft,
            f"mel needs 0 < hop_length <= win_length <= n_fft; got {self.hop_length}, {self.win_length}, {self.n_fft}",
        )
        positive(self, "n_mels", where="mel")
        require(
            0 <= self.f_min < self.f_max <= self.sample_rate / 2,
            f"mel needs 0 <= f_min < f_max <= {self.sample_rate / 2} Hz; got {self.f_min} and {self.f_max}",
        )
        require(self.floor > 0, f"mel.floor is {self.floor}; the logarithm needs a positive one")

    @property
    def frame_rate(self) -> float:
        """Frames a second, in Hz."""
        return self.sample_rate / self.hop_length
