"""Training the denoiser: clean speech, spoilt in ways that speech is spoilt, and the way back."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vcae.audio.io import resample
from vcae.audio.loudness import TARGET_LEVEL
from vcae.checkpoint import load_module, read_tensors
from vcae.errors import DataError
from vcae.model.denoiser import PART, Denoiser, compress_spectrum, denoiser_of
from vcae.training.config import DenoiseRecipe, NoisingConfig
from vcae.training.draws import Draws
from vcae.training.objectives import Objective

# What a room adds within this time of the direct sound is left to the speech.
EARLY_S = 0.03
LEVEL_SPREAD_DB = 4.0
# Of a hum.
HARMONICS = 7
# Bands under this count as silent: about 60 dB under speech.
MEL_FLOOR = -9.0
# Errors 30 dB under the speech count as none.
SMALLEST_ERROR = 1e-3
# Weight of the spectrum with its phases, over 1 less it for magnitudes alone.
PHASE_SHARE = 0.3
# Weights of the distance of the filtered sound's log-mel, and of the restored mel's.
SOUND_MEL_WEIGHT, MEL_WEIGHT = 0.1, 0.2
# Container, coding and rate in Hz of the damage by codecs; a number is the compression level, where the format has one.
CODECS = (
    ("OGG", "OPUS", 16000, 1.0),
    ("MP3", "MPEG_LAYER_III", 16000, 0.99),
    ("WAV", "GSM610", 8000, None),
    ("WAV", "ULAW", 8000, None),
)


class Noising:
    """Rooms, noises, band limits and codecs, drawn for each item of a batch.

    Args:
        config: How often which.
        sample_rate: Hz.

    Raises:
        DataError: If the bank of noises cannot be used.
    """

    def __init__(self, config: NoisingConfig, sample_rate: int) -> None:
        self.config, self.sample_rate = config, sample_rate
        if not Path(config.bank).is_file():
            raise DataError(f"there is no bank of noises {config.bank}; make it with recipes/denoise/prepare.py")
        tensors, _ = read_tensors(Path(config.bank))
        try:
            self.audio, self.bounds, self.rooms = tensors["audio"], tensors["bounds"].tolist(), tensors["rooms"].float()
        except KeyError as error:
            raise DataError(f"the bank {config.bank} lacks {error}; make it again with recipes/denoise/prepare.py") from error

    def __call__(self, wav: Tensor, others: Tensor, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """Spoil a batch.

        Args:
            wav: (B, N) clean speech.
            others: (B, N') speech of which babble is made.
            draws: Source of randomness.

        Returns:
            What is heard (B, N), what a filter could make of it (B, N), and the clean speech (B, N), all of the same level.
        """
        c, (n_batch, n) = self.config, wav.shape
        chance = draws.uniform(n_batch, 5).to(wav.device)
        in_room, early = self._in_rooms(wav, draws)
        room = (chance[:, :1] < c.room).float()
        heard, clean = wav + room * (in_room - wav), wav + room * (early - wav)
        snr = c.snr_min_db + draws.uniform(n_batch, 1).to(wav.device) * (c.snr_max_db - c.snr_min_db)
        noise = self._noises(n, others, draws).to(wav.device)
        gain = active_rms(heard) / noise.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-5) * 10 ** (-snr / 20)
        heard = heard + noise * gain * (chance[:, 1:2] >= c.no_noise)
        cut = self._band_limits(n, n_batch, draws).to(wav.device)
        limited = (chance[:, 2:3] < c.band_limit).float()
        heard, reachable = (x + limited * (_filter(x, cut) - x) for x in (heard, clean))
        damaged = chance[:, 3] < c.codec
        which = (draws.uniform(n_batch) * len(CODECS)).long()
        if bool(damaged.any()):
            rows = [
                torch.from_numpy(codec_damage(x.cpu().numpy(), int(k))).to(x.device) if hit else x
                for x, k, hit in zip(heard, which, damaged, strict=True)
            ]
            heard = torch.stack(rows)
        spread = (2 * draws.uniform(n_batch, 1).to(wav.device) - 1) * LEVEL_SPREAD_DB
        level = TARGET_LEVEL * 10 ** (spread / 20) / active_rms(heard).clamp(min=1e-4)
        return heard * level, reachable * level, clean * level

    def _in_rooms(self, wav: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return the speech in a room each, and what of that comes early."""
        chosen = self.rooms[(draws.uniform(len(wav)) * len(self.rooms)).long()].to(wav.device)
        # The further the talker, the less the direct sound counts.
        late = draws.uniform(len(wav), 1).to(wav.device)
        early = chosen.clone()
        at = round(EARLY_S * self.sample_rate)
        early[:, at:] = 0
        response = early + (chosen - early) * (0.3 + 0.7 * late)
        return _convolve(wav, response), _convolve(wav, early)

    def _noises(self, n: int, others: Tensor, draws: Draws) -> Tensor:
        """Return noises (B, n) of about unit level: one or two kinds each."""
        c, n_batch = self.config, len(others)
        kinds = torch.stack([self._recorded(n, n_batch, draws), self._synthetic(n, n_batch, draws), _babble(n, others, draws)])
        kinds = kinds / kinds.square().mean(dim=-1, keepdim=True).sqrt().clamp(min=1e-4)

        def pick() -> Tensor:
            chance = draws.uniform(n_batch)
            kind = (chance >= c.recorded).long() + (chance >= c.recorded + c.synthetic).long()
            return kinds[kind, torch.arange(n_batch)]

        first, other, gain = pick(), pick(), draws.uniform(n_batch, 1)
        joined = (draws.uniform(n_batch, 1) < c.second).float()
        return first + joined * 10 ** (-gain) * other.roll(1, 0)

    def _recorded(self, n: int, n_batch: int, draws: Draws) -> Tensor:
        """Return pieces of the bank, played faster or slower, of another colour, and now and then backwards."""
        drawn, rows = draws.uniform(n_batch, 4), []
        for which, place, speed, turned in drawn.tolist():
            i = int(which * (len(self.bounds) - 1))
            sound = self.audio[self.bounds[i] : self.bounds[i + 1]].float() / 32767
            wanted = round(n * 1.5 ** (2 * speed - 1))
            # A short sound comes again and again, with pauses.
            if len(sound) < wanted:
                gap = round((0.1 + 0.4 * place) * self.sample_rate)
                sound = F.pad(sound, (0, gap)).repeat(-(-wanted // (len(sound) + gap)) + 1)
            start = int(place * (len(sound) - wanted))
            piece = F.interpolate(sound[None, None, start : start + wanted], n, mode="linear")[0, 0]
            rows.append(piece.flip(0) if turned < 0.3 else piece)
        return _filter(torch.stack(rows), self._colours(n, n_batch, draws, 4.0))

    def _synthetic(self, n: int, n_batch: int, draws: Draws) -> Tensor:
        """Return noise of a random colour, some of it swelling and fading, some of it hum, some of it clicks."""
        slope = 2 - 3.5 * draws.uniform(n_batch, 1)
        at = torch.linspace(0, 1, n // 2 + 1).clamp(min=1 / n)[None]
        shape = self._colours(n, n_batch, draws, 6.0) * (at / 0.1).clamp(min=0.02) ** (slope - 1)
        noise = _filter(draws.normal(n_batch, n), shape)
        noise = noise / noise.std(dim=1, keepdim=True).clamp(min=1e-6)
        time = torch.arange(n) / self.sample_rate
        rate, depth, turn, kind = (draws.uniform(n_batch, 1) for _ in range(4))
        swell = 1 + depth * torch.sin(2 * math.pi * (0.3 * 40**rate * time + turn))
        f0, fall = 40 * 25 ** draws.uniform(n_batch, 1), 0.3 + 1.5 * draws.uniform(n_batch, 1)
        drift = 1 + 0.1 * (draws.uniform(n_batch, 1) - 0.5) * torch.sin(2 * math.pi * (0.2 + rate) * time)
        phase = torch.cumsum(2 * math.pi * f0 * drift / self.sample_rate, dim=1)
        turns = draws.uniform(n_batch, HARMONICS)
        hum = sum(
            (
                torch.sin(k * phase + 6.3 * turns[:, k - 1 : k]) * k ** (-fall) * (k * f0 < 7000)
                for k in range(1, HARMONICS + 1)
            ),
            start=torch.zeros(n_batch, n),
        )
        clicks = (draws.uniform(n_batch, n) < 2.0 / self.sample_rate * 100**turn).float() * draws.normal(n_batch, n)
        clicks = _filter(clicks, shape) + 1e-3 * noise
        noise = torch.where(kind < 0.6, noise * swell, noise)
        noise = torch.where((kind > 0.75) & (kind < 0.9), hum + 0.1 * noise, noise)
        return torch.where(kind > 0.9, clicks, noise)

    def _colours(self, n: int, n_batch: int, draws: Draws, spread_db: float) -> Tensor:
        """Return smooth random gains (B, n // 2 + 1)."""
        knots = draws.normal(n_batch, 1, 10) * spread_db
        return 10 ** (F.interpolate(knots, n // 2 + 1, mode="linear", align_corners=True)[:, 0] / 20)

    def _band_limits(self, n: int, n_batch: int, draws: Draws) -> Tensor:
        """Return the gains (B, n // 2 + 1) of band limits: telephones, old recordings, low rates."""
        high, low = draws.uniform(n_batch, 1), draws.uniform(n_batch, 1)
        hz = torch.linspace(0, self.sample_rate / 2, n // 2 + 1)[None]
        top = 2500 + 5000 * high
        bottom = torch.where(low < 0.5, torch.zeros_like(low), 100 + 500 * (low - 0.5))
        return torch.sigmoid((top - hz) / 60) * torch.where(bottom > 0, torch.sigmoid((hz - bottom) / 20), torch.ones(()))


def active_rms(wav: Tensor) -> Tensor:
    """Return the RMS (B, 1) over the frames within 30 dB of the loudest."""
    frames = wav[:, : wav.shape[1] // 256 * 256].reshape(len(wav), -1, 256).square().mean(dim=-1)
    top = frames.quantile(0.98, dim=1, keepdim=True)
    kept = (frames >= top / 1000).float()
    rms: Tensor = ((frames * kept).sum(dim=1, keepdim=True) / kept.sum(dim=1, keepdim=True).clamp(min=1)).sqrt()
    return rms


def _filter(wav: Tensor, gains: Tensor) -> Tensor:
    filtered: Tensor = torch.fft.irfft(torch.fft.rfft(wav) * gains, n=wav.shape[-1])
    return filtered


def _convolve(wav: Tensor, response: Tensor) -> Tensor:
    n = wav.shape[-1] + response.shape[-1]
    whole: Tensor = torch.fft.irfft(torch.fft.rfft(wav, n) * torch.fft.rfft(response, n), n)
    return whole[..., : wav.shape[-1]]


def _babble(n: int, others: Tensor, draws: Draws) -> Tensor:
    """Return 1 to 6 other voices each, (B, n)."""
    n_batch, n_voices = len(others), (1 + 6 * draws.uniform(len(others), 1)).long()
    rows = (draws.uniform(n_batch, 6) * (n_batch - 1)).long() + 1
    total = torch.zeros(n_batch, n)
    voices = F.pad(others.cpu(), (0, max(0, n - others.shape[1])))[:, :n]
    for k in range(6):
        other = voices[(torch.arange(n_batch) + rows[:, k]) % n_batch]
        total = total + (k < n_voices) * other
    return total


def codec_damage(wav: np.ndarray, which: int) -> np.ndarray:
    """Return a signal (N,), at 16 kHz, after one of `CODECS`, as long as it was."""
    import soundfile

    container, coding, rate, level = CODECS[which]
    opened = io.BytesIO()
    options = {} if level is None else {"compression_level": level}
    soundfile.write(opened, np.clip(resample(wav, 16000, rate), -1, 1), rate, format=container, subtype=coding, **options)
    opened.seek(0)
    back = resample(soundfile.read(opened, dtype="float32")[0], rate, 16000)
    return np.pad(back[: len(wav)], (0, max(0, len(wav) - len(back)))).astype(np.float32)


class DenoiseObjective(Objective):
    """Find the filter that leaves the clean speech, and the clean mel.

    The filtered sound is compared as it sounds, not as the filter meant it: its spectrum is taken again. Magnitudes are compressed.

    Args:
        recipe: All numbers.

    Source: the loss on compressed spectra, Braun and Tashev, A consolidated view of loss functions for supervised deep learning-based speech
    enhancement (2021).
    """

    def __init__(self, recipe: DenoiseRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        if recipe.initial is None:
            self.model: Denoiser = Denoiser(recipe.model)
        else:
            self.model = load_module(recipe.initial, PART, denoiser_of)[0].train()
        self.noising = Noising(recipe.noising, recipe.model.mel.sample_rate)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        r, log_mel = self.recipe, self.model.log_mel
        with torch.no_grad(), torch.autocast(batch["wav"].device.type, enabled=False):
            heard, reachable, clean = self.noising(batch["wav"], batch["reference"], Draws.of(batch, 1))
            wanted, wanted_mel, clean_mel = self.model.analyse(reachable), log_mel(reachable), log_mel(clean)
        said = self.model(heard)
        with torch.autocast(heard.device.type, enabled=False):
            wav = self.model.synthesise(self.model.filter(said.spectrum, said.filters), heard.shape[-1])
            made = self.model.analyse(wav)
            a, b = compress_spectrum(made), compress_spectrum(wanted)
            phases = (a - b).abs().square().mean()
            magnitudes = (a.abs() - b.abs()).square().mean()
            sound_mel = (log_mel(wav).clamp(min=MEL_FLOOR) - wanted_mel.clamp(min=MEL_FLOOR)).abs().mean()
            mel = (said.mel - clean_mel).abs().mean()
            power = reachable.square().mean(dim=1).clamp(min=1e-6)
            error = ((wav - reachable).square().mean(dim=1) / power + SMALLEST_ERROR).log10().mean()
        spectra = PHASE_SHARE * phases + (1 - PHASE_SHARE) * magnitudes
        loss = 10 * spectra + SOUND_MEL_WEIGHT * sound_mel + MEL_WEIGHT * mel + r.error_weight * error
        parts = {"phases": phases, "magnitudes": magnitudes, "sound_mel": sound_mel, "mel": mel, "error": error}
        return {"loss": loss, **parts}
