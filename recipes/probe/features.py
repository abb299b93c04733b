"""Features to compare: of steps on a common grid of 32 ms, and of whole recordings."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from recordings import Recording
from scipy.fft import dct
from scipy.signal import savgol_filter
from settings import ProbeRecipe

import vcae
from vcae.audio.config import MelConfig
from vcae.audio.frames import active_frames
from vcae.errors import ConfigError
from vcae.model.autoencoder import Autoencoder
from vcae.tasks.ladder import LADDER, load_rung

STRIDE = 2
STEP_S = STRIDE / MelConfig().frame_rate
N_CEPSTRA = 20
DELTA_WIDTH = 9
# Equal parts of a recording or word, whose means preserve the order of sounds.
N_PARTS = 20


def active_steps(mel: np.ndarray) -> np.ndarray:
    """Return the mask of active steps (ceil(T / 2),) of a log-mel (n_mels, T)."""
    active = active_frames(torch.from_numpy(mel)[None])[0, 0].numpy() > 0
    return np.asarray(np.pad(active, (0, -len(active) % STRIDE)).reshape(-1, STRIDE).any(axis=1))


def _pool(rows: np.ndarray) -> np.ndarray:
    """Average rows (D, T) over the frames of a step: (ceil(T / 2), D)."""
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % STRIDE)), mode="edge")
    return padded.reshape(len(rows), -1, STRIDE).mean(axis=2).T.astype(np.float32)


def cepstra(mel: np.ndarray, n_orders: int = 3) -> np.ndarray:
    """Return 20 cepstra and their differences (20 * n_orders, T) of a log-mel (n_mels, T)."""
    base = dct(mel, axis=0, norm="ortho")[:N_CEPSTRA]
    width = min(DELTA_WIDTH, base.shape[1] - (base.shape[1] + 1) % 2)
    return np.concatenate([base, *(savgol_filter(base, width, 2, deriv=k, axis=1) for k in range(1, n_orders))])


def _normalized_cepstra(mel: np.ndarray) -> np.ndarray:
    x = cepstra(mel)
    sound = active_frames(torch.from_numpy(mel)[None])[0, 0].numpy() > 0
    return (x - x[:, sound].mean(1, keepdims=True)) / (x[:, sound].std(1, keepdims=True) + 1e-5)


def _autoencoder(name: str) -> Autoencoder:
    """Load a checkpoint's autoencoder by name or path, or `ladder:N`, the shipped plain one with N values per step."""
    rung = name.removeprefix(f"{LADDER}:")
    return load_rung(int(rung)) if rung != name and rung.isdigit() else vcae.load(name, device="cpu").autoencoder


def _label(name: str) -> str:
    head, colon, rung = name.partition(":")
    return f"plain code of {rung}" if head == LADDER and colon else f"content of {Path(name).stem}"


def step_features(recipe: ProbeRecipe) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Return the functions from a log-mel (n_mels, T) to features of steps (T', D), by name."""

    def content(name: str) -> Callable[[np.ndarray], np.ndarray]:
        autoencoder = _autoencoder(name)
        if autoencoder.config.content.stride != STRIDE or autoencoder.config.mel != MelConfig():
            raise ConfigError(f"checkpoint {name} does not have steps of {STRIDE} frames; probe one with the usual settings")

        @torch.inference_mode()
        def encode(mel: np.ndarray) -> np.ndarray:
            return autoencoder.encode_content(torch.from_numpy(mel)[None])[0].T.numpy()

        return encode

    autoencoder = vcae.load(recipe.discrete, device="cpu").autoencoder
    quantizer = autoencoder.config.quantizer
    if quantizer is None:
        raise ConfigError(f"discrete is {recipe.discrete!r}, which has no units; name a checkpoint such as vq")

    @torch.inference_mode()
    def one_hot(mel: np.ndarray) -> np.ndarray:
        codes = autoencoder.encode_units(torch.from_numpy(mel)[None])[0, 0].numpy()
        return np.eye(quantizer.codebook_size, dtype=np.float32)[codes]

    names = [recipe.checkpoint, recipe.discrete, *recipe.others]
    return {
        **{_label(name): content(name) for name in names},
        f"units of {Path(recipe.discrete).stem}, one-hot": one_hot,
        "mel": _pool,
        "MFCC": lambda mel: _pool(cepstra(mel)),
        "MFCC, normalised": lambda mel: _pool(_normalized_cepstra(mel)),
    }


def speaker_vectors(recipe: ProbeRecipe, recordings: Sequence[Recording]) -> np.ndarray:
    """Return the speaker embeddings (n, D)."""
    autoencoder = vcae.load(recipe.checkpoint, device="cpu").autoencoder
    with torch.inference_mode():
        return np.stack([autoencoder.encode_speaker(torch.from_numpy(r.mel)[None])[0].numpy() for r in recordings])


def cepstral_statistics(recordings: Sequence[Recording]) -> np.ndarray:
    """Return mean and standard deviation (n, 80) of 20 MFCC and their differences over active frames."""
    found = []
    for recording in recordings:
        x = cepstra(recording.mel, 2)[:, active_frames(torch.from_numpy(recording.mel)[None])[0, 0].numpy() > 0]
        found.append(np.concatenate([x.mean(axis=1), x.std(axis=1)]))
    return np.stack(found)


def ceiling_vectors(recordings: Sequence[Recording]) -> np.ndarray | None:
    """Return Resemblyzer's embeddings (n, 256), or None where it is not installed."""
    from vcae.evaluation.scores import SAMPLE_RATE, load_wav

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from resemblyzer import VoiceEncoder, preprocess_wav
    except ImportError:
        return None
    encoder, found = VoiceEncoder("cpu", verbose=False), []
    for recording in recordings:
        wav = load_wav(recording.path)
        spoken = preprocess_wav(wav, SAMPLE_RATE)
        # Its voice activity detector may leave almost nothing of a short clip.
        found.append(encoder.embed_utterance(spoken if len(spoken) >= SAMPLE_RATE // 2 else wav))
    return np.stack(found)


@dataclass(frozen=True)
class Steps:
    """Features of recordings, (T', D) each, standardised by training recordings unless they are units."""

    name: str
    values: list[np.ndarray]


def measure(
    name: str, encode: Callable[[np.ndarray], np.ndarray], recordings: Sequence[Recording], scale: Sequence[Recording]
) -> Steps:
    """Compute features of recordings, each dimension standardised to zero mean and unit variance over the steps of `scale`."""
    values = [encode(r.mel) for r in recordings]
    if name.endswith("one-hot"):
        return Steps(name, values)
    known = np.concatenate([encode(r.mel) for r in scale])
    mean, deviation = known.mean(axis=0), known.std(axis=0) + 1e-5
    return Steps(name, [(v - mean) / deviation for v in values])


def parts(values: np.ndarray, n_parts: int = N_PARTS) -> np.ndarray:
    """Return the means of equal parts of steps (T', D), concatenated: (n_parts * D,)."""
    from vcae.tasks.embed import resample_rows

    made, _ = resample_rows(values, np.arange(len(values) + 1.0), np.ones(len(values), bool), n_parts)
    return made.ravel()
