"""Features of recordings for other tasks: one vector of the speaker, content step by step, or the mel, each with its times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from vcae.audio.sections import Sections, Workshop
from vcae.engine.engine import Engine
from vcae.engine.listening import MIN_SOURCE_S, Source, hear_content, hear_speaker, listen
from vcae.errors import ConfigError
from vcae.tasks.convert import SECTION_S

WHATS = ("speaker", "content", "mel")
POOLS = ("none", "mean", "steps")
# Rows that `steps` gives unless told otherwise.
N_STEPS = 20


@dataclass(frozen=True, eq=False, repr=False)
class Embedding:
    """What was measured of one recording, R rows of D numbers.

    Attributes:
        name: Of the recording.
        what: `speaker`, `content` or `mel`.
        values: (R, D) float32; one row for the speaker or a mean.
        start_s: (R,) when each row begins, in seconds.
        end_s: (R,) when it ends; rows follow each other without a gap.
    """

    name: str
    what: str
    values: np.ndarray
    start_s: np.ndarray
    end_s: np.ndarray

    def __repr__(self) -> str:
        rows, dim = self.values.shape
        return (
            f"Embedding({self.what} of {self.name!r}, {rows} row{'s' * (rows != 1)} of {dim} numbers, {self.end_s[-1]:.2f} s)"
        )


def check_what(what: str, pool: str) -> None:
    """Refuse what cannot be measured, or be pooled.

    Raises:
        ConfigError: If one of the two is unknown.
    """
    if what not in WHATS:
        raise ConfigError(f"what is {what!r}; allowed are {', '.join(WHATS)}")
    if pool not in POOLS:
        raise ConfigError(f"pool is {pool!r}; allowed are {', '.join(POOLS)}")


@torch.inference_mode()
def embed(model: Engine, sound: Source, what: str = "speaker", pool: str = "none", n_steps: int = N_STEPS) -> Embedding:
    """Measure a recording of at least 0.5 s; of any length, in memory bounded by what is returned.

    `speaker` is the speaker embedding, a unit vector: the cosine of two says how alike the voices are. `content` is what the decoder
    reads, about 31 rows a second; of a checkpoint with a discrete code, the vectors of its units. `mel` is the log-mel at the
    models' level, 62.5 rows a second.

    Args:
        model: With an autoencoder.
        sound: A `Sound`, or a `SoundReader`.
        what: See above.
        pool: `mean` is one row, the mean over the rows that carry sound; `steps` is the means of `n_steps` equal parts,
            from the first to the last row that carries sound; `none` leaves all. The speaker is one row in any case.
        n_steps: Rows of `steps`.

    Raises:
        AudioError: For unusable audio.
        CheckpointError: If the checkpoint has no autoencoder.
        ConfigError: For an unknown `what` or `pool`, or a speaker asked of a checkpoint without a speaker part.
    """
    check_what(what, pool)
    if n_steps < 1:
        raise ConfigError(f"n_steps is {n_steps}; it must be at least 1")
    autoencoder, step = model.autoencoder, max(round(SECTION_S * model.mel_config.frame_rate), 1)
    if what == "speaker":
        autoencoder.the_speaker_encoder()
    heard, work = listen(model, sound, MIN_SOURCE_S, lambda n: Workshop(step, n > step, model.device), with_f0=False)
    whole = np.zeros(1), np.full(1, heard.duration_s)
    if what == "speaker":
        speaker = hear_speaker(model, heard.mel, heard.active, work)
        return Embedding(sound.name, what, speaker.float().cpu().numpy(), *whole)
    stride, active = 1, heard.active[0, 0].cpu().numpy() > 0
    rows: Sections = heard.mel
    if what == "content":
        stride, rows = autoencoder.config.content.stride, hear_content(model, heard.mel, heard.active, work)
    heard_rows = np.asarray(np.pad(active, (0, -len(active) % stride)).reshape(-1, stride).any(axis=1))
    values = torch.cat([rows.read(start, stop)[0].T.float().cpu() for start, stop in work.walk(rows.n)]).numpy()
    borders = _borders(len(values), stride / model.mel_config.frame_rate, 0.5 / model.mel_config.frame_rate, heard.duration_s)
    if pool == "mean":
        return Embedding(sound.name, what, values[heard_rows].mean(axis=0, keepdims=True), *whole)
    if pool == "steps":
        values, borders = resample_rows(values, borders, heard_rows, n_steps)
    return Embedding(sound.name, what, np.ascontiguousarray(values), borders[:-1], borders[1:])


def _borders(n: int, step_s: float, half_frame_s: float, duration_s: float) -> np.ndarray:
    """Return (n + 1,) where rows begin and end: frames are centred on multiples of the hop, the first and last are cut."""
    borders = np.arange(n + 1) * step_s - half_frame_s
    return np.clip(borders, 0.0, duration_s) if n < 2 else np.concatenate([[0.0], borders[1:-1], [duration_s]])


def resample_rows(values: np.ndarray, borders: np.ndarray, active: np.ndarray, n_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Bring rows to a fixed number, so that recordings of different tempo can be compared place by place.

    Args:
        values: (R, D).
        borders: (R + 1,) where rows begin and end, in seconds.
        active: (R,) which rows carry sound; what lies before the first and after the last of these is left out.
        n_steps: How many rows to make.

    Returns:
        The rows (n_steps, D), and where they begin and end (n_steps + 1,).
    """
    at = np.flatnonzero(active)
    first, last = (int(at[0]), int(at[-1]) + 1) if len(at) else (0, len(values))
    # Means of equal parts, whose edges may lie within a row.
    edges = np.linspace(first, last, n_steps + 1)
    total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0, dtype=np.float64)])
    grid = np.arange(len(total))
    summed = np.stack([np.interp(edges, grid, column) for column in total.T], axis=1)
    made = np.diff(summed, axis=0) / np.diff(edges)[:, None]
    return made.astype(np.float32), np.interp(edges, grid, borders)
