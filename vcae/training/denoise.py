"""Training of the denoiser: degradation of clean speech, and the loss of its recovery."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.fft import next_fast_len
from torch import Tensor

from vcae.audio.io import resample
from vcae.audio.loudness import TARGET_LEVEL
from vcae.checkpoint import load_module, read_tensors
from vcae.errors import DataError
from vcae.model.config import DenoiserConfig
from vcae.model.denoiser import COMPRESSION, PART, Denoiser, compress_spectrum, denoiser_of
from vcae.training.config import DenoiseRecipe, NoisingConfig
from vcae.training.draws import Draws
from vcae.training.objectives import Objective

# Reflections within this time of the direct sound belong to the target.
EARLY_S = 0.03
# Largest distance of the input's level above and below `TARGET_LEVEL`.
LOUDER_DB, QUIETER_DB = 8.0, 24.0
# Weight of the complex spectrum; the rest is the weight of the magnitudes.
PHASE_SHARE = 0.3
SPECTRUM_WEIGHT = 10.0
# Share of the equal weight in the weights of bins.
EQUAL_SHARE = 0.3
# Codecs: container, coding, rate in Hz, and the compression level if the format has one.
CODECS = (
    ("OGG", "OPUS", 16000, 1.0),
    ("MP3", "MPEG_LAYER_III", 16000, 0.99),
    ("WAV", "GSM610", 8000, None),
    ("WAV", "ULAW", 8000, None),
)


class Noising:
    """Random rooms, noises, band limits, codecs and clipping for each item of a batch.

    Args:
        config: Probabilities.
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
            self.n_recorded = int(tensors["n_recorded"])
        except KeyError as error:
            raise DataError(f"the bank {config.bank} lacks {error}; make it again with recipes/denoise/prepare.py") from error

    def __call__(self, wav: Tensor, others: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Degrade a batch.

        Args:
            wav: (B, N) clean speech.
            others: (B, N') speech for babble.
            draws: Source of randomness.

        Returns:
            The input (B, N), at a random level, and its target (B, N), at the same level.
        """
        c, (n_batch, n) = self.config, wav.shape
        chance = draws.uniform(n_batch, 5).to(wav.device)
        noisy, clean = self._in_rooms(wav, chance[:, 0] < c.room, draws)
        snr = c.snr_min_db + draws.uniform(n_batch, 1).to(wav.device) * (c.snr_max_db - c.snr_min_db)
        noise = self._noises(n, others, draws).to(wav.device)
        gain = active_rms(noisy) / noise.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-5) * 10 ** (-snr / 20)
        noisy = noisy + noise * gain * (chance[:, 1:2] >= c.no_noise)
        limited = chance[:, 2] < c.band_limit
        edges = draws.uniform(n_batch, 1), draws.uniform(n_batch, 1)
        if bool(limited.any()):
            cut = self._band_limits(n, *(edge[limited.cpu()] for edge in edges)).to(wav.device)
            noisy, clean = noisy.clone(), clean.clone()
            noisy[limited], clean[limited] = _filter(noisy[limited], cut), _filter(clean[limited], cut)
        damaged, clipped = chance[:, 3] < c.codec, chance[:, 4] < c.clipping
        which, top = (draws.uniform(n_batch) * len(CODECS)).long(), 0.2 + 0.6 * draws.uniform(n_batch)
        rows = list(noisy)
        for row in range(n_batch):
            if clipped[row]:
                limit = float(rows[row].abs().max() * top[row])
                rows[row] = rows[row].clamp(-limit, limit)
            if damaged[row]:
                rows[row] = torch.from_numpy(codec_damage(rows[row].cpu().numpy(), int(which[row]))).to(wav.device)
        noisy = torch.stack(rows)
        louder = draws.uniform(n_batch, 1).to(wav.device) * (LOUDER_DB + QUIETER_DB) - QUIETER_DB
        level = TARGET_LEVEL * 10 ** (louder / 20) / active_rms(noisy).clamp(min=1e-4)
        return noisy * level, clean * level

    def _in_rooms(self, wav: Tensor, inside: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return the speech, with the chosen items reverberated, and its target with early reflections only."""
        chosen = (draws.uniform(len(wav)) * len(self.rooms)).long()
        # A random distance: late reflections are weighted by it.
        late = draws.uniform(len(wav), 1)[inside.cpu()].to(wav.device)
        if not bool(inside.any()):
            return wav, wav
        whole = self.rooms[chosen[inside.cpu()]].to(wav.device)
        early = whole.clone()
        early[:, round(EARLY_S * self.sample_rate) :] = 0
        noisy, clean = wav.clone(), wav.clone()
        noisy[inside] = _convolve(wav[inside], early + (whole - early) * (0.3 + 0.7 * late))
        clean[inside] = _convolve(wav[inside], early)
        return noisy, clean

    def _noises(self, n: int, others: Tensor, draws: Draws) -> Tensor:
        """Return noises (B, n): each is one noise, or a sum of two or three at different levels, randomly filtered."""
        c, n_batch = self.config, len(others)
        more, gains = draws.uniform(n_batch, 2), draws.uniform(n_batch, 2)
        kind, drawn = draws.uniform(3, n_batch), draws.uniform(3, n_batch, 4)
        voices = _Babble(n, others, draws)
        total = torch.zeros(n_batch, n)
        for k in range(3):
            for row in range(n_batch):
                if k and more[row, k - 1] >= c.second:
                    continue
                if kind[k, row] < c.recorded:
                    noise = self._piece(n, drawn[k, row].tolist(), 0, self.n_recorded)
                elif kind[k, row] < c.recorded + c.synthetic:
                    noise = self._piece(n, drawn[k, row].tolist(), self.n_recorded, len(self.bounds) - 1)
                else:
                    noise = voices[(row + k) % n_batch]
                gain = 1.0 if k == 0 else float(10 ** -gains[row, k - 1])
                total[row] += gain * noise / noise.square().mean().sqrt().clamp(min=1e-4)
        return _filter(total, self._colours(n, n_batch, draws, 4.0))

    def _piece(self, n: int, drawn: list[float], first: int, end: int) -> Tensor:
        """Return a segment (n,) of one of the bank's noises from `first` to `end`, at a random speed and sometimes reversed."""
        which, place, speed, turned = drawn
        i = first + int(which * (end - first))
        start, stop = self.bounds[i], self.bounds[i + 1]
        wanted = round(n * 1.5 ** (2 * speed - 1))
        if stop - start > wanted:
            start += int(place * (stop - start - wanted))
            sound = self.audio[start : start + wanted].float() / 32767
        else:
            # A short sound is repeated, with pauses.
            sound = F.pad(self.audio[start:stop].float() / 32767, (0, round((0.1 + 0.4 * place) * self.sample_rate)))
            sound = sound.repeat(-(-wanted // len(sound)) + 1)[int(place * len(sound)) :][:wanted]
        piece = F.interpolate(sound[None, None], n, mode="linear")[0, 0]
        return piece.flip(0) if turned < 0.3 else piece

    def _colours(self, n: int, n_batch: int, draws: Draws, spread_db: float) -> Tensor:
        """Return smooth random gains (B, n // 2 + 1)."""
        knots = draws.normal(n_batch, 1, 10) * spread_db
        return 10 ** (F.interpolate(knots, n // 2 + 1, mode="linear", align_corners=True)[:, 0] / 20)

    def _band_limits(self, n: int, high: Tensor, low: Tensor) -> Tensor:
        """Return the gains (B, n // 2 + 1) of band limits, as of telephones, old recordings and low rates, from random numbers (B, 1)."""
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
    # A length with a fast transform.
    n = next_fast_len(wav.shape[-1] + response.shape[-1], real=True)
    whole: Tensor = torch.fft.irfft(torch.fft.rfft(wav, n) * torch.fft.rfft(response, n), n)
    return whole[..., : wav.shape[-1]]


class _Babble:
    """Sums of 1 to 6 other voices, (n,) each, computed when they are asked for."""

    def __init__(self, n: int, others: Tensor, draws: Draws) -> None:
        self._n, self._others = n, others.cpu()
        self._n_voices = (1 + 6 * draws.uniform(len(others), 1)).long()
        self._away = (draws.uniform(len(others), 6) * (len(others) - 1)).long() + 1

    def __getitem__(self, row: int) -> Tensor:
        rows = (row + self._away[row, : int(self._n_voices[row])]) % len(self._others)
        voices = self._others[rows, : self._n].sum(dim=0)
        return F.pad(voices, (0, max(0, self._n - len(voices))))


def codec_damage(wav: np.ndarray, which: int) -> np.ndarray:
    """Return a signal (N,), at 16 kHz, decoded from one of `CODECS`, with its length."""
    import soundfile

    container, coding, rate, level = CODECS[which]
    opened = io.BytesIO()
    options = {} if level is None else {"compression_level": level}
    soundfile.write(opened, np.clip(resample(wav, 16000, rate), -1, 1), rate, format=container, subtype=coding, **options)
    opened.seek(0)
    back = resample(soundfile.read(opened, dtype="float32")[0], rate, 16000)
    return np.pad(back[: len(wav)], (0, max(0, len(wav) - len(back)))).astype(np.float32)


class DenoiseObjective(Objective):
    """Loss of the denoiser: error of the denoised compressed spectrum, and of its magnitudes.

    Levels are normalised, so that quiet recordings count as much as loud ones. Bins count by the inverse of the hearing's bandwidth at their
    frequency, mixed with an equal weight: most words are below 4 kHz, which is half of the bins.

    Args:
        recipe: The settings.

    Source: the loss on compressed spectra, Braun and Tashev, A consolidated view of loss functions for supervised deep learning-based speech
    enhancement (2021); the asymmetric weight, which protects words, Wang et al., VoiceFilter-Lite (2020); the bandwidths, Glasberg and Moore,
    Derivation of auditory filter shapes from notched-noise data (1990).
    """

    def __init__(self, recipe: DenoiseRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        if recipe.initial is None:
            self.model: Denoiser = Denoiser(recipe.model)
        else:
            self.model = load_module(recipe.initial, PART, denoiser_of)[0].train()
        self.noising = Noising(recipe.noising, recipe.model.sample_rate)
        self.bin_weights = bin_weights(recipe.model)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad(), torch.autocast(batch["wav"].device.type, enabled=False):
            noisy, clean = self.noising(batch["wav"], batch["reference"], Draws.of(batch, 1))
            scale = TARGET_LEVEL / active_rms(clean).clamp(min=1e-5)
            compressed, target = (
                compress_spectrum(self.model.analyse(wav))[:, :-1].transpose(1, 2) for wav in (noisy, clean * scale)
            )
            heard, wanted = (torch.view_as_real(x).square().sum(dim=-1).sqrt() for x in (compressed, target))
            # The gains are real, so of the phases only their agreement matters.
            agreement = (compressed.real * target.real + compressed.imag * target.imag) / (heard * wanted).clamp(min=1e-8)
        gains, _ = self.model.gains(heard)
        made = gains * heard * scale[..., None] ** COMPRESSION
        difference = made - wanted
        weights = self.bin_weights.to(made.device)
        magnitudes = (weights * difference.square() * torch.where(difference < 0, self.recipe.attenuation_weight, 1.0)).mean()
        phases = (weights * (made.square() - 2 * made * wanted * agreement + wanted.square())).mean()
        loss = SPECTRUM_WEIGHT * (PHASE_SHARE * phases + (1 - PHASE_SHARE) * magnitudes)
        return {"loss": loss, "phases": phases, "magnitudes": magnitudes}


def bin_weights(config: DenoiserConfig) -> Tensor:
    """Return the weights (n_fft // 2,) of the bins in the loss, of mean 1."""
    hz = torch.arange(config.n_fft // 2) * (config.sample_rate / config.n_fft)
    narrow = 1 / (24.7 * (1 + 4.37e-3 * hz))
    return EQUAL_SHARE + (1 - EQUAL_SHARE) * narrow / narrow.mean()
