"""The detector: fitted to normal recordings, it scores others; one file holds it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vcae.anomaly.calibration import Tail
from vcae.anomaly.distance import Gaussian
from vcae.anomaly.features import MelReader, check_wav, clip_statistics, cut, split_recordings
from vcae.anomaly.fitting import train_network
from vcae.anomaly.models import NETWORKS, Network, make_network, reconstruct
from vcae.checkpoint import find, read_header, sha256, write_tensors
from vcae.config import AnomalyConfig, from_dict, to_dict
from vcae.errors import CheckpointError, ConfigError, DataError

FORMAT = 1
KEY = "vcae_anomaly"
# The network whose code `latent` measures distances in.
LATENT_OF = "frames"


@dataclass(frozen=True)
class Anomaly:
    """What a detector says of a recording.

    Attributes:
        score: Higher is less normal; comparable within one detector.
        probability: Share of normal recordings that would score as high, 0..1; small is anomalous.
        frame_scores: (T,), the mean error of a frame over its bands; 1 is usual.
        errors: (n_mels, T), squared errors over those usual in their band.
        mel: (n_mels, T), natural log magnitude.
        reconstruction: (n_mels, T), what the network made of it, likewise.
        hop_s: Seconds from frame to frame.
        members: Score of each member of the detector.
    """

    score: float
    probability: float
    frame_scores: np.ndarray
    errors: np.ndarray
    mel: np.ndarray
    reconstruction: np.ndarray
    hop_s: float
    members: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Threshold:
    """A decision's threshold on the score.

    Attributes:
        value: A recording that scores as high or higher is called anomalous.
        reason: How it was chosen, in words.
        facts: Counts, costs and the like.
    """

    value: float
    reason: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def _network_of(member: str) -> str | None:
    """Kind of network whose output a member reads, if any."""
    return LATENT_OF if member == "latent" else member if member in NETWORKS else None


class Detector:
    """Scores recordings by how unlike normal ones they are; see `fit`, `score`, `save` and `load`."""

    def __init__(
        self,
        config: AnomalyConfig,
        tensors: dict[str, Tensor],
        threshold: Threshold | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        self.config = config
        self.decision = threshold
        self.info = dict(info or {})
        self._tensors = tensors
        self._reader = MelReader(config)
        self._mean, self._deviation = tensors["mean"][:, None], tensors["deviation"][:, None]
        kinds = {k for k in (_network_of(m) for m in config.parts) if k is not None}
        self._nets: dict[str, list[Network]] = {
            kind: [self._make(kind, f"net.{kind}.{fold}.") for fold in range(config.folds)] for kind in sorted(kinds)
        }
        self._usual = {kind: tensors[f"usual.{kind}"][:, None] for kind in self._nets}
        self._gaussians = {
            name.removesuffix(".mean"): Gaussian(
                *(tensors[name.removesuffix("mean") + part].double().numpy() for part in ("mean", "scale", "precision"))
            )
            for name in tensors
            if name.startswith("gaussian.") and name.endswith(".mean")
        }
        self._tails = {m: Tail(tensors[f"held_out.{m}"].double().numpy(), config.tail) for m in config.parts}
        self._tail = Tail(self._combine({m: tail.scores for m, tail in self._tails.items()}), config.tail)

    def _make(self, kind: str, prefix: str) -> Network:
        net = make_network(kind, self.config)
        net.load_state_dict({k.removeprefix(prefix): v for k, v in self._tensors.items() if k.startswith(prefix)}, strict=True)
        return net.eval().requires_grad_(False)

    @property
    def threshold(self) -> float | None:
        """The score from which a recording is called anomalous; None before it was chosen."""
        return None if self.decision is None else self.decision.value

    @classmethod
    def fit(
        cls,
        recordings: Sequence[np.ndarray],
        config: AnomalyConfig | None = None,
        progress: Callable[[int, int], None] | None = None,
        state: Path | None = None,
    ) -> Detector:
        """Fit a detector to normal recordings.

        Args:
            recordings: Each (N,), at the mel's sample rate.
            config: Of the detector.
            progress: Called with the number of steps done and to do.
            state: File that keeps what is done, so that the same call goes on after a stop.

        Raises:
            AudioError: If a recording cannot be used.
            DataError: If there is too little of them.
        """
        config = config or AnomalyConfig()
        if not recordings:
            raise DataError("there are no normal recordings to fit to; give some")
        recordings = [check_wav(np.asarray(wav), config, f"recording {n + 1}") for n, wav in enumerate(recordings)]
        segments, folds = split_recordings(recordings, config)
        reader = MelReader(config)
        mels = [reader(part) for part in segments]
        if config.robust == "rejection":
            first = _fit(replace(config, robust="none"), mels, folds, lambda done, total: None)
            rank = np.argsort(first._tail.scores)
            kept = sorted(rank[: max(2 * config.folds, len(rank) - round(config.trim * len(rank)))].tolist())
            mels, folds = [mels[k] for k in kept], [folds[k] for k in kept]
        return _fit(config, mels, folds, progress or (lambda done, total: None))

    def _combine(self, scores: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the detector's scores from those of its members, each (n,)."""
        if len(scores) == 1:
            return next(iter(scores.values()))
        return np.asarray(np.mean([-self._tails[m].log_probability(values) for m, values in scores.items()], axis=0))

    @torch.no_grad()
    def score(self, wav: np.ndarray) -> Anomaly:
        """Score a recording.

        Args:
            wav: (N,), at the mel's sample rate.

        Returns:
            Of a recording longer than a segment: the score of its least normal segment, and the probability that any of so
            many would score as high.

        Raises:
            AudioError: If it is shorter than a window, silent, or not finite.
        """
        config = self.config
        wav = check_wav(np.asarray(wav), config)
        parts = cut(wav, int(config.segment_s * config.mel.sample_rate))
        found = [self._score_members(self._reader(part))[0] for part in parts]
        totals = self._combine({m: np.array([f[m] for f in found]) for m in config.parts})
        worst = int(np.argmax(totals))
        p = self._tail.probability(float(totals[worst]))
        mel = self._reader(wav)
        _, errors, made = self._score_members(mel)
        return Anomaly(
            score=float(totals[worst]),
            probability=float(-np.expm1(len(parts) * np.log1p(-min(p, 1 - 1e-12)))),
            frame_scores=errors.mean(0).numpy(),
            errors=errors.numpy(),
            mel=mel.numpy(),
            reconstruction=made.numpy(),
            hop_s=1 / config.mel.frame_rate,
            members=found[worst],
        )

    def _score_members(self, mel: Tensor) -> tuple[dict[str, float], Tensor, Tensor]:
        """Return each member's score of a mel (n_mels, T), its errors and its reconstruction."""
        x = (mel - self._mean) / self._deviation
        scores: dict[str, float] = {}
        errors, made = x.square(), torch.zeros_like(x)
        runs = {kind: [reconstruct(net, x) for net in nets] for kind, nets in self._nets.items()}
        for n, (kind, outs) in enumerate(runs.items()):
            squares = torch.stack([out[1] for out in outs]).mean(0) / self._usual[kind]
            if n == 0:
                errors, made = squares, torch.stack([out[0] for out in outs]).mean(0)
            if kind in self.config.parts:
                scores[kind] = float(squares.mean())
        for member in self.config.parts:
            if member == "latent":
                codes = [code_statistics(out[2]) for out in runs[LATENT_OF]]
                scores[member] = float(
                    np.mean([self._gaussians[f"gaussian.latent.{k}"].distance(c[None])[0] for k, c in enumerate(codes)])
                )
            elif member == "statistics":
                scores[member] = float(self._gaussians["gaussian.statistics"].distance(clip_statistics(mel)[None])[0])
        return scores, errors, made * self._deviation + self._mean

    def save(self, path: str | Path, info: Mapping[str, Any] | None = None) -> None:
        """Write the detector as one safetensors file, atomically.

        Raises:
            CheckpointError: If the file cannot be written.
        """
        metadata = {
            "format": FORMAT,
            "config": to_dict(self.config),
            "info": self.info if info is None else dict(info),
            "threshold": None
            if self.decision is None
            else {"value": self.decision.value, "reason": self.decision.reason, "facts": dict(self.decision.facts)},
        }
        write_tensors(path, self._tensors, {KEY: json.dumps(metadata)})

    @classmethod
    def load(cls, path: str | Path) -> Detector:
        """Read a detector, strictly.

        Raises:
            CheckpointError: If the file is missing, a pickle, damaged, of another kind or format.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        file = find(path)
        try:
            metadata = json.loads(read_header(file)[KEY])
            version = metadata["format"]
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{file} is no anomaly detector; make one with vcae anomaly fit") from error
        if version != FORMAT:
            raise CheckpointError(f"{file} has detector format {version}; this version reads format {FORMAT}")
        try:
            tensors = load_file(file)
            config = from_dict(AnomalyConfig, metadata["config"], "config")
            kept = metadata["threshold"]
            found = cls(config, tensors, None if kept is None else Threshold(**kept), metadata["info"])
        except (ConfigError, DataError, KeyError, TypeError, ValueError, RuntimeError, OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{file} is damaged or of another version ({' '.join(str(error).split())[:200]}); fit it again"
            ) from error
        if not all(bool(v.isfinite().all()) for v in tensors.values()):
            raise CheckpointError(f"{file} holds numbers that are not finite; get a fresh copy of it")
        found.info["sha256"] = sha256(file)
        return found


def code_statistics(code: Tensor) -> np.ndarray:
    """Return mean and deviation over time of a code (D, T), as (2 * D,) float64."""
    values = code.double()
    return torch.cat([values.mean(1), values.std(1)]).numpy()


def _fit(config: AnomalyConfig, mels: list[Tensor], folds: list[int], progress: Callable[[int, int], None]) -> Detector:
    flat = torch.cat(mels, dim=1)
    mean, deviation = flat.mean(1), flat.std(1).clamp(min=0.1)
    tensors: dict[str, Tensor] = {"mean": mean, "deviation": deviation}
    normal = [(mel - mean[:, None]) / deviation[:, None] for mel in mels]
    fold_of = np.array(folds)
    parts = config.parts
    kinds = sorted({k for k in (_network_of(m) for m in parts) if k is not None})
    total = len(kinds) * config.folds * config.max_steps
    done = 0
    latent_kind = LATENT_OF if "latent" in parts else None
    for kind in kinds:
        held: list[Tensor | None] = [None] * len(mels)
        latent = np.zeros(len(mels))
        for fold in range(config.folds):
            seen = [m for m, f in zip(normal, folds, strict=True) if f != fold]
            unseen = [m for m, f in zip(normal, folds, strict=True) if f == fold]
            base = done
            net = train_network(
                kind,
                config,
                seen,
                unseen,
                config.seed * 1000 + fold,
                lambda step, base=base: progress(base + step, total),  # type: ignore[misc]
            )
            done += config.max_steps
            tensors |= {f"net.{kind}.{fold}.{k}": v for k, v in net.state_dict().items()}
            with torch.no_grad():
                outs = [reconstruct(net, mel) for mel in normal]
            for n in np.flatnonzero(fold_of == fold):
                held[n] = outs[n][1]
            if kind == latent_kind:
                codes = np.stack([code_statistics(out[2]) for out in outs])
                gaussian = Gaussian.fit(codes[fold_of != fold])
                latent[fold_of == fold] = gaussian.distance(codes[fold_of == fold])
                _keep(tensors, f"gaussian.latent.{fold}", gaussian)
        errors = [e for e in held if e is not None]
        usual = torch.stack([e.mean(1) for e in errors]).median(0).values.clamp(min=1e-4)
        tensors[f"usual.{kind}"] = usual
        if kind in parts:
            tensors[f"held_out.{kind}"] = torch.tensor([float((e / usual[:, None]).mean()) for e in errors])
        if kind == latent_kind:
            tensors["held_out.latent"] = torch.from_numpy(latent).float()
    if "statistics" in parts:
        features = np.stack([clip_statistics(mel) for mel in mels])
        scores = np.zeros(len(mels))
        for fold in range(config.folds):
            scores[fold_of == fold] = Gaussian.fit(features[fold_of != fold]).distance(features[fold_of == fold])
        _keep(tensors, "gaussian.statistics", Gaussian.fit(features))
        tensors["held_out.statistics"] = torch.from_numpy(scores).float()
    return Detector(config, tensors, info={"segments": len(mels), "seconds": round(flat.shape[1] / config.mel.frame_rate, 1)})


def _keep(tensors: dict[str, Tensor], name: str, gaussian: Gaussian) -> None:
    for part in ("mean", "scale", "precision"):
        tensors[f"{name}.{part}"] = torch.from_numpy(getattr(gaussian, part)).float()
