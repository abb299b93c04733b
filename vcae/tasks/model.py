"""The object users hold: a loaded checkpoint on a device, from wav to code to mel to wav."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vcae import checkpoint
from vcae.audio.io import Sound, check_sound
from vcae.audio.mel import LogMel
from vcae.audio.sections import Sections, Workshop
from vcae.config import from_dict
from vcae.engine.listening import listen
from vcae.errors import AudioError, CheckpointError, ConfigError
from vcae.model.autoencoder import Autoencoder
from vcae.vocoder.excitation import PitchTrack
from vcae.vocoder.griffin_lim import griffin_lim
from vcae.vocoder.neural import CHUNK_S, HarmonicNoiseVocoder

if TYPE_CHECKING:
    from vcae.tasks.unit_files import Units
    from vcae.voice.voice import Voice

log = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda", "mps")
MIN_SOURCE_S = 0.5
# A decoded mel is smoother than any recording's: a vocoder that follows it to the letter sounds worse than one that does so in part.
DECODED_CORRECTIONS = 1
Samples = Tensor | np.ndarray


@dataclass(frozen=True)
class Analysis:
    """A signal as the models see it.

    Attributes:
        wav: (N,) numpy, 16 kHz, at the models' level.
        mel: (1, n_mels, T), natural log magnitude.
        f0: (1, T) in Hz, 0 where unvoiced.
        level: RMS of the active frames before the level was changed.
    """

    wav: np.ndarray
    mel: Tensor
    f0: Tensor
    level: float


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


def choose_device(name: str = "auto") -> torch.device:
    """Choose where to compute.

    Args:
        name: `auto` (cuda, then mps, then cpu), `cpu`, `cuda` or `mps`.

    Raises:
        ConfigError: If the name is unknown or the device is not there.
    """
    if name not in DEVICES:
        raise ConfigError(f"device is {name!r}; allowed are {', '.join(DEVICES)}")
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, present in there.items() if present))
    if not there[name]:
        raise ConfigError(f"device {name} is not available on this machine; use --device auto or cpu")
    return torch.device(name)


def as_sound(wav: Samples, sample_rate: int, name: str = "audio") -> Sound:
    """Check samples (N,), or (N, channels) as soundfile gives them, and mix them to mono.

    Raises:
        AudioError: If they are no floats, empty, not finite or of an unsupported rate.
    """
    array = wav.detach().cpu().numpy() if isinstance(wav, Tensor) else np.asarray(wav)
    if array.ndim not in (1, 2) or not np.issubdtype(array.dtype, np.floating):
        raise AudioError(f"{name} has shape {array.shape} and type {array.dtype}; give floats of shape (N,) or (N, channels)")
    return check_sound(array, sample_rate, name)


class Model:
    """A checkpoint ready for use. Made by `vcae.load`.

    Args:
        name: Name of a shipped checkpoint, or a path.
        device: See `choose_device`.

    Raises:
        CheckpointError: If the checkpoint cannot be loaded.
        ConfigError: If the device is not there.
    """

    def __init__(self, name: str | Path = checkpoint.DEFAULT, device: str = "auto") -> None:
        self.device = choose_device(device)
        self.checkpoint = checkpoint.load(name, self.device)
        part = self.checkpoint.autoencoder or self.checkpoint.vocoder
        if part is None:
            raise CheckpointError(
                f"{self.checkpoint.path} holds neither an autoencoder nor a vocoder; give another checkpoint "
                "(a codec is for vcae compress and decompress, a ladder for vcae reconstruct --code-dim)"
            )
        self.mel_config = part.config.mel
        self.log_mel = LogMel(self.mel_config).to(self.device)

    @property
    def sample_rate(self) -> int:
        """Rate of every signal this model gives, in Hz."""
        return self.mel_config.sample_rate

    def analyse(self, wav: Samples, sample_rate: int, name: str = "audio", min_s: float = MIN_SOURCE_S) -> Analysis:
        """Check a signal, bring it to the model's rate and level, and take its mel and F0.

        Args:
            wav: (N,), or (N, channels) as soundfile gives it, -1..1.
            sample_rate: Hz.
            name: For messages.
            min_s: Shortest length allowed, in seconds.

        Raises:
            AudioError: If the signal is too short, silent, not finite or of an unsupported rate.
        """
        return self.analyse_sound(as_sound(wav, sample_rate, name), min_s)

    @torch.inference_mode()
    def analyse_sound(self, sound: Sound, min_s: float = MIN_SOURCE_S) -> Analysis:
        """Analyse a sound, checked already, as `analyse` does."""
        heard, _ = listen(self, sound, min_s, lambda n: Workshop(n, False, self.device))
        return Analysis(heard.wav.read(0, heard.wav.n)[0, 0].numpy(), heard.mel.read(0, heard.mel.n), heard.f0, heard.level)

    @torch.inference_mode()
    def encode(self, wav: Samples, sample_rate: int) -> Encoding:
        """Take a signal (N,) apart into content, speaker and F0.

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

    @torch.inference_mode()
    def vocode(
        self,
        mel: Tensor,
        f0: Tensor,
        n_samples: int | None = None,
        seed: int = 0,
        n_corrections: int | None = None,
        follow: Tensor | None = None,
        progress: Callable[[float], object] | None = None,
    ) -> Tensor:
        """Turn a log-mel into sound, by the checkpoint's vocoder or by Griffin-Lim where it has none.

        Args:
            mel: (B, n_mels, T), natural log magnitude.
            f0: (B, T) in Hz, 0 where unvoiced.
            n_samples: Length, (T - 1) * hop_length when None.
            seed: Of the noise, or of Griffin-Lim's first phases.
            n_corrections: How often the vocoder puts the mel right; the checkpoint's number when None, `DECODED_CORRECTIONS` for a mel
                that an autoencoder decoded.
            follow: (B, N), the recording to copy, if the copy's pulses shall stand where the recording's do.
            progress: Called with the share done, 0 to 1, after each chunk; what it raises ends the work.

        Returns:
            (B, N), on the CPU.
        """
        n = (mel.shape[-1] - 1) * self.mel_config.hop_length if n_samples is None else n_samples
        if self.checkpoint.vocoder is None:
            log.warning("%s holds no vocoder; Griffin-Lim is used", self.checkpoint.path.name)
            return griffin_lim(mel, self.mel_config, n, seed=seed)
        pieces, done = [], 0
        for piece in self.vocode_stream(mel, f0, n, seed, n_corrections, follow=follow):
            pieces.append(piece.cpu())
            done += piece.shape[1]
            if progress is not None:
                progress(done / max(n, 1))
        return torch.cat(pieces, dim=1)

    @torch.inference_mode()
    def vocode_stream(
        self,
        mel: Tensor,
        f0: Tensor,
        n_samples: int | None = None,
        seed: int = 0,
        n_corrections: int | None = None,
        chunk_s: float = CHUNK_S,
        follow: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """Yield what `vocode` returns in chunks of `chunk_s` seconds, in memory bounded by the chunk.

        Raises:
            CheckpointError: If the checkpoint has no vocoder.
        """
        vocoder = self.the_vocoder()
        follow = None if follow is None else follow.to(self.device)
        yield from vocoder.stream(mel.to(self.device), f0.to(self.device), n_samples, seed, n_corrections, chunk_s, follow)

    @torch.inference_mode()
    def vocode_sections(
        self, mel: Sections, f0: Tensor, n_samples: int, seed: int, n_corrections: int | None, work: Workshop
    ) -> Iterator[Tensor]:
        """Yield what `vocode` returns for a mel that is read by sections, (1, n) each on the CPU."""
        vocoder = self.checkpoint.vocoder
        if vocoder is None:
            # Griffin-Lim knows no sections.
            yield self.vocode(mel.read(0, mel.n), f0, n_samples, seed, n_corrections)
            return
        c = self.mel_config
        pitch = PitchTrack.of(f0, c.sample_rate, c.hop_length)

        def synthesise(start: int, stop: int) -> Tensor:
            return vocoder.section(mel.read, pitch, (start, stop), n_samples, seed, n_corrections)

        for section in work.work(synthesise, work.walk(-(-n_samples // c.hop_length))):
            yield section.cpu()

    def voice(self, clips: Samples | Sequence[Samples], sample_rate: int, denoise: bool = False) -> Voice:
        """Measure a voice once, to convert to it often, to mix it (`vcae.mix_voices`) or to save it (`vcae.voice.voice.save_voice`).

        Args:
            clips: One clip (N,) or (N, channels), or several; at least 1 s each; they count by their seconds of speech.
            sample_rate: Hz.
            denoise: Clean the clips first.

        Raises:
            AudioError: For unusable audio.
            ConfigError: For a checkpoint without a speaker part.
        """
        from vcae.tasks.convert import hear_voice

        several = [clips] if isinstance(clips, Tensor | np.ndarray) else list(clips)
        return hear_voice(self, [as_sound(clip, sample_rate, f"reference {n + 1}") for n, clip in enumerate(several)], denoise)

    def new_voice(self, seed: int, spread: float = 1.0) -> Voice:
        """Draw a voice that nobody has: the same seed gives the same one.

        Args:
            seed: 0 or more.
            spread: How far from the average voice to draw, up to 2.

        Raises:
            CheckpointError: For another checkpoint than `default`.
            ConfigError: For a value that is not allowed.
        """
        from vcae.voice.new import new_voice

        return new_voice(self, seed, spread)

    def convert(
        self,
        wav: Samples,
        sample_rate: int,
        reference: Samples | Sequence[Samples] | Voice,
        reference_sample_rate: int | None = None,
        **options: Any,
    ) -> Tensor:
        """Say what `wav` says in the voice of `reference`.

        Args:
            wav: (N,) or (N, channels), -1..1, at least 0.5 s.
            sample_rate: Hz.
            reference: One clip of the voice to take, or several, at least 1 s each; or a voice measured before.
            reference_sample_rate: Hz; that of the source when None.
            options: Fields of `vcae.options.ConvertOptions`: `pitch`, `strength`, `match`, `detail`, `loudness`, `seed`, `denoise`.

        Returns:
            (N,), at the model's `sample_rate`, as long as the source.

        Raises:
            AudioError: For unusable audio.
            ConfigError: For a bad option, or a checkpoint without a speaker part.
        """
        from vcae.options import ConvertOptions
        from vcae.tasks.convert import convert
        from vcae.voice.voice import Voice

        chosen = from_dict(ConvertOptions, options, "convert")
        source = as_sound(wav, sample_rate, "source")
        if not isinstance(reference, Voice):
            reference = self.voice(reference, reference_sample_rate or sample_rate, chosen.denoise)
        return convert(self, source, reference, chosen).wav

    def units(self, wav: Samples, sample_rate: int) -> Units:
        """Return the units of what `wav` (N,) or (N, channels) says, one a step; `collapse()` merges runs.

        Raises:
            AudioError: For unusable audio.
            ConfigError: If the checkpoint has no discrete code.
        """
        from vcae.tasks.units import encode_units

        return encode_units(self, as_sound(wav, sample_rate))

    def speak(
        self,
        units: Units,
        reference: Samples | Sequence[Samples] | Voice,
        reference_sample_rate: int | None = None,
        **options: Any,
    ) -> Tensor:
        """Say units in the voice of `reference`.

        Args:
            units: From `units`, or `vcae.tasks.unit_files.read_units`.
            reference: One clip of the voice, or several, at least 1 s each; or a voice measured before.
            reference_sample_rate: Hz; needed for clips.
            options: Fields of `vcae.options.SpeakOptions`: `pitch`, `durations`, `match`, `seed`.

        Returns:
            (N,), at the model's `sample_rate`.

        Raises:
            AudioError: For unusable audio.
            ConfigError: For a bad option, or a checkpoint without units or a speaker part.
            CheckpointError: For a checkpoint without prosody.
            DataError: For units that this checkpoint does not have.
        """
        from vcae.options import SpeakOptions
        from vcae.tasks.units import speak_units
        from vcae.voice.voice import Voice

        chosen = from_dict(SpeakOptions, options, "speak")
        if not isinstance(reference, Voice):
            if reference_sample_rate is None:
                raise ConfigError("reference_sample_rate is None; give the clip's rate in Hz, or a voice from model.voice(...)")
            reference = self.voice(reference, reference_sample_rate)
        return speak_units(self, units, reference, chosen).wav

    def the_vocoder(self) -> HarmonicNoiseVocoder:
        """Return the vocoder.

        Raises:
            CheckpointError: If the checkpoint has none.
        """
        if self.checkpoint.vocoder is None:
            raise CheckpointError(f"{self.checkpoint.path} holds no vocoder; use --checkpoint {checkpoint.DEFAULT}")
        return self.checkpoint.vocoder

    @property
    def autoencoder(self) -> Autoencoder:
        """The autoencoder.

        Raises:
            CheckpointError: If the checkpoint has none.
        """
        if self.checkpoint.autoencoder is None:
            raise CheckpointError(f"{self.checkpoint.path} holds no autoencoder; use --checkpoint {checkpoint.DEFAULT}")
        return self.checkpoint.autoencoder


def load(name: str | Path = checkpoint.DEFAULT, device: str = "auto") -> Model:
    """Load a checkpoint: the shipped one, or another by name or path.

    Args:
        name: `default`, or the path of a .safetensors file.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Returns:
        A model with `convert`, `encode`, `decode` and `vocode`.
    """
    return Model(name, device)
