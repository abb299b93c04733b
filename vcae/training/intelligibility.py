"""Losses on conversions themselves, spoken by the frozen vocoder: a recogniser should find in them what it finds in the recording.

Source: perceptual losses, Johnson et al., Perceptual Losses for Real-Time Style Transfer and Super-Resolution (2016), with a recogniser's
features; see `recipes/conversion/README.md`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vcae.checkpoint import load
from vcae.engine.engine import DECODED_CORRECTIONS
from vcae.errors import CheckpointError
from vcae.training.recogniser import RecogniserEncoder

# Outputs of the recogniser that are compared: early ones say more on the sound, and on the voice; the last is what its decoder gets.
LAYERS = (4, 6, 8)


class Intelligibility:
    """Distance between what a recogniser finds in decoded mels and in the recordings of the same words at the same times.

    It is not a module, so that neither the recogniser nor the vocoder is trained or saved.

    Args:
        vocoder: Name or path of the checkpoint whose vocoder speaks.
        layers: Layers of the recogniser that are compared.

    Raises:
        CheckpointError: If the checkpoint has no neural vocoder.
        VcaeError: If the recogniser's package is not installed.
    """

    def __init__(self, vocoder: str, layers: tuple[int, ...] = LAYERS) -> None:
        found = load(vocoder).vocoder
        if found is None:
            raise CheckpointError(f"{vocoder} has no vocoder; give a checkpoint that has one")
        self.vocoder = found.eval().requires_grad_(False)
        self.recogniser = RecogniserEncoder(layers).eval()

    def speak(self, mel: Tensor, f0: Tensor, n_samples: int) -> Tensor:
        """Return the sound (B, n_samples) of decoded mels, with as many corrections as conversions have.

        Args:
            mel: (B, n_mels, T), natural log magnitude.
            f0: (B, T) in Hz, 0 where unvoiced.
            n_samples: Length of the sound.
        """
        wav: Tensor = self.vocoder.to(mel.device)(mel.float(), f0, n_samples, n_corrections=DECODED_CORRECTIONS)
        return wav

    def distance(self, spoken: Tensor, wav: Tensor) -> Tensor:
        """Return the mean absolute difference of features, in their standard deviations, of spoken mels and recordings, both (B, N)."""
        recogniser = self.recogniser.to(wav.device)
        with torch.no_grad():
            wanted = recogniser(wav)
        errors = [
            ((a - b).float() / b.float().flatten(0, 1).std(dim=0).clamp(min=1e-3)).abs().mean()
            for a, b in zip(recogniser(spoken), wanted, strict=True)
        ]
        return torch.stack(errors).mean()
