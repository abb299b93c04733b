"""Settings of the vocoder."""

from __future__ import annotations

from dataclasses import dataclass, field

from vcae.audio.config import MelConfig
from vcae.config import at_least, require


@dataclass(frozen=True)
class VocoderConfig:
    """Settings of the harmonic-plus-noise vocoder."""

    mel: MelConfig = field(default_factory=MelConfig)
    width: int = 320
    n_blocks: int = 6
    # Highest harmonic, a little below half the sample rate.
    harmonic_max_hz: float = 7600.0
    # Iterations that correct the mel of the result towards the given mel, and their momentum.
    n_corrections: int = 8
    momentum: float = 0.5
    # Filter frames per mel frame, with a window that is shorter than the mel's by this factor: a finer resolution in time, while the
    # pulses give the fine structure in frequency.
    subframes: int = 1

    def __post_init__(self) -> None:
        require(
            0 < self.harmonic_max_hz <= self.mel.sample_rate / 2,
            f"vocoder.harmonic_max_hz is {self.harmonic_max_hz}; it must be between 0 and {self.mel.sample_rate / 2} Hz",
        )
        require(
            self.subframes in (1, 2, 4) and self.mel.hop_length % self.subframes == 0,
            f"vocoder.subframes is {self.subframes}; allowed are 1, 2 and 4, if they divide the mel's hop_length ({self.mel.hop_length})",
        )
        require(
            self.mel.win_length == self.mel.n_fft and self.mel.n_fft % self.mel.hop_length == 0,
            f"a vocoder needs mel.win_length equal to n_fft, and n_fft a multiple of hop_length; got {self.mel.win_length}, "
            f"{self.mel.n_fft} and {self.mel.hop_length}",
        )
        at_least(self, 0, "n_corrections", where="vocoder")
