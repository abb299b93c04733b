"""Denoising of a mono recording without torch, as `vcae.engine.denoise` does it with torch."""

from __future__ import annotations

import numpy as np

from vcae.audio.io import Sound, resample
from vcae.audio.loudness import TARGET_LEVEL, LevelMeter
from vcae.light.graphs import Graphs
from vcae.options import DENOISE_STRENGTH


def denoised(graphs: Graphs, sound: Sound, strength: float = DENOISE_STRENGTH) -> Sound:
    """Return a recording mixed to mono and denoised, at its own rate.

    Args:
        graphs: Graphs of the models.
        sound: The recording.
        strength: 0 (unchanged) to 1 (full denoising).
    """
    settings = graphs.settings["denoiser"]
    rate, hop = settings["sample_rate"], settings["hop_length"]
    mono = np.concatenate(list(sound.blocks()))
    meter = LevelMeter.of(mono, sound.sample_rate)
    level = meter.changed(meter.mean).level()
    gain = np.float32(np.clip(level, TARGET_LEVEL * settings["quieter"], TARGET_LEVEL * settings["louder"]) / level)
    low = resample(mono, sound.sample_rate, rate) if sound.sample_rate != rate else mono
    n = len(low)
    padded = np.zeros((1, -(-(n + hop) // hop) * hop), np.float32)
    padded[0, :n] = low * gain
    clean, gains = graphs.run("denoiser", wav=padded, strength=np.array([strength], np.float32))
    made = clean[0, :n] / gain
    if sound.sample_rate != rate:
        # Above the network's band the gain is that of the band's highest octave; only the change of the band is resampled.
        at = np.arange(gains.shape[1]) * hop
        change = made - np.interp(np.arange(n), at, gains[0]) * low
        moved = resample(change.astype(np.float32), rate, sound.sample_rate)
        moved = np.pad(moved, (0, max(len(mono) - len(moved), 0)))[: len(mono)]
        made = np.interp(np.arange(len(mono)) * (rate / sound.sample_rate), at, gains[0]) * mono + moved
    return Sound(made.astype(np.float32), sound.sample_rate, sound.name, sound.comment, sound.warnings)
