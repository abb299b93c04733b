"""Features of sound as scikit-learn transformers, which can be used in pipelines, cloned, searched and pickled.

The input is an array (n_clips, n_samples) at `sample_rate`, or a list of clips of any lengths: arrays (n_samples,) or paths of sound files,
which have their own rate. Clips shorter than half a second are padded with silence.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from vcae.audio.io import Sound, check_sound, read_sound
from vcae.engine.listening import MIN_SOURCE_S
from vcae.errors import CheckpointError, ConfigError
from vcae.tasks.embed import N_STEPS, embed
from vcae.tasks.model import Model, load

Clip = np.ndarray | str | Path


@functools.lru_cache(maxsize=2)
def _load(checkpoint: str, device: str, _changed_ns: int | None) -> Model:
    return load(checkpoint, device)


def _model(checkpoint: str | Path, device: str) -> Model:
    """Return a model from a cache outside of the estimators, so that their pickles are small."""
    changed = os.stat(checkpoint).st_mtime_ns if os.path.isfile(checkpoint) else None
    return _load(str(checkpoint), device, changed)


class _Embedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Base class of the transformers."""

    checkpoint: str | Path
    sample_rate: int
    device: str

    def fit(self, X: Any, y: Any = None) -> Any:  # noqa: N803
        """Load the model and determine the number of features; only the shape of X is used.

        Args:
            X: Clips, see the module.
            y: Not used.

        Raises:
            ValueError: If X is not an array of numbers.
            CheckpointError: If the checkpoint cannot be loaded.
            ConfigError: For a bad parameter.
        """
        clips = self._clips(X, reset=True)
        model = _model(self.checkpoint, self.device)
        self.checkpoint_sha256_ = model.checkpoint.sha256
        self._n_features_out = int(self._measure(model, self._sound(clips[0], 0)).size)
        return self

    def transform(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the features (n_clips, D), float32.

        Args:
            X: Clips, see the module.

        Raises:
            AudioError: If a clip is silent, or a file cannot be read.
            CheckpointError: If the checkpoint is not the one of `fit`.
            ValueError: If X is not an array of numbers, or has another length than in `fit`.
        """
        check_is_fitted(self)
        clips = self._clips(X, reset=False)
        model = _model(self.checkpoint, self.device)
        if model.checkpoint.sha256 != self.checkpoint_sha256_:
            raise CheckpointError(
                f"the checkpoint {self.checkpoint} ({model.checkpoint.sha256[:12]}...) is not the one of `fit` "
                f"({self.checkpoint_sha256_[:12]}...); fit it again"
            )
        return np.stack([self._measure(model, self._sound(clip, n)) for n, clip in enumerate(clips)])

    def _measure(self, model: Model, sound: Sound) -> np.ndarray:
        raise NotImplementedError

    def _clips(self, X: Any, reset: bool) -> Sequence[Clip]:  # noqa: N803
        if _is_list_of_clips(X):
            return list(X)
        array: np.ndarray = validate_data(self, X, reset=reset, dtype=[np.float32, np.float64])
        return list(array)

    def _sound(self, clip: Clip, n: int) -> Sound:
        if isinstance(clip, str | Path):
            sound = read_sound(clip)
        else:
            if clip.ndim != 1:
                raise ValueError(f"clip {n} has shape {clip.shape}; give one channel (n_samples,)")
            sound = check_sound(clip.astype(np.float32), self.sample_rate, f"clip {n}")
        missing = int(np.ceil(MIN_SOURCE_S * sound.sample_rate)) - len(sound.wav)
        if missing <= 0:
            return sound
        return Sound(np.pad(sound.wav, (missing // 2, missing - missing // 2)), sound.sample_rate, sound.name)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "checkpoint_sha256_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def _is_list_of_clips(clips: Any) -> bool:
    """Return whether these are separate clips rather than a single array."""
    is_array = isinstance(clips, np.ndarray)
    listed = (clips.ndim == 1 and clips.dtype.kind in "OU") if is_array else isinstance(clips, list | tuple)
    return (
        listed
        and len(clips) > 0
        and all(isinstance(c, str | Path) or (isinstance(c, np.ndarray) and c.ndim > 0) for c in clips)
    )


class SpeakerEmbedder(_Embedder):
    """Transformer to speaker embeddings: unit vectors, whose cosine is the similarity of two voices.

    Args:
        checkpoint: Name of a shipped checkpoint, or a path.
        sample_rate: Sample rate of arrays, in Hz.
        device: `auto`, `cpu`, `cuda` or `mps`.
    """

    def __init__(self, checkpoint: str | Path = "default", sample_rate: int = 16000, device: str = "auto") -> None:
        self.checkpoint = checkpoint
        self.sample_rate = sample_rate
        self.device = device

    def _measure(self, model: Model, sound: Sound) -> np.ndarray:
        values: np.ndarray = embed(model, sound, "speaker").values
        first: np.ndarray = values[0]
        return first


class ContentEmbedder(_Embedder):
    """Transformer to content features, which have little information on the speaker.

    Args:
        checkpoint: Name of a shipped checkpoint, or a path.
        sample_rate: Sample rate of arrays, in Hz.
        pool: `steps` preserves the order of the sounds: the means of `n_steps` equal parts, concatenated; `mean` is
            a single mean, which is zero by design with the checkpoint `default`, so use `vq-narrow`.
        n_steps: Number of parts.
        device: `auto`, `cpu`, `cuda` or `mps`.
    """

    def __init__(
        self,
        checkpoint: str | Path = "default",
        sample_rate: int = 16000,
        pool: str = "steps",
        n_steps: int = N_STEPS,
        device: str = "auto",
    ) -> None:
        self.checkpoint = checkpoint
        self.sample_rate = sample_rate
        self.pool = pool
        self.n_steps = n_steps
        self.device = device

    def _measure(self, model: Model, sound: Sound) -> np.ndarray:
        if self.pool not in ("steps", "mean"):
            raise ConfigError(f"pool is {self.pool!r}; allowed are steps and mean, which give every clip as many numbers")
        values: np.ndarray = embed(model, sound, "content", self.pool, self.n_steps).values
        return values.ravel()
