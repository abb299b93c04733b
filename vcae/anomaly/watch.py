"""Rolling scores of a live stream or a growing file: one score per window, in constant memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vcae.anomaly.detector import Detector
from vcae.errors import AudioError

CHUNK = 1 << 15
# Interval at which a growing file is checked, in s.
POLL_S = 0.2


@dataclass(frozen=True)
class Window:
    """Score of a window.

    Attributes:
        start_s: Start of the window.
        end_s: End of the window.
        score: As in `Anomaly`; None if the window is silent.
        p_value: As in `Anomaly`; None if the window is silent.
        peak_s: Time of its most anomalous frame.
    """

    start_s: float
    end_s: float
    score: float | None
    p_value: float | None
    peak_s: float | None


def read_pcm(stream: BinaryIO, follow_s: float = 0.0) -> Iterator[np.ndarray]:
    """Yield samples (n,) float32 of 16-bit little-endian mono PCM as they arrive.

    Args:
        stream: Stream that is read until its end.
        follow_s: Time to wait for more after the end, in s, for a growing file.
    """
    rest = b""
    waited = 0.0
    while True:
        data = stream.read(CHUNK)
        if not data:
            if waited >= follow_s:
                return
            time.sleep(POLL_S)
            waited += POLL_S
            continue
        waited = 0.0
        data = rest + data
        even = len(data) - len(data) % 2
        rest = data[even:]
        yield np.frombuffer(data[:even], dtype="<i2").astype(np.float32) / 32768


def read_growing(path: Path, follow_s: float = 0.0) -> tuple[int, Iterator[np.ndarray]]:
    """Open a sound file that may still grow.

    Returns:
        Its sample rate, and an iterator of samples (n,), mixed to mono.

    Raises:
        AudioError: If it cannot be read.
    """
    import soundfile

    try:
        with soundfile.SoundFile(str(path)) as opened:
            rate = int(opened.samplerate)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        reason = str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
        raise AudioError(
            f"{path} is not a sound file that can be read ({reason}); give wav, flac, ogg, opus or aiff"
        ) from error

    def read() -> Iterator[np.ndarray]:
        at, waited = 0, 0.0
        while True:
            # Reopened each time, as the header of a growing file changes.
            try:
                with soundfile.SoundFile(str(path)) as opened:
                    if at < opened.frames:
                        opened.seek(at)
                        while len(block := opened.read(CHUNK, dtype="float32", always_2d=True)):
                            at, waited = at + len(block), 0.0
                            yield block.mean(axis=1)
            except (soundfile.LibsndfileError, RuntimeError) as error:
                raise AudioError(f"{path} became unreadable after {at / rate:.1f} s ({error})") from error
            if waited >= follow_s:
                return
            time.sleep(POLL_S)
            waited += POLL_S

    return rate, read()


def watch(
    detector: Detector,
    pieces: Iterator[np.ndarray],
    sample_rate: int,
    window_s: float | None = None,
    hop_s: float | None = None,
) -> Iterator[Window]:
    """Score windows of a stream.

    Args:
        detector: Fitted detector.
        pieces: Blocks of samples (n,), of any lengths.
        sample_rate: Rate of the samples in Hz.
        window_s: Length of a window in s; None: that of the recordings from which the scores were calibrated.
        hop_s: Hop between windows in s; None: half a window.

    Yields:
        Each window's score; the last one ends where the stream ends.

    Raises:
        AudioError: If the stream ends before the first window is full, or the window is too short for the detector.
    """
    config = detector.config
    rate = config.mel.sample_rate
    window = round((window_s or detector.segment_s) * rate)
    hop = round((hop_s or window / rate / 2) * rate)
    least = config.mel.n_fft + (config.context - 1) * config.mel.hop_length
    if window < least:
        raise AudioError(f"a window of {window / rate:.3f} s is too short; at least {least / rate:.3f} s are needed")
    if not 0 < hop <= window:
        raise AudioError(
            f"a hop of {hop / rate:.3f} s does not fit windows of {window / rate:.3f} s; it must be above 0 and at most a window"
        )
    held = np.zeros(0, np.float32)
    start = fresh = 0
    for piece in _resampled(pieces, sample_rate, rate):
        held = np.concatenate([held, piece])
        fresh += len(piece)
        while len(held) >= window:
            yield _score(detector, held[:window], start / rate)
            held = held[hop:].copy()
            start += hop
            fresh = max(0, len(held) - (window - hop))
    if start == 0:
        raise AudioError(
            f"the stream ended after {len(held) / rate:.3f} s, before the first window of {window / rate:.3f} s was full"
        )
    if fresh > 0 and len(held) >= least:
        yield _score(detector, held, start / rate)


def _resampled(pieces: Iterator[np.ndarray], sample_rate: int, rate: int) -> Iterator[np.ndarray]:
    if sample_rate == rate:
        yield from pieces
        return
    import soxr

    stream = soxr.ResampleStream(sample_rate, rate, 1, dtype="float32", quality="HQ")
    for piece in pieces:
        yield np.asarray(stream.resample_chunk(np.ascontiguousarray(piece, dtype=np.float32)))
    yield np.asarray(stream.resample_chunk(np.zeros(0, np.float32), last=True))


def _score(detector: Detector, wav: np.ndarray, start_s: float) -> Window:
    end_s = start_s + len(wav) / detector.config.mel.sample_rate
    try:
        found = detector.score(wav, detector.config.mel.sample_rate)
    except AudioError:
        # Silence or invalid samples give a window without a score, and the watch continues.
        return Window(start_s, end_s, None, None, None)
    peak_s = start_s + float(np.argmax(found.frame_scores)) * found.hop_s
    return Window(start_s, end_s, found.score, found.p_value, min(peak_s, end_s))
