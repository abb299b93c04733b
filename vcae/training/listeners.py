"""Losses on conversions themselves, spoken by the frozen vocoder, by frozen networks that listen to them.

A recogniser should find in a conversion what it finds in the recording, and a network for speaker verification should take it for the
target and not for the source.

Source: perceptual losses, Johnson et al., Perceptual Losses for Real-Time Style Transfer and Super-Resolution (2016), with the features of
a recogniser and of a verifier; see `recipes/conversion/README.md`.
"""

from __future__ import annotations

import itertools
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcae.checkpoint import load
from vcae.engine.engine import DECODED_CORRECTIONS
from vcae.errors import CheckpointError
from vcae.training.recogniser import RecogniserEncoder
from vcae.training.verifier import SpeakerVerifier

# Outputs of the recogniser that are compared: early ones say more on the sound, and on the voice; the last is what its decoder gets.
LAYERS = (4, 6, 8)

Network = TypeVar("Network", bound=nn.Module)


class Listeners:
    """A frozen vocoder and the frozen networks that listen to what it speaks.

    It is not a module, so that none of them is trained or saved.

    Args:
        vocoder: Name or path of the checkpoint whose vocoder speaks.
        recogniser: Whether a recogniser listens.
        verifier: Whether a network for speaker verification listens.

    Raises:
        CheckpointError: If the checkpoint has no neural vocoder.
        VcaeError: If the package of a wanted network is not installed.
    """

    def __init__(self, vocoder: str, recogniser: bool = True, verifier: bool = False) -> None:
        found = load(vocoder).vocoder
        if found is None:
            raise CheckpointError(f"{vocoder} has no vocoder; give a checkpoint that has one")
        self.vocoder = found.eval().requires_grad_(False)
        self.recogniser = RecogniserEncoder(LAYERS).eval() if recogniser else None
        self.verifier = SpeakerVerifier().eval() if verifier else None

    def speak(self, mel: Tensor, f0: Tensor, n_samples: int) -> Tensor:
        """Return the sound (B, n_samples) of decoded mels, with as many corrections as conversions have.

        Args:
            mel: (B, n_mels, T), natural log magnitude.
            f0: (B, T) in Hz, 0 where unvoiced.
            n_samples: Length of the sound.
        """
        wav: Tensor = _on(self.vocoder, mel.device)(mel.float(), f0, n_samples, n_corrections=DECODED_CORRECTIONS)
        return wav

    def words_distance(self, spoken: Tensor, wav: Tensor) -> Tensor:
        """Return the mean absolute difference of the recogniser's features, in their standard deviations, of spoken mels and recordings.

        Args:
            spoken: (B, N).
            wav: (B, N), the recordings of the same words at the same times.
        """
        assert self.recogniser is not None
        recogniser = _on(self.recogniser, wav.device)
        with torch.no_grad():
            wanted = recogniser(wav)
        errors = [
            ((a - b).float() / b.float().flatten(0, 1).std(dim=0).clamp(min=1e-3)).abs().mean()
            for a, b in zip(recogniser(spoken), wanted, strict=True)
        ]
        return torch.stack(errors).mean()

    def voice_distances(self, spoken: Tensor, wav: Tensor, group: int, n_own: int) -> tuple[Tensor, Tensor]:
        """Return how far the verifier finds spoken crops from their voice, and how much nearer to their source than that voice is.

        Args:
            spoken: (M, N), of the first M crops; the first `n_own` have their own voice, the others that of the next group.
            wav: (B, N), all recordings, in groups of one speaker each.
            group: Crops a speaker.
            n_own: Number of crops with their own voice.

        Returns:
            distance: Mean of 1 less the cosine to the voice, from the voice's recordings without the crop itself.
            leak: Mean of the cosine to the source above that of target and source, at least 0, over those with another voice.
        """
        assert self.verifier is not None
        verifier = _on(self.verifier, wav.device)
        with torch.no_grad():
            real = verifier(wav)
            every = real.view(-1, group, real.shape[-1]).sum(1).repeat_interleave(group, dim=0)
            source, own = F.normalize(every, dim=-1), F.normalize(every - real, dim=-1)
            keeps = (torch.arange(len(wav), device=wav.device) < n_own)[:, None]
            target = torch.where(keeps, own, source.roll(group, dims=0))[: len(spoken)]
        found, source = verifier(spoken), source[: len(spoken)]
        excess = (found * source).sum(-1) - (target * source).sum(-1)
        return 1 - (found * target).sum(-1).mean(), excess[n_own:].clamp(min=0).sum() / max(len(spoken) - n_own, 1)


def _on(network: Network, device: torch.device) -> Network:
    """Move a network to a device, unless it is there: going through all of its tensors each step takes as long as running it."""
    first = next(itertools.chain(network.parameters(), network.buffers()))
    return network if first.device == device else network.to(device)
