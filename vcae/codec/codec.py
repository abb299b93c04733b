"""Compression of speech to 0.6 to 6 kbit/s, and decompression in its own voice or another."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from vcae.audio.io import Sound
from vcae.audio.sections import LazySections, SectionRunner, Sections
from vcae.codec import bitstream
from vcae.codec.base import Base, Damage, Networks, decode_base, level_code, polished, quality_share
from vcae.codec.bitstream import Header
from vcae.codec.block import MAX_QUALITY, PHASE_STEPS, PHASES, Block, count_changes, reachable
from vcae.codec.pitch import FRAMES, dequantize_f0, quantize_f0, reference_code, reference_hz, turns
from vcae.codec.playback import MOST_STEPS, Stream
from vcae.engine.engine import Samples, as_sound
from vcae.engine.listening import MIN_SOURCE_S, Source, analyse_sections, encode_latent_sections, encode_speaker_sections
from vcae.errors import BitstreamError
from vcae.files import provenance
from vcae.options import check_kbps
from vcae.vocoder.excitation import PitchTrack
from vcae.voice.fitting import fit_voice
from vcae.voice.voice import Voice

# Shortest duration that a file may claim: half that of the shortest source, to allow for resampling.
MIN_CLAIM_S = MIN_SOURCE_S / 2
# Steps per block; files with the base layer only have longer blocks, as each block costs some bytes.
BASE_BLOCK_STEPS, BLOCK_STEPS = 128, 64
SECTION_S = 20.0
# Blocks, spread over the recording, on which the quality for a rate is searched.
SEARCH_BLOCKS = 24
SEARCHES = 8
# Progress of compression (fraction done) after the analysis, at the start of the search, and at the start of writing.
HEARD_SHARE, SEARCH_SHARE, WRITE_SHARE = 0.35, 0.4, 0.7
# A rate of at least this fraction of the requested one ends the search.
NEAR = 0.985
# Frames of context on each side of a section when its phase is measured.
FOLLOW_CONTEXT = 32


@dataclass(frozen=True)
class Decompressed:
    """Result of decompressing a file.

    Attributes:
        sound: At 16 kHz, as long as the original.
        header: Header of the file.
        damage: Parts that could not be decoded; they are silent.
    """

    sound: Sound
    header: Header
    damage: tuple[Damage, ...]


class Codec(Networks):
    """Speech codec, loaded and ready for use; arguments and errors as `Networks`."""

    @torch.inference_mode()
    def compress(self, source: Source, kbps: float = 1.5, progress: Callable[[float], object] | None = None) -> bytes:
        """Compress a recording.

        Args:
            source: A `Sound`, or a `SoundReader` of a file; at least 0.5 s.
            kbps: Highest bit rate of the file in kbit/s, 0.6 to 6. At 0.6, and for short recordings, the file has the base layer only, and
                its header may exceed the rate.
            progress: Called with the estimated fraction done, 0 to 1; it falls back when a file is too large and is encoded again.
                An exception that it raises ends the work.

        Returns:
            The file's bytes, see `docs/bitstream.md`.

        Raises:
            AudioError: For unusable audio, or a full disk.
            ConfigError: For a rate that is not allowed.
        """
        check_kbps(kbps)
        notify = progress or (lambda share: None)
        notify(0.0)
        base = self.analyse(source)
        notify(HEARD_SHARE)
        budget = kbps * 1000 / 8 * base.analysis.wav.n / self.sample_rate
        blocks = list(self._blocks(base, 0, block_steps=BASE_BLOCK_STEPS))
        spoken = self._write(base, 0, blocks)
        if budget <= len(spoken) * 1.02:
            return self._alone(base, blocks, budget)
        mel, phase = self.base_mel(base), self._phase(base)
        notify(SEARCH_SHARE)
        quality, whole = self._search(base, mel, phase, budget - len(spoken), lambda: notify(SEARCH_SHARE))
        while quality > 0:
            chosen = self._write(base, quality, whole.get(quality) or self._blocks(base, quality, mel, phase), notify)
            if len(chosen) <= budget:
                return chosen
            # The blocks of the search took fewer bits than the others.
            quality = min(quality - 1, self._quality(self._rate(quality) * (budget / len(chosen)) ** 1.2))
        return self._alone(base, blocks, budget)

    def analyse(self, source: Source) -> Base:
        """Analyse a recording for the base layer, which is coded at any rate. Arguments and errors as `compress`."""
        model, step = self.model, max(round(SECTION_S * self.model.mel_config.frame_rate), 1)
        heard, runner = analyse_sections(model, source, MIN_SOURCE_S, lambda n: SectionRunner(step, n > step, model.device))
        speaker = encode_speaker_sections(model, heard.mel, heard.active, runner)
        latent, quantizer = encode_latent_sections(model, heard.mel, heard.active, runner), model.autoencoder.quantizer
        assert quantizer is not None
        codes = [quantizer.encode(latent.read(start, stop))[0].cpu().numpy() for start, stop in runner.spans(latent.n)]
        reference = reference_code(heard.f0[0])
        voicing, place = quantize_f0(heard.f0.cpu(), torch.tensor([reference_hz(reference)]))
        return Base(heard, runner, np.concatenate(codes, axis=1), voicing[0], place[0], reference, speaker)

    def _places(self, base: Base, block_steps: int) -> Tensor:
        """Return the quantised F0 (S,) that a decoder will reconstruct."""
        voicing, place = base.voicing.numpy(), base.place.numpy()
        cuts = range(0, len(voicing), block_steps)
        return torch.from_numpy(
            np.concatenate([reachable(voicing[i : i + block_steps], place[i : i + block_steps])[1] for i in cuts])
        )

    def base_mel(self, base: Base, block_steps: int = BLOCK_STEPS) -> Sections:
        """Return the base layer's normalised mel, of T frames, as the decoder reconstructs it for blocks of `block_steps` steps."""
        hz = torch.tensor([reference_hz(base.reference)])
        f0 = dequantize_f0(base.voicing[None], self._places(base, block_steps)[None], hz, base.analysis.mel.n)
        embedding = self.file.voice.decode(self.file.voice.encode(base.speaker))[0]
        decoded = decode_base(self.model, base.codes, f0, embedding, base.reference)
        normalize = self.model.autoencoder.normalize
        return base.runner.store(
            LazySections(decoded.n, lambda start, stop: normalize(decoded.read(start, stop)), multiple=FRAMES)
        )

    def latent(self, base: Base, mel: Sections, quality: int, start: int, stop: int) -> np.ndarray:
        """Return the latent (D, stop - start) of steps `start` to `stop` in units of the quantiser's step, not yet rounded."""
        first, last = max(start * FRAMES - self.enhancement.reach, 0) // FRAMES * FRAMES, stop * FRAMES + self.enhancement.reach
        last = min(last, mel.n)
        wanted, share = self.model.autoencoder.normalize(base.analysis.mel.read(first, last)), quality_share(quality)
        latent = self.enhancement.encode(wanted, mel.read(first, last), torch.tensor([share], device=self.model.device))
        cut = latent[0, :, start - first // FRAMES : stop - first // FRAMES].double().cpu().numpy()
        return np.asarray(cut / self.file.coder.step_size(quality))

    def _blocks(
        self,
        base: Base,
        quality: int,
        mel: Sections | None = None,
        phase: np.ndarray | None = None,
        indices: list[int] | None = None,
        block_steps: int = BLOCK_STEPS,
    ) -> Iterator[bytes]:
        n = len(base.voicing)
        for index in range(-(-n // block_steps)) if indices is None else indices:
            cut = slice(index * block_steps, min((index + 1) * block_steps, n))
            n_phases = -(-(cut.stop - cut.start) // PHASE_STEPS)
            latent = np.zeros((self.file.config.latent_dim, cut.stop - cut.start), dtype=np.int64)
            if mel is not None:
                latent = np.round(self.latent(base, mel, quality, cut.start, cut.stop)).astype(np.int64)
            sent = np.zeros(n_phases, np.int64) if phase is None else phase[cut.start // PHASE_STEPS :][:n_phases]
            block = Block(base.codes[:, cut], base.voicing.numpy()[cut], base.place.numpy()[cut], sent, latent)
            yield self.file.coder.encode(block, quality)[0]

    def _alone(self, base: Base, blocks: list[bytes], budget: float) -> bytes:
        """Return a file with the base layer only, including the timbre if it fits into `budget` bytes."""
        finer = self._write(base, 0, blocks, timbre=self.timbre(base))
        return finer if len(finer) <= budget else self._write(base, 0, blocks)

    def timbre(self, base: Base) -> Tensor:
        """Return the mean error of the polished base layer's mel over active frames: (1, n_mels), normalised per band."""
        mel, heard = self.base_mel(base, BASE_BLOCK_STEPS), base.analysis
        total, count = torch.zeros(1, mel.read(0, 1).shape[1], device=self.model.device), 0.0
        embedding = self.file.voice.decode(self.file.voice.encode(base.speaker))[0].to(self.model.device)
        made = mel if self.file.polish is None else polished(self.file.polish, mel, embedding)
        for start, stop in base.runner.spans(mel.n):
            weight = heard.active[..., start:stop]
            lacking = self.model.autoencoder.normalize(heard.mel.read(start, stop)) - made.read(start, stop)
            total, count = total + (lacking * weight).sum(dim=-1), count + float(weight.sum())
        return total / max(count, 1.0)

    def _write(
        self,
        base: Base,
        quality: int,
        made: Iterable[bytes],
        notify: Callable[[float], object] = lambda share: None,
        timbre: Tensor | None = None,
    ) -> bytes:
        header = Header(
            bytes.fromhex(self.file.sha256[:8]),
            base.analysis.wav.n,
            quality,
            BLOCK_STEPS if quality else BASE_BLOCK_STEPS,
            level_code(base.analysis.level / max(base.analysis.meter.level(), 1e-9)),
            base.reference,
            self.file.voice.encode(base.speaker, timbre),
        )

        def blocks() -> Iterator[bytes]:
            for n, block in enumerate(made, 1):
                notify(WRITE_SHARE + (1 - WRITE_SHARE) * n / header.n_blocks)
                yield block

        return bitstream.write(header, blocks())

    def _phase(self, base: Base) -> np.ndarray:
        """Return the phase of the pulses (ceil(S / 4),) in sixteenths of a cycle, relative to the integral of each block's F0."""
        c, heard = self.model.mel_config, base.analysis
        places, hz, n = self._places(base, BLOCK_STEPS), reference_hz(base.reference), heard.mel.n
        f0 = dequantize_f0(base.voicing[None], places[None], torch.tensor([hz]), n)
        track, followed = PitchTrack.of(f0, c.sample_rate, c.hop_length), []
        for start, stop in base.runner.spans(n):
            first, last = max(start - FOLLOW_CONTEXT, 0), min(stop + FOLLOW_CONTEXT, n)
            wav = heard.wav.read(first * c.hop_length, min(last * c.hop_length, heard.wav.n))[0].cpu()
            wav = torch.nn.functional.pad(wav, (0, (last - first) * c.hop_length - wav.shape[-1]))
            piece = track[first:last].follow(wav, c.sample_rate, c.hop_length)
            followed.append(piece.turns[0, start - first : stop - first])
        added = torch.cat([turns(place, hz) for place in torch.split(places, BLOCK_STEPS)])[:n]
        offset = (torch.cat(followed).double() - added)[:: FRAMES * PHASE_STEPS]
        return (torch.round(offset * PHASES).long() % PHASES).numpy()

    def _rate(self, quality: int) -> float:
        return float(self.file.rates[quality])

    def _quality(self, rate: float) -> int:
        """Return the highest quality whose bit rate on the training data is at most `rate` kbit/s; 0 if there is none."""
        return int((self.file.rates[1:] <= rate).sum())

    def _search(
        self, base: Base, mel: Sections, phase: np.ndarray, budget: float, check: Callable[[], object]
    ) -> tuple[int, dict[int, list[bytes]]]:
        """Find the highest quality whose blocks take about `budget` bytes; also return, by quality, the blocks if all were encoded."""
        n_blocks = -(-len(base.voicing) // BLOCK_STEPS)
        tried = sorted(set(np.linspace(0, n_blocks - 1, min(n_blocks, SEARCH_BLOCKS)).round().astype(int).tolist()))
        seconds = sum(min((i + 1) * BLOCK_STEPS, len(base.voicing)) - i * BLOCK_STEPS for i in tried)
        seconds *= FRAMES / self.model.mel_config.frame_rate
        wanted = budget * 8 / 1000 / (base.analysis.wav.n / self.sample_rate)
        own = sum(map(len, self._blocks(base, 0, indices=tried)))
        low, high, whole = 0, MAX_QUALITY + 1, dict[int, list[bytes]]()
        quality = max(self._quality(wanted), 1)
        for n in range(SEARCHES):
            size, blocks = -own, []
            for block in self._blocks(base, quality, mel, phase, tried):
                check()
                blocks.append(block)
                size += len(block) + 3
            if len(tried) == n_blocks:
                whole[quality] = blocks
            rate = size * 8 / 1000 / seconds
            if rate <= wanted:
                low = quality
                if rate >= NEAR * wanted or quality == MAX_QUALITY:
                    break
            else:
                high = quality
            if low + 1 >= high:
                break
            guess = self._quality(self._rate(quality) * wanted / max(rate, 1e-3))
            # If interpolation does not converge, bisect.
            quality = min(max(guess if n < SEARCHES // 2 else (low + high) // 2, low + 1), high - 1)
        return low, whole

    @torch.inference_mode()
    def measure(self, sounds: Sequence[Sound], qualities: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Measure the statistics that are stored in a codec's file.

        Args:
            sounds: Recordings of the training data.
            qualities: Qualities whose bit rates are measured.

        Returns:
            Counts of pairs of successive phase changes (PHASES + 1, PHASES) int32, and bit rates (256,) in kbit/s of the enhancement layer.
        """
        counts, bytes_of, seconds = np.ones((PHASES + 1, PHASES)), np.zeros(len(qualities)), 0.0
        for sound in sounds:
            base = self.analyse(sound)
            mel, phase = self.base_mel(base), self._phase(base)
            for cut in range(0, len(base.voicing), BLOCK_STEPS):
                voicing = base.voicing.numpy()[cut : cut + BLOCK_STEPS]
                count_changes(counts, phase[cut // PHASE_STEPS :], voicing)
            own = sum(map(len, self._blocks(base, 0)))
            bytes_of += [sum(map(len, self._blocks(base, quality, mel, phase))) - own for quality in qualities]
            seconds += base.analysis.wav.n / self.sample_rate
        octaves = np.interp(np.arange(MAX_QUALITY + 1), qualities, np.log2(np.maximum(bytes_of, 1) * 8 / 1000 / seconds))
        return torch.from_numpy(np.round(counts / counts.sum(axis=1, keepdims=True) * 4095 + 1)).int(), torch.from_numpy(
            np.exp2(octaves)
        ).float()

    def stream(
        self,
        opened: BinaryIO,
        voice: Voice | None = None,
        strict: bool = False,
        name: str = "the compressed data",
        seed: int = 0,
        progress: Callable[[float], object] | None = None,
    ) -> Stream:
        """Decompress while a file is read.

        Args:
            opened: Stream of bytes; need not be seekable.
            voice: Target voice, or None for the original one. With a voice, the whole file is read before the first sound is returned.
            strict: Raise for damage instead of concealing it.
            name: Name of the file for messages.
            seed: Seed of the vocoder's noise.
            progress: Called during iteration with the fraction done, 0 to 1; an exception that it raises ends the work.

        Raises:
            BitstreamError: If it is not a compressed file, has another version or codec, or a damaged header; when iterating, for damage
                if `strict`.
        """
        reader = bitstream.Reader(opened, name, strict)
        own = self.file.sha256[:8]
        if reader.header.checkpoint.hex() != own:
            raise BitstreamError(
                f"{name} was written with the codec {reader.header.checkpoint.hex()}..., and the one in use is {own}...; "
                "give its checkpoint, or the version of vcae that wrote it"
            )
        if reader.header.n_samples < MIN_CLAIM_S * self.sample_rate:
            raise BitstreamError(
                f"{name} claims {reader.header.n_samples} samples; recordings shorter than {MIN_SOURCE_S:g} s are not compressed"
            )
        return Stream(self, reader, voice, strict, name, seed, progress)

    def decompress(
        self, data: bytes, voice: Voice | None = None, strict: bool = False, name: str = "the compressed data", seed: int = 0
    ) -> Decompressed:
        """Decompress a whole file.

        Args:
            data: From `compress`.
            voice: As in `stream`.
            strict: As in `stream`.
            name: As in `stream`.
            seed: As in `stream`.

        Raises:
            BitstreamError: As `stream`, and if nothing could be decoded.
        """
        playing = self.stream(io.BytesIO(data), voice, strict, name, seed)
        # Latency does not matter here, and large pieces are faster.
        playing.first_steps = MOST_STEPS
        wav = np.concatenate(list(playing))
        return Decompressed(Sound(wav, self.sample_rate, name), playing.header, tuple(playing.damage))


@lru_cache(maxsize=1)
def _shipped() -> Codec:
    return Codec()


def compress(wav: Samples, sample_rate: int | None = None, kbps: float = 1.5) -> bytes:
    """Compress samples, a sound or a file with the shipped codec, which is loaded once.

    Args:
        wav: In a form that `vcae.engine.engine.as_sound` accepts, at least 0.5 s.
        sample_rate: Sample rate of arrays, in Hz. Without it, 16 kHz is assumed, with a warning: the next version refuses such arrays.
        kbps: Highest bit rate of the result in kbit/s, 0.6 to 6.

    Raises:
        AudioError: For unusable audio.
        ConfigError: For a rate that is not allowed.
    """
    if sample_rate is None and isinstance(wav, Tensor | np.ndarray):
        message = "vcae.compress without sample_rate takes samples to be at 16 kHz; give their rate in Hz"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        sample_rate = 16000
    return _shipped().compress(as_sound(wav, sample_rate), kbps)


def decompress(
    data: bytes, speaker: Samples | Sequence[Samples] | Voice | None = None, speaker_sample_rate: int | None = None
) -> Sound:
    """Decompress the result of `compress`.

    Args:
        data: The bytes of a file.
        speaker: Target voice: clips, in the forms that `compress` accepts, or a measured or loaded voice; None for the original voice.
        speaker_sample_rate: Sample rate of the clips, in Hz.

    Returns:
        The sound, at 16 kHz.

    Raises:
        BitstreamError: If it is not a compressed file, or nothing of it could be decoded.
        ConfigError: For clips without their rate.
        AudioError: For unusable clips.
        CheckpointError: For a voice that another checkpoint measured and that has no recordings to measure again.
    """
    codec = _shipped()
    if speaker is not None and not isinstance(speaker, Voice):
        speaker = codec.voice(speaker, speaker_sample_rate)
    speaker = None if speaker is None else fit_voice(codec.model, speaker)
    return replace(codec.decompress(data, speaker).sound, comment=provenance(codec.file, "decompressed"))
