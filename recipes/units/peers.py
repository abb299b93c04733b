"""The classical peers: k-means on plain features, with the step and the number of codes of the models that they are compared with."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.fft import dct
from scipy.signal import savgol_filter

from vcae.audio.frames import active_frames
from vcae.errors import ConfigError

POOL = 2
N_CEPSTRA = 13
DELTA_WIDTH = 9
PEERS = ("mfcc", "mfcc-cmvn", "mel", "mel-cmn")


def features(name: str, mel: np.ndarray) -> np.ndarray:
    """Return the features (ceil(T / 2), D) of a log-mel (n_mels, T) that a peer clusters.

    `mfcc`: 13 cepstra with first and second differences; `mfcc-cmvn`: the same, standardised over the recording;
    `mel`: the log-mel; `mel-cmn`: the same less its mean over the recording. Statistics are over active frames.
    """
    if name not in PEERS:
        raise ConfigError(f"peers has {name!r}; allowed are {', '.join(PEERS)}")
    x = mel
    if name.startswith("mfcc"):
        cepstra = dct(mel, axis=0, norm="ortho")[:N_CEPSTRA]
        width = min(DELTA_WIDTH, cepstra.shape[1] - (cepstra.shape[1] + 1) % 2)
        x = np.concatenate([savgol_filter(cepstra, width, 2, deriv=order, axis=1) for order in range(3)])
        x[:N_CEPSTRA] = cepstra
    if name.endswith(("cmn", "cmvn")):
        sound = active_frames(torch.from_numpy(mel)[None])[0, 0].numpy() > 0
        x = x - x[:, sound].mean(1, keepdims=True)
        if name.endswith("cmvn"):
            x = x / (x[:, sound].std(1, keepdims=True) + 1e-5)
    padded = np.pad(x, ((0, 0), (0, -x.shape[1] % POOL)), mode="edge")
    return padded.reshape(len(x), -1, POOL).mean(2).T.astype(np.float32)


@dataclass(frozen=True)
class Peer:
    """K-means codebook: vectors (K, D) of features standardised by mean and standard deviation (D,) of the training set."""

    name: str
    mean: np.ndarray
    deviation: np.ndarray
    vectors: np.ndarray

    def encode(self, mel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return codes (T',) and their vectors (T', D) of a log-mel (n_mels, T)."""
        x = (features(self.name, mel) - self.mean) / self.deviation
        codes = (np.square(self.vectors).sum(1) - 2 * x @ self.vectors.T).argmin(1)
        return codes, self.vectors[codes]


def learn(name: str, codebook_size: int, mels: Callable[[], Sequence[np.ndarray]], cache: Path, key: str, seed: int) -> Peer:
    """Train a peer, or read it from the cache folder if it was trained on the same data (`key`)."""
    from sklearn.cluster import MiniBatchKMeans

    digest = hashlib.sha256(f"{key} {codebook_size} {seed} {Path(__file__).read_text()}".encode()).hexdigest()[:12]
    path = cache / f"{name}-{digest}.npz"
    if not path.is_file():
        x = np.concatenate([features(name, mel) for mel in mels()])
        mean, deviation = x.mean(0), x.std(0) + 1e-5
        found = MiniBatchKMeans(codebook_size, batch_size=4096, n_init=3, max_iter=100, random_state=seed).fit(
            (x - mean) / deviation
        )
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(path, mean=mean, deviation=deviation, vectors=found.cluster_centers_.astype(np.float32))
    with np.load(path) as kept:
        return Peer(name, kept["mean"], kept["deviation"], kept["vectors"])
