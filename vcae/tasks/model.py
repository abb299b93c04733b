"""The main class of the library: a checkpoint on a device with all its uses as methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vcae.audio.io import Sound
from vcae.config import from_dict
from vcae.deprecation import warn_of_ignored
from vcae.engine.engine import Engine, Samples, as_sound
from vcae.engine.listening import MIN_SOURCE_S, Analysis, analyse
from vcae.errors import ConfigError
from vcae.files import provenance
from vcae.model_file import DEFAULT
from vcae.options import AUTO, ConvertOptions, SpeakOptions
from vcae.tasks.convert import convert
from vcae.tasks.copy import reconstruct
from vcae.tasks.embed import N_STEPS, Embedding, embed
from vcae.tasks.unit_files import Units
from vcae.tasks.units import encode_units, speak_units
from vcae.voice.fitting import fit_voice
from vcae.voice.new import new_voice
from vcae.voice.voice import Voice, measure_voice


@dataclass(frozen=True, eq=False, repr=False)
class Encoding:
    """Signal encoded as content, speaker and F0.

    Attributes:
        latent: (1, latent_dim, ceil(T / stride)), the content.
        speaker_embedding: (1, speaker_dim), unit norm; None for a plain autoencoder.
        f0: (1, T) in Hz, 0 where unvoiced.
        n_samples: Length of the signal at the model's rate.
    """

    latent: Tensor
    speaker_embedding: Tensor | None
    f0: Tensor
    n_samples: int

    def __repr__(self) -> str:
        speaker = (
            "no speaker part" if self.speaker_embedding is None else f"speaker_embedding {tuple(self.speaker_embedding.shape)}"
        )
        return f"Encoding(latent {tuple(self.latent.shape)}, {speaker}, f0 {tuple(self.f0.shape)}, {self.n_samples} samples)"


class Model(Engine):
    """Checkpoint ready for use, with all its uses as methods. Returned by `vcae.load`; arguments and errors as `Engine`."""

    def analyse(
        self, wav: Samples, sample_rate: int | None = None, name: str = "audio", min_s: float = MIN_SOURCE_S
    ) -> Analysis:
        """Analyse a signal: check it, bring it to the model's rate and level, and compute mel and F0.

        Args:
            wav: Samples, a sound, or the path of a file, in any form that `vcae.engine.engine.as_sound` accepts.
            sample_rate: Sample rate of arrays, in Hz.
            name: Name for messages.
            min_s: Shortest length allowed, in seconds.

        Raises:
            AudioError: If the signal is too short, silent, not finite or of an unsupported rate.
        """
        return analyse(self, as_sound(wav, sample_rate, name), min_s)

    def analyse_sound(self, sound: Sound, min_s: float = MIN_SOURCE_S) -> Analysis:
        """Analyse an already checked sound as `analyse` does."""
        return analyse(self, sound, min_s)

    @torch.inference_mode()
    def encode(self, wav: Samples, sample_rate: int | None = None) -> Encoding:
        """Encode a signal as content, speaker and F0.

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

    def voice(self, clips: Samples | Sequence[Samples], sample_rate: int | None = None, denoise: bool | str = AUTO) -> Voice:
        """Measure a voice, for several conversions, for mixing (`vcae.mix_voices`) or for saving (`vcae.save_voice`).

        Args:
            clips: One clip, or several: samples, sounds or paths of files, with at least 0.5 s of speech in all; each counts by its speech.
            sample_rate: Sample rate of arrays, in Hz.
            denoise: Denoise the clips first: True, False, or `auto`, which denoises noisy ones only.

        Raises:
            AudioError: For unusable audio.
            ConfigError: For a checkpoint without a speaker part.
        """
        return measure_voice(self, clips, sample_rate, denoise)

    def new_voice(self, seed: int, spread: float = 1.0) -> Voice:
        """Generate a new voice; the same seed gives the same one.

        Args:
            seed: 0 or more.
            spread: Factor on the deviation from the average voice, up to 2.

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
        loudness: str = "source",
        seed: int = 0,
        denoise: bool | str = AUTO,
        speed: float = 1.0,
        formant: float = 0.0,
        expression: float = 1.0,
        watermark: bool = True,
        rate: int | None = None,
        channels: str = "keep",
        **removed: Any,
    ) -> Sound:
        """Convert `wav` to the voice of `reference`.

        Args:
            wav: The source: samples (N,), (N, channels) or (channels, N), a `Sound`, or the path of a file; at least 0.5 s.
            sample_rate: Sample rate of arrays, in Hz.
            reference: The target voice: a clip or several, in the forms of `wav`, with at least 0.5 s of speech; or a measured or loaded voice.
            reference_sample_rate: Sample rate of the clips, in Hz; that of the source when None.
            pitch: `auto` moves F0 to the voice's range, `keep` leaves it, a number shifts it by semitones.
            strength: Strength from 0 (the source's own voice) to 1 (the target voice).
            loudness: `source` follows the source's loudness envelope; `flat` only its level.
            seed: Seed of the vocoder's noise.
            denoise: Denoise source and clips first: True, False, or `auto`, which denoises noisy ones only.
            speed: Factor on the speed, 0.5 to 2; pitch is kept.
            formant: Shift of the formants in semitones, -12 to 12; F0 is kept.
            expression: Factor on the deviation of log-F0 from its mean, 0 (monotone) to 2.
            watermark: Mark the sound inaudibly as made by vcae.
            rate: Sample rate of the result in Hz; None for that of the source, and at least the model's.
            channels: `keep` places the converted mix of the channels among them as the source's voice was, `mono` leaves it mono, `separate`
                converts each channel by itself.
            removed: `match` and `detail` are accepted until version 0.3, without effect.

        Returns:
            The sound, (N,) or (N, channels), as long as the source divided by the speed; `save(path)` writes it.

        Raises:
            AudioError: For unusable audio.
            ConfigError: For a bad option, no reference, samples without a rate, or a checkpoint without a speaker part.
            CheckpointError: For a voice that another checkpoint measured and that has no recordings to measure again.
        """
        warn_of_ignored(removed, ("match", "detail"), "convert")
        given = {"pitch": pitch, "strength": strength, "loudness": loudness, "seed": seed, "denoise": denoise, "rate": rate}
        given |= {"speed": speed, "formant": formant, "expression": expression, "watermark": watermark, "channels": channels}
        chosen = from_dict(ConvertOptions, given, "convert")
        if reference is None:
            raise ConfigError("reference is None; give a clip of the target voice, or a voice from model.voice(...)")
        source = as_sound(wav, sample_rate, "source", mixed=False)
        if not isinstance(reference, Voice):
            reference = self.voice(reference, reference_sample_rate or sample_rate, denoise)
        made = convert(self, source, fit_voice(self, reference), chosen)
        return self._result(made.wav, "converted", source.name, made.sample_rate)

    def reconstruct(
        self,
        wav: Samples,
        sample_rate: int | None = None,
        *,
        seed: int = 0,
        code_dim: int | None = None,
        rate: int | None = None,
    ) -> Sound:
        """Copy `wav`, samples, a sound or a path of at least 0.5 s, through the autoencoder in its own voice.

        Args:
            wav: The recording.
            sample_rate: Sample rate of arrays, in Hz.
            seed: Seed of the vocoder's noise.
            code_dim: Values per step of a plain autoencoder to use instead: 1, 2, 4, 8, 16, 32 or 64; only with checkpoint `default`.
            rate: Sample rate of the result in Hz; None for that of the recording, and at least the model's.

        Raises:
            AudioError: For unusable audio.
            ConfigError: For a `code_dim` that is not available, or a rate that is not allowed.
        """
        made = reconstruct(self, as_sound(wav, sample_rate), seed, code_dim, rate)
        return replace(made, comment=provenance(self.checkpoint, "reconstructed"))

    def embed(
        self, wav: Samples, sample_rate: int | None = None, *, what: str = "speaker", pool: str = "none", n_steps: int = N_STEPS
    ) -> Embedding:
        """Extract features of `wav`, samples, a sound or a path of at least 0.5 s, for other tasks.

        Args:
            wav: The recording.
            sample_rate: Sample rate of arrays, in Hz.
            what: `speaker`: one unit vector; `content`: the content code, about 31 rows a second; `mel`: the log-mel, 62.5 rows a second.
            pool: `none`: all rows; `mean`: one, their mean; `steps`: the means of `n_steps` equal parts.
            n_steps: Number of rows for `steps`.

        Raises:
            AudioError: For unusable audio.
            CheckpointError: If the checkpoint has no autoencoder.
            ConfigError: For an unknown `what` or `pool`, or a checkpoint without a speaker part.
        """
        return embed(self, as_sound(wav, sample_rate), what, pool, n_steps)

    def units(self, wav: Samples, sample_rate: int | None = None) -> Units:
        """Encode `wav` (samples, a sound or a path) as units, one per step; `collapse()` merges runs.

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
        seed: int = 0,
        speed: float = 1.0,
        formant: float = 0.0,
        expression: float = 1.0,
        watermark: bool = True,
        **removed: Any,
    ) -> Sound:
        """Speak units in the voice of `reference`.

        Args:
            units: From `units`, or `vcae.tasks.unit_files.read_units`.
            reference: One clip of the target voice, or several: samples, sounds or paths of files, at least 0.5 s of speech; or a measured voice.
            reference_sample_rate: Sample rate of the clips, in Hz.
            pitch: `auto` uses the voice's own range, a number shifts it by semitones.
            durations: `file` uses the units' own, `predicted` the model's, `auto` the units' own if they have them.
            seed: Seed of the vocoder's noise.
            speed: Factor on the speed, as for `convert`; so are the other two.
            formant: Shift of the formants in semitones.
            expression: Factor on the deviation of log-F0 from its mean.
            watermark: Mark the sound inaudibly as made by vcae.
            removed: `match` is accepted until version 0.3, without effect.

        Returns:
            The sound, at the model's `sample_rate`.

        Raises:
            AudioError: For unusable audio.
            ConfigError: For a bad option, or a checkpoint without units or a speaker part.
            CheckpointError: For a checkpoint without prosody; for a voice as in `convert`.
            DataError: For units that this checkpoint does not have.
        """
        warn_of_ignored(removed, ("match",), "speak")
        given = {"pitch": pitch, "durations": durations, "seed": seed}
        given |= {"speed": speed, "formant": formant, "expression": expression, "watermark": watermark}
        chosen = from_dict(SpeakOptions, given, "speak")
        if not isinstance(reference, Voice):
            reference = self.voice(reference, reference_sample_rate)
        return self._result(speak_units(self, units, fit_voice(self, reference), chosen).wav, "spoken", units.name)

    def _result(self, wav: Tensor, verb: str, name: str, sample_rate: int | None = None) -> Sound:
        return Sound(wav.numpy(), sample_rate or self.sample_rate, name, provenance(self.checkpoint, verb))


def load(name: str | Path = DEFAULT, device: str = "auto") -> Model:
    """Load a checkpoint by its name or path.

    Args:
        name: Name of a shipped checkpoint, such as `default` or `vq`, or the path of a .safetensors file.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Returns:
        A model with `convert`, `reconstruct`, `units`, `speak`, `embed`, `voice` and more.
    """
    return Model(name, device)
