"""The anomaly detector: it is fitted to normal recordings, scores others, and is saved in one file."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vcae.anomaly import exposure
from vcae.anomaly.calibration import Tail, combine
from vcae.anomaly.config import AnomalyConfig
from vcae.anomaly.distance import Gaussian
from vcae.anomaly.exposure import Exposure
from vcae.anomaly.features import EncoderReader, MelReader, check_wav, cut, split_recordings
from vcae.anomaly.locate import Limit
from vcae.anomaly.members import (
    GAUSSIAN_PARTS,
    LATENT_OF,
    code_statistics,
    error_statistics,
    fault_score,
    fit_members,
    network_kinds,
    statistics_needed,
    statistics_of,
)
from vcae.anomaly.models import NETWORKS, Network, make_network, reconstruct
from vcae.audio.config import MelConfig
from vcae.audio.io import resample
from vcae.checkpoint import write_tensors
from vcae.config import from_dict, to_dict
from vcae.engine.engine import Samples, as_sound
from vcae.errors import CheckpointError, ConfigError, DataError
from vcae.files import hash_file
from vcae.model_file import find, read_header

FORMAT = 1
KEY = "vcae_anomaly"
# Shortest segment that is scored, in s.
MIN_SEGMENT_S = 1.0
# Weights of members in a combination (1 for others): networks trained on few recordings add less than distances, the bank of other sounds
# adds more.
WEIGHTS = {**dict.fromkeys(NETWORKS, 0.25), "latent": 0.25, "exposure": 6.0}
# Fraction of normal recordings that are called anomalous if no threshold was chosen.
DEFAULT_ALARMS = 0.01


@dataclass(frozen=True, eq=False, repr=False)
class Anomaly:
    """Result of scoring a recording.

    Attributes:
        score: Higher is less normal; comparable within one detector.
        p_value: Fraction of normal recordings that would score at least as high, 0..1; small is anomalous. It is not the probability of an
            anomaly, which depends on how frequent anomalies are.
        frame_scores: (T,), mean over bands of `errors`; 1 is usual.
        errors: (n_mels, T), squared errors relative to the usual ones of their band.
        mel: (n_mels, T), natural log magnitude.
        reconstruction: (n_mels, T), reconstruction of the mel, natural log magnitude.
        hop_s: Seconds from frame to frame.
        members: Score of each member of the detector.
    """

    score: float
    p_value: float
    frame_scores: np.ndarray
    errors: np.ndarray
    mel: np.ndarray
    reconstruction: np.ndarray
    hop_s: float
    members: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Anomaly(score {self.score:.3f}, p-value {self.p_value:.2g}, {len(self.frame_scores) * self.hop_s:.2f} s)"

    @property
    def probability(self) -> float:
        """Old name of `p_value`, for one more version."""
        warnings.warn(
            "Anomaly.probability is called p_value now; the old name goes in the next version", DeprecationWarning, stacklevel=2
        )
        return self.p_value


@dataclass(frozen=True)
class Threshold:
    """Threshold on the score.

    Attributes:
        value: Recordings that score at least this are called anomalous.
        reason: Description of how it was chosen.
        facts: Counts, costs and other data on the choice.
        chosen: Whether it was chosen by costs or given. Otherwise it is a usual one, for measures that need a threshold, and no verdict on a
            recording should come from it.
    """

    value: float
    reason: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    chosen: bool = True

    def verdict(self, score: float | None) -> bool | None:
        """Return whether a recording with this score is anomalous; None without a score, or if no threshold was chosen."""
        return None if score is None or not self.chosen else score >= self.value


@dataclass(frozen=True)
class _SegmentScore:
    scores: dict[str, float]
    errors: Tensor
    made: Tensor


def _wav(given: Samples, sample_rate: int | None, config: AnomalyConfig, name: str, method: str) -> np.ndarray:
    """Return the checked samples (N,) of a recording at the mel's rate."""
    if sample_rate is None and isinstance(given, Tensor | np.ndarray):
        warnings.warn(
            f"Detector.{method} without sample_rate takes samples to be at the mel's; give their rate in Hz",
            DeprecationWarning,
            stacklevel=4,
        )
        sample_rate = config.mel.sample_rate
    sound = as_sound(given, sample_rate, name)
    return check_wav(resample(sound.wav, sound.sample_rate, config.mel.sample_rate), config, sound.name)


class Detector:
    """Anomaly detector: scores how much a recording differs from normal ones. See `fit`, `score`, `save` and `load`."""

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
            kind: [self._make(kind, f"net.{kind}.{fold}.") for fold in range(config.folds)] for kind in network_kinds(config)
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
        exposed = {k.removeprefix("exposure."): v for k, v in tensors.items() if k.startswith("exposure.")}
        self._exposure = Exposure.from_tensors(exposed) if exposed else None
        self.limits = {
            name.removeprefix("limit."): Limit(float(value[0]), float(value[1]))
            for name, value in tensors.items()
            if name.startswith("limit.")
        }
        self._tails = {m: Tail(tensors[f"held_out.{m}"].double().numpy(), config.tail) for m in config.parts}
        self._tail = Tail(combine(self._tails, {m: tail.scores for m, tail in self._tails.items()}, WEIGHTS), config.tail)

    def _make(self, kind: str, prefix: str) -> Network:
        net = make_network(kind, self.config)
        net.load_state_dict({k.removeprefix(prefix): v for k, v in self._tensors.items() if k.startswith(prefix)}, strict=True)
        return net.eval().requires_grad_(False)

    def __repr__(self) -> str:
        at = "no threshold" if self.threshold is None else f"threshold {self.threshold:.4g}"
        return f"Detector({self.config.model}, {at}, {self.config.mel.sample_rate} Hz)"

    @property
    def threshold(self) -> float | None:
        """Score from which a recording is called anomalous; None if no threshold was chosen."""
        return None if self.decision is None else self.decision.value

    def score_at(self, probability: float) -> float:
        """Return the score that a fraction `probability` of normal recordings would reach, by the calibration."""
        from scipy.optimize import brentq

        low, high = self._tail.mean - 20 * self._tail.deviation, self._tail.mean + 100 * self._tail.deviation
        if self.config.tail == "empirical":
            return float(np.quantile(self._tail.scores, 1 - probability))
        return float(brentq(lambda score: self._tail.p_value(score) - probability, low, high))

    def decide(self, given: float | None = None) -> Threshold:
        """Return the given threshold, or the detector's own; or the score that 1 % of normal recordings reach, as one that was not chosen."""
        if given is not None:
            return Threshold(given, f"{given:g}, as given")
        if self.decision is not None:
            return replace(self.decision, reason=f"{self.decision.value:.4g}, {self.decision.reason}")
        at = self.score_at(DEFAULT_ALARMS)
        share = f"{100 * DEFAULT_ALARMS:g} %"
        reason = (
            f"none was chosen (vcae anomaly threshold does, or give one); {share} of normal recordings score {at:.4g} or more"
        )
        return Threshold(at, reason, chosen=False)

    @classmethod
    def fit(
        cls,
        recordings: Samples | Sequence[Samples],
        sample_rate: int | AnomalyConfig | None = None,
        config: AnomalyConfig | None = None,
        progress: Callable[[int, int], None] | None = None,
        state: Path | None = None,
    ) -> Detector:
        """Fit a detector to normal recordings.

        Args:
            recordings: Each is samples, a sound, or the path of a file, as `vcae.engine.engine.as_sound` takes them.
            sample_rate: Sample rate of arrays, in Hz. Without it, that of the mel is assumed; the next version refuses such arrays.
            config: Of the detector. Until version 0.2 it may come second.
            progress: Called with the number of steps done and to do.
            state: File that keeps what is done, so that the same call goes on after a stop.

        Raises:
            AudioError: If a recording cannot be used.
            DataError: If there is too little of them.
        """
        if isinstance(sample_rate, AnomalyConfig):
            warnings.warn(
                "Detector.fit(recordings, config) is now fit(recordings, sample_rate, config)", DeprecationWarning, stacklevel=2
            )
            # They were config, progress and state then, in this order.
            if isinstance(progress, str | Path):
                progress, state = None, Path(progress)
            sample_rate, config, progress = None, sample_rate, config or progress
        config = config or AnomalyConfig()
        given: list[Samples] = [recordings] if isinstance(recordings, Samples) else list(recordings)
        if not given:
            raise DataError("there are no normal recordings to fit to; give some")
        wavs = [_wav(one, sample_rate, config, f"recording {n + 1}", "fit") for n, one in enumerate(given)]
        if "encoder" in config.parts and config.mel.sample_rate != MelConfig().sample_rate:
            raise ConfigError(
                f"mel.sample_rate is {config.mel.sample_rate}; the member encoder hears {MelConfig().sample_rate} Hz, so leave it out"
            )
        if "exposure" in config.parts and config.mel != AnomalyConfig().mel:
            raise ConfigError(
                f"mel is {config.mel}; the sounds that the member exposure knows are of {AnomalyConfig().mel}, so leave it out"
            )
        segments, folds, groups = split_recordings(wavs, config)
        report = progress or (lambda done, total: None)
        tensors, facts = fit_members(config, segments, np.array(folds), np.array(groups), report, state)
        return cls(config, tensors, info=facts)

    @property
    def segment_s(self) -> float:
        """Median length in seconds of the recordings from which the scores were calibrated."""
        return float(self._tensors["segment_s"])

    @torch.no_grad()
    def score(self, wav: Samples, sample_rate: int | None = None) -> Anomaly:
        """Score a recording.

        Args:
            wav: Samples, a sound, or the path of a file, as `vcae.engine.engine.as_sound` takes them.
            sample_rate: Sample rate of arrays, in Hz. Without it, that of the mel is assumed; the next version refuses such arrays.

        Returns:
            Of a recording longer than a segment: the score of its least normal segment, and the p-value: the fraction of normal
            recordings of as many segments of which any would score as high.

        Raises:
            AudioError: If it is shorter than a window, silent, or not finite.
        """
        config = self.config
        wav = _wav(wav, sample_rate, config, "the recording", "score")
        parts = cut(wav, int(max(self.segment_s, MIN_SEGMENT_S) * config.mel.sample_rate))
        found = [self._score_segment(part) for part in parts]
        totals = combine(self._tails, {m: np.array([f.scores[m] for f in found]) for m in config.parts}, WEIGHTS)
        worst = int(np.argmax(totals))
        p = self._tail.p_value(float(totals[worst]))
        mel = self._reader(wav)
        errors, made = (found[0].errors, found[0].made) if len(parts) == 1 else self._run(mel)[:2]
        return Anomaly(
            score=float(totals[worst]),
            p_value=float(-np.expm1(len(parts) * np.log1p(-min(p, 1 - 1e-12)))),
            frame_scores=errors.mean(0).numpy(),
            errors=errors.numpy(),
            mel=mel.numpy(),
            reconstruction=made.numpy(),
            hop_s=1 / config.mel.frame_rate,
            members=found[worst].scores,
        )

    def _run(self, mel: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor], dict[str, list[Tensor]]]:
        """Run the networks on a mel (n_mels, T): errors and reconstruction of the first one, then errors and codes of all by kind."""
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

    def _score_segment(self, wav: np.ndarray) -> _SegmentScore:
        """Score one segment (N,) by each member; with the errors and the reconstruction of the first network."""
        mel = self._reader(wav)
        first, made, errors, codes = self._run(mel)
        scores: dict[str, float] = {}
        features = {kind: statistics_of(kind, wav, mel, self._encoder) for kind in statistics_needed(self.config)}
        for member in self.config.parts:
            if member in NETWORKS:
                scores[member] = self._log_distance(member, error_statistics(errors[member]))
            elif member == "latent":
                scores[member] = float(
                    np.mean([self._log_distance(f"latent.{k}", code_statistics(c)) for k, c in enumerate(codes[LATENT_OF])])
                )
            elif member == "faults":
                scores[member] = fault_score(wav, self.config, first.mean(0).numpy(), self.limits)
            elif member != "exposure":
                scores[member] = self._log_distance(member, features[member])
        if self._exposure is not None:
            scores["exposure"] = float(self._exposure.score({kind: features[kind][None] for kind in exposure.KINDS})[0])
        return _SegmentScore(scores, first, made)

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
            raise CheckpointError(f"{file} is not an anomaly detector; make one with vcae anomaly fit") from error
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
        found.info["sha256"] = hash_file(file)
        return found
