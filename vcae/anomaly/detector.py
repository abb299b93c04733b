"""The detector: fitted to normal recordings, it scores others; one file holds it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vcae.anomaly.calibration import Tail, combine
from vcae.anomaly.distance import Gaussian
from vcae.anomaly.features import (
    LEAST_SPREAD,
    EncoderReader,
    MelReader,
    check_wav,
    clip_statistics,
    cut,
    modulation_statistics,
    split_recordings,
)
from vcae.anomaly.fitting import train_network
from vcae.anomaly.models import NETWORKS, Network, make_network, reconstruct
from vcae.checkpoint import find, read_header, sha256, write_tensors
from vcae.config import AnomalyConfig, MelConfig, from_dict, to_dict
from vcae.errors import CheckpointError, ConfigError, DataError

FORMAT = 1
KEY, STATE_KEY = "vcae_anomaly", "vcae_anomaly_state"
# Recordings are not scored in parts shorter than this, in s.
MIN_SEGMENT_S = 1.0
# The network whose code `latent` measures distances in.
LATENT_OF = "frames"
GAUSSIAN_PARTS = ("mean", "scale", "axes", "weights")
# Members that are a distance between statistics of clips.
STATISTICS = ("statistics", "modulation", "encoder")
# Of members in a combination, 1 for the others: what few recordings teach a network adds less than distances do.
WEIGHTS = {**dict.fromkeys(NETWORKS, 0.25), "latent": 0.25}
# Rounds of leaving out the most anomalous recordings.
REJECTIONS = 2
# Parts at most in which clips are held out from a distance.
HELD_OUT_PARTS = 40


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


@dataclass(frozen=True)
class _Heard:
    scores: dict[str, float]
    errors: Tensor
    made: Tensor


def _network_of(member: str) -> str | None:
    """Kind of network whose output a member reads, if any."""
    return LATENT_OF if member == "latent" else member if member in NETWORKS else None


def _kinds(config: AnomalyConfig) -> list[str]:
    """Kinds of networks that a detector holds; the first draws its picture. One is there in any case, to say when and where."""
    kinds = [k for k in dict.fromkeys(_network_of(m) for m in config.parts) if k is not None]
    return kinds or ["interpolation"]


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
        self._nets: dict[str, list[Network]] = {
            kind: [self._make(kind, f"net.{kind}.{fold}.") for fold in range(config.folds)] for kind in _kinds(config)
        }
        self._usual = {kind: tensors[f"usual.{kind}"][:, None] for kind in self._nets}
        encoder = {k.removeprefix("encoder."): v for k, v in tensors.items() if k.startswith("encoder.")}
        self._encoder = EncoderReader(encoder) if encoder else None
        self._gaussians = {
            name.removesuffix(".mean"): Gaussian(
                *(tensors[name.removesuffix("mean") + part].double().numpy() for part in GAUSSIAN_PARTS)
            )
            for name in tensors
            if name.startswith("gaussian.") and name.endswith(".mean")
        }
        self._tails = {m: Tail(tensors[f"held_out.{m}"].double().numpy(), config.tail) for m in config.parts}
        self._tail = Tail(combine(self._tails, {m: tail.scores for m, tail in self._tails.items()}, WEIGHTS), config.tail)

    def _make(self, kind: str, prefix: str) -> Network:
        net = make_network(kind, self.config)
        net.load_state_dict({k.removeprefix(prefix): v for k, v in self._tensors.items() if k.startswith(prefix)}, strict=True)
        return net.eval().requires_grad_(False)

    @property
    def threshold(self) -> float | None:
        """The score from which a recording is called anomalous; None before it was chosen."""
        return None if self.decision is None else self.decision.value

    def score_at(self, probability: float) -> float:
        """Return the score that this share of normal recordings would reach, by the calibration."""
        from scipy.optimize import brentq

        low, high = self._tail.mean - 20 * self._tail.deviation, self._tail.mean + 100 * self._tail.deviation
        if self.config.tail == "empirical":
            return float(np.quantile(self._tail.scores, 1 - probability))
        return float(brentq(lambda score: self._tail.probability(score) - probability, low, high))

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
        if "encoder" in config.parts and config.mel.sample_rate != MelConfig().sample_rate:
            raise ConfigError(
                f"mel.sample_rate is {config.mel.sample_rate}; the member encoder hears {MelConfig().sample_rate} Hz, so leave it out"
            )
        segments, folds, groups = split_recordings(recordings, config)
        return fit_segments(config, segments, np.array(folds), np.array(groups), progress or (lambda done, total: None), state)

    @property
    def segment_s(self) -> float:
        """Length of the recordings that the scores were calibrated on, at the median; in s."""
        return float(self._tensors["segment_s"])

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
        parts = cut(wav, int(max(self.segment_s, MIN_SEGMENT_S) * config.mel.sample_rate))
        found = [self._hear(part) for part in parts]
        totals = combine(self._tails, {m: np.array([f.scores[m] for f in found]) for m in config.parts}, WEIGHTS)
        worst = int(np.argmax(totals))
        p = self._tail.probability(float(totals[worst]))
        mel = self._reader(wav)
        errors, made = (found[0].errors, found[0].made) if len(parts) == 1 else self._run(mel)[:2]
        return Anomaly(
            score=float(totals[worst]),
            probability=float(-np.expm1(len(parts) * np.log1p(-min(p, 1 - 1e-12)))),
            frame_scores=errors.mean(0).numpy(),
            errors=errors.numpy(),
            mel=mel.numpy(),
            reconstruction=made.numpy(),
            hop_s=1 / config.mel.frame_rate,
            members=found[worst].scores,
        )

    def _run(self, mel: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor], dict[str, list[Tensor]]]:
        """Return the first network's errors and reconstruction, and of all networks errors and codes, of a mel (n_mels, T)."""
        x = (mel - self._mean) / self._deviation
        errors: dict[str, Tensor] = {}
        codes: dict[str, list[Tensor]] = {}
        made = x
        for n, (kind, nets) in enumerate(self._nets.items()):
            outs = [reconstruct(net, x) for net in nets]
            errors[kind] = torch.stack([out[1] for out in outs]).mean(0) / self._usual[kind]
            codes[kind] = [out[2] for out in outs]
            if n == 0:
                made = torch.stack([out[0] for out in outs]).mean(0)
        return errors[next(iter(self._nets))], made * self._deviation + self._mean, errors, codes

    def _hear(self, wav: np.ndarray) -> _Heard:
        """Return each member's score of one segment (N,), with the errors and the reconstruction of the first network."""
        mel = self._reader(wav)
        first, made, errors, codes = self._run(mel)
        scores: dict[str, float] = {}
        for member in self.config.parts:
            if member in NETWORKS:
                scores[member] = self._log_distance(member, error_statistics(errors[member]))
            elif member == "latent":
                scores[member] = float(
                    np.mean([self._log_distance(f"latent.{k}", code_statistics(c)) for k, c in enumerate(codes[LATENT_OF])])
                )
            else:
                scores[member] = self._log_distance(member, statistics_of(member, wav, mel, self._encoder))
        return _Heard(scores, first, made)

    def _log_distance(self, name: str, features: np.ndarray) -> float:
        return float(np.log(self._gaussians[f"gaussian.{name}"].distance(features[None])[0] + 1e-3))

    def save(self, path: str | Path, info: Mapping[str, Any] | None = None) -> None:
        """Write the detector as one safetensors file, atomically.

        Raises:
            CheckpointError: If the file cannot be written.
        """
        metadata = {
            "format": FORMAT,
            "config": to_dict(self.config),
            "info": {k: v for k, v in (self.info if info is None else info).items() if k != "sha256"},
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
    """Return mean and log deviation over time of a code (D, T), as (2 * D,) float64."""
    values = code.double()
    return torch.cat([values.mean(1), (values.std(1) + LEAST_SPREAD).log()]).numpy()


def error_statistics(errors: Tensor) -> np.ndarray:
    """Return what errors (n_mels, T) over those usual in their band say of a clip: each band's log mean, and the deviation of its logs.

    Compared by distance, as the mean over all bands hides a band that is wrong behind those that are hard, and a fault that is
    reconstructed too well behind others.

    Returns:
        (2 * n_mels,), float64.
    """
    values = errors.double()
    return torch.cat([(values.mean(1) + 1e-3).log(), (values + 1e-3).log().std(1)]).numpy()


def statistics_of(member: str, wav: np.ndarray, mel: Tensor, encoder: EncoderReader | None) -> np.ndarray:
    """Return the features (D,) of a clip that a member of `STATISTICS` measures distances between."""
    if member == "encoder":
        assert encoder is not None
        return encoder(wav)
    return clip_statistics(mel) if member == "statistics" else modulation_statistics(mel)


def fit_segments(
    config: AnomalyConfig,
    segments: list[np.ndarray],
    folds: np.ndarray,
    groups: np.ndarray,
    progress: Callable[[int, int], None],
    state: Path | None,
) -> Detector:
    """Fit a detector to segments (N,) dealt out to folds (n,); those of one group (n,) are held out together."""
    reader = MelReader(config)
    mels = [reader(part) for part in segments]
    encoder = EncoderReader.shipped() if "encoder" in config.parts else None
    n_given = len(segments)
    kept = np.arange(n_given)
    if config.robust == "rejection":
        # By distances alone, as no training is needed for them; each round, those left out do not hide the others.
        judges = [m for m in config.parts if m in STATISTICS] or ["statistics", "modulation"]
        features = {m: np.stack([statistics_of(m, w, x, encoder) for w, x in zip(segments, mels, strict=True)]) for m in judges}
        kept = reject(features, config.trim)
        segments, mels = [segments[k] for k in kept], [mels[k] for k in kept]
        folds, groups = folds[kept], groups[kept]
    rate = config.mel.sample_rate
    flat = torch.cat(mels, dim=1)
    mean, deviation = flat.mean(1), flat.std(1).clamp(min=0.1)
    tensors: dict[str, Tensor] = {
        "mean": mean,
        "deviation": deviation,
        "segment_s": torch.tensor(float(np.median([len(w) for w in segments])) / rate),
    }
    if encoder is not None:
        tensors |= {f"encoder.{k}": v for k, v in encoder.tensors.items()}
    normal = [(mel - mean[:, None]) / deviation[:, None] for mel in mels]
    for member in config.parts:
        if member in STATISTICS:
            values = np.stack([statistics_of(member, w, x, encoder) for w, x in zip(segments, mels, strict=True)])
            tensors[f"held_out.{member}"] = torch.from_numpy(held_out_distances(values, groups, config)).float()
            _keep(tensors, f"gaussian.{member}", Gaussian.fit(values, _trim(config)))
    saved = _State(state, config, segments)
    jobs = [(kind, fold) for kind in _kinds(config) for fold in range(config.folds)]
    nets: dict[tuple[str, int], Network] = {}
    for n, (kind, fold) in enumerate(jobs):
        net = saved.get(kind, fold)
        if net is None:
            seen = [m for m, f in zip(normal, folds, strict=True) if f != fold]
            unseen = [m for m, f in zip(normal, folds, strict=True) if f == fold]

            def report(step: int, n: int = n) -> None:
                progress(n * config.max_steps + step, len(jobs) * config.max_steps)

            net = train_network(kind, config, seen, unseen, config.seed * 1000 + fold, report)
            saved.put(kind, fold, net)
        progress((n + 1) * config.max_steps, len(jobs) * config.max_steps)
        nets[kind, fold] = net
        tensors |= {f"net.{kind}.{fold}.{k}": v for k, v in net.state_dict().items()}
    for kind in _kinds(config):
        held: dict[int, Tensor] = {}
        latent = np.zeros(len(mels))
        for fold in range(config.folds):
            with torch.no_grad():
                outs = [reconstruct(nets[kind, fold], mel) for mel in normal]
            held |= {int(n): outs[n][1] for n in np.flatnonzero(folds == fold)}
            if kind == LATENT_OF and "latent" in config.parts:
                codes = np.stack([code_statistics(out[2]) for out in outs])
                gaussian = Gaussian.fit(codes[folds != fold], _trim(config))
                latent[folds == fold] = np.log(gaussian.distance(codes[folds == fold]) + 1e-3)
                _keep(tensors, f"gaussian.latent.{fold}", gaussian)
                tensors["held_out.latent"] = torch.from_numpy(latent.copy()).float()
        errors = [held[n] for n in range(len(mels))]
        usual = torch.stack([e.mean(1) for e in errors]).median(0).values.clamp(min=1e-4)
        tensors[f"usual.{kind}"] = usual
        if kind in config.parts:
            values = np.stack([error_statistics(e / usual[:, None]) for e in errors])
            tensors[f"held_out.{kind}"] = torch.from_numpy(held_out_distances(values, groups, config)).float()
            _keep(tensors, f"gaussian.{kind}", Gaussian.fit(values, _trim(config)))
    facts = {"segments": len(mels), "rejected": n_given - len(kept), "seconds": round(sum(map(len, segments)) / rate, 1)}
    return Detector(config, tensors, info=facts)


def _trim(config: AnomalyConfig) -> float:
    return config.trim if config.robust == "trimmed" else 0.0


def _parts(groups: np.ndarray) -> np.ndarray:
    """Return the part (n,) in which each clip is held out: few groups one by one, so that what is left is nearly all; many in parts."""
    _, numbers = np.unique(groups, return_inverse=True)
    return np.asarray(numbers % HELD_OUT_PARTS)


def held_out_distances(values: np.ndarray, groups: np.ndarray, config: AnomalyConfig) -> np.ndarray:
    """Return the log distance (n,) of each clip's features (n, D) from those of the others, its own group (n,) left out."""
    found, part = np.zeros(len(values)), _parts(groups)
    for k in np.unique(part):
        away = part == k
        found[away] = np.log(Gaussian.fit(values[~away], _trim(config)).distance(values[away]) + 1e-3)
    return found


def reject(features: Mapping[str, np.ndarray], share: float) -> np.ndarray:
    """Return the indices of the clips to keep: without the share that lies furthest from those kept before, by all members.

    Args:
        features: (n, D) of each member.
        share: Of the clips, 0..1.
    """
    n = len(next(iter(features.values())))
    part = _parts(np.arange(n))
    kept = np.ones(n, bool)
    for round_ in range(REJECTIONS):
        scores = np.zeros(n)
        for values in features.values():
            logs = np.zeros(n)
            for k in np.unique(part):
                logs[part == k] = np.log(Gaussian.fit(values[kept & (part != k)]).distance(values[part == k]) + 1e-3)
            scores += (logs - np.median(logs)) / (logs.std() + 1e-9)
        n_kept = n - round(share * n * (round_ + 1) / REJECTIONS)
        kept = np.zeros(n, bool)
        kept[np.argsort(scores, kind="stable")[:n_kept]] = True
    return np.flatnonzero(kept)


class _State:
    """Networks that are trained already, kept in a file with what they were trained on."""

    def __init__(self, path: Path | None, config: AnomalyConfig, segments: Sequence[np.ndarray]) -> None:
        self._path, self._config = path, config
        self._tensors: dict[str, Tensor] = {}
        digest = hashlib.sha256(json.dumps(to_dict(config), sort_keys=True).encode())
        for part in segments:
            digest.update(part.tobytes())
        self._digest = digest.hexdigest()
        if path is not None and path.exists() and read_header(path).get(STATE_KEY) == self._digest:
            from safetensors.torch import load_file

            self._tensors = load_file(path)

    def get(self, kind: str, fold: int) -> Network | None:
        prefix = f"{kind}.{fold}."
        found = {k.removeprefix(prefix): v for k, v in self._tensors.items() if k.startswith(prefix)}
        if not found:
            return None
        net = make_network(kind, self._config)
        net.load_state_dict(found, strict=True)
        return net.eval().requires_grad_(False)

    def put(self, kind: str, fold: int, net: Network) -> None:
        self._tensors |= {f"{kind}.{fold}.{k}": v for k, v in net.state_dict().items()}
        if self._path is not None:
            write_tensors(self._path, self._tensors, {STATE_KEY: self._digest})


def _keep(tensors: dict[str, Tensor], name: str, gaussian: Gaussian) -> None:
    for part in GAUSSIAN_PARTS:
        tensors[f"{name}.{part}"] = torch.from_numpy(np.ascontiguousarray(getattr(gaussian, part))).float()
