"""Speech and text for decipherment: latents of recordings, and phones of text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vcae.checkpoint import read_tensors, write_tensors
from vcae.errors import CheckpointError
from vcae.model_file import read_header

# Name of the facts in a file's metadata.
SPEECH, TEXT = "speech", "text"


@dataclass(frozen=True)
class Speech:
    """Latents of a recording.

    Attributes:
        name: File of the recording.
        speaker: Corpus and speaker.
        split: Split of the manifest.
        transcript: What to score by; the training never reads it.
        latent: (T, latent_dim), float16.
        active: (T,), true in steps that are not a pause.
    """

    name: str
    speaker: str
    split: str
    transcript: str
    latent: Tensor
    active: Tensor


@dataclass(frozen=True)
class Text:
    """Phones of a text.

    Attributes:
        sequences: Phones of pieces of the text, numbered from 1 as in the transcriber; 0 is a pause. int8.
        words: The text's words with the number of times that it has them.
    """

    sequences: list[np.ndarray]
    words: dict[str, int]


def write_speech(path: str | Path, speech: Sequence[Speech]) -> None:
    """Write the latents of recordings as one file.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    facts = json.dumps([[s.name, s.speaker, s.split, s.transcript] for s in speech], ensure_ascii=False)
    lengths = torch.tensor([len(s.latent) for s in speech])
    active = torch.cat([s.active for s in speech]).to(torch.int8)
    write_tensors(
        path, {"latent": torch.cat([s.latent for s in speech]), "active": active, "lengths": lengths}, {SPEECH: facts}
    )


def read_speech(path: str | Path) -> list[Speech]:
    """Read a file of `write_speech`.

    Raises:
        CheckpointError: If it is missing, damaged, or another file.
    """
    facts, tensors = _read(path, SPEECH)
    lengths = tensors["lengths"].tolist()
    latents, active = torch.split(tensors["latent"], lengths), torch.split(tensors["active"].bool(), lengths)
    rows: list[list[str]] = json.loads(facts)
    return [
        Speech(name, speaker, split, transcript, latent, spoken)
        for (name, speaker, split, transcript), latent, spoken in zip(rows, latents, active, strict=True)
    ]


def write_text(path: str | Path, text: Text) -> None:
    """Write the phones of a text.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    lengths = torch.tensor([len(s) for s in text.sequences])
    phones = torch.from_numpy(np.concatenate(text.sequences).astype(np.int8))
    write_tensors(path, {"phones": phones, "lengths": lengths}, {TEXT: json.dumps(text.words)})


def read_text(path: str | Path) -> Text:
    """Read a file of `write_text`.

    Raises:
        CheckpointError: If it is missing, damaged, or another file.
    """
    facts, tensors = _read(path, TEXT)
    pieces = torch.split(tensors["phones"], tensors["lengths"].tolist())
    return Text([piece.numpy() for piece in pieces], json.loads(facts))


def _read(path: str | Path, name: str) -> tuple[str, dict[str, Tensor]]:
    facts, (tensors, _) = read_header(Path(path)).get(name), read_tensors(Path(path))
    if facts is None:
        raise CheckpointError(f"{path} holds no {name}; write it with recipes/text/prepare.py")
    return facts, tensors
