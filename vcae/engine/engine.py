"""A checkpoint on a device: the basis of all its uses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vcae import checkpoint
from vcae.audio.io import Sound, check_sound, read_sound
from vcae.audio.mel import LogMel
from vcae.audio.sections import SectionRunner, Sections
from vcae.errors import AudioError, CheckpointError, ConfigError
from vcae.model.autoencoder import Autoencoder
from vcae.model_file import DEFAULT
from vcae.vocoder.excitation import PitchTrack
from vcae.vocoder.griffin_lim import griffin_lim
from vcae.vocoder.neural import CHUNK_S, HarmonicNoiseVocoder

log = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda", "mps")
# A decoded mel is smoother than a recording's, so a vocoder that follows it exactly sounds worse than one that does so in part.
DECODED_CORRECTIONS = 1
# Accepted forms of sound: samples, with their rate; a sound; or the path of a file.
Samples = Tensor | np.ndarray | Sound | str | Path


def choose_device(name: str = "auto") -> torch.device:
    """Choose the device.

    Args:
        name: `auto` (cuda, then mps, then cpu), `cpu`, `cuda` or `mps`.

    Raises:
        ConfigError: If the name is unknown or the device is not available.
    """
    if name not in DEVICES:
        raise ConfigError(f"device is {name!r}; allowed are {', '.join(DEVICES)}")
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, present in there.items() if present))
    if not there[name]:
        raise ConfigError(f"device {name} is not available on this machine; use the device auto or cpu")
    return torch.device(name)


def as_sound(wav: Samples, sample_rate: int | None = None, name: str = "audio", mixed: bool = True) -> Sound:
    """Return samples, a sound, or the sound file of a path as a checked sound.

    Args:
        wav: (N,), (N, channels) as from soundfile, or (channels, N) as from torchaudio: floats in -1..1, or signed integers, which are
            scaled by their type's range; a `Sound`; or the path of a file. The shorter one of two dimensions is that of the channels.
        sample_rate: Hz. A sound and a file have their own.
        name: Name for messages.
        mixed: Mix the channels to mono; otherwise they are kept.

    Raises:
        AudioError: For samples of another shape or type, empty, not finite or of an unsupported rate; for an unusable file.
        ConfigError: For samples without their rate.
    """
    if isinstance(wav, str | Path):
        return read_sound(wav, mixed=mixed)
    if isinstance(wav, Sound):
        if sample_rate is not None and sample_rate != wav.sample_rate:
            raise ConfigError(f"the {name} is {wav}, and sample_rate is {sample_rate} Hz; leave it out, a Sound has its own")
        return check_sound(wav.wav, wav.sample_rate, wav.name, mixed)
    if sample_rate is None:
        raise ConfigError(
            f"the sample rate of the {name} is missing; give it in Hz, or give a path or a Sound, which have theirs"
        )
    array = wav.detach().cpu().numpy() if isinstance(wav, Tensor) else np.asarray(wav)
    if np.issubdtype(array.dtype, np.signedinteger):
        array = array / np.float32(-float(np.iinfo(array.dtype).min))
    if array.ndim not in (1, 2) or not np.issubdtype(array.dtype, np.floating):
        raise AudioError(
            f"{name} has shape {array.shape} and type {array.dtype}; give floats or signed integers of shape (N,), (N, channels) or (channels, N)"
        )
    if array.ndim == 2 and array.shape[0] < array.shape[1]:
        array = array.T
    return check_sound(array, sample_rate, name, mixed)


class Engine:
    """A checkpoint ready for use, without the verbs of `vcae.Model`.

    Args:
        name: Name of a shipped checkpoint, or a path.
        device: See `choose_device`.

    Raises:
        CheckpointError: If the checkpoint cannot be loaded.
        ConfigError: If the device is not available.
    """

    def __init__(self, name: str | Path = DEFAULT, device: str = "auto") -> None:
        self.device = choose_device(device)
        self.checkpoint = checkpoint.load(name, self.device)
        part = self.checkpoint.autoencoder or self.checkpoint.vocoder
        if part is None:
            raise CheckpointError(
                f"{self.checkpoint.path} holds neither an autoencoder nor a vocoder; give another checkpoint "
                "(a codec is for vcae.Codec, a ladder for reconstruct with code_dim)"
            )
        self.mel_config = part.config.mel
        log.info(
            "checkpoint %s, sha256 %s, on %s with %d threads",
            *(self.checkpoint.path, self.checkpoint.sha256[:16], self.device, torch.get_num_threads()),
        )
        self.log_mel = LogMel(self.mel_config).to(self.device)

    def __repr__(self) -> str:
        parts = {"autoencoder": self.checkpoint.autoencoder, "vocoder": self.checkpoint.vocoder}
        sizes = [f"{name} {sum(p.numel() for p in m.parameters()) / 1e6:.1f} M" for name, m in parts.items() if m is not None]
        return f"{type(self).__name__}({self.checkpoint.path.stem}, {', '.join(sizes)}, {self.sample_rate} Hz, {self.device})"

    @property
    def sample_rate(self) -> int:
        """Sample rate of all output signals, in Hz."""
        return self.mel_config.sample_rate

    def the_vocoder(self) -> HarmonicNoiseVocoder:
        """Return the vocoder.

        Raises:
            CheckpointError: If the checkpoint has none.
        """
        if self.checkpoint.vocoder is None:
            raise CheckpointError(f"{self.checkpoint.path} holds no vocoder; use the checkpoint {DEFAULT!r}")
        return self.checkpoint.vocoder

    @property
    def autoencoder(self) -> Autoencoder:
        """The autoencoder.

        Raises:
            CheckpointError: If the checkpoint has none.
        """
        if self.checkpoint.autoencoder is None:
            raise CheckpointError(f"{self.checkpoint.path} holds no autoencoder; use the checkpoint {DEFAULT!r}")
        return self.checkpoint.autoencoder

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
        """Synthesise sound from a log-mel, by the checkpoint's vocoder or by Griffin-Lim if it has none.

        Args:
            mel: (B, n_mels, T), natural log magnitude.
            f0: (B, T) in Hz, 0 where unvoiced.
            n_samples: Length, (T - 1) * hop_length when None.
            seed: Seed of the noise, or of Griffin-Lim's initial phases.
            n_corrections: Iterations that correct the mel; the checkpoint's number when None. Use `DECODED_CORRECTIONS` for a mel
                decoded by an autoencoder.
            follow: (B, N), a recording whose pulse positions the copy gets, or None.
            progress: Called with the fraction done, 0 to 1, after each chunk; an exception that it raises ends the work.

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
        """Yield the result of `vocode` in chunks of `chunk_s` seconds, in memory bounded by the chunk.

        Raises:
            CheckpointError: If the checkpoint has no vocoder.
        """
        vocoder = self.the_vocoder()
        follow = None if follow is None else follow.to(self.device)
        yield from vocoder.stream(mel.to(self.device), f0.to(self.device), n_samples, seed, n_corrections, chunk_s, follow)

    @torch.inference_mode()
    def vocode_sections(
        self, mel: Sections, f0: Tensor, n_samples: int, seed: int, n_corrections: int | None, runner: SectionRunner
    ) -> Iterator[Tensor]:
        """Yield the result of `vocode` for a mel that is read by sections, (1, n) each on the CPU."""
        vocoder = self.checkpoint.vocoder
        if vocoder is None:
            # Griffin-Lim needs the whole mel.
            yield self.vocode(mel.read(0, mel.n), f0, n_samples, seed, n_corrections)
            return
        c = self.mel_config
        pitch = PitchTrack.of(f0, c.sample_rate, c.hop_length)

        def synthesise(start: int, stop: int) -> Tensor:
            return vocoder.section(mel.read, pitch, (start, stop), n_samples, seed, n_corrections)

        for section in runner.run(synthesise, runner.spans(-(-n_samples // c.hop_length))):
            yield section.cpu()
