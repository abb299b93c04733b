"""Workers that write sound, compressed files and copies, one per command. Torch is imported when one starts."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from vcae.batch.jobs import Job
from vcae.batch.worker import EngineWorker, Made, Talk, Worker
from vcae.errors import AudioError
from vcae.files import hash_file, write_file
from vcae.model_file import DEFAULT, FoundFile, find
from vcae.options import AUTO, DENOISE_STRENGTH, ConvertOptions
from vcae.voice.speakers import find_voice, parse_speaker, read_clips

if TYPE_CHECKING:
    from vcae.audio.io import Sound, SoundReader
    from vcae.codec.codec import Codec
    from vcae.engine.denoise import Cleaner
    from vcae.engine.engine import Engine
    from vcae.voice.voice import Voice

# Largest number of voices that a worker keeps in memory.
MAX_VOICES = 64


class Voices:
    """Cache of measured voices, and of descriptions of their files.

    Args:
        denoise: Denoise clips first: True, False, or `auto`, which denoises noisy ones.
    """

    def __init__(self, denoise: bool | str = AUTO) -> None:
        self._denoise = denoise
        self._known: dict[tuple[str, ...], Voice] = {}
        self._described: dict[tuple[str, ...], str] = {}

    def describe(self, speakers: tuple[str, ...]) -> str:
        """Return the hashes and weights of a voice's files as JSON, without measuring it.

        Args:
            speakers: Each in the form of `parse_speaker`.

        Raises:
            VcaeError: If one of them is neither a file nor a saved voice.
        """
        if speakers not in self._described:
            parsed = [parse_speaker(text) for text in speakers]
            self._described[speakers] = json.dumps(
                [("+".join(hash_file(file) for file in speaker.files), speaker.weight) for speaker in parsed]
            )
        return self._described[speakers]

    def find(self, engine: Engine, speakers: tuple[str, ...], clips: dict[Path, Sound] | None = None) -> Voice:
        """Return a voice.

        Args:
            engine: Engine that measures the voice.
            speakers: Each in the form of `parse_speaker`.
            clips: Their clips, if they were read already.

        Raises:
            VcaeError: If it cannot be used.
        """
        if speakers not in self._known:
            parsed = [parse_speaker(text) for text in speakers]
            voice = find_voice(engine, parsed, read_clips(parsed) if clips is None else clips, self._denoise, log=False)
            while len(self._known) >= MAX_VOICES:
                self._known.pop(next(iter(self._known)))
            self._known[speakers] = voice
        return self._known[speakers]


class Converter(EngineWorker):
    """Worker that converts to other voices.

    Args:
        options: Options of the conversion.
        speakers: Voice of all jobs, if there is one; it is measured at the start, so that an unusable one raises at once.
        checkpoint, device: As in `EngineWorker`.
    """

    verb, doing = "converted", "converting"
    columns = ("source", "speaker")

    def __init__(
        self, options: ConvertOptions, speakers: tuple[str, ...] = (), checkpoint: str = DEFAULT, device: str = "auto"
    ) -> None:
        super().__init__(checkpoint, device)
        self._options, self._speakers, self._voices = options, speakers, Voices(options.denoise)

    def start(self) -> None:
        """Read the clips of the voice of all jobs, load the checkpoint, and measure the voice."""
        clips = read_clips([parse_speaker(text) for text in self._speakers])
        super().start()
        if self._speakers:
            self._voices.find(self.engine, self._speakers, clips)

    def settings(self, job: Job) -> dict[str, Any]:
        """Return the voice, the options, and the denoiser if it may be used."""
        used = {"denoiser": FoundFile(find("denoiser")).sha256} if self._options.denoise else {}
        return {"voice": self._voices.describe(job.speakers), "options": asdict(self._options), **used}

    def make(self, job: Job, source: SoundReader, talk: Talk) -> Made:
        """Convert."""
        from vcae.audio.io import channels_of, rate_of, write_blocks
        from vcae.audio.media import VIDEO_FORMATS
        from vcae.tasks.convert import convert_long

        if self._options.speed != 1 and Path(job.output).suffix.lower() in VIDEO_FORMATS:
            raise AudioError(
                f"speed is {self._options.speed:g}, and {job.output} would keep the pictures' speed; take a sound file's suffix, such as .m4a"
            )
        voice = self._voices.find(self.engine, job.speakers)
        rate = rate_of(job.output, max(source.sample_rate, self.engine.sample_rate), self._options.rate)
        options = replace(self._options, rate=rate)
        if options.channels == "keep" and channels_of(job.output, source.channels) == 1:
            options = replace(options, channels="mono")
        done = convert_long(self.engine, source, voice, options, progress=talk.tell)
        write_blocks(job.output, done.blocks, rate, self.comment(), True, talk.stdout, source, done.channels)
        facts = {
            "speaker": list(job.speakers),
            "reference_speech_s": round(done.reference_speech_s, 2),
            "source_f0_hz": round(done.source_f0_hz, 1),
            "output_f0_hz": round(done.output_f0_hz, 1),
            **asdict(options),
            "denoised": done.denoised,
            **({"warnings": list(voice.warnings)} if voice.warnings else {}),
        }
        pitch = f"median F0 {done.source_f0_hz:.0f} -> {done.output_f0_hz:.0f} Hz"
        pitch = "no voiced sound in the source" if done.source_f0_hz != done.source_f0_hz else pitch
        sentence = f"{done.duration_s:.1f} s in the voice of {', '.join(job.speakers)} ({done.reference_speech_s:.1f} s of speech), {pitch}"
        sentence += ", denoised first" if done.denoised else ""
        channels = channels_of(job.output, done.channels)
        return Made(done.duration_s, sentence, facts, sample_rate=rate, channels=channels)


class Denoiser(Worker):
    """Worker that denoises.

    Args:
        strength: Strength from 0 (unchanged) to 1 (full denoising).
        device: As in `choose_device`.
        rate: Sample rate of the results in Hz; None for that of each source.
    """

    verb, doing = "denoised", "denoising"
    file: FoundFile

    def __init__(self, strength: float = DENOISE_STRENGTH, device: str = "auto", rate: int | None = None) -> None:
        self._strength, self._device, self._rate = strength, device, rate
        self.file = FoundFile(find("denoiser"))

    @cached_property
    def _cleaner(self) -> Cleaner:
        from vcae.engine.denoise import Cleaner

        return Cleaner(self.file.path, self._device)

    @property
    def device(self) -> str:
        """Device to compute on."""
        return str(self._cleaner.device)

    def start(self) -> None:
        """Load the denoiser."""
        _ = self._cleaner

    def settings(self, job: Job) -> dict[str, Any]:
        """Return the strength and the rate."""
        return {"strength": self._strength} | ({} if self._rate is None else {"rate": self._rate})

    def make(self, job: Job, source: SoundReader, talk: Talk) -> Made:
        """Denoise."""
        from vcae.audio.io import channels_of, rate_of, resample_blocks, write_blocks

        rate = rate_of(job.output, source.sample_rate, self._rate)
        if channels_of(job.output, source.channels) == source.channels:
            cleaned = self._cleaner.clean(source, self._strength)
        else:
            cleaned = self._cleaner.clean_mono(source, self._strength, source.sample_rate)
        channels = cleaned.n_channels
        blocks = talk.counted(cleaned.channel_blocks(), cleaned.duration_s, cleaned.sample_rate)
        blocks = resample_blocks(blocks, cleaned.sample_rate, rate)
        write_blocks(job.output, blocks, rate, self.comment(), True, talk.stdout, source, channels)
        said = f"{cleaned.duration_s:.1f} s denoised"
        return Made(cleaned.duration_s, said, {"strength": self._strength}, sample_rate=rate, channels=channels)


class CodecWorker(Worker):
    """Base class of workers that need the codec; `device` as in `choose_device`."""

    file: FoundFile

    def __init__(self, device: str = "auto") -> None:
        self.file, self._device = FoundFile(find("codec")), device

    @cached_property
    def codec(self) -> Codec:
        """The codec, loaded when it is first needed."""
        from vcae.codec.codec import Codec

        return Codec(self.file.path, self._device)

    @property
    def device(self) -> str:
        """Device to compute on."""
        return str(self.codec.model.device)

    def start(self) -> None:
        """Load the codec."""
        _ = self.codec


class Compressor(CodecWorker):
    """Worker that compresses.

    Args:
        kbps: Target bit rate in kbit/s.
        device: As in `choose_device`.
    """

    verb, doing = "compressed", "compressing"
    ending = ".vcz"

    def __init__(self, kbps: float = 1.5, device: str = "auto") -> None:
        super().__init__(device)
        self._kbps = kbps

    @classmethod
    def outputs(cls) -> tuple[str, ...]:
        """Return the one suffix of compressed files."""
        return (cls.ending,)

    def settings(self, job: Job) -> dict[str, Any]:
        """Return the rate."""
        return {"kbps": self._kbps}

    def make(self, job: Job, source: SoundReader, talk: Talk) -> Made:
        """Compress."""
        from vcae.codec.vcz import duration_of

        data = self.codec.compress(source, self._kbps, talk.tell)
        write_file(job.output, data, talk.stdout)
        seconds = duration_of(data)
        kbps = 8e-3 * len(data) / seconds
        facts = {"bytes": len(data), "kbps": round(kbps, 3), "kbps_asked": self._kbps}
        return Made(seconds, f"{len(data)} bytes, {seconds:.2f} s, {kbps:.2f} kbit/s ({self._kbps:g} asked for)", facts)


class Decompressor(CodecWorker):
    """Worker that decompresses.

    Args:
        speakers: Target voice of all jobs, or empty for the original voice.
        strict: Fail for damaged files instead of concealing the damage.
        seed: Seed of the vocoder's noise.
        device: As in `choose_device`.
    """

    verb, doing = "decompressed", "decompressing"
    sources = (".vcz",)

    def __init__(self, speakers: tuple[str, ...] = (), strict: bool = False, seed: int = 0, device: str = "auto") -> None:
        super().__init__(device)
        self._speakers, self._strict, self._seed, self._voices = speakers, strict, seed, Voices()

    def start(self) -> None:
        """Read the clips of the voice of all jobs, load the codec, and measure the voice."""
        clips = read_clips([parse_speaker(text) for text in self._speakers])
        super().start()
        if self._speakers:
            self._voices.find(self.codec.model, self._speakers, clips)

    def open(self, source: str, stdin: BinaryIO | None = None) -> AbstractContextManager[BinaryIO]:
        """Open a compressed file and check its header."""
        from vcae.codec.vcz import open_code

        return open_code(source, stdin)

    def settings(self, job: Job) -> dict[str, Any]:
        """Return the voice and the options."""
        voice = self._voices.describe(job.speakers) if job.speakers else ""
        return {"voice": voice, "strict": self._strict, "seed": self._seed}

    def make(self, job: Job, source: BinaryIO, talk: Talk) -> Made:
        """Decompress."""
        from vcae.audio.io import write_blocks
        from vcae.codec.vcz import CheckedStream, damage_lines

        voice = self._voices.find(self.codec.model, job.speakers) if job.speakers else None
        shown = "standard input" if job.source == "-" else job.source
        stream = self.codec.stream(source, voice, self._strict, shown, self._seed, talk.tell)
        sound, rate = CheckedStream(stream, shown), self.codec.sample_rate
        write_blocks(job.output, sound, rate, self.comment(), True, talk.stdout)
        seconds, whole_s = sound.n_samples / rate, stream.header.duration_s
        facts = {
            "speaker": list(job.speakers),
            "compressed_duration_s": round(whole_s, 3),
            "quality": stream.header.quality,
            "damage": [asdict(damage) for damage in stream.damage],
        }
        length = f"{seconds:.2f} s" + ("" if seconds == whole_s else f" of {whole_s:.2f} s")
        whose = f"in the voice of {', '.join(job.speakers)}" if job.speakers else "in its own voice"
        sentence = f"{length} {whose}{', damaged' if stream.damage else ''}"
        return Made(seconds, sentence, facts, tuple(damage_lines(stream.damage)))


class Reconstructor(EngineWorker):
    """Worker that copies recordings by the whole autoencoder, or by a plain one with a bottleneck of `code_dim` values per step.

    Args:
        code_dim: Values per step, one of the shipped ladder's sizes; None for the checkpoint's own autoencoder.
        seed: Seed of the vocoder's noise.
        checkpoint, device: As in `EngineWorker`.
        rate: Sample rate of the results in Hz; None for that of each source, and at least the model's.
    """

    verb, doing = "reconstructed", "reconstructing"

    def __init__(
        self,
        code_dim: int | None = None,
        seed: int = 0,
        checkpoint: str = DEFAULT,
        device: str = "auto",
        rate: int | None = None,
    ) -> None:
        super().__init__(checkpoint, device)
        self._code_dim, self._seed, self._rate = code_dim, seed, rate

    @property
    def _said(self) -> str:
        n = self._code_dim
        return self.verb if n is None else f"{self.verb} from {n} value{'s'[: n > 1]} per step"

    def settings(self, job: Job) -> dict[str, Any]:
        """Return the seed, the size of the code, and the rate."""
        chosen = {"code_dim": self._code_dim, "rate": self._rate}
        return {"seed": self._seed} | {name: value for name, value in chosen.items() if value is not None}

    def comment(self) -> str:
        """Return the provenance comment, with the size of the code."""
        return super().comment().replace(self.verb, self._said, 1)

    def make(self, job: Job, source: SoundReader, talk: Talk) -> Made:
        """Copy a recording, all of it at once."""
        from vcae.audio.io import rate_of, write_blocks

        sound = source.read()
        made = self._copy(sound, rate_of(job.output, max(sound.sample_rate, self.engine.sample_rate), self._rate))
        write_blocks(job.output, made.blocks(), made.sample_rate, self.comment(), True, talk.stdout, source)
        said = f"{sound.duration_s:.1f} s {self._said}"
        return Made(sound.duration_s, said, self.settings(job), sample_rate=made.sample_rate)

    def _copy(self, sound: Sound, rate: int) -> Sound:
        from vcae.tasks.copy import reconstruct

        return reconstruct(self.engine, sound, self._seed, self._code_dim, rate)


class Vocoder(Reconstructor):
    """Worker that copies recordings by the vocoder alone; arguments as `Reconstructor`."""

    verb, doing = "vocoded", "vocoding"

    def _copy(self, sound: Sound, rate: int) -> Sound:
        from vcae.tasks.copy import vocode

        return vocode(self.engine, sound, self._seed, rate)
