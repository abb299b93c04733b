"""Features of recordings for other tasks: a speaker vector, content per step, or the mel, each with its times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from vcae.audio.sections import SectionRunner, Sections
from vcae.engine.engine import Engine
from vcae.engine.listening import MIN_SOURCE_S, Source, analyse_sections, encode_content_sections, encode_speaker_sections
from vcae.errors import ConfigError
from vcae.tasks.convert import SECTION_S

WHATS = ("speaker", "content", "mel")
POOLS = ("none", "mean", "steps")
# Default number of rows of `steps`.
N_STEPS = 20


@dataclass(frozen=True, eq=False, repr=False)
class Embedding:
    """Features of a recording: R rows of dimension D.

    Attributes:
        name: Name of the recording.
        what: `speaker`, `content` or `mel`.
        values: (R, D) float32; one row for the speaker or a mean.
        start_s: (R,), start of each row in seconds.
        end_s: (R,), end of each row in seconds; rows cover the recording without gaps.
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
    """Check the kind of features and of pooling.

    Raises:
        ConfigError: If one of the two is unknown.
    """
    if what not in WHATS:
        raise ConfigError(f"what is {what!r}; allowed are {', '.join(WHATS)}")
    if pool not in POOLS:
        raise ConfigError(f"pool is {pool!r}; allowed are {', '.join(POOLS)}")


@torch.inference_mode()
def embed(model: Engine, sound: Source, what: str = "speaker", pool: str = "none", n_steps: int = N_STEPS) -> Embedding:
    """Extract features of a recording of at least 0.5 s and any length, in memory bounded by the result.

    `speaker` is the speaker embedding, a unit vector; the cosine of two is the similarity of the voices. `content` is the decoder's
    input, about 31 rows per second; for a checkpoint with a discrete code, the vectors of its units. `mel` is the log-mel at the
    models' level, 62.5 rows per second.

    Args:
        model: Model with an autoencoder.
        sound: A `Sound`, or a `SoundReader`.
        what: Kind of features.
        pool: `mean` gives one row, the mean over active rows; `steps` gives the means of `n_steps` equal parts
            from the first to the last active row; `none` gives all rows. The speaker is always one row.
        n_steps: Number of rows of `steps`.

    Raises:
        AudioError: For unusable audio.
        CheckpointError: If the checkpoint has no autoencoder.
        ConfigError: For an unknown `what` or `pool`, or `speaker` with a checkpoint without a speaker part.
    """
    check_what(what, pool)
    if n_steps < 1:
        raise ConfigError(f"n_steps is {n_steps}; it must be at least 1")
    autoencoder, step = model.autoencoder, max(round(SECTION_S * model.mel_config.frame_rate), 1)
    if what == "speaker":
        autoencoder.the_speaker_encoder()
    heard, runner = analyse_sections(
        model, sound, MIN_SOURCE_S, lambda n: SectionRunner(step, n > step, model.device), with_f0=False
    )
    whole = np.zeros(1), np.full(1, heard.duration_s)
    if what == "speaker":
        speaker = encode_speaker_sections(model, heard.mel, heard.active, runner)
        return Embedding(sound.name, what, speaker.float().cpu().numpy(), *whole)
    stride, active = 1, heard.active[0, 0].cpu().numpy() > 0
    rows: Sections = heard.mel
    if what == "content":
        stride, rows = autoencoder.config.content.stride, encode_content_sections(model, heard.mel, heard.active, runner)
    heard_rows = np.asarray(np.pad(active, (0, -len(active) % stride)).reshape(-1, stride).any(axis=1))
    values = torch.cat([rows.read(start, stop)[0].T.float().cpu() for start, stop in runner.spans(rows.n)]).numpy()
    borders = _borders(len(values), stride / model.mel_config.frame_rate, 0.5 / model.mel_config.frame_rate, heard.duration_s)
    if pool == "mean":
        return Embedding(sound.name, what, values[heard_rows].mean(axis=0, keepdims=True), *whole)
    if pool == "steps":
        values, borders = resample_rows(values, borders, heard_rows, n_steps)
    return Embedding(sound.name, what, np.ascontiguousarray(values), borders[:-1], borders[1:])


def _borders(n: int, step_s: float, half_frame_s: float, duration_s: float) -> np.ndarray:
    """Return the borders of rows (n + 1,) in seconds: frames are centred on multiples of the hop; the first and last are cut off."""
    borders = np.arange(n + 1) * step_s - half_frame_s
    return np.clip(borders, 0.0, duration_s) if n < 2 else np.concatenate([[0.0], borders[1:-1], [duration_s]])


def resample_rows(values: np.ndarray, borders: np.ndarray, active: np.ndarray, n_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Resample rows to a fixed number, so that recordings of different tempo can be compared row by row.

    Args:
        values: (R, D).
        borders: (R + 1,), borders of the rows in seconds.
        active: (R,), active rows; rows before the first and after the last of them are left out.
        n_steps: Number of rows of the result.

    Returns:
        The rows (n_steps, D), and their borders (n_steps + 1,) in seconds.
    """
    at = np.flatnonzero(active)
    first, last = (int(at[0]), int(at[-1]) + 1) if len(at) else (0, len(values))
    # Means of equal parts, whose edges may be inside a row.
    edges = np.linspace(first, last, n_steps + 1)
    total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0, dtype=np.float64)])
    grid = np.arange(len(total))
    summed = np.stack([np.interp(edges, grid, column) for column in total.T], axis=1)
    made = np.diff(summed, axis=0) / np.diff(edges)[:, None]
    return made.astype(np.float32), np.interp(edges, grid, borders)
