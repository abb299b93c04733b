"""Samples with a sample rate that can be used wherever NumPy or PyTorch accepts an array."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin


class SampleArray(NDArrayOperatorsMixin):
    """Base class of sounds, with samples in `wav`, (N,) or (N, channels).

    A sound contains an array and is not one itself: results of NumPy or PyTorch functions are plain arrays or tensors. A subclass of `ndarray`
    would pass its rate on to slices such as `sound[::2]`, for which it is wrong.

    Attributes:
        wav: (N,) or (N, channels), float32.
    """

    wav: np.ndarray

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.wav, dtype=dtype) if copy else np.asarray(self.wav, dtype=dtype)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        return getattr(ufunc, method)(*(x.wav if isinstance(x, SampleArray) else x for x in inputs), **options)

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        import torch

        def plain(value: Any) -> Any:
            return torch.as_tensor(value.wav) if isinstance(value, SampleArray) else value

        return function(*map(plain, args), **{name: plain(value) for name, value in (kwargs or {}).items()})

    def __len__(self) -> int:
        return len(self.wav)

    def __getitem__(self, key: Any) -> Any:
        return self.wav[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.wav)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the samples, (N,) or (N, channels)."""
        return self.wav.shape

    @property
    def ndim(self) -> int:
        """Number of axes of the samples, 1 or 2."""
        return self.wav.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the samples, float32."""
        return self.wav.dtype

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            # Results were tensors until version 0.2: their attributes still work, with a warning.
            import torch

            if name.startswith("_") or name == "wav" or not hasattr(torch.Tensor, name):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            warnings.warn(
                f"a result is a Sound and no tensor any more: take sound.wav (NumPy), or torch.from_numpy(sound.wav).{name}",
                DeprecationWarning,
                stacklevel=2,
            )
            return getattr(torch.from_numpy(self.wav), name)
