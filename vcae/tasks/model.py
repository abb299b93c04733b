"""The object users hold: a loaded checkpoint on a device, from wav to code to mel to wav."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vcae import checkpoint
from vcae.audio.io import Sound
from vcae.config import from_dict
from vcae.engine.engine import Engine, Samples, as_sound
from vcae.engine.listening import MIN_SOURCE_S, Analysis, analyse
from vcae.errors import ConfigError
from vcae.options import ConvertOptions, SpeakOptions
from vcae.tasks.convert import convert
from vcae.tasks.unit_files import Units
from vcae.tasks.units import encode_units, speak_units
from vcae.voice.new import new_voice
from vcae.voice.voice import Voice, measure_voice


@dataclass(frozen=True)
class Encoding:
    """A signal taken apart.

    Attributes:
        latent: (1, latent_dim, ceil(T / stride)), what is said.
        speaker_embedding: (1, speaker_dim), unit norm, who says it; None for a plain autoencoder.
        f0: (1, T) in Hz, 0 where unvoiced.
        n_samples: Length of the signal at the model's rate.
    """

    latent: Tensor
    speaker_embedding: Tensor | None
    f0: Tensor
    n_samples: int


class Model(Engine):
    """A checkpoint ready for use: everything it can do. Made by `vcae.load`; arguments and errors as `Engine`."""

    def analyse(
        self, wav: Samples, sample_rate: int | None = None, name: str = "audio", min_s: float = MIN_SOURCE_S
    ) -> Analysis:
        """Check a signal, bring it to the model's rate and level, and take its mel and F0.

        Args:
            wav: Samples, a sound, or the path of a file, as `vcae.engine.engine.as_sound` takes them.
            sample_rate: Of samples, in Hz.
            name: For messages.
            min_s: Shortest length allowed, in seconds.

        Raises:
            AudioError: If the signal is too short, silent, not finite or of an unsupported rate.
        """
        return analyse(self, as_sound(wav, sample_rate, name), min_s)

    def analyse_sound(self, sound: Sound, min_s: float = MIN_SOURCE_S) -> Analysis:
        """Analyse a sound, checked already, as `analyse` does."""
        return analyse(self, sound, min_s)

    @torch.inference_mode()
    def encode(self, wav: Samples, sample_rate: int | None = None) -> Encoding:
        """Take a signal apart into content, speaker and F0.

        Raises:
            AudioError: As `analyse`.
            CheckpointError: If the checkpoint has no autoencoder.
        """
        seen = self.analyse(wav, sample_rate)
        autoencoder = self.autoencoder
        speaker = autoencoder.encode_speaker(seen.mel) if autoencoder.speaker_encoder is not None else None
        return Encoding(autoencoder.encode_content(seen.mel), speaker, seen.f0, len(seen.wav))

    @torch.inference_mode()
    def decode(self, encoding: Encoding, speaker_embedding: Tensor | None = None, f0: Tensor | None = None) -> Tensor:
        """Decode to a log-mel (1, n_mels, T), with another voice (1, speaker_dim) or F0 (1, T) in Hz if given."""
        speaker = encoding.speaker_embedding if speaker_embedding is None else speaker_embedding
        mel: Tensor = self.autoencoder.decode(encoding.latent, encoding.f0 if f0 is None else f0, speaker)
        return mel

    def voice(self, clips: Samples | Sequence[Samples], sample_rate: int | None = None, denoise: bool = False) -> Voice:
        """Measure a voice once, to convert to it often, to mix it (`vcae.mix_voices`) or to save it (`vcae.voice.file.save_voice`).

        Args:
            clips: One clip, or several: samples, sounds or paths of files; at least 0.5 s of speech in all; they count by it.
            sample_rate: Of samples, in Hz.
            denoise: Clean the clips first.

        Raises:
            AudioError: For unusable audio.
            ConfigError: For a checkpoint without a speaker part.
        """
        return measure_voice(self, clips, sample_rate, denoise)

    def new_voice(self, seed: int, spread: float = 1.0) -> Voice:
        """Draw a voice that nobody has: the same seed gives the same one.

        Args:
            seed: 0 or more.
            spread: How far from the average voice to draw, up to 2.

        Raises:
            CheckpointError: For another checkpoint than `default`.
            ConfigError: For a value that is not allowed.
        """
        return new_voice(self, seed, spread)

    def convert(
        self,
        wav: Samples,
        sample_rate: int | None = None,
        reference: Samples | Sequence[Samples] | Voice | None = None,
        reference_sample_rate: int | None = None,
        *,
        pitch: str | float = "auto",
        strength: float = 1.0,
        match: str | float = "auto",
        detail: str | float = "auto",
        loudness: str = "source",
        seed: int = 0,
        denoise: bool = False,
    ) -> Tensor:
        """Say what `wav` says in the voice of `reference`.

        Args:
            wav: What to convert: samples (N,), (N, channels) or (channels, N), a `Sound`, or the path of a file; at least 0.5 s.
            sample_rate: Of samples, in Hz.
            reference: The voice to take: a clip or several, given as `wav` is, at least 0.5 s of speech; or a voice measured before.
            reference_sample_rate: Of the clips' samples, in Hz; that of the source when None.
            pitch: `auto` moves F0 to the voice's range, `keep` leaves it, a number shifts it by semitones.
            strength: From the source's own voice (0) to the one asked for (1).
            match: How far frames are drawn to the reference's own, 0 to 1; `auto` decides by its length.
            detail: How much of the source that its code leaves out is added back, 0 to 1; `auto` decides by the checkpoint.
            loudness: `source` follows the source's loudness; `flat` only takes its level.
            seed: Of the vocoder's noise.
            denoise: Clean source and clips first.

        Returns:
            (N,), at the model's `sample_rate`, as long as the source.

        Raises:
            AudioError: For unusable audio.
            ConfigError: For a bad option, no reference, samples without a rate, or a checkpoint without a speaker part.
        """
        given = {"pitch": pitch, "strength": strength, "match": match, "detail": detail}
        chosen = from_dict(ConvertOptions, given | {"loudness": loudness, "seed": seed, "denoise": denoise}, "convert")
        if reference is None:
            raise ConfigError("reference is None; give a clip of the voice to take, or a voice from model.voice(...)")
        source = as_sound(wav, sample_rate, "source")
        if not isinstance(reference, Voice):
            reference = self.voice(reference, reference_sample_rate or sample_rate, denoise)
        return convert(self, source, reference, chosen).wav

    def units(self, wav: Samples, sample_rate: int | None = None) -> Units:
        """Return the units of what `wav`, samples, a sound or a path, says, one a step; `collapse()` merges runs.

        Raises:
            AudioError: For unusable audio.
            ConfigError: If the checkpoint has no discrete code.
        """
        return encode_units(self, as_sound(wav, sample_rate))

    def speak(
        self,
        units: Units,
        reference: Samples | Sequence[Samples] | Voice,
        reference_sample_rate: int | None = None,
        *,
        pitch: str | float = "auto",
        durations: str = "auto",
        match: str | float = "auto",
        seed: int = 0,
    ) -> Tensor:
        """Say units in the voice of `reference`.

        Args:
            units: From `units`, or `vcae.tasks.unit_files.read_units`.
            reference: One clip of the voice, or several: samples, sounds or paths of files, at least 0.5 s of speech; or a voice measured before.
            reference_sample_rate: Of the clips' samples, in Hz.
            pitch: `auto` is the voice's own range, a number shifts it by semitones.
            durations: `file` takes the units' own, `predicted` the model's, `auto` the units' own where they have them.
            match: How far frames are drawn to the voice's own, 0 to 1; `auto` decides by the length of the reference.
            seed: Of the vocoder's noise.

        Returns:
            (N,), at the model's `sample_rate`.

        Raises:
            AudioError: For unusable audio.
            ConfigError: For a bad option, or a checkpoint without units or a speaker part.
            CheckpointError: For a checkpoint without prosody.
            DataError: For units that this checkpoint does not have.
        """
        given = {"pitch": pitch, "durations": durations, "match": match, "seed": seed}
        chosen = from_dict(SpeakOptions, given, "speak")
        if not isinstance(reference, Voice):
            reference = self.voice(reference, reference_sample_rate)
        return speak_units(self, units, reference, chosen).wav


def load(name: str | Path = checkpoint.DEFAULT, device: str = "auto") -> Model:
    """Load a checkpoint: the shipped one, or another by name or path.

    Args:
        name: `default`, or the path of a .safetensors file.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Returns:
        A model with `convert`, `encode`, `decode` and `vocode`.
    """
    return Model(name, device)
