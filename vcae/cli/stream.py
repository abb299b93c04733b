"""`vcae stream`: live conversion from a pipe or a microphone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vcae.cli.common import (
    CheckpointOption,
    Device,
    DeviceOption,
    QuietOption,
    SeedOption,
    Stopwatch,
    choices,
    progress,
    say,
    user_errors,
)
from vcae.cli.convert import DetailOption, ExpressionOption, FormantOption, Loudness, MatchOption, WatermarkOption, tell_ignored
from vcae.cli.devices import device_of, list_devices, need_sounddevice
from vcae.errors import AudioError, ConfigError
from vcae.model_file import find
from vcae.options import AUTO, ConvertOptions, check_live
from vcae.voice.speakers import find_voice, parse_speaker, read_clips

if TYPE_CHECKING:
    import numpy as np

    from vcae.audio.high_band import BandProfile
    from vcae.audio.io import Sound
    from vcae.audio.output_rate import OutputRate
    from vcae.audio.pcm import QuickResampler
    from vcae.engine.denoise import Cleaner, FullBandDenoiser
    from vcae.tasks.live import LiveConverter


@dataclass
class _Tally:
    """Statistics of a stream, printed at the end."""

    blocks: int = 0
    late: int = 0
    lost: int = 0
    work_s: float = 0.0
    slowest_s: float = 0.0
    delay_ms: float = 0.0


@user_errors
def stream(
    speaker: Annotated[
        list[str],
        typer.Option("--speaker", "-s", metavar="VOICE", help="Target voice: a clip or a saved voice; as for convert."),
    ],
    block_ms: Annotated[
        float,
        typer.Option(
            metavar="MS", help="Length of a block; the latency is 160 ms more and at most 250 ms, and 13 ms more above 16 kHz."
        ),
    ] = 80.0,
    rate: Annotated[
        int | None, typer.Option(metavar="HZ", help="Sample rate of raw PCM (16 bit, mono) on standard input; a wav states it.")
    ] = None,
    rate_out: Annotated[
        int | None,
        typer.Option(
            metavar="HZ",
            help="Sample rate of the output; by default that of the input. A microphone is opened at this rate too.",
        ),
    ] = None,
    source_voice: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A clip of the source speaker for the initial statistics; by default those of --speaker are used.",
        ),
    ] = None,
    device_in: Annotated[
        str | None,
        typer.Option(metavar="DEVICE", help="Microphone, by number or name, or 'default', in place of standard input."),
    ] = None,
    device_out: Annotated[
        str | None,
        typer.Option(metavar="DEVICE", help="Loudspeaker, by number or name, or 'default', in place of standard output."),
    ] = None,
    list_devices: Annotated[
        bool,
        typer.Option(
            "--list-devices",
            is_eager=True,
            callback=user_errors(list_devices),
            help="Print the sound devices with their numbers, and end.",
        ),
    ] = False,
    pitch: Annotated[str, typer.Option(metavar="auto|keep|SEMITONES", help="As for convert.")] = "auto",
    match: MatchOption = None,
    detail: DetailOption = None,
    loudness: Annotated[Loudness, typer.Option(metavar=choices(Loudness), help="As for convert.")] = Loudness.source,
    denoise: Annotated[
        bool, typer.Option("--denoise", help="Denoise the input, and the clips of --speaker, first; 16 to 20 ms more latency.")
    ] = False,
    formant: FormantOption = 0.0,
    expression: ExpressionOption = 1.0,
    watermark: WatermarkOption = True,
    speed: Annotated[float, typer.Option("--speed", hidden=True)] = 1.0,
    seed: SeedOption = 0,
    checkpoint: CheckpointOption = "default",
    device: DeviceOption = Device.cpu,
    quiet: QuietOption = False,
) -> None:
    """Convert live sound block by block: a wav or raw PCM from standard input to standard output, or with sound devices.

    The output has the input's sample rate; it is a wav if the input is a wav, and raw PCM otherwise. Underruns (blocks that took longer than their
    duration, or that a device missed) are reported at the end. A stream is one live sound: files and folders are for `vcae convert`.

    Example: vcae stream --speaker friend.wav --rate 16000 < in.pcm > out.pcm
    """
    options = check_live(
        ConvertOptions(pitch, 1.0, loudness.value, seed, AUTO, speed, formant, expression, watermark, rate_out)
    )
    tell_ignored(match=match, detail=detail)
    find(checkpoint)
    from vcae.audio.io import read_sound

    speakers = [parse_speaker(text) for text in speaker]
    clips = read_clips(speakers)
    own = None if source_voice is None else read_sound(source_voice, first_s=60.0)
    first = next(iter(clips.values()), None)
    if own is None and first is None:
        raise ConfigError(
            "a saved voice has no initial statistics for a stream; give a clip of the source speaker with --source-voice"
        )
    with progress("loading the model", quiet):
        import numpy as np

        from vcae.environment import use_one_thread
        from vcae.tasks.live import LiveConverter
        from vcae.tasks.model import load

        # Before the voice is measured, as the F0 estimator keeps the threads that it starts with.
        use_one_thread()
        model = load(checkpoint, device.value)
        prior = model.analyse_sound(own or first)  # type: ignore[arg-type]
        voice = find_voice(model, speakers, clips, denoise or AUTO)
        # The first block takes longer, so one is processed in advance.
        warm = LiveConverter(model, voice, prior, options, block_ms)
        warm(np.zeros(warm.block_samples, np.float32))
        converter = LiveConverter(model, voice, prior, options, block_ms)
        cleaner = _start_cleaner(model.device.type) if denoise else None
    tally = _Tally()
    with ExitStack() as opened:
        heard = _listen(opened, device_in, rate, rate_out, converter, tally)
        output = heard.output(model.sample_rate, voice.bands, own, seed)
        if cleaner is not None:
            heard.denoise(cleaner, tally)
        if output is not None:
            tally.delay_ms += output.delay_ms
        sink = _Sink(opened, device_out, device_in is None and rate is None, heard.rate_out, tally, output)
        try:
            _convert(heard.pieces(output), converter, sink, tally)
        except KeyboardInterrupt:
            sink.write(converter.finish())
        sink.finish()
    if not quiet:
        say(_sentence(tally, converter), sys.stderr)


def _start_cleaner(device: str) -> Cleaner:
    import numpy as np

    from vcae.engine.denoise import shared_cleaner

    cleaner = shared_cleaner(device)
    # The first piece takes longer, so one is processed in advance.
    cleaner.running()(np.zeros((1, cleaner.sample_rate // 10), np.float32))
    return cleaner


def _denoise(pieces: Iterator[np.ndarray], denoiser: FullBandDenoiser, tally: _Tally) -> Iterator[np.ndarray]:
    """Yield denoised pieces."""
    for piece in pieces:
        watch = Stopwatch()
        made = denoiser(piece[None])[0]
        tally.work_s += watch()
        yield made
    yield denoiser.finish()[0]


def _convert(pieces: Iterator[np.ndarray], converter: LiveConverter, sink: _Sink, tally: _Tally) -> None:
    import numpy as np

    rest, size = np.zeros(0, np.float32), converter.block_samples
    short = 0
    for piece in pieces:
        rest = np.concatenate([rest, piece])
        while len(rest) >= size:
            _step(rest[:size], converter, sink, tally)
            rest = rest[size:]
    if len(rest):
        short = size - len(rest)
        _step(np.pad(rest, (0, short)), converter, sink, tally)
    last = converter.finish()
    sink.write(last[: len(last) - short])


def _step(block: np.ndarray, converter: LiveConverter, sink: _Sink, tally: _Tally) -> None:
    watch = Stopwatch()
    out = converter(block)
    took = watch()
    tally.blocks += 1
    tally.work_s += took
    tally.slowest_s = max(tally.slowest_s, took)
    tally.late += took > converter.block_s
    sink.write(out)


def _sentence(tally: _Tally, converter: LiveConverter) -> str:
    seconds = tally.blocks * converter.block_s
    return (
        f"{seconds:.1f} s in {tally.blocks} blocks of {1000 * converter.block_s:.0f} ms, latency {converter.latency_ms + tally.delay_ms:.0f} ms; "
        f"{tally.late + tally.lost} underruns ({tally.late} blocks late, {tally.lost} missed by a device); "
        f"{seconds / max(tally.work_s, 1e-9):.1f} times real time, slowest block {1000 * tally.slowest_s:.0f} ms"
    )


@dataclass
class _Input:
    """Input of a stream: blocks of samples at its own rate.

    Attributes:
        blocks: (n,) each, at `sample_rate`.
        sample_rate: Hz.
        rate_out: Sample rate of the output in Hz.
        resampler: Resampler to the model's rate.
    """

    blocks: Iterator[np.ndarray]
    sample_rate: int
    rate_out: int
    resampler: QuickResampler

    def denoise(self, cleaner: Cleaner, tally: _Tally) -> None:
        """Denoise the blocks, above the model's band too."""
        denoiser = cleaner.live(self.sample_rate)
        # A sample waits for the rest of its hop, half of the latency on average.
        hop_ms = 1000 * cleaner.network.config.hop_length / cleaner.sample_rate
        tally.delay_ms += denoiser.latency_ms - hop_ms
        self.blocks = _denoise(self.blocks, denoiser, tally)

    def output(self, model_rate: int, target: BandProfile | None, own: Sound | None, seed: int) -> OutputRate | None:
        """Return the change of the rate of the output; None if it is the model's."""
        if self.rate_out == model_rate:
            return None
        from vcae.audio.high_band import measure_bands
        from vcae.audio.output_rate import OutputRate

        levels = None if own is None else measure_bands(own.wav, own.sample_rate)
        return OutputRate(model_rate, self.sample_rate, self.rate_out, levels, target, seed, quick=True)

    def pieces(self, output: OutputRate | None) -> Iterator[np.ndarray]:
        """Yield samples at the model's rate; the output gets the same at their own."""
        for block in self.blocks:
            if output is not None:
                output.hear(block)
            yield self.resampler(block)
        yield self.resampler.finish()


def _listen(
    opened: ExitStack,
    device_in: str | None,
    rate: int | None,
    rate_out: int | None,
    converter: LiveConverter,
    tally: _Tally,
) -> _Input:
    from vcae.audio.pcm import PcmReader, QuickResampler

    model_rate = converter.sample_rate
    if device_in is None:
        reader = PcmReader(sys.stdin.buffer, rate)
        resampler = QuickResampler(reader.sample_rate, model_rate)
        tally.delay_ms += resampler.delay_ms
        return _Input(reader.blocks(converter.block_s), reader.sample_rate, rate_out or reader.sample_rate, resampler)
    if rate is not None:
        raise ConfigError("--rate is for raw PCM on standard input; leave it out with --device-in")
    own_rate = rate_out or model_rate
    resampler = QuickResampler(own_rate, model_rate)
    tally.delay_ms += resampler.delay_ms
    size = round(converter.block_s * own_rate)
    microphone = _open(opened, "InputStream", device_in, own_rate, size)

    def heard() -> Iterator[np.ndarray]:
        while True:
            data, overflowed = microphone.read(size)
            tally.lost += bool(overflowed)
            yield data[:, 0]

    return _Input(heard(), own_rate, own_rate, resampler)


def _open(opened: ExitStack, kind: str, name: str, rate: int, block: int) -> Any:
    sounddevice = need_sounddevice()
    try:
        made = getattr(sounddevice, kind)(samplerate=rate, blocksize=block, device=device_of(name), channels=1, dtype="float32")
        return opened.enter_context(made)
    except (sounddevice.PortAudioError, ValueError) as error:
        raise AudioError(
            f"the sound device {name!r} cannot be opened ({error}); vcae stream --list-devices lists them"
        ) from error


class _Sink:
    """Output of a stream: a device, or standard output as a wav or raw PCM."""

    def __init__(
        self,
        opened: ExitStack,
        device_out: str | None,
        as_wav: bool,
        rate: int,
        tally: _Tally,
        output: OutputRate | None,
    ) -> None:
        from vcae.audio.pcm import wav_header

        self._tally, self._output = tally, output
        self._device = None if device_out is None else _open(opened, "OutputStream", device_out, rate, 0)
        if self._device is None and as_wav:
            sys.stdout.buffer.write(wav_header(rate))

    def write(self, wav: np.ndarray) -> None:
        """Send samples (n,) of the model's rate."""
        self._send(wav if self._output is None else self._output(wav))

    def finish(self) -> None:
        """Send what is left."""
        if self._output is not None:
            self._send(self._output.finish())

    def _send(self, wav: np.ndarray) -> None:
        from vcae.audio.pcm import to_pcm

        if self._device is not None:
            self._tally.lost += bool(self._device.write(wav[:, None].copy())) if len(wav) else 0
            return
        sys.stdout.buffer.write(to_pcm(wav))
        sys.stdout.buffer.flush()
