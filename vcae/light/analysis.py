"""Analysis of a recording without torch: level, samples, mel and F0, as `vcae.engine.listening` does it with torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vcae.audio.f0_detection import F0_MAX_HZ, F0_MIN_HZ, HOP_LENGTH, detect_by_blocks
from vcae.audio.io import Sound, resample_blocks
from vcae.audio.loudness import PEAK_LIMIT, SILENCE_LEVEL, LevelMeter, cut_rumble
from vcae.audio.speech import Speech, find_speech, is_noisy
from vcae.errors import AudioError
from vcae.light.arrays import active_frames
from vcae.light.graphs import Graphs

# The detector answers digital silence with random voiced frames; below this peak a frame counts as unvoiced, as in swift-f0.
SILENCE_PEAK = 1e-3
# Longest recording in seconds, as all of it is in memory at once.
MAX_S = 600.0


@dataclass(frozen=True)
class Analysis:
    """Analysis of a recording.

    Attributes:
        meter: Measurements of the samples at the models' level.
        mel: (n_mels, T), natural log magnitude.
        f0: (T,) in Hz, 0 where unvoiced.
        active: (T,) bool, frames that carry sound.
        n_samples: Number of samples at the models' rate.
        level: RMS level of the active frames before it was changed.
    """

    meter: LevelMeter
    mel: np.ndarray
    f0: np.ndarray
    active: np.ndarray
    n_samples: int
    level: float

    def speech(self, frame_rate: float) -> Speech:
        """Return the speech in it; `frame_rate` is in Hz."""
        return find_speech(self.mel, self.f0, self.active, frame_rate)

    def cut(self, keep: np.ndarray) -> Analysis:
        """Return the analysis of some of the frames, (T,) bool."""
        mel = self.mel[:, keep]
        return Analysis(self.meter, mel, self.f0[keep], active_frames(mel), 0, self.level)


def analyse(graphs: Graphs, sound: Sound, min_s: float) -> Analysis:
    """Analyse a recording.

    Args:
        graphs: Graphs of the models.
        sound: At most ten minutes.
        min_s: Shortest length allowed, in seconds.

    Raises:
        AudioError: If the recording is too short, too long or silent.
    """
    wav, meter, level = _levelled(graphs, sound, min_s)
    n, hop = len(wav), graphs.hop_length
    frames = 1 + n // hop
    padded = np.zeros((1, frames * hop), np.float32)
    padded[0, :n] = wav
    mel = graphs.run("mel", wav=padded, n_samples=np.array([n]))[0][0]
    f0 = detect_by_blocks(lambda start, stop: wav[start:stop], n, meter.peak, lambda part: _detect(graphs, part))
    return Analysis(meter, mel, f0, active_frames(mel), n, level)


def noisy(graphs: Graphs, seen: Analysis, below_db: float) -> bool:
    """Return whether a recording is so noisy that it should be denoised: less than `below_db` between speech and pauses."""
    return is_noisy(seen.speech(graphs.frame_rate), below_db)


def _levelled(graphs: Graphs, sound: Sound, min_s: float) -> tuple[np.ndarray, LevelMeter, float]:
    """Return the samples (n,) at the models' rate and level, their measurements, and the level before."""
    if not min_s <= sound.duration_s <= MAX_S:
        raise AudioError(f"{sound.name} is {sound.duration_s:.2f} s long; {min_s:g} to {MAX_S:g} s are needed")
    mono, rate = np.concatenate(list(sound.blocks())), graphs.sample_rate
    level = LevelMeter.of(mono, sound.sample_rate).level()
    if level < SILENCE_LEVEL:
        raise AudioError(f"{sound.name} is silent (level {level:.1e} of full scale); give a recording with sound in it")
    wav = np.concatenate(list(resample_blocks([mono], sound.sample_rate, rate)))
    meter = LevelMeter.of(wav, rate)
    if meter.has_offset():
        offset = meter.mean
        wav, meter = wav - np.float32(offset), meter.changed(offset)
    if meter.has_rumble():
        wav = cut_rumble(wav, rate)
        meter = LevelMeter.of(wav, rate)
    gain = meter.gain
    clip = meter.peak * gain > PEAK_LIMIT * (1 + 1e-6)
    wav = wav * np.float32(gain)
    wav = np.clip(wav, -PEAK_LIMIT, PEAK_LIMIT) if clip else wav
    return wav.astype(np.float32), meter.changed(gain=gain, most=PEAK_LIMIT if clip else np.inf), level


def _detect(graphs: Graphs, wav: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    audio = wav.astype(np.float32)
    low, high = np.float32(F0_MIN_HZ), np.float32(F0_MAX_HZ)
    pitch, confidence = graphs.run("f0", audio=audio[None], fmin=np.asarray(low), fmax=np.asarray(high))
    n = confidence.shape[1]
    peaks = np.abs(audio[: n * HOP_LENGTH].reshape(n, HOP_LENGTH)).max(axis=1)
    return pitch[0], np.where(peaks < SILENCE_PEAK, 0.0, confidence[0])
