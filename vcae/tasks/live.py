"""Live conversion: block by block, with running statistics and a short look-ahead.

Statistics that `convert` measures from the whole recording are accumulated here over the past, starting from those of the reference. All
networks have the same context in the past as offline, and `LOOK_AHEAD` frames of the future.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vcae.audio.channels import RunningMixer
from vcae.audio.f0 import F0_MIN_HZ, continuous_log_f0, estimate_f0_sections, log_f0_statistics
from vcae.audio.frames import ACTIVE_RANGE
from vcae.audio.loudness import MAX_CUT_DB, MAX_RAISE_DB, PEAK_LIMIT, SMOOTH_FRAMES, TARGET_LEVEL
from vcae.audio.watermark import mark_window
from vcae.engine.decoding import decode_voice
from vcae.engine.engine import DECODED_CORRECTIONS, Engine
from vcae.engine.listening import Analysis
from vcae.errors import ConfigError
from vcae.model.content import ContentEncoder
from vcae.options import ConvertOptions, check_live
from vcae.vocoder.excitation import PitchTrack, white_noise
from vcae.voice.fitting import fit_voice
from vcae.voice.formant import FormantShift
from vcae.voice.matching import FULL_MATCH_S, Quantiles, correct_errors, frame_quantiles, map_quantiles
from vcae.voice.pitch import move_f0, scale_f0
from vcae.voice.speaking import DISTRIBUTION, DISTRIBUTION_S
from vcae.voice.voice import Voice

# Frames of future context of the networks.
LOOK_AHEAD = 8
MAX_LATENCY_MS = 250.0
# Frames of past context of the networks; the outermost frames of their receptive field hardly matter.
LOOK_BACK = 13
# Frames of the past that are stored.
HISTORY = 192
# Time constant of the running statistics in frames, and weight of the reference's statistics at the start in frames.
MEMORY, PRIOR = 1875, 60
# Frames on which F0 is estimated again in each block, and samples of the cross-fade between blocks.
F0_FRAMES = 28
FADE = 128
# Largest gain for a quiet input.
MAX_GAIN = 10.0
# Frames between updates of the bands' quantiles.
QUANTILES_EVERY = 60


class RunningMoments:
    """Running mean and standard deviation of each channel, with exponential forgetting."""

    def __init__(self, x: Tensor, weight: Tensor) -> None:
        count = max(float(weight.sum()), 1e-3)
        self._total = float(PRIOR)
        self._mean = (x * weight).sum(-1, keepdim=True) / count
        self._square = (x.square() * weight).sum(-1, keepdim=True) / count

    def add(self, x: Tensor, weight: Tensor) -> None:
        """Add frames (1, D, n) with weights (1, 1, n)."""
        count = float(weight.sum())
        if not count:
            return
        self._total = min(self._total, MEMORY) + count
        self._mean = self._mean + ((x - self._mean) * weight).sum(-1, keepdim=True) / self._total
        self._square = self._square + ((x.square() - self._square) * weight).sum(-1, keepdim=True) / self._total

    def normalize(self, x: Tensor) -> Tensor:
        """Normalise x by the running mean and standard deviation."""
        return (x - self._mean) / ((self._square - self._mean.square()).clamp(min=0) + 1e-4).sqrt()


class RunningContent:
    """Content encoder on windows of frames, with running moments for each normalisation."""

    def __init__(self, model: Engine, mel: Tensor, active: Tensor) -> None:
        self._autoencoder = model.autoencoder
        self._moments: list[RunningMoments] = []
        self.reach = self._autoencoder.content_encoder.reach
        self(mel, active, slice(0, 0))

    def __call__(self, mel: Tensor, active: Tensor, known: slice) -> Tensor:
        """Return the content of a window (1, n_mels, n) that starts at a multiple of the stride; frames `known` update the moments."""
        autoencoder = self._autoencoder
        way = _Window(autoencoder.content_encoder, active, known, self._moments)
        latent = autoencoder.content_encoder.run(autoencoder.normalize(mel), way)
        quantizer = autoencoder.quantizer
        return latent if quantizer is None else quantizer.decode(quantizer.encode(latent))


class _Window:
    """Backend that runs the content encoder on a window with running moments, which the first window initialises."""

    def __init__(self, encoder: ContentEncoder, weight: Tensor, known: slice, moments: list[RunningMoments]) -> None:
        self._encoder, self._weight, self._known = encoder, weight, known
        self._moments, self._at = moments, 0

    def normalize(self, x: Tensor) -> Tensor:
        if self._at == len(self._moments):
            self._moments.append(RunningMoments(x, self._weight))
        else:
            self._moments[self._at].add(x[..., self._known], self._weight[..., self._known])
        self._at += 1
        return self._moments[self._at - 1].normalize(x)

    def map(self, x: Tensor, function: Callable[[Tensor, Tensor | None], Tensor], reach: int) -> Tensor:
        return function(x, None)

    def pool(self, x: Tensor) -> Tensor:
        stride = self._encoder.config.stride
        self._weight, self._known = (
            self._encoder.pool_weight(self._weight),
            slice(*(at // stride for at in (self._known.start, self._known.stop))),
        )
        return self._encoder.pool(x)


class RunningQuantiles:
    """Quantiles of the mel bands over the active frames of the past."""

    def __init__(self, n_mels: int) -> None:
        self._frames, self._voiced = torch.zeros(n_mels, 0), torch.zeros(0, dtype=torch.bool)
        self._fresh = 0
        self.value: Quantiles = (None, None)

    def add(self, mel: Tensor, f0: Tensor, active: Tensor) -> Quantiles:
        """Add the active ones of frames (1, n_mels, n) with F0 (1, n), and return the quantiles."""
        chosen = active[0, 0] > 0
        self._frames = torch.cat([self._frames.to(mel.device), mel[0][:, chosen]], dim=1)[:, -MEMORY:]
        self._voiced = torch.cat([self._voiced.to(mel.device), f0[0, chosen] > 0])[-MEMORY:]
        self._fresh += int(chosen.sum())
        if self._fresh >= QUANTILES_EVERY:
            self._fresh = 0
            self.value = frame_quantiles(self._frames[:, ~self._voiced]), frame_quantiles(self._frames[:, self._voiced])
        return self.value


class RunningLevel:
    """RMS level of the active frames of the past; `TARGET_LEVEL` has the weight of a second."""

    def __init__(self) -> None:
        self._powers = np.zeros(0)

    def add(self, powers: np.ndarray) -> float:
        """Add the mean squares (n,) of frames and return the level."""
        self._powers = np.concatenate([self._powers, powers])[-MEMORY:]
        active = self._powers[self._powers >= np.quantile(self._powers, 0.98) * 1e-3]
        active = active[active > 0]
        return math.sqrt((PRIOR * TARGET_LEVEL**2 + active.sum()) / (PRIOR + len(active)))


@dataclass
class _Past:
    """State of the last `HISTORY` frames; the last frame of each array is the newest."""

    wav: np.ndarray
    mel: Tensor
    level: Tensor
    f0: Tensor
    moved_f0: Tensor
    log_f0: Tensor
    turns: Tensor
    content: Tensor
    corrected: Tensor
    final: Tensor


def _shift(past: Tensor, new: Tensor) -> Tensor:
    return torch.cat([past[..., new.shape[-1] :], new], dim=-1)


class LiveConverter:
    """Converter of a live signal, block by block.

    Attributes:
        sample_rate: Rate of input and output in Hz.
        block_samples, block_s: Length of a block.
        latency_ms: Delay from input to output, without the time of the computation.

    Args:
        model: Model with a vocoder and an autoencoder that has a speaker part.
        voice: Target voice.
        prior: Recording that gives the initial statistics: of the source speaker, or else the reference.
        options: As for `convert`; `strength` and `speed` must be 1.
        block_ms: Length of a block, rounded to 16 ms.

    Raises:
        ConfigError: If the latency would exceed `MAX_LATENCY_MS`, or an option is not supported live.
        CheckpointError: If the checkpoint lacks a part.
    """

    def __init__(
        self, model: Engine, voice: Voice, prior: Analysis, options: ConvertOptions | None = None, block_ms: float = 80.0
    ) -> None:
        self._model, self._voice, self._options = model, fit_voice(model, voice), check_live(options or ConvertOptions())
        self._hop = model.mel_config.hop_length
        frame_ms = 1000 * self._hop / model.sample_rate
        self._n = max(round(block_ms / frame_ms), 1)
        self.sample_rate, self.block_samples = model.sample_rate, self._n * self._hop
        self.block_s = self.block_samples / model.sample_rate
        ahead = LOOK_AHEAD * self._hop + model.mel_config.n_fft // 2
        self.latency_ms = 1000 * (self.block_samples + ahead) / model.sample_rate
        if self.latency_ms > MAX_LATENCY_MS:
            most = MAX_LATENCY_MS - 1000 * ahead / model.sample_rate
            raise ConfigError(
                f"a block of {block_ms:g} ms gives a latency of {self.latency_ms:.0f} ms; allowed are blocks up to {most:.0f} ms"
            )
        formant = self._options.formant
        self._shift = FormantShift(model.mel_config, formant) if formant else None
        self._vocoder = model.the_vocoder()
        self._mixer: RunningMixer | None = None
        with torch.inference_mode():
            self._start(prior)

    def _start(self, prior: Analysis) -> None:
        model, n_mels = self._model, self._model.mel_config.n_mels
        level = prior.mel.mean(1, keepdim=True)
        active = (level > torch.quantile(level, 0.95) - ACTIVE_RANGE).float()
        self._content = RunningContent(model, prior.mel, active)
        self._levels = level[0, 0, active[0, 0] > 0][-PRIOR:].cpu().numpy()
        self._quantiles = RunningQuantiles(n_mels)
        self._input_level, self._output_level = RunningLevel(), RunningLevel()
        self._heard_f0, self._peaks = torch.zeros(0), np.zeros(0)
        self._n_active = self._taken = self._given = 0
        self._tail = np.zeros(FADE)

        def filled(rows: int, value: float) -> Tensor:
            return torch.full((1, rows, HISTORY), value, device=model.device)

        floor = math.log(model.mel_config.floor)
        mel, corrected, final = (filled(n_mels, floor) for _ in range(3))
        f0, moved_f0, log_f0, turns = (filled(1, value)[0] for value in (0.0, 0.0, math.log(150.0), 0.0))
        content = filled(model.autoencoder.config.content.latent_dim, 0.0)
        wav = np.zeros(HISTORY * self._hop, np.float32)
        level = filled(1, floor)
        self._past = _Past(wav, mel, level, f0, moved_f0, log_f0, turns, content, corrected, final)

    @torch.inference_mode()
    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Convert a block.

        Args:
            block: `block_samples` samples at the model's rate, (n,) or (n, channels), which are mixed by `RunningMixer`.

        Returns:
            The converted samples that are ready: as many, fewer at the start.
        """
        if block.ndim == 2:
            if self._mixer is None:
                self._mixer = RunningMixer(block.shape[1], self.sample_rate)
            block = self._mixer(block)
        past, n, hop = self._past, self._n, self._hop
        past.wav = np.concatenate([past.wav[len(block) :], block])
        self._taken += len(block)
        gain = self._hear(block)
        fresh = LOOK_AHEAD + n
        active = (past.level > np.quantile(self._levels, 0.95) - ACTIVE_RANGE).float()
        self._n_active += int(active[..., -fresh:-LOOK_AHEAD].sum())
        self._convert(active, fresh)
        wav = self._synthesise(fresh)
        out = self._shape(wav, gain, fresh)
        # The first output sample corresponds to the first input sample.
        first = self._taken - hop * (fresh + 2)
        out = out[max(-first, 0) :]
        self._given += len(out)
        return out

    def finish(self) -> np.ndarray:
        """Return the remaining output after the last input, so that output and input have the same length."""
        total, pieces = self._taken, [np.zeros(0, np.float32)]
        while self._given < total:
            pieces.append(self(np.zeros(self.block_samples, np.float32)))
        left = np.concatenate(pieces)
        return left[: len(left) - (self._given - total)]

    def _hear(self, block: np.ndarray) -> float:
        """Compute mel and F0 of the newest frames, and return the gain that brings the input to the models' level."""
        past, n, hop = self._past, self._n, self._hop
        powers = np.square(block.reshape(-1, hop), dtype=np.float64).mean(axis=1)
        gain = min(TARGET_LEVEL / self._input_level.add(powers), MAX_GAIN)
        recent = torch.from_numpy(past.wav[-(n + 5) * hop :] * np.float32(gain)).to(self._model.device)
        mel = self._model.log_mel(recent[None])[..., 4 : 4 + n]
        past.mel = _shift(past.mel, mel)
        level = mel.mean(1, keepdim=True)
        past.level = _shift(past.level, level)
        self._levels = np.concatenate([self._levels, level[0, 0].cpu().numpy()])[-MEMORY:]
        self._peaks = np.append(self._peaks, np.abs(block).max())[-MEMORY // n :]
        window = past.wav[-F0_FRAMES * hop :]
        peak = max(float(self._peaks.max()), 0.01)
        f0 = estimate_f0_sections(lambda start, stop: window[start:stop], len(window), peak)
        fresh = LOOK_AHEAD + n
        newest = torch.from_numpy(f0[F0_FRAMES - 1 - fresh : F0_FRAMES - 1]).to(self._model.device)[None]
        past.f0 = torch.cat([past.f0[:, n:-LOOK_AHEAD], newest], dim=1)
        return gain

    def _pitch(self, fresh: int) -> Tensor:
        """Convert F0 to the voice's range, and return the mean of the converted log-F0 (1, 1) for the decoder."""
        past, n = self._past, self._n
        known = past.f0[0, -fresh:-LOOK_AHEAD].cpu()
        self._heard_f0 = torch.cat([self._heard_f0, known[known > 0]])[-MEMORY:]
        heard = self._heard_f0 if len(self._heard_f0) else past.f0[0][past.f0[0] > 0].cpu()
        median, spread = log_f0_statistics(heard)
        # The standard deviation of a few frames is unreliable.
        trust = min(len(heard) / (2 * PRIOR), 1.0)
        spread = self._voice.log_f0_spread * (1 - trust) + spread * trust if len(heard) else spread
        moved = move_f0(past.f0[:, -fresh:], self._voice, self._options.pitch, (median, spread))
        voiced = move_f0(heard[None], self._voice, self._options.pitch, (median, spread))[0] if len(heard) else heard
        mean = float(voiced.clamp(min=F0_MIN_HZ).log().mean()) if len(voiced) else 0.0
        moved = scale_f0(moved, self._options.expression, mean)
        past.moved_f0 = torch.cat([past.moved_f0[:, n:-LOOK_AHEAD], moved], dim=1)
        return torch.full((1, 1), mean, device=self._model.device)

    def _window(self, frames: int) -> int:
        """Return the smallest number of frames, at least `frames`, whose first one begins a step of the content."""
        stride = self._model.autoencoder.config.content.stride
        last = self._taken // self._hop - 2
        return frames + (last + 1 - frames) % stride

    def _convert(self, active: Tensor, fresh: int) -> None:
        model, voice, past, n = self._model, self._voice, self._past, self._n
        stride = model.autoencoder.config.content.stride
        width = self._window(fresh + min(self._content.reach, LOOK_BACK))
        known = slice(width - fresh, width - LOOK_AHEAD)
        latent = self._content(past.mel[..., -width:], active[..., -width:], known)
        content, changed = latent.repeat_interleave(stride, dim=-1)[..., :width], self._window(fresh)
        past.content = torch.cat([past.content[..., n : n - changed or None], content[..., -changed:]], dim=-1)[..., -HISTORY:]
        mean = self._pitch(fresh)
        width = self._window(fresh + LOOK_BACK)
        code = past.content[..., -width:][..., ::stride]
        moved = past.moved_f0[:, -width:]
        mel = decode_voice(model, code, moved, voice.speaker_embedding, voice.decoder, mean, voice.reference)[..., -changed:]
        trust = min(1.0, voice.speech_s / FULL_MATCH_S)
        code = past.content[..., -changed:][..., ::stride]
        mel = correct_errors(mel, code, past.moved_f0[:, -changed:], stride, voice.errors, trust)
        past.corrected = torch.cat([past.corrected[..., n:-LOOK_AHEAD], mel[..., -fresh:]], dim=-1)
        self._match(active, fresh, trust)

    def _match(self, active: Tensor, fresh: int, trust: float) -> None:
        """Move the distribution of each band in the newest frames towards the voice's."""
        voice, past, n = self._voice, self._past, self._n
        f0, known = past.moved_f0, slice(-fresh, -LOOK_AHEAD)
        heard_s = self._n_active / self._model.mel_config.frame_rate
        distribution = DISTRIBUTION * trust * min(1.0, heard_s / DISTRIBUTION_S)
        have = self._quantiles.add(past.corrected[..., known], f0[:, known], active[..., known])
        mel = map_quantiles(past.corrected[..., -fresh:], f0[:, -fresh:], have, voice.quantiles, distribution)
        if voice.spectrum_map is not None:
            mel = voice.spectrum_map(mel, f0[:, -fresh:])
        if self._shift is not None:
            mel = self._shift(mel, f0[:, -fresh:])
        past.final = torch.cat([past.final[..., n:-LOOK_AHEAD], mel], dim=-1)

    def _synthesise(self, fresh: int) -> np.ndarray:
        """Synthesise the newest frames with the vocoder's context before them, up to the last frame's sample."""
        past, n, hop, rate = self._past, self._n, self._hop, self._model.sample_rate
        # Past output keeps its phase, and the rest continues from it.
        before = past.log_f0[:, -LOOK_AHEAD - 1][:, None]
        filled = continuous_log_f0(torch.cat([before.exp(), past.moved_f0[:, -fresh:]], dim=1))
        hertz = filled.exp()
        advance = (hertz[:, :-1] * hop + (hertz[:, 1:] - hertz[:, :-1]) * (hop - 1) / 2) / rate
        turns = (past.turns[:, -LOOK_AHEAD - 1][:, None] + advance.cumsum(1)) % 1
        past.log_f0 = torch.cat([past.log_f0[:, n:-LOOK_AHEAD], filled[:, 1:]], dim=1)
        past.turns = torch.cat([past.turns[:, n:-LOOK_AHEAD], turns], dim=1)
        width = fresh + LOOK_BACK
        pitch = PitchTrack(past.log_f0, (past.moved_f0 > 0).float(), past.turns)[-width:]
        end = self._taken + (HISTORY - 2) * hop
        noise = white_noise(self._options.seed, 1, end - (width - 1) * hop, end).to(self._model.device)
        wav = self._vocoder.synthesise(past.final[..., -width:], pitch, noise, DECODED_CORRECTIONS)
        made = wav[0].cpu().numpy()
        if self._options.watermark:
            made = mark_window(made, self._taken - 2 * hop - len(made), rate)
        return np.asarray(made)

    def _shape(self, wav: np.ndarray, gain: float, fresh: int) -> np.ndarray:
        """Give the newest sound the input's loudness, cross-fade it with the last block, and return the samples that are ready."""
        n, hop = self._n, self._hop
        near = fresh + SMOOTH_FRAMES // 2
        made = np.square(wav[-near * hop :].reshape(-1, hop), dtype=np.float64).mean(axis=1)
        given = self._past.wav[-(near + 2) * hop : -2 * hop] * gain
        asked = np.square(given.reshape(-1, hop), dtype=np.float64).mean(axis=1)
        first = near - fresh
        scale = TARGET_LEVEL / self._output_level.add(made[first : first + n])
        window, floor = np.hanning(SMOOTH_FRAMES + 2)[1:-1], TARGET_LEVEL**2 * 1e-6
        weight = np.convolve(np.ones(near), window, "same")
        decibels = [10 * np.log10(np.convolve(power, window, "same") / weight + floor) for power in (asked, made * scale**2)]
        change = np.clip(decibels[0] - decibels[1], -MAX_CUT_DB, MAX_RAISE_DB)
        if self._options.loudness == "flat":
            change = np.zeros(near)
        start = first * hop
        at = np.arange(start, start + n * hop + FADE)
        gains = 10 ** (np.interp(at, (np.arange(near) + 0.5) * hop, change) / 20)
        piece = wav[-near * hop :][at] * gains * (scale / gain)
        rise = np.linspace(0, 1, FADE)
        piece[:FADE] = piece[:FADE] * rise + self._tail * (1 - rise)
        self._tail = piece[n * hop :].copy()
        return np.asarray(np.clip(piece[: n * hop], -PEAK_LIMIT, PEAK_LIMIT), dtype=np.float32)
