"""The workers that make sound, compressed files and copies: one a command. No import of torch until one starts."""

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

# Voices that a worker keeps, when a table names many.
MAX_VOICES = 64


class Voices:
    """Measures each voice once, and keeps it while there are not too many.

    Args:
        first: The voice of all jobs, each part as `--speaker` takes it; its clips are read here, so that a bad one is told at once.
        denoise: Clean the clips first.

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
        """Return a voice, and what its files are, as JSON.

        Args:
            engine: That measures.
            speakers: Each as `--speaker` takes it.

        Raises:
            VcaeError: If it cannot be used.
        """
        if speakers not in self._known:
            parsed, clips = self._read.pop(speakers) if speakers in self._read else self._parse(speakers)
            voice = find_voice(engine, parsed, clips, self._denoise)
            facts = [(hash_file(speaker.path), speaker.weight) for speaker in parsed]
            while len(self._known) >= MAX_VOICES:
                self._known.pop(next(iter(self._known)))
            self._known[speakers] = voice, json.dumps(facts)
        return self._known[speakers]


class Converter(Worker):
    """Converts: loads the model once, measures each voice once.

    Args:
        options: How.
        speakers: Of every job, where one voice is asked for; it is measured at the start, so that a bad one ends the run there.
        checkpoint: Name or path.
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
        write_blocks(job.output, done.blocks, self._engine.sample_rate, self.comment(), True, talk.stdout)
        facts = {
            "speaker": list(job.speakers),
            "reference_speech_s": round(done.reference_speech_s, 2),
            "source_f0_hz": round(done.source_f0_hz, 1),
            "output_f0_hz": round(done.output_f0_hz, 1),
            **asdict(self._options),
        }
        pitch = f"median F0 {done.source_f0_hz:.0f} -> {done.output_f0_hz:.0f} Hz"
        pitch = "no voiced sound in the source" if done.source_f0_hz != done.source_f0_hz else pitch
        sentence = f"{done.duration_s:.1f} s in the voice of {', '.join(job.speakers)} ({done.reference_speech_s:.1f} s of speech), {pitch}"
        return Made(done.duration_s, sentence, facts)


class Denoiser(Worker):
    """Denoises: loads the network once.

    Args:
        strength: From the recording as it is (0) to all that can be taken away (1).
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
        from vcae.audio.io import write_blocks

        cleaned = self._cleaner.clean(source, self._strength)
        blocks = talk.counted(cleaned.channel_blocks(), cleaned.duration_s, cleaned.sample_rate)
        write_blocks(job.output, blocks, cleaned.sample_rate, self.comment(), True, talk.stdout, cleaned.n_channels)
        return Made(cleaned.duration_s, f"{cleaned.duration_s:.1f} s denoised", {"strength": self._strength})


class Compressor(Worker):
    """Compresses: loads the codec once.

    Args:
        kbps: The rate to aim at.
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
    """Decompresses: loads the codec once, measures each voice once.

    Args:
        speakers: Another voice for every job, or none.
        strict: Refuse damage.
        seed: Of the vocoder's noise.
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
        """Open a compressed file, its header checked."""
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
    """Passes recordings through the whole autoencoder, or through a plain one of `code_dim` numbers a step.

    Args:
        code_dim: Numbers a step, one of the shipped ladder's; None for the checkpoint's own autoencoder.
        seed: Of the vocoder's noise.
        checkpoint: Name or path.
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
        """Return the seed and the numbers a step."""
        return {"seed": self._seed} | ({} if self._code_dim is None else {"code_dim": self._code_dim})

    def comment(self) -> str:
        """Return the provenance, with the numbers a step."""
        return super().comment().replace(self.verb, self._said, 1)

    def make(self, job: Job, source: SoundReader, talk: Talk) -> Made:
        """Rebuild a recording, all of it at once."""
        from vcae.audio.io import write_sound

        sound = source.read()
        write_sound(job.output, self._copy(sound), self.comment(), True, talk.stdout)
        return Made(sound.duration_s, f"{sound.duration_s:.1f} s {self._said}", self.settings(job))

    def _copy(self, sound: Sound) -> Sound:
        from vcae.tasks.copy import reconstruct

        return reconstruct(self._engine, sound, self._seed, self._code_dim)


class Vocoder(Reconstructor):
    """Passes recordings through the vocoder alone; arguments as `Reconstructor`."""

    verb = "vocoded"

    def _copy(self, sound: Sound) -> Sound:
        from vcae.tasks.copy import vocode

        return vocode(self._engine, sound, self._seed)
