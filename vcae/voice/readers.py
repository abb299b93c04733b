"""Speech of many readers as mels, which ships with the package: sentences to convert to a voice, to measure what conversions to it sound like."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from vcae import checkpoint
from vcae.errors import CheckpointError
from vcae.model_file import find

READERS = "readers"


@dataclass(frozen=True)
class Reader:
    """Speech of one reader.

    Attributes:
        mel: (1, n_mels, T), natural log magnitude.
        f0: (1, T) in Hz, 0 where unvoiced.
    """

    mel: Tensor
    f0: Tensor


@lru_cache(maxsize=1)
def load_readers(name: str | Path = READERS) -> tuple[Reader, ...]:
    """Return the readers of a file, by the name of the shipped one or by path.

    Raises:
        CheckpointError: If it is missing, damaged or of another kind.
    """
    path = find(name)
    tensors, _ = checkpoint.read_tensors(path)
    try:
        mel, f0, lengths = tensors["mel"].float(), tensors["f0"].float(), tensors["lengths"].tolist()
        mels, f0s = torch.split(mel[None], lengths, dim=2), torch.split(f0[None], lengths, dim=1)
    except (KeyError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} has no speech of readers ({reason}); reinstall vcae") from error
    return tuple(Reader(mel, f0) for mel, f0 in zip(mels, f0s, strict=True))
