"""Formats of PyAV that libsndfile does not support: m4a, aac, wma, amr, sound tracks of videos; and writing sound into a video."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from vcae.errors import AudioError

if TYPE_CHECKING:
    from av.container import InputContainer

# Formats that may be opened. Playlists (hls, concat, dash) are excluded, as they refer to other files and hosts.
DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2",
    *("matroska,webm", "asf", "avi", "mpegts", "mpeg", "flv", "ogg", "aac", "amr", "amrnb", "amrwb"),
    *(
        "mp3",
        "wav",
        "aiff",
        "au",
        "caf",
        "flac",
        "ac3",
        "eac3",
        "dts",
        "wv",
        "ape",
        "tta",
        "tak",
        "rm",
        "mpc",
        "mpc8",
        "loas",
        "w64",
        "gsm",
    ),
)
# Range of gaps in the time stamps of a sound track that are filled with silence, in s; smaller ones are jitter, larger ones another clock.
MIN_GAP_S, MAX_GAP_S = 0.05, 600.0
# Most samples of padding in an encoder's last frame.
MAX_FILLING = 4096
# Tolerance of a container's duration, whose resolution is a millisecond or a frame; in addition to 1 %.
TOLERANCE_S = 0.15
# Output formats: (container, codec, rate that the codec needs or None, bit/s).
SOUND_FORMATS = {".m4a": ("ipod", "aac", None, 96_000)}
LAYOUTS = {1: "mono", 2: "stereo"}
VIDEO_FORMATS = {
    ".mp4": ("mp4", "aac", None, 96_000),
    ".mov": ("mov", "aac", None, 96_000),
    ".mkv": ("matroska", "aac", None, 96_000),
    ".webm": ("webm", "libopus", 48_000, 64_000),
}


def _av(name: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise AudioError(f"{name} needs the package av to be read or written; install it: pip install av") from error
    return av


class MediaFile:
    """Sound track of a file in a format of ffmpeg's libraries.

    Args:
        file: File opened for reading, seekable.
        name: Name for messages.

    Attributes:
        samplerate: Hz.
        channels: Number of channels.
        frames: Samples per channel as stated in the file; 0 if unknown.
        warnings: Problems that do not prevent reading; complete after reading.
        has_video: Whether the file is a video.

    Raises:
        AudioError: If PyAV is not installed, the format is not one of `DEMUXERS`, or there is no sound track.
        OSError: If the file cannot be read.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name, self.warnings = file, name, list[str]()
        self._container = open_container(file, name)
        tracks = self._container.streams.audio
        if not tracks:
            self.close()
            raise AudioError(f"{name} holds no sound track; give a recording, or a video with sound")
        if len(tracks) > 1:
            self.warnings.append(f"holds {len(tracks)} sound tracks, of which the first was read")
        self._track = tracks[0]
        # PyAV gives the track its codec's attributes; one without a codec has none.
        self.samplerate, self.channels = (int(getattr(self._track, kind, 0) or 0) for kind in ("rate", "channels"))
        if not self.samplerate or not self.channels:
            self.close()
            raise OSError("the sound track's codec is unknown")
        length = self._track.duration
        self._stated_s = float(length * self._track.time_base) if length and self._track.time_base else 0.0
        if not self._stated_s and self._container.duration:
            self._stated_s = self._container.duration / 1e6
        self.frames = round(self._stated_s * self.samplerate)
        self.has_video = bool(moving_pictures(self._container))

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the samples (n, channels), float32. Can be called once."""
        n, held, most = 0, list[np.ndarray](), self._most()
        for block in self._readable():
            if n < most < n + len(block) or held:
                held.append(block[most - n :] if not held else block)
                block = block[: most - n] if len(held) == 1 else block[:0]
                if sum(map(len, held)) > MAX_FILLING:
                    block, held, most = np.concatenate([block, *held]), [], 1 << 62
            n += len(block)
            if len(block):
                yield block
        seconds = n / max(self.samplerate, 1)
        if seconds + TOLERANCE_S + 0.01 * self._stated_s < self._stated_s and not self.has_video:
            self.warnings.append(f"is cut off: {seconds:.2f} of {self._stated_s:.2f} s could be read; get a whole copy of it")

    def _most(self) -> int:
        """Return the number of samples without the padding of an mp4 encoder's last frame."""
        return self.frames if self._track.duration and "mp4" in self._container.format.name else 1 << 62

    def _readable(self) -> Iterator[np.ndarray]:
        """Yield what is decoded; an error of ffmpeg's becomes an OSError."""
        av = _av(self._name)
        try:
            yield from self._decoded()
        except av.error.FFmpegError as error:
            raise OSError(f"{error.strerror or error}") from error

    def _decoded(self) -> Iterator[np.ndarray]:
        av = _av(self._name)
        resampler, kind, n, damaged = None, None, 0, 0
        start: float | None = None
        for packet in self._container.demux(self._track):
            try:
                frames = packet.decode()
            except (av.error.InvalidDataError, av.error.PatchWelcomeError):
                damaged += 1
                continue
            for frame in frames:
                gap = 0.0
                if self.has_video and frame.time is not None:
                    start = frame.time if start is None else start
                    gap = frame.time - start - n / self.samplerate
                if MIN_GAP_S < gap < MAX_GAP_S:
                    n += round(gap * self.samplerate)
                    yield np.zeros((round(gap * self.samplerate), self.channels), np.float32)
                n += round(frame.samples * self.samplerate / frame.sample_rate)
                now = (frame.format.name, frame.layout.name, frame.sample_rate)
                if now != kind:
                    # A change of format within the stream, as in joined files, needs another converter.
                    yield from self._converted(resampler, None)
                    layout = self._track.layout.name
                    resampler, kind = av.AudioResampler(format="flt", layout=layout, rate=self.samplerate), now
                yield from self._converted(resampler, frame)
        yield from self._converted(resampler, None)
        if damaged:
            self.warnings.append(f"is damaged: {damaged} packets could not be decoded and were left out")

    def _converted(self, resampler: Any, frame: Any) -> Iterator[np.ndarray]:
        for made in resampler.resample(frame) if resampler is not None else ():
            yield np.asarray(made.to_ndarray(), np.float32).reshape(-1, self.channels)

    def close(self) -> None:
        """Close it; the file stays open."""
        self._container.close()


def open_container(file: BinaryIO, name: str) -> InputContainer:
    """Open a file with ffmpeg's libraries, which cannot open any other file or host from it.

    Raises:
        AudioError: If PyAV is not installed.
        OSError: If it cannot be read.
    """
    av = _av(name)
    file.seek(0)
    # References in a file are not followed, as no protocol is allowed.
    options = {"format_whitelist": ",".join(DEMUXERS), "protocol_whitelist": ""}
    try:
        container: InputContainer = av.open(file, "r", container_options=options, metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise OSError(f"{error.strerror or error}") from error
    return container


def moving_pictures(container: InputContainer) -> list[Any]:
    """Return the video streams, without cover pictures."""
    import av

    cover = av.stream.Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & cover]


def write_media(
    out: Path,
    blocks: Iterable[np.ndarray],
    sample_rate: int,
    kind: tuple[str, str, int | None, int],
    comment: str,
    video: BinaryIO | None = None,
    check: Callable[[np.ndarray], object] = lambda block: None,
    channels: int = 1,
) -> None:
    """Write sound in a format of ffmpeg's libraries; with a video, its sound is replaced and its other streams are copied unchanged.

    Args:
        out: File to write.
        blocks: Samples (n,), or (n, 2) for two channels, -1..1.
        sample_rate: Hz.
        kind: Entry of `SOUND_FORMATS` or `VIDEO_FORMATS`.
        comment: Text of the comment tag.
        video: Video whose pictures are copied, or None.
        check: Called with each block.
        channels: Number of channels, 1 or 2.

    Raises:
        AudioError: If PyAV is not installed, or the format does not support the pictures.
        OSError: If writing fails.
    """
    av = _av(f"a {kind[0]} file")
    source = None if video is None else open_container(video, "the source")
    try:
        with av.open(str(out), "w", format=kind[0]) as made:
            copied = {} if source is None else _copy_streams(source, made)
            track = made.add_stream(kind[1], rate=kind[2] or sample_rate)
            track.layout, track.bit_rate = LAYOUTS[channels], kind[3]
            made.metadata.update({} if source is None else dict(source.metadata))
            made.metadata["comment"] = comment
            try:
                made.start_encoding()
            except (av.error.FFmpegError, ValueError) as error:
                raise AudioError(
                    f"the pictures of the source do not fit into {out.suffix or kind[0]} ({error}); choose another suffix, such as .mkv"
                ) from error
            _interleave(av, made, track, blocks, sample_rate, source, copied, check)
    except av.error.FFmpegError as error:
        raise OSError(f"{error.strerror or error}") from error
    finally:
        if source is not None:
            source.close()


def _copy_streams(source: InputContainer, made: Any) -> dict[int, Any]:
    """Add the streams of a source that are not its sound; subtitles that the container lacks are left out."""
    copied = {}
    for stream in [*source.streams.video, *source.streams.subtitles]:
        try:
            twin = made.add_stream_from_template(stream, opaque=True)
        except (ValueError, TypeError):
            if stream.type == "video":
                raise AudioError(
                    f"the pictures of the source are {stream.codec_context.name}, which this kind of file does not take; "
                    "choose another suffix, such as .mkv"
                ) from None
            continue
        twin.time_base = stream.time_base
        twin.metadata.update(dict(stream.metadata))
        copied[stream.index] = twin
    return copied


def _interleave(
    av: Any,
    made: Any,
    track: Any,
    blocks: Iterable[np.ndarray],
    sample_rate: int,
    source: InputContainer | None,
    copied: dict[int, Any],
    check: Callable[[np.ndarray], object],
) -> None:
    """Write sound and pictures in the order of their times, so that neither is buffered for long."""
    start_s = _sound_starts(source)
    sound = _encoded(av, track, blocks, sample_rate, start_s, check)
    done_s, more = 0.0, True
    if source is not None:
        for packet in _dated(source.demux([source.streams[index] for index in copied])):
            due_s = float(packet.dts * packet.time_base)
            while more and done_s < due_s:
                more, done_s = _mux_next(made, sound, done_s)
            packet.stream = copied[packet.stream.index]
            made.mux(packet)
    while more:
        more, done_s = _mux_next(made, sound, done_s)


def _dated(packets: Iterable[Any]) -> Iterator[Any]:
    """Yield packets with decoding times, which Matroska omits for the first ones."""
    undated = dict[int, list[Any]]()
    for packet in packets:
        if not packet.size:
            continue
        waiting = undated.setdefault(packet.stream.index, [])
        if packet.dts is None:
            waiting.append(packet)
            continue
        step = max(packet.duration or 1, 1)
        for n, earlier in enumerate(waiting):
            earlier.dts = packet.dts - step * (len(waiting) - n)
            yield earlier
        waiting.clear()
        yield packet
    for waiting in undated.values():
        for n, packet in enumerate(waiting):
            packet.dts = packet.pts if packet.pts is not None else n
            yield packet


def _mux_next(made: Any, sound: Iterator[tuple[list[Any], float]], done_s: float) -> tuple[bool, float]:
    packets, now_s = next(sound, ([], -1.0))
    for packet in packets:
        made.mux(packet)
    return now_s >= 0, max(done_s, now_s)


def _sound_starts(source: InputContainer | None) -> float:
    """Return the start time of the first sound track of a source, in s."""
    if source is None or not source.streams.audio:
        return 0.0
    track = source.streams.audio[0]
    return float(track.start_time * track.time_base) if track.start_time and track.time_base else 0.0


def _encoded(
    av: Any, track: Any, blocks: Iterable[np.ndarray], sample_rate: int, start_s: float, check: Callable[[np.ndarray], object]
) -> Iterator[tuple[list[Any], float]]:
    """Yield packets of the sound with their end time in s."""
    n, offset = 0, round(start_s * sample_rate)
    for block in blocks:
        check(block)
        # One second at a time, to interleave the pictures.
        for begin in range(0, len(block), sample_rate):
            piece = np.clip(block[begin : begin + sample_rate], -1.0, 1.0).astype(np.float32)
            planes = np.ascontiguousarray(piece.reshape(len(piece), -1).T)
            frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=LAYOUTS[len(planes)])
            frame.sample_rate, frame.pts = sample_rate, offset + n
            frame.time_base = _second(sample_rate)
            n += len(piece)
            yield track.encode(frame), start_s + n / sample_rate
    yield track.encode(None), start_s + n / sample_rate


def _second(sample_rate: int) -> Any:
    from fractions import Fraction

    return Fraction(1, sample_rate)
