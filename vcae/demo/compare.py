"""One player for two sounds of equal content: a file with a channel for each, at the same level."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np

from vcae import Sound, resample, write_sound
from vcae.audio.loudness import active_level
from vcae.demo.studio import Studio

FORMATS = ("wav", "mp3", "m4a")
# Number of bars of a drawn waveform.
N_BARS = 260
# A comparison has the original's rate, up to this rate and this duration.
MAX_RATE, MAX_WIDE_S = 48000, 1200.0


@dataclass(frozen=True)
class Comparison:
    """Two sounds in one file.

    Attributes:
        path: Two-channel FLAC: the first sound, and the second.
        seconds: Duration.
        peaks: Waveform of each, `N_BARS` numbers from 0 to 100.
    """

    path: Path
    seconds: float
    peaks: tuple[list[int], list[int]]


def compare(path: Path, first: Sound, second: Sound) -> Comparison:
    """Write two sounds of equal content into one file, at the level of the quieter one.

    Args:
        path: FLAC to write.
        first: The original; several channels are averaged.
        second: The result.
    """
    rate = second.sample_rate
    if max(first.duration_s, second.duration_s) <= MAX_WIDE_S:
        rate = min(max(first.sample_rate, second.sample_rate), MAX_RATE)
    wavs = [resample(_mono(sound), sound.sample_rate, rate) for sound in (first, second)]
    levels = [max(active_level(wav, rate), 1e-6) for wav in wavs]
    both = np.zeros((max(map(len, wavs)), 2), np.float32)
    for channel, (wav, level) in enumerate(zip(wavs, levels, strict=True)):
        both[: len(wav), channel] = wav * (min(levels) / level)
    write_sound(path, Sound(both, rate), "", force=True)
    return Comparison(path, len(both) / rate, (_bars(both[:, 0]), _bars(both[:, 1])))


def _mono(sound: Sound) -> np.ndarray:
    return np.concatenate(list(sound.blocks()))


def _bars(wav: np.ndarray) -> list[int]:
    edges = np.linspace(0, len(wav), N_BARS + 1).astype(int)[:-1]
    peaks = np.maximum.reduceat(np.abs(wav), np.minimum(edges, len(wav) - 1))
    return [round(100 * float(peak)) for peak in peaks / max(float(peaks.max()), 1e-6)]


def player_html(studio: Studio, made: Comparison, names: tuple[str, str] = ("Original", "New")) -> str:
    """Return the HTML of the player of a comparison, which starts with the second sound."""
    attributes = {
        "src": studio.url(made.path),
        "seconds": f"{made.seconds:.3f}",
        "first": names[0],
        "second": names[1],
        "peaks": json.dumps(made.peaks, separators=(",", ":")),
        "play": "Play",
        "pause": "Pause",
        "which": "Which of the two plays",
        "place": "Place in the recording, in seconds",
    }
    listed = " ".join(f'{name}="{html.escape(value)}"' for name, value in attributes.items())
    return f"<vcae-player {listed}></vcae-player>"


def downloads_html(studio: Studio, path: Path, place: str = "download", formats: Sequence[str] = FORMATS) -> str:
    """Return the HTML of links to a result in several formats, which are encoded when they are asked for. `place` begins their ids."""
    links = "".join(
        f'<a class="vcae-download" id="{place}-{form}" href="{studio.url(path.with_suffix("." + form))}" '
        f'download="{quote(path.stem)}.{form}">{form.upper()}</a>'
        for form in formats
    )
    return f'<div class="vcae-downloads"><span>Download</span>{links}</div>'
