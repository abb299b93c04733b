"""Members of a detector: their features of a clip, and their fit to normal clips."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vcae.anomaly import exposure
from vcae.anomaly.config import AnomalyConfig
from vcae.anomaly.distance import Gaussian
from vcae.anomaly.exposure import Exposure
from vcae.anomaly.features import LEAST_SPREAD, EncoderReader, MelReader, clip_statistics, modulation_statistics
from vcae.anomaly.fitting import train_network
from vcae.anomaly.locate import Limit, limits_of, strongest, tracks_of
from vcae.anomaly.models import NETWORKS, Network, make_network, reconstruct
from vcae.checkpoint import write_tensors
from vcae.config import to_dict
from vcae.model_file import read_header

STATE_KEY = "vcae_anomaly_state"
# Network whose code the member `latent` uses.
LATENT_OF = "frames"
GAUSSIAN_PARTS = ("mean", "scale", "axes", "weights")
# Members that are distances between statistics of clips.
STATISTICS = ("statistics", "modulation", "encoder")
# Rounds of leaving out the most anomalous recordings.
REJECTIONS = 2
# Largest number of cross-validation folds for distances, and for the classifier against other sounds.
HELD_OUT_PARTS, EXPOSURE_PARTS = 40, 10
# Most seconds of normal sound that are used for the limits of each kind of place.
LOCATED_S = 600.0


def _network_of(member: str) -> str | None:
    """Kind of network whose output a member uses, or None."""
    return LATENT_OF if member == "latent" else member if member in NETWORKS else None


def network_kinds(config: AnomalyConfig) -> list[str]:
    """Return the kinds of networks in a detector.

    The first one's errors give the picture and the frame scores; therefore every detector has at least one network.
    """
    kinds = [k for k in dict.fromkeys(_network_of(m) for m in config.parts) if k is not None]
    return kinds or ["interpolation"]


def statistics_needed(config: AnomalyConfig) -> list[str]:
    """Return the kinds of statistics that the members use."""
    return [kind for kind in STATISTICS if kind in config.parts or (kind in exposure.KINDS and "exposure" in config.parts)]


def code_statistics(code: Tensor) -> np.ndarray:
    """Return mean and log standard deviation over time of a code (D, T): (2 * D,) float64."""
    values = code.double()
    return torch.cat([values.mean(1), (values.std(1) + LEAST_SPREAD).log()]).numpy()


def error_statistics(errors: Tensor) -> np.ndarray:
    """Return statistics of a clip's relative errors (n_mels, T): log mean, and standard deviation of the logs, of each band.

    They are compared by distance, as the mean over all bands would hide an error in a band that is easy to reconstruct, and a fault
    that is reconstructed too well.

    Returns:
        (2 * n_mels,), float64.
    """
    values = errors.double()
    return torch.cat([(values.mean(1) + 1e-3).log(), (values + 1e-3).log().std(1)]).numpy()


def statistics_of(member: str, wav: np.ndarray, mel: Tensor, encoder: EncoderReader | None) -> np.ndarray:
    """Return the features (D,) of a clip for a member of `STATISTICS`."""
    if member == "encoder":
        assert encoder is not None
        return encoder(wav)
    return clip_statistics(mel) if member == "statistics" else modulation_statistics(mel)


def fit_members(
    config: AnomalyConfig,
    segments: list[np.ndarray],
    folds: np.ndarray,
    groups: np.ndarray,
    progress: Callable[[int, int], None],
    state: Path | None,
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Fit all members of a detector to segments (N,) with folds (n,); segments of one group (n,) are held out together.

    Returns:
        The detector's tensors, and facts on the fit.
    """
    reader = MelReader(config)
    mels = [reader(part) for part in segments]
    judges = statistics_needed(config) or (["statistics", "modulation"] if config.robust == "rejection" else [])
    encoder = EncoderReader.shipped() if "encoder" in judges else None
    features = {m: np.stack([statistics_of(m, w, x, encoder) for w, x in zip(segments, mels, strict=True)]) for m in judges}
    n_given = len(segments)
    if config.robust == "rejection":
        # Uses members without training; recordings rejected in one round do not affect the next one.
        kept = reject(features, config.trim, exposure.shipped_bank() if "exposure" in config.parts else None)
        segments, mels = [segments[k] for k in kept], [mels[k] for k in kept]
        folds, groups = folds[kept], groups[kept]
        features = {m: values[kept] for m, values in features.items()}
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
    held_out = {m: held_out_distances(values, groups, config) for m, values in features.items()}
    for member in config.parts:
        if member in STATISTICS:
            tensors[f"held_out.{member}"] = torch.from_numpy(held_out[member]).float()
            _keep(tensors, f"gaussian.{member}", Gaussian.fit(features[member], _trim(config)))
    if "exposure" in config.parts:
        normal_features = {kind: features[kind] for kind in exposure.KINDS}
        others = exposure.leave_out_normal(exposure.shipped_bank(), normal_features, held_out)
        tensors["held_out.exposure"] = torch.from_numpy(held_out_exposure(normal_features, others, groups)).float()
        tensors |= {f"exposure.{k}": v for k, v in Exposure.fit(normal_features, others).tensors().items()}
    nets = _train_networks(config, normal, folds, _State(state, config, segments), progress)
    tensors |= {f"net.{kind}.{fold}.{k}": v for (kind, fold), net in nets.items() for k, v in net.state_dict().items()}
    errors = _fit_networks(config, normal, folds, groups, nets, tensors)
    # From the first network, as in the picture.
    frame_scores = [e.mean(0).numpy() for e in errors]
    limits = _limits(config, segments, frame_scores)
    tensors |= {f"limit.{kind}": torch.tensor([limit.usual, limit.alarm]) for kind, limit in limits.items()}
    if "faults" in config.parts:
        heights = [fault_score(w, config, scores, limits) for w, scores in zip(segments, frame_scores, strict=True)]
        tensors["held_out.faults"] = torch.tensor(heights)
    facts = {"segments": len(mels), "rejected": n_given - len(segments), "seconds": round(sum(map(len, segments)) / rate, 1)}
    return tensors, facts


def _train_networks(
    config: AnomalyConfig, normal: Sequence[Tensor], folds: np.ndarray, saved: _State, progress: Callable[[int, int], None]
) -> dict[tuple[str, int], Network]:
    """Return the network of each kind and fold, trained on the normalised mels (n_mels, T) of the other folds (n,)."""
    jobs = [(kind, fold) for kind in network_kinds(config) for fold in range(config.folds)]
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
    return nets


def _fit_networks(
    config: AnomalyConfig,
    normal: Sequence[Tensor],
    folds: np.ndarray,
    groups: np.ndarray,
    nets: Mapping[tuple[str, int], Network],
    tensors: dict[str, Tensor],
) -> list[Tensor]:
    """Add to `tensors` the statistics of the networks' errors and codes on held-out normalised mels (n_mels, T).

    Returns:
        The first network's errors (n_mels, T) on each mel, relative to the usual ones of their band.
    """
    errors: list[Tensor] = []
    # The first network comes last.
    for kind in reversed(network_kinds(config)):
        held: dict[int, Tensor] = {}
        latent = np.zeros(len(normal))
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
        errors = [held[n] for n in range(len(normal))]
        usual = torch.stack([e.mean(1) for e in errors]).median(0).values.clamp(min=1e-4)
        tensors[f"usual.{kind}"] = usual
        errors = [e / usual[:, None] for e in errors]
        if kind in config.parts:
            values = np.stack([error_statistics(e) for e in errors])
            tensors[f"held_out.{kind}"] = torch.from_numpy(held_out_distances(values, groups, config)).float()
            _keep(tensors, f"gaussian.{kind}", Gaussian.fit(values, _trim(config)))
    return errors


def fault_score(wav: np.ndarray, config: AnomalyConfig, frame_scores: np.ndarray, limits: Mapping[str, Limit]) -> float:
    """Return the strength of the strongest place of a clip (N,) on a compressed scale (inverse hyperbolic sine)."""
    rate = config.mel.sample_rate
    found = strongest(wav, rate, tracks_of(wav, rate, frame_scores, config.mel.hop_length / rate), limits)
    return float(np.arcsinh(found))


def _limits(config: AnomalyConfig, segments: Sequence[np.ndarray], frame_scores: Sequence[np.ndarray]) -> dict[str, Limit]:
    """Return the limits of each kind of place from some of the normal segments (N,); frame scores (T,) are from held-out networks."""
    rate = config.mel.sample_rate
    n = min(len(segments), max(1, round(LOCATED_S * rate / float(np.median([len(part) for part in segments])))))
    chosen = np.unique(np.linspace(0, len(segments) - 1, n).round().astype(int))
    return limits_of([tracks_of(segments[k], rate, frame_scores[k], config.mel.hop_length / rate) for k in chosen])


def _trim(config: AnomalyConfig) -> float:
    return config.trim if config.robust == "trimmed" else 0.0


def _parts(groups: np.ndarray, n: int = HELD_OUT_PARTS) -> np.ndarray:
    """Return the fold (n,) of each clip: one fold per group for few groups, so that nearly all clips remain; at most `n` folds."""
    _, numbers = np.unique(groups, return_inverse=True)
    return np.asarray(numbers % n)


def held_out_distances(values: np.ndarray, groups: np.ndarray, config: AnomalyConfig) -> np.ndarray:
    """Return the log distance (n,) of each clip's features (n, D) from those of the others outside its group (n,)."""
    found, part = np.zeros(len(values)), _parts(groups)
    for k in np.unique(part):
        away = part == k
        found[away] = np.log(Gaussian.fit(values[~away], _trim(config)).distance(values[away]) + 1e-3)
    return found


def held_out_exposure(
    normal: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray], groups: np.ndarray, kept: np.ndarray | None = None
) -> np.ndarray:
    """Return the exposure score (n,) of each clip's features (n, D) by kind, from fits to the kept clips (n,) of other groups (n,)."""
    part = _parts(groups, EXPOSURE_PARTS)
    found = np.zeros(len(part))
    for k in np.unique(part):
        away = part == k
        seen = ~away if kept is None else kept & ~away
        machine = Exposure.fit({kind: values[seen] for kind, values in normal.items()}, others)
        found[away] = machine.score({kind: values[away] for kind, values in normal.items()})
    return found


def reject(features: Mapping[str, np.ndarray], share: float, others: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
    """Reject the most anomalous clips and return the indices of those to keep.

    Args:
        features: (n, D) by member, features of the clips.
        share: Fraction of the clips to reject, 0..1.
        others: (m, D) by member, features of other sounds. With them, the clips most similar to these are rejected; without, the most distant
            ones.
    """
    n = len(next(iter(features.values())))
    each, part = np.arange(n), _parts(np.arange(n))
    kept = np.ones(n, bool)
    for round_ in range(REJECTIONS):
        if others is not None:
            scores = held_out_exposure(features, others, each, kept)
        else:
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
    """File of the networks trained so far, with a hash of their training data, for resuming."""

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
