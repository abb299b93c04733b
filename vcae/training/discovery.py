"""Unit discovery without labels: prediction of the cluster of each step from masked speech in a warped voice."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcae.audio.frames import active_frames, weighted_moments
from vcae.audio.mel import LogMel
from vcae.checkpoint import load
from vcae.errors import CheckpointError
from vcae.model.autoencoder import Autoencoder
from vcae.model.blocks import ConvNeXtStack
from vcae.model.quantizer import kmeans
from vcae.training.config import DiscoveryRecipe
from vcae.training.draws import Draws
from vcae.training.objectives import Objective, borrow
from vcae.training.perturb import Perturbation

N_CEPSTRUM = 13
# Frames to each side over which a delta (slope) is computed.
DELTA_FRAMES = 2
# Approximate fraction of masked frames, and length of a mask in seconds.
MASK_SHARE, MASK_S = 0.4, 0.16
# Weight of masked frames relative to the others.
MASK_WEIGHT = 2.0
# Blocks between the latent and the prediction; they are not saved.
PREDICTOR_BLOCKS = 3


def mfcc(mel: Tensor) -> Tensor:
    """Return cepstra with their deltas and double deltas, each with zero mean and unit standard deviation over the item's active frames.

    Args:
        mel: (B, n_mels, T), natural log magnitude.

    Returns:
        (B, 3 * N_CEPSTRUM, T).
    """
    n_mels = mel.shape[1]
    band = torch.arange(n_mels, device=mel.device) + 0.5
    order = torch.arange(N_CEPSTRUM, device=mel.device)
    cosines = torch.cos(torch.pi / n_mels * order[:, None] * band)
    features = [cosines @ mel]
    for _ in range(2):
        padded = F.pad(features[-1], (DELTA_FRAMES, DELTA_FRAMES), mode="replicate")
        slopes = [k * padded[..., DELTA_FRAMES + k :][..., : mel.shape[-1]] for k in range(-DELTA_FRAMES, DELTA_FRAMES + 1)]
        features.append(torch.stack(slopes).sum(0))
    joined = torch.cat(features, dim=1)
    mean, deviation = weighted_moments(joined, active_frames(mel))
    return (joined - mean) / deviation


class MaskedPredictionObjective(Objective):
    """Masked prediction: the cluster of each step of clean speech from masked speech in a warped voice.

    The first round clusters MFCC, later ones the latent of a model from the round before. The random warp removes information about
    the voice, and masked steps have to be predicted from their context; both favour phones.

    Args:
        recipe: Settings. Only the content encoder of its model is trained.

    Source: Hsu et al., HuBERT (2021); warped views of one clustering, Chang et al., Spin (2023).
    """

    centroids: Tensor

    def __init__(self, recipe: DiscoveryRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.model: Autoencoder = Autoencoder(recipe.model)
        self.log_mel = LogMel(recipe.model.mel)
        self.perturb = Perturbation(recipe.perturb, recipe.model.mel)
        if recipe.borrowed is not None:
            # All except the content encoder: one trained for reconstruction finds worse units than one initialised at random.
            borrow(self.model, recipe.borrowed, skip="content_encoder.")
        if recipe.initial is not None:
            borrow(self.model, recipe.initial)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name.startswith("content_encoder."))
        dim = recipe.model.content.latent_dim
        self.widen = nn.Linear(dim, recipe.model.content.width)
        self.predictor = ConvNeXtStack(recipe.model.content.width, PREDICTOR_BLOCKS)
        self.output = nn.Linear(recipe.model.content.width, recipe.n_targets)
        # In a list, so that the frozen teacher is neither trained nor saved.
        self._teacher: list[Autoencoder] = []
        n_features = 3 * N_CEPSTRUM
        if recipe.teacher is not None:
            found = load(recipe.teacher)
            if found.autoencoder is None:
                raise CheckpointError(f"{found.path} has no autoencoder; give a teacher that has one")
            self._teacher.append(found.autoencoder)
            n_features = found.autoencoder.config.content.latent_dim
        self.register_buffer("centroids", torch.zeros(recipe.n_targets, n_features))

    def features(self, mel: Tensor) -> Tensor:
        """Return the features to cluster (B, D, ceil(T / stride)) of a clean log-mel (B, n_mels, T)."""
        if self._teacher:
            return self._teacher[0].to(mel.device).encode_latent(mel)
        stride = self.recipe.model.content.stride
        return F.avg_pool1d(F.pad(mfcc(mel), (0, -mel.shape[-1] % stride), mode="replicate"), stride)

    @torch.no_grad()
    def initialize(self, batches: Iterable[dict[str, Tensor]]) -> None:
        """Cluster the features of the first batches."""
        found = torch.cat([self.features(self.log_mel(batch["wav"])).transpose(1, 2).flatten(0, 1) for batch in batches])
        # Without scaling: equal deviations would amplify the least informative features of a teacher.
        self.centroids.copy_(kmeans(found, self.recipe.n_targets, 30)[0])

    def targets(self, mel: Tensor) -> Tensor:
        """Return the clusters (B, ceil(T / stride)) of a clean log-mel (B, n_mels, T)."""
        nearest: Tensor = torch.cdist(self.features(mel).transpose(1, 2), self.centroids).argmin(dim=-1)
        return nearest

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        recipe = self.recipe
        draws = Draws.of(batch, 1)
        with torch.no_grad(), torch.autocast(batch["wav"].device.type, enabled=False):
            mel = self.log_mel(batch["wav"])
            targets = self.targets(mel)
            seen = self.perturb(mel, draws) if self.training else mel
            span = max(1, round(MASK_S * recipe.model.mel.frame_rate))
            starts = draws.uniform(len(mel), 1, mel.shape[-1]).to(mel.device) < MASK_SHARE / span
            hidden = F.max_pool1d(F.pad(starts.float(), (span - 1, 0)), span, 1)
            seen = torch.where(hidden > 0, seen.mean(dim=-1, keepdim=True), seen)
        latent = self.model.encode_latent(seen)
        logits = self.output(self.predictor(self.widen(latent.transpose(1, 2)).transpose(1, 2)).transpose(1, 2))
        stride = recipe.model.content.stride
        masked = F.max_pool1d(F.pad(hidden, (0, -mel.shape[-1] % stride)), stride)[:, 0]
        wrong = F.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none")
        right = (logits.argmax(dim=-1) == targets).float()
        weight = 1 + (MASK_WEIGHT - 1) * masked
        return {
            "loss": (wrong * weight).sum() / weight.sum(),
            "right_hidden": (right * masked).sum() / masked.sum().clamp(min=1),
            "right_seen": (right * (1 - masked)).sum() / (1 - masked).sum().clamp(min=1),
        }
