"""Open-set classification: the class of a recording with its confidence, or "unknown".

C classes, D dimensions of an embedding. Three scores of being unknown, each larger for recordings less similar to any class:

- softmax: 1 - the highest probability (Hendrycks and Gimpel, A Baseline for Detecting Misclassified and Out-of-Distribution Examples, 2017)
- energy: - log sum exp of the logits (Liu et al., Energy-based Out-of-distribution Detection, 2020)
- distance: squared Mahalanobis distance of the embedding to the nearest class (Lee et al., A Simple Unified Framework for Detecting
  Out-of-Distribution Samples and Adversarial Attacks, 2018), less that to all classes taken as one (Ren et al., A Simple Fix to Mahalanobis
  Distance for Improving Near-OOD Detection, 2021)
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcae.anomaly import metrics
from vcae.anomaly.config import UNKNOWN_SCORES, OpenSetConfig
from vcae.anomaly.features import SILENCE
from vcae.audio.mel import LogMel
from vcae.checkpoint import write_tensors
from vcae.config import from_dict, to_dict
from vcae.errors import AudioError, CheckpointError, ConfigError, DataError
from vcae.model.blocks import ConvNeXtStack
from vcae.model_file import FORMAT, find, read_metadata

# Shortest recording in s.
MIN_S = 0.1
# Longer recordings are processed in parts of this length, whose logits and embeddings are averaged.
PART_S = 10.0
TEMPERATURES = np.geomspace(0.5, 5.0, 24)


class ClassNet(nn.Module):
    """Classifier network: ConvNeXt blocks over a mel, an embedding of their mean and standard deviation over time, and a linear layer.

    Shape:
        - mel: (B, n_mels, T), natural log magnitude
        - output: logits (B, C) and embedding (B, D)
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: OpenSetConfig, n_classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(config.mel.n_mels, 1))
        self.register_buffer("deviation", torch.ones(config.mel.n_mels, 1))
        self.enter = nn.Conv1d(config.mel.n_mels, config.width, 1)
        self.stack = ConvNeXtStack(config.width, config.n_blocks)
        self.embed = nn.Sequential(nn.LayerNorm(2 * config.width), nn.Linear(2 * config.width, config.embedding_dim), nn.GELU())
        self.head = nn.Linear(config.embedding_dim, n_classes)

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stack(self.enter((mel - self.mean) / self.deviation))
        embedding = self.embed(torch.cat([x.mean(-1), (x.var(-1, unbiased=False) + 1e-5).sqrt()], dim=1))
        return self.head(embedding), embedding


@dataclass(frozen=True)
class Classified:
    """Result of classifying a recording.

    Attributes:
        label: The class, or None for unknown.
        best: Most likely class, even if the recording counts as unknown.
        confidence: Probability of `best` among the known classes, 0..1.
        scores: softmax, energy and distance: larger for recordings less similar to any class.
        threshold: Threshold of the score `by`.
        by: Name of the score that decided.
    """

    label: str | None
    best: str
    confidence: float
    scores: dict[str, float]
    threshold: float
    by: str


def check_wav(wav: np.ndarray, sample_rate: int, name: str = "the recording") -> None:
    """Check that a recording can be classified.

    Raises:
        AudioError: If the recording (N,) is shorter than `MIN_S` or silent.
    """
    if len(wav) < MIN_S * sample_rate:
        raise AudioError(f"{name} has {len(wav) / sample_rate:.3f} s; at least {MIN_S} s are needed, so give a longer one")
    peak = float(np.abs(wav).max(initial=0))
    if not peak >= SILENCE:
        raise AudioError(f"{name} is silent (peak {peak:.1e}); check the microphone or the file")


class OpenSetClassifier:
    """Classifier of sounds that recognises unknown ones.

    Attributes:
        config: Settings.
        classes: Names of the classes, in the order of the logits.
        thresholds: Threshold of each score; recordings above it are unknown.
        facts: Plain data on the fit: numbers of recordings, and results on those held out.
    """

    def __init__(
        self,
        config: OpenSetConfig,
        classes: Sequence[str],
        net: ClassNet,
        places: Mapping[str, Tensor],
        temperature: float,
        thresholds: Mapping[str, float],
        facts: Mapping[str, Any],
    ) -> None:
        self.config, self.classes, self.net = config, tuple(classes), net.eval().requires_grad_(False)
        self.temperature = temperature
        # Statistics of the classes' embeddings, see `_fit_places`.
        self.places = dict(places)
        self.thresholds, self.facts = dict(thresholds), dict(facts)
        self._mel = LogMel(config.mel)

    @classmethod
    def fit(
        cls,
        recordings: Sequence[np.ndarray],
        labels: Sequence[str],
        config: OpenSetConfig | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> OpenSetClassifier:
        """Train on labelled recordings, and set the thresholds from held-out recordings of each class.

        Args:
            recordings: (N,) each, at `config.mel.sample_rate`, -1..1.
            labels: The class of each recording.
            config: Settings.
            progress: Called with the number of steps done and the total.

        Raises:
            DataError: If there are fewer than two classes, or none of them has two recordings.
            AudioError: If a recording is silent or too short.
        """
        config = config or OpenSetConfig()
        classes, held = split(labels, config)
        for n, wav in enumerate(recordings):
            check_wav(wav, config.mel.sample_rate, f"recording {n} of class {labels[n]}")
        extract = LogMel(config.mel)
        with torch.inference_mode():
            mels = [extract(torch.from_numpy(np.ascontiguousarray(wav, np.float32))[None])[0] for wav in recordings]
        # Inference tensors cannot be used in training.
        mels = [mel.clone() for mel in mels]
        target = torch.tensor([classes.index(label) for label in labels])
        learned = [n for n in range(len(mels)) if n not in held]
        generator = torch.Generator().manual_seed(config.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            net = ClassNet(config, len(classes))
        frames = torch.cat([mels[n] for n in learned], dim=1)
        net.mean.copy_(frames.mean(1, keepdim=True))
        net.deviation.copy_(frames.std(1, keepdim=True).clamp(min=0.1))
        _train(net, [mels[n] for n in learned], target[learned], config, generator, progress)
        net.eval().requires_grad_(False)
        places = _fit_places(net, [mels[n] for n in learned], target[learned])
        made = cls(config, classes, net, places, 1.0, dict.fromkeys(UNKNOWN_SCORES, math.inf), {})
        made._calibrate([mels[n] for n in sorted(held)], target[sorted(held)], len(learned), Counter(labels))
        return made

    def _calibrate(self, mels: Sequence[Tensor], target: Tensor, n_learned: int, sizes: Counter[str]) -> None:
        """Set the temperature, and the thresholds that accept the fraction `keep` of the held-out recordings."""
        logits = torch.stack([self._read(mel)[0] for mel in mels])
        losses = [float(F.cross_entropy(logits / t, target)) for t in TEMPERATURES]
        self.temperature = float(TEMPERATURES[int(np.argmin(losses))])
        scores = [self.score_mel(mel)[1] for mel in mels]
        self.thresholds = {k: float(np.quantile([s[k] for s in scores], self.config.keep, method="higher")) for k in scores[0]}
        self.facts = {
            "recordings": dict(sizes),
            "learned": n_learned,
            "held_out": len(mels),
            "held_out_accuracy": round(float((logits.argmax(1) == target).float().mean()), 4),
            "single": sorted(name for name, n in sizes.items() if n == 1),
        }

    @torch.inference_mode()
    def _read(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (C,) and embedding (D,) of a mel (n_mels, T)."""
        part = max(1, round(PART_S * self.config.mel.frame_rate))
        # All parts have nearly the same length.
        parts = torch.tensor_split(mel, max(1, math.ceil(mel.shape[1] / part)), dim=1)
        found = [self.net(p[None]) for p in parts]
        return torch.stack([f[0][0] for f in found]).mean(0), torch.stack([f[1][0] for f in found]).mean(0)

    @torch.inference_mode()
    def score_mel(self, mel: Tensor) -> tuple[np.ndarray, dict[str, float]]:
        """Return the probabilities (C,) of the classes and the scores of being unknown for a mel (n_mels, T)."""
        logits, embedding = self._read(mel)
        probabilities = (logits / self.temperature).softmax(0)
        p, point = self.places, embedding.double()
        near = _squared_distance(point - p["means"], p["precision"]).min()
        distance = near - _squared_distance(point - p["centre"], p["spread"])
        scores = {
            "softmax": float(1 - probabilities.max()),
            "energy": -float(logits.logsumexp(0)),
            "distance": float(distance),
        }
        return probabilities.numpy(), scores

    def classify(self, wav: np.ndarray, by: str | None = None, threshold: float | None = None) -> Classified:
        """Classify a recording.

        Args:
            wav: (N,) at `config.mel.sample_rate`.
            by: Name of the score that decides; that of the config when None.
            threshold: Threshold of that score; the model's own when None.

        Raises:
            AudioError: If the recording is silent or too short.
            ConfigError: If there is no such score.
        """
        by = by or self.config.by
        if by not in UNKNOWN_SCORES:
            raise ConfigError(f"there is no score {by!r}; allowed are {', '.join(UNKNOWN_SCORES)}")
        check_wav(wav, self.config.mel.sample_rate)
        with torch.inference_mode():
            mel = self._mel(torch.from_numpy(np.ascontiguousarray(wav, np.float32))[None])[0]
        probabilities, scores = self.score_mel(mel)
        best = self.classes[int(probabilities.argmax())]
        limit = self.thresholds[by] if threshold is None else threshold
        known = scores[by] <= limit
        return Classified(best if known else None, best, float(probabilities.max()), scores, limit, by)

    def save(self, path: str | Path, info: Mapping[str, Any] | None = None) -> None:
        """Write the model as safetensors.

        Raises:
            CheckpointError: If the file cannot be written.
        """
        tensors = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        tensors |= {f"places.{k}": v for k, v in self.places.items()}
        about = {
            "config": to_dict(self.config),
            "classes": list(self.classes),
            "temperature": self.temperature,
            "thresholds": self.thresholds,
            "facts": self.facts,
        }
        write_tensors(path, tensors, {"vcae": json.dumps({"format": FORMAT, "classes": about, "info": dict(info or {})})})

    @classmethod
    def load(cls, path: str | Path) -> OpenSetClassifier:
        """Read a model, strictly.

        Raises:
            CheckpointError: If it is missing, a pickle, damaged, or not a classifier.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        file = find(path)
        about = read_metadata(file).get("classes")
        if not isinstance(about, dict):
            raise CheckpointError(f"{file} is not a classifier; make one with `vcae anomaly fit-classes`")
        try:
            config = from_dict(OpenSetConfig, about["config"], "classes")
            tensors = load_file(file)
            net = ClassNet(config, len(about["classes"]))
            net.load_state_dict({k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")}, strict=True)
            places = {k.removeprefix("places."): v for k, v in tensors.items() if k.startswith("places.")}
            d = config.embedding_dim
            shapes = {"means": (len(about["classes"]), d), "precision": (d, d), "centre": (d,), "spread": (d, d)}
            if {k: tuple(v.shape) for k, v in places.items()} != shapes or len(tensors) != len(net.state_dict()) + len(shapes):
                raise CheckpointError(f"{file} does not fit its own config (classes' places); get a fresh copy of it")
            if not all(bool(v.isfinite().all()) for v in tensors.values()):
                raise CheckpointError(f"{file} holds weights that are not finite; get a fresh copy of it")
            thresholds = {k: float(about["thresholds"][k]) for k in UNKNOWN_SCORES}
            return cls(config, about["classes"], net, places, float(about["temperature"]), thresholds, about["facts"])
        except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError, OSError, ConfigError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{file} is damaged or of another version ({reason}); fit the classes again") from error


def split(labels: Sequence[str], config: OpenSetConfig) -> tuple[list[str], set[int]]:
    """Return the sorted classes, and the indices of held-out recordings: a fraction of each class with more than one.

    Raises:
        DataError: If there are fewer than two classes, or each has a single recording.
    """
    sizes = Counter(labels)
    if len(sizes) < 2:
        raise DataError(
            f"there is {len(sizes)} class ({', '.join(sizes) or 'none'}); give at least 2, or use `vcae anomaly fit` for one"
        )
    if max(sizes.values()) < 2:
        raise DataError(
            f"each of the {len(sizes)} classes has a single file; at least one class needs 2, one for training and one for the threshold"
        )
    rng = np.random.default_rng(config.seed)
    held: set[int] = set()
    for name in sorted(sizes):
        own = rng.permutation([n for n, label in enumerate(labels) if label == name])
        held |= set(own[: min(max(1, round(config.held_out * len(own))), len(own) - 1)].tolist())
    return sorted(sizes), held


def _crop(mel: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Return a random crop of n frames of a mel (n_mels, T), which is repeated if it is shorter."""
    if mel.shape[1] < n:
        mel = mel.repeat(1, math.ceil(n / mel.shape[1]))
    start = int(torch.randint(mel.shape[1] - n + 1, (1,), generator=generator))
    return mel[:, start : start + n]


def _train(
    net: ClassNet,
    mels: Sequence[Tensor],
    target: Tensor,
    config: OpenSetConfig,
    generator: torch.Generator,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Train on random crops with varied level and masked bands and frames; classes are balanced."""
    n_frames = max(8, round(config.crop_s * config.mel.frame_rate))
    share = 1.0 / torch.bincount(target)[target].double()
    optimizer = torch.optim.AdamW(net.parameters(), lr=config.learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=config.max_steps, pct_start=0.1)
    net.train()
    for step in range(config.max_steps):
        drawn = torch.multinomial(share, config.batch_size, replacement=True, generator=generator)
        batch = torch.stack([_crop(mels[n], n_frames, generator) for n in drawn.tolist()])
        batch = _vary(batch, net.mean, config, generator)
        # Mixing crops of a batch (mixup) lowers the confidence between classes.
        weight = torch.rand(len(batch), 1, 1, generator=generator).clamp(0.5, 1) if config.mix else torch.ones(len(batch), 1, 1)
        other = torch.randperm(len(batch), generator=generator)
        mixed = weight * batch + (1 - weight) * batch[other]
        strange = _estrange(batch[: round(config.strange * len(batch))], generator)
        logits, of_strange = net(torch.cat([mixed, strange]))[0].split([len(mixed), len(strange)])
        weight = weight[:, 0, 0]
        losses = [
            F.cross_entropy(logits, t, reduction="none", label_smoothing=0.05) for t in (target[drawn], target[drawn[other]])
        ]
        loss = (weight * losses[0] + (1 - weight) * losses[1]).mean()
        if len(strange):
            # Sounds of no class are trained towards equal probabilities of all classes.
            loss = loss - 0.5 * of_strange.log_softmax(1).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, config.max_steps)


def _estrange(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Generate sounds (B, n_mels, T) of no class: with another spectral envelope, shuffled in time, or reversed in frequency.

    Source: after Hendrycks et al., Deep Anomaly Detection with Outlier Exposure (2019), with outliers generated from the data itself.
    """
    bands = torch.linspace(0, math.pi, batch.shape[1])
    waves = torch.cos(bands[None] * torch.arange(1, 6)[:, None])
    colour = 2.0 * torch.randn(len(batch), 5, generator=generator) @ waves
    still = batch.mean(2, keepdim=True) + 0.5 * torch.randn(batch.shape, generator=generator)
    kind = torch.randint(3, (len(batch), 1, 1), generator=generator)
    base = torch.where(kind == 0, batch, torch.where(kind == 1, still, batch.flip(1)))
    return base + colour.unsqueeze(2)


def _vary(batch: Tensor, mean: Tensor, config: OpenSetConfig, generator: torch.Generator) -> Tensor:
    """Change the level of each item of (B, n_mels, T), and mask a run of its bands and of its frames."""
    out = batch + (2 * torch.rand(len(batch), 1, 1, generator=generator) - 1) * (config.gain_db * math.log(10) / 20)
    for dim, most in ((1, batch.shape[1] // 8), (2, batch.shape[2] // 4)):
        size = batch.shape[dim]
        length = torch.randint(0, max(most, 1) + 1, (len(batch), 1), generator=generator)
        start = (torch.rand(len(batch), 1, generator=generator) * (size - length)).long()
        at = torch.arange(size)[None]
        hidden = (at >= start) & (at < start + length)
        out = torch.where(hidden.unsqueeze(3 - dim), mean, out)
    return out


def _squared_distance(away: Tensor, precision: Tensor) -> Tensor:
    """Return the squared Mahalanobis length (...) of differences (..., D)."""
    length: Tensor = ((away @ precision) * away).sum(-1)
    return length


@torch.inference_mode()
def _fit_places(net: ClassNet, mels: Sequence[Tensor], target: Tensor) -> dict[str, Tensor]:
    """Return Gaussian statistics of embeddings: class means (C, D) with a shared precision (D, D), and mean and precision over all classes."""
    points = torch.stack([net(mel[None])[1][0] for mel in mels]).double()
    means = torch.stack([points[target == c].mean(0) for c in range(int(target.max()) + 1)])
    centre = points.mean(0)
    return {
        "means": means,
        "precision": _precision(points - means[target]),
        "centre": centre,
        "spread": _precision(points - centre),
    }


def _precision(away: Tensor) -> Tensor:
    """Return the inverse (D, D) of the covariance of differences (n, D), shrunk (Ledoit and Wolf, 2004)."""
    from sklearn.covariance import ledoit_wolf

    covariance = torch.from_numpy(ledoit_wolf(away.numpy(), assume_centered=True)[0])
    # With a single recording per class all differences are zero.
    floor = covariance.diagonal().mean().clamp(min=1e-6)
    inverse: Tensor = torch.linalg.inv(covariance + 1e-6 * floor * torch.eye(len(covariance), dtype=covariance.dtype))
    return inverse


def judge_open_set(
    truth: Sequence[str | None], found: Sequence[Classified], thresholds: Mapping[str, float], n: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Evaluate classification of known recordings and rejection of unknown ones.

    Args:
        truth: The class of each recording; None for unknown ones.
        found: Results of the model.
        thresholds: Threshold of each score.
        n: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Returns:
        `closed_accuracy`: fraction of the known recordings whose most likely class is correct; and for each score `auroc` of unknown against
        known (an Interval), `accepted`: fraction of the known recordings that are accepted with the correct class, `rejected`: fraction of the
        unknown ones called unknown, `open_accuracy`: the mean of the two, independent of the numbers of recordings.

    Raises:
        DataError: If recordings of either kind are missing.
    """
    unknown = np.array([t is None for t in truth])
    metrics.check(unknown, np.zeros(len(found)))
    right = np.array([t == f.best for t, f in zip(truth, found, strict=True)])
    result: dict[str, Any] = {"closed_accuracy": float(right[~unknown].mean())}
    for name in UNKNOWN_SCORES:
        scores = np.array([f.scores[name] for f in found])
        called = scores > thresholds[name]
        accepted, rejected = float((right & ~called)[~unknown].mean()), float(called[unknown].mean())
        result[name] = {
            "auroc": metrics.bootstrap([(unknown, scores)], metrics.auc, n, seed),
            "accepted": accepted,
            "rejected": rejected,
            "open_accuracy": (accepted + rejected) / 2,
        }
    return result
