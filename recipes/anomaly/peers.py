"""The peers: one-class methods of scikit-learn and PyOD on mel statistics, and the autoencoder of DCASE 2020 task 2 as published."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from vcae.audio.config import MelConfig
from vcae.audio.mel import LogMel
from vcae.errors import ConfigError

Score = Callable[[np.ndarray], float]
MEL = MelConfig(hop_length=512, n_mels=128)
WINDOW_S, WINDOW_HOP_S = 1.0, 0.5
STATISTICAL = ("isolation-forest", "one-class-svm", "gaussian-mixture", "pyod-autoencoder")
PEERS = (*STATISTICAL, *(f"{name}-windows" for name in STATISTICAL), "dcase-autoencoder")
STACK = 5
BATCH = 512


class NotInstalledError(Exception):
    """Error for a peer whose package is not installed; the peer is skipped and the reason printed."""


def statistics(wav: np.ndarray, windows: bool, log_mel: LogMel) -> np.ndarray:
    """Return mean and standard deviation of each mel band (R, 2 * n_mels), for the whole recording (N,) or windows of 1 s with 50 % overlap."""
    with torch.inference_mode():
        mel = log_mel(torch.from_numpy(wav)[None])[0].numpy()
    length, hop = round(WINDOW_S * MEL.frame_rate), round(WINDOW_HOP_S * MEL.frame_rate)
    starts = range(0, max(mel.shape[1] - length, 0) + 1, hop) if windows else [0]
    parts = [mel[:, s : s + length] if windows else mel for s in starts]
    return np.stack([np.concatenate([p.mean(1), p.std(1)]) for p in parts])


def fit_statistical(name: str, recordings: Sequence[np.ndarray], seed: int) -> Score:
    """Fit a peer to standardised statistics; the score of a recording is the mean over its windows."""
    from sklearn.preprocessing import StandardScaler

    windows, log_mel = name.endswith("-windows"), LogMel(MEL)
    rows = np.concatenate([statistics(wav, windows, log_mel) for wav in recordings])
    scaler = StandardScaler().fit(rows)
    anomaly = _fit_rows(name.removesuffix("-windows"), scaler.transform(rows), seed)
    return lambda wav: float(np.mean(anomaly(scaler.transform(statistics(wav, windows, log_mel)))))


def _fit_rows(name: str, rows: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    if name == "isolation-forest":
        from sklearn.ensemble import IsolationForest

        forest = IsolationForest(n_estimators=200, random_state=seed).fit(rows)
        return lambda x: -forest.score_samples(x)
    if name == "one-class-svm":
        from sklearn.svm import OneClassSVM

        machine = OneClassSVM(nu=0.1, gamma="scale").fit(rows)
        return lambda x: -machine.score_samples(x)
    if name == "gaussian-mixture":
        from sklearn.mixture import GaussianMixture

        n = max(1, min(8, len(rows) // 16))
        mixture = GaussianMixture(n, covariance_type="diag", reg_covar=1e-2, random_state=seed).fit(rows)
        return lambda x: -mixture.score_samples(x)
    try:
        from pyod.models.auto_encoder import AutoEncoder
    except ImportError as error:
        raise NotInstalledError(f"PyOD is not installed ({error}); pip install '.[anomaly]' brings it") from error
    encoder = AutoEncoder(batch_size=min(32, len(rows)), random_state=seed, verbose=0)
    encoder.fit(rows)
    return lambda x: np.asarray(encoder.decision_function(x))


class Baseline(nn.Module):
    """Baseline autoencoder: 640-128-128-128-128-8-128-128-128-128-640, each hidden layer with batch norm and ReLU.

    Shape:
        - rows: (B, 640), log-mel in dB; output: (B, 640)

    Source: Koizumi et al., Description and Discussion on DCASE2020 Challenge Task 2 (2020), and its dcase2020_task2_baseline: no
    normalisation of the input, Keras's batch norm (momentum .99, epsilon 1e-3) and initialisation (Glorot, uniform).
    """

    def __init__(self, n_in: int = 128 * STACK, width: int = 128, code: int = 8) -> None:
        super().__init__()
        sizes = [n_in, *([width] * 4), code, *([width] * 4)]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after, eps=1e-3, momentum=0.01), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, n_in))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(rows)
        return out


def stack_frames(wav: np.ndarray) -> np.ndarray:
    """Return stacks of five consecutive frames of the log-mel in dB of a recording (N,): (T - 4, 640)."""
    import librosa

    mel = librosa.feature.melspectrogram(y=wav, sr=MEL.sample_rate, n_fft=1024, hop_length=512, n_mels=128, power=2.0)
    level = 10.0 * np.log10(mel + np.finfo(np.float64).eps)
    n = level.shape[1] - STACK + 1
    return np.concatenate([level[:, k : k + n] for k in range(STACK)]).T.astype(np.float32)


def fit_baseline(recordings: Sequence[np.ndarray], seed: int, epochs: int) -> Score:
    """Train the baseline with Adam at 1e-3 and batches of 512; the score of a recording is its mean squared error."""
    rows = torch.from_numpy(np.concatenate([stack_frames(wav) for wav in recordings]))
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Baseline()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(rows), generator=generator).split(BATCH):
            if len(batch) > 1:  # Batch norm needs more than one row.
                loss = (net(rows[batch]) - rows[batch]).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    net.eval()

    @torch.inference_mode()
    def score(wav: np.ndarray) -> float:
        tested = torch.from_numpy(stack_frames(wav))
        return float((net(tested) - tested).square().mean())

    return score


def fit_peer(name: str, recordings: Sequence[np.ndarray], seed: int, epochs: int) -> Score:
    """Fit a peer to normal recordings (N,) at 16 kHz, and return its scoring function, larger for more anomalous ones.

    Raises:
        ConfigError: If there is no such peer.
        NotInstalledError: If its package is not installed.
    """
    if name not in PEERS:
        raise ConfigError(f"peers has {name!r}; allowed are {', '.join(PEERS)}")
    return fit_baseline(recordings, seed, epochs) if name == "dcase-autoencoder" else fit_statistical(name, recordings, seed)
