"""Workers that write sound, compressed files and copies, one per command. Torch is imported when one starts."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, BinaryIO

from vcae.batch.jobs import Job
from vcae.batch.worker import Made, Talk, Worker
from vcae.files import hash_file, write_file
from vcae.options import ConvertOptions
from vcae.voice.speakers import Speaker, find_voice, parse_speaker, read_clips

if TYPE_CHECKING:
    from pathlib import Path

    from vcae.audio.io import Sound, SoundReader
    from vcae.engine.engine import Engine
    from vcae.voice.voice import Voice

# Largest number of voices that a worker keeps in memory.
MAX_VOICES = 64


class Voices:
    """Cache of measured voices.

    Args:
        first: The voice of all jobs, each part in the form of `--speaker`; its clips are read here, so that an unusable one raises at once.
        denoise: Denoise the clips first.

    Raises:
        VcaeError: If a clip cannot be used.
    """

    def __init__(self, first: tuple[str, ...], denoise: bool = False) -> None:
        self._denoise = denoise
        self._known: dict[tuple[str, ...], tuple[Voice, str]] = {}
        self._read = {first: self._parse(first)} if first else {}

    def _parse(self, speakers: tuple[str, ...]) -> tuple[list[Speaker], dict[Path, Sound]]:
        parsed = [parse_speaker(text) for text in speakers]
        return parsed, read_clips(parsed)

    def find(self, engine: Engine, speakers: tuple[str, ...]) -> tuple[Voice, str]:
        """Return a voice, and a description of its files as JSON.

        Args:
            engine: Engine that measures the voice.
            speakers: Each in the form of `--speaker`.

        Raises:
            VcaeError: If it cannot be used.
        """
        if speakers not in self._known:
            parsed, clips = self._read.pop(speakers) if speakers in self._read else self._parse(speakers)
            voice = find_voice(engine, parsed, clips, self._denoise, log=False)
            facts = [(hash_file(speaker.path), speaker.weight) for speaker in parsed]
            while len(self._known) >= MAX_VOICES:
                self._known.pop(next(iter(self._known)))
            self._known[speakers] = voice, json.dumps(facts)
        return self._known[speakers]


class Converter(Worker):
    """Worker that converts to other voices.

    Args:
        options: Options of the conversion.
        speakers: Voice of all jobs, if there is one; it is measured at the start, so that an unusable one raises at once.
        checkpoint: Name or path of the checkpoint.
        device: As `--device`.

    Raises:
        VcaeError: If the checkpoint, the options or the voice of all jobs cannot be used.
    """

    verb = "converted"
    columns = ("source", "speaker")

    def __init__(
        self, options: ConvertOptions, speakers: tuple[str, ...] = (), checkpoint: str = "default", device: str = "auto"
    ) -> None:
        self._options, self._voices = options, Voices(speakers, options.denoise)
        from vcae.engine.engine import Engine

        self._engine = Engine(checkpoint, device)
        self.file, self.device = self._engine.checkpoint, str(self._engine.device)
        if speakers:
            self._voices.find(self._engine, speakers)

    def settings(self, job: Job) -> dict[str, Any]:
        """Return the voice and the options."""
        return {"voice": self._voices.find(self._engine, job.speakers)[1], "options": asdict(self._options)}

    def make(self, job: Job, source: SoundReader, talk: Talk) -> Made:
        """Convert."""
        from vcae.audio.io import write_blocks
        from vcae.tasks.convert import convert_long

        voice = self._voices.find(self._engine, job.speakers)[0]
        done = convert_long(self._engine, source, voice, self._options, progress=talk.tell)
        write_blocks(job.output, done.blocks, self._engine.sample_rate, self.comment(), True, talk.stdout, source)
        facts = {
            "speaker": list(job.speakers),
            "reference_speech_s": round(done.reference_speech_s, 2),
            "source_f0_hz": round(done.source_f0_hz, 1),
            "output_f0_hz": round(done.output_f0_hz, 1),
            **asdict(self._options),
            **({"warnings": list(voice.warnings)} if voice.warnings else {}),
        }
        pitch = f"median F0 {done.source_f0_hz:.0f} -> {done.output_f0_hz:.0f} Hz"
        pitch = "no voiced sound in the source" if done.source_f0_hz != done.source_f0_hz else pitch
        sentence = f"{done.duration_s:.1f} s in the voice of {', '.join(job.speakers)} ({done.reference_speech_s:.1f} s of speech), {pitch}"
        return Made(done.duration_s, sentence, facts, sample_rate=self._engine.sample_rate)


class Denoiser(Worker):
    """Worker that denoises.

    Args:
        strength: Strength from 0 (unchanged) to 1 (full denoising).
        device: As `--device`.
    """

    verb = "denoised"

    def __init__(self, strength: float = 1.0, device: str = "auto") -> None:
        from vcae.engine.denoise import Cleaner

        self._strength = strength
        self._cleaner = Cleaner(device=device)
        self.file, self.device = self._cleaner.file, str(self._cleaner.device)

    def settings(self, job: Job) -> dict[str, Any]:
        """Return the strength."""
        return {"strength": self._strength}

    def make(self, job: Job, source: SoundReader, talk: Talk) -> Made:
        """Denoise."""
        from vcae.audio.io import channels_of, write_blocks

        if channels_of(job.output, source.channels) == source.channels:
            cleaned = self._cleaner.clean(source, self._strength)
        else:
            cleaned = self._cleaner.clean_mono(source, self._strength, source.sample_rate)
        rate, channels = cleaned.sample_rate, cleaned.n_channels
        blocks = talk.counted(cleaned.channel_blocks(), cleaned.duration_s, rate)
        write_blocks(job.output, blocks, rate, self.comment(), True, talk.stdout, source, channels)
        said = f"{cleaned.duration_s:.1f} s denoised"
        return Made(cleaned.duration_s, said, {"strength": self._strength}, sample_rate=rate)


class Compressor(Worker):
    """Worker that compresses.

    Args:
        kbps: Target bit rate in kbit/s.
        device: As `--device`.
    """

    verb = "compressed"
    ending = ".vcz"

    def __init__(self, kbps: float = 1.5, device: str = "auto") -> None:
        from vcae.codec.codec import Codec

        self._kbps, self._codec = kbps, Codec(device=device)
        self.file, self.device = self._codec.file, str(self._codec.model.device)

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

        data = self._codec.compress(source, self._kbps, talk.tell)
        write_file(job.output, data, talk.stdout)
        seconds = duration_of(data)
        kbps = 8e-3 * len(data) / seconds
        facts = {"bytes": len(data), "kbps": round(kbps, 3), "kbps_asked": self._kbps}
        return Made(seconds, f"{len(data)} bytes, {seconds:.2f} s, {kbps:.2f} kbit/s ({self._kbps:g} asked for)", facts)


class Decompressor(Worker):
    """Worker that decompresses.

    Args:
        speakers: Target voice of all jobs, or empty for the original voice.
        strict: Fail for damaged files instead of concealing the damage.
        seed: Seed of the vocoder's noise.
        device: As `--device`.
    """

    verb = "decompressed"
    sources = (".vcz",)

    def __init__(self, speakers: tuple[str, ...] = (), strict: bool = False, seed: int = 0, device: str = "auto") -> None:
        self._strict, self._seed, self._voices = strict, seed, Voices(speakers)
        from vcae.codec.codec import Codec

        self._codec = Codec(device=device)
        self.file, self.device = self._codec.file, str(self._codec.model.device)
        if speakers:
            self._voices.find(self._codec.model, speakers)

    @classmethod
    def open(cls, source: str, stdin: BinaryIO | None = None) -> AbstractContextManager[BinaryIO]:
        """Open a compressed file and check its header."""
        from vcae.codec.vcz import open_code

        return open_code(source, stdin)

    def settings(self, job: Job) -> dict[str, Any]:
        """Return the voice and the options."""
        voice = self._voices.find(self._codec.model, job.speakers)[1] if job.speakers else ""
        return {"voice": voice, "strict": self._strict, "seed": self._seed}

    def make(self, job: Job, source: BinaryIO, talk: Talk) -> Made:
        """Decompress."""
        from vcae.audio.io import write_blocks
        from vcae.codec.vcz import CheckedStream, damage_lines

        voice = self._voices.find(self._codec.model, job.speakers)[0] if job.speakers else None
        shown = "standard input" if job.source == "-" else job.source
        stream = self._codec.stream(source, voice, self._strict, shown, self._seed, talk.tell)
        sound, rate = CheckedStream(stream, shown), self._codec.sample_rate
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


class Reconstructor(Worker):
    """Worker that copies recordings by the whole autoencoder, or by a plain one with a bottleneck of `code_dim` values per step.

    Args:
        code_dim: Values per step, one of the shipped ladder's sizes; None for the checkpoint's own autoencoder.
        seed: Seed of the vocoder's noise.
        checkpoint: Name or path of the checkpoint.
        device: As `--device`.
    """

    verb = "reconstructed"

    def __init__(self, code_dim: int | None = None, seed: int = 0, checkpoint: str = "default", device: str = "auto") -> None:
        from vcae.engine.engine import Engine

        self._code_dim, self._seed, self._engine = code_dim, seed, Engine(checkpoint, device)
        self.file, self.device = self._engine.checkpoint, str(self._engine.device)

    @property
    def _said(self) -> str:
        n = self._code_dim
        return self.verb if n is None else f"{self.verb} from {n} number{'s'[: n > 1]} a step"

    def settings(self, job: Job) -> dict[str, Any]:
        """Return the seed and the size of the code."""
        return {"seed": self._seed} | ({} if self._code_dim is None else {"code_dim": self._code_dim})

    def comment(self) -> str:
        """Return the provenance comment, with the size of the code."""
        return super().comment().replace(self.verb, self._said, 1)

    def make(self, job: Job, source: SoundReader, talk: Talk) -> Made:
        """Copy a recording, all of it at once."""
        from vcae.audio.io import write_blocks

        sound = source.read()
        made = self._copy(sound)
        write_blocks(job.output, made.blocks(), made.sample_rate, self.comment(), True, talk.stdout, source)
        said = f"{sound.duration_s:.1f} s {self._said}"
        return Made(sound.duration_s, said, self.settings(job), sample_rate=made.sample_rate)

    def _copy(self, sound: Sound) -> Sound:
        from vcae.tasks.copy import reconstruct

        return reconstruct(self._engine, sound, self._seed, self._code_dim)


class Vocoder(Reconstructor):
    """Worker that copies recordings by the vocoder alone; arguments as `Reconstructor`."""

    verb = "vocoded"

    def _copy(self, sound: Sound) -> Sound:
        from vcae.tasks.copy import vocode

        return vocode(self._engine, sound, self._seed)
