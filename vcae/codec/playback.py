"""Decoding of compressed speech while it is read: some blocks at a time, with their context."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from vcae.audio.f0 import log_f0_statistics
from vcae.audio.loudness import TARGET_LEVEL, LevelMeter, set_level_sections
from vcae.audio.sections import LazySections, SectionRunner, StoredSections
from vcae.codec.base import Damage, Networks, decode_base, level_of, quality_share
from vcae.codec.bitstream import Block as Packed
from vcae.codec.bitstream import Lost, Reader
from vcae.codec.block import PHASE_STEPS, PHASES, Block, phase_needed
from vcae.codec.pitch import FRAMES, dequantize_f0, reference_hz, spread_phase, turns
from vcae.engine.engine import DECODED_CORRECTIONS
from vcae.errors import BitstreamError
from vcae.vocoder.excitation import PitchTrack, white_noise
from vcae.voice.pitch import move_f0
from vcae.voice.speaking import speak_sections
from vcae.voice.voice import Voice

# Steps decoded together: few at first for a low latency, then more, which is faster.
FIRST_STEPS, MOST_STEPS = 64, 512
# Fade-out into a gap from both of its edges, in nats per frame.
FADE_NATS = 0.7
SECTION_S = 20.0


@dataclass(frozen=True)
class Piece:
    """Consecutive decoded blocks.

    Attributes:
        start: First step.
        blocks: The blocks; zeros where lost.
        lost: Whether each block is lost.
    """

    start: int
    blocks: list[Block]
    lost: list[bool]

    @property
    def stop(self) -> int:
        """Step after the last one."""
        return self.start + sum(block.n_steps for block in self.blocks)


@dataclass
class _Window:
    """Neighbouring pieces, concatenated."""

    start: int
    codes: np.ndarray = field(init=False)
    voicing: Tensor = field(init=False)
    place: Tensor = field(init=False)
    latent: Tensor = field(init=False)
    turns: Tensor = field(init=False)
    lost: Tensor = field(init=False)

    def fill(self, blocks: list[Block], lost: list[bool], hz: float) -> None:
        """Join blocks."""
        self.codes = np.concatenate([block.codes for block in blocks], axis=1)
        self.voicing = torch.from_numpy(np.concatenate([block.voicing for block in blocks]))
        self.place = torch.from_numpy(np.concatenate([block.place for block in blocks]))
        self.latent = torch.from_numpy(np.concatenate([block.latent for block in blocks], axis=1))
        self.turns = torch.cat([_block_turns(block, hz) for block in blocks])
        gone = [torch.full((block.n_steps * FRAMES,), bool(is_lost)) for block, is_lost in zip(blocks, lost, strict=True)]
        self.lost = torch.cat(gone)


def _block_turns(block: Block, hz: float) -> Tensor:
    every, n = FRAMES * PHASE_STEPS, block.n_steps * FRAMES
    sent = spread_phase(torch.from_numpy(block.phase), torch.from_numpy(phase_needed(block.voicing)), PHASES, every, n)
    return turns(torch.from_numpy(block.place), hz) + sent


class Stream:
    """Sound that is decoded while its file is read; it can be iterated over once and yields (n,) float32 at 16 kHz.

    Returned by `Codec.stream`.

    Attributes:
        header: Header of the file.
        damage: Parts that could not be decoded; complete after the iteration.
        first_steps: Steps decoded before the first sound, or None for the default; set before iterating.
    """

    def __init__(
        self,
        codec: Networks,
        reader: Reader,
        voice: Voice | None,
        strict: bool,
        name: str,
        seed: int,
        progress: Callable[[float], object] | None = None,
    ) -> None:
        self.header = reader.header
        self.damage: list[Damage] = []
        self.first_steps: int | None = None
        self._codec, self._reader, self._voice, self._strict = codec, reader, voice, strict
        self._name, self._seed = name, seed
        self._told = progress or (lambda share: None)
        self._hz = reference_hz(self.header.f0)
        self._turns: tuple[int, Tensor] | None = None
        self._n_good = 0
        # Raises for invalid bytes before anything is decoded.
        self._embedding, self._timbre = codec.file.voice.decode(self.header.speaker)

    def __iter__(self) -> Iterator[np.ndarray]:
        if self._voice is not None:
            yield from self._convert(self._voice)
            return
        gain = level_of(self.header.level)
        for wav in self._play():
            yield np.clip(wav * np.float32(gain), -1.0, 1.0)

    def _pieces(self, base_only: bool) -> Iterator[Piece]:
        """Yield the decoded blocks of the file, up to the last intact one."""
        waiting: list[Packed] = []
        start, most = 0, self.first_steps or FIRST_STEPS
        for item in self._reader:
            if isinstance(item, Packed):
                waiting.append(item)
                if sum(self.header.steps_of(block.index) for block in waiting) >= most:
                    piece = self._decode(start, waiting, base_only)
                    start, waiting, most = piece.stop, [], min(2 * most, MOST_STEPS)
                    yield piece
                continue
            if waiting:
                piece = self._decode(start, waiting, base_only)
                start, waiting = piece.stop, []
                yield piece
            self._report(item)
            if item.index + item.count == self.header.n_blocks:
                # The file ends here, and the length in a damaged header cannot be trusted.
                return
            for index in range(item.index, item.index + item.count):
                yield Piece(start, [self._empty(index)], [True])
                start += self.header.steps_of(index)
        if waiting:
            yield self._decode(start, waiting, base_only)

    def _report(self, item: Lost) -> None:
        start_s, stop_s = self.header.span(item.index, item.count)
        self.damage.append(Damage(start_s, stop_s, item.offset, item.reason))

    def _empty(self, index: int) -> Block:
        n = self.header.steps_of(index)
        steps = np.zeros(n, np.int64)
        latent = np.zeros((self._codec.file.config.latent_dim, n), np.int64)
        return Block(np.zeros((2, n), np.int64), steps, steps, np.zeros(-(-n // PHASE_STEPS), np.int64), latent)

    def _decode(self, start: int, packed: list[Packed], base_only: bool) -> Piece:
        coder, header = self._codec.file.coder, self.header
        payloads, n_steps = [block.payload for block in packed], [header.steps_of(block.index) for block in packed]
        try:
            blocks, lost = coder.decode(payloads, n_steps, header.quality, base_only), [False] * len(packed)
        except BitstreamError:
            blocks, lost = [], []
            for block, payload, n in zip(packed, payloads, n_steps, strict=True):
                try:
                    blocks += coder.decode([payload], [n], header.quality, base_only)
                    lost.append(False)
                except BitstreamError as error:
                    if self._strict:
                        raise
                    blocks.append(self._empty(block.index))
                    lost.append(True)
                    self._report(Lost(block.index, block.offset, str(error).split(";")[0]))
        self._n_good += len(lost) - sum(lost)
        return Piece(start, blocks, lost)

    @torch.inference_mode()
    def _play(self) -> Iterator[np.ndarray]:
        before: list[tuple[Block, bool]] = []
        now: Piece | None = None
        for piece in self._pieces(False):
            if now is not None:
                yield self._synthesise(before, now, piece)
                self._told(now.stop / self.header.n_steps)
                before = _last_steps([*before, *zip(now.blocks, now.lost, strict=True)])
            now = piece
        if now is not None:
            # Sound that the header claims beyond the end of the file is not synthesised: it could be days.
            yield self._synthesise(before, now, None)
            self._told(now.stop / self.header.n_steps)
        if not self._n_good:
            raise BitstreamError(f"nothing of {self._name} could be decoded; get a fresh copy of it")

    def _sample(self, step: int) -> int:
        """Return the sample at the centre of a step's first frame."""
        return min(step * FRAMES * self._codec.model.mel_config.hop_length, self.header.n_samples)

    def _synthesise(self, before: list[tuple[Block, bool]], now: Piece, after: Piece | None) -> np.ndarray:
        """Return the sound of a piece."""
        blocks = [block for block, _ in before] + now.blocks + ([] if after is None else after.blocks)
        lost = [is_lost for _, is_lost in before] + now.lost + ([] if after is None else after.lost)
        window = _Window(now.start - sum(block.n_steps for block, _ in before))
        window.fill(blocks, lost, self._hz)
        c, first = self._codec.model.mel_config, window.start * FRAMES
        n = min(len(window.lost), self.header.n_frames - first)
        at_end = first + n == self.header.n_frames
        mel, pitch = self._mel(window, n), self._pitch(window, n, now.start * FRAMES - first, now.stop * FRAMES - first)
        offset = first * c.hop_length
        end = self.header.n_samples if at_end else offset + (n - 1) * c.hop_length
        noise = white_noise(self._seed, 1, offset, end).to(mel.device)
        vocoder = self._codec.model.the_vocoder()
        wav = vocoder.synthesise(mel, pitch, noise, DECODED_CORRECTIONS)[0].cpu().numpy()
        start, stop = self._sample(now.start), self.header.n_samples if at_end and after is None else self._sample(now.stop)
        out: np.ndarray = wav[start - offset : stop - offset]
        # If only damage follows a piece, its last frame has no sound after its centre.
        return np.pad(out, (0, stop - start - len(out)))

    def _mel(self, window: _Window, n: int) -> Tensor:
        """Return the mel (1, n_mels, n)."""
        codec, header = self._codec, self.header
        model, device = codec.model, codec.model.device
        f0 = dequantize_f0(window.voicing[None], window.place[None], torch.tensor([self._hz]), n)
        mel = decode_base(model, window.codes, f0, self._embedding, header.f0).read(0, n)
        normalized = model.autoencoder.normalize(mel)
        if not header.quality:
            if codec.file.polish is not None:
                normalized = codec.file.polish(normalized, self._embedding.to(device))
            if self._timbre is not None:
                normalized = normalized + self._timbre[..., None].to(device)
        else:
            quality = torch.tensor([quality_share(header.quality)], device=device)
            steps = torch.from_numpy(codec.file.coder.step_size(header.quality)).float()
            latent = (window.latent.float() * steps)[None].to(device)
            normalized = codec.enhancement.decode(latent, normalized, quality)
        mel = normalized * model.autoencoder.mel_deviation + model.autoencoder.mel_mean
        return _conceal(mel, window.lost[:n].to(device), math.log(model.mel_config.floor))

    def _pitch(self, window: _Window, n: int, start: int, stop: int) -> PitchTrack:
        """Return the pitch track (1, n); the base layer codes no phase, so there it continues from the end of the piece before."""
        c = self._codec.model.mel_config
        f0 = dequantize_f0(window.voicing[None], window.place[None], torch.tensor([self._hz]), n)
        track = PitchTrack.of(f0, c.sample_rate, c.hop_length)
        if self.header.quality:
            track = PitchTrack(track.log_f0, track.voiced, (window.turns[None, :n] % 1).float())
        elif self._turns is not None:
            track = PitchTrack(
                track.log_f0, track.voiced, (track.turns + self._turns[1] - track.turns[:, start : start + 1]) % 1
            )
        if stop < n:
            self._turns = (stop, track.turns[:, stop : stop + 1])
        device = self._codec.model.device
        return PitchTrack(track.log_f0.to(device), track.voiced.to(device), track.turns.to(device))

    @torch.inference_mode()
    def _convert(self, voice: Voice) -> Iterator[np.ndarray]:
        """Yield the sound in another voice: the base layer's content, decoded as `vcae convert` does from units."""
        pieces = list(self._pieces(True))
        if not self._n_good:
            raise BitstreamError(f"nothing of {self._name} could be decoded; get a fresh copy of it")
        window = _Window(0)
        window.fill(
            [block for piece in pieces for block in piece.blocks], [x for piece in pieces for x in piece.lost], self._hz
        )
        model, header = self._codec.model, self.header
        n = min(len(window.lost), header.n_frames)
        n_samples = header.n_samples if n == header.n_frames else (n - 1) * model.mel_config.hop_length
        own = dequantize_f0(window.voicing[None], window.place[None], torch.tensor([self._hz]), n).to(model.device)
        f0 = move_f0(own, voice, "auto", log_f0_statistics(own[0]))
        step = max(round(SECTION_S * model.mel_config.frame_rate), 1)
        runner, codes, device = SectionRunner(step, n > step, model.device), window.codes, model.device

        def latent(start: int, stop: int) -> Tensor:
            return model.autoencoder.decode_units(torch.from_numpy(codes[None, :, start:stop]).to(device))

        said = speak_sections(model, LazySections(codes.shape[1], latent), f0, voice, runner)
        gone, floor = window.lost[:n].to(device), math.log(model.mel_config.floor)
        mel = LazySections(n, lambda start, stop: _conceal(said.read(start, stop), gone[start:stop], floor))
        meter, wav = LevelMeter(), StoredSections(runner.on_disk, torch.device("cpu"))
        for section in model.vocode_sections(mel, f0, n_samples, self._seed, DECODED_CORRECTIONS, runner):
            meter.add(section[0].numpy())
            wav.append(section[None])
            self._told(wav.n / n_samples)
        level, samples = TARGET_LEVEL * level_of(header.level), step * model.mel_config.hop_length
        yield from set_level_sections(lambda a, b: wav.read(a, b)[0, 0].numpy(), meter, level, samples)


def _last_steps(blocks: list[tuple[Block, bool]]) -> list[tuple[Block, bool]]:
    """Return the last blocks, as many as the receptive field of the sound after them covers."""
    kept: list[tuple[Block, bool]] = []
    for item in reversed(blocks):
        kept.insert(0, item)
        if sum(block.n_steps for block, _ in kept) >= FIRST_STEPS:
            break
    return kept


def _conceal(mel: Tensor, lost: Tensor, floor: float) -> Tensor:
    """Fade a mel (1, n_mels, T) out where frames (T,) are lost, from the frames beside them."""
    if not bool(lost.any()):
        return mel
    n = len(lost)
    at = torch.arange(n, device=lost.device)
    before = torch.where(lost, torch.full_like(at, -1), at).cummax(dim=0).values
    after = torch.where(lost, torch.full_like(at, n), at).flip(0).cummin(dim=0).values.flip(0)
    edges = []
    for edge, there in ((before, before >= 0), (after, after < n)):
        faded = mel[..., edge.clamp(0, n - 1)] - FADE_NATS * (at - edge).abs()
        edges.append(torch.where(there, faded, torch.full_like(faded, floor)))
    return torch.where(lost, torch.maximum(*edges).clamp(min=floor), mel)
