"""Training of the denoiser: degradation of clean speech, and the loss of its recovery."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.fft import next_fast_len
from torch import Tensor

from vcae.audio.io import resample
from vcae.audio.loudness import TARGET_LEVEL
from vcae.checkpoint import load_module, read_tensors
from vcae.errors import ConfigError, DataError
from vcae.model.denoiser import (
    COMPRESSION,
    FLOOR,
    PART,
    Denoiser,
    compress_spectrum,
    denoiser_of,
    expand_spectrum,
    magnitudes_of,
)
from vcae.training.config import DenoiseRecipe, NoisingConfig
from vcae.training.draws import Draws
from vcae.training.objectives import Objective
from vcae.training.taught import Lesson, TaughtSpeech

# Reflections within this time of the direct sound belong to the target.
EARLY_S = 0.03
# Largest distance of the input's level above and below `TARGET_LEVEL`.
LOUDER_DB, QUIETER_DB = 8.0, 24.0
# The slope of a power is infinite at zero.
SMALLEST_GAIN = 1e-4
# Errors 30 dB below the speech are negligible.
SMALLEST_ERROR = 1e-3
# Lowest level of speech relative to the input.
SOFTEST = 0.1
# Weight of the complex spectrum; the rest is the weight of the magnitudes.
PHASE_SHARE = 0.3
SPECTRUM_WEIGHT = 10.0
# Of a noise of which only bursts are left.
MAX_BURSTS = 8
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
            self._bank, bounds, self._rooms = tensors["audio"], tensors["bounds"], tensors["rooms"]
            n_recorded = int(tensors["n_recorded"])
        except KeyError as error:
            raise DataError(f"the bank {config.bank} lacks {error}; make it again with recipes/denoise/prepare.py") from error
        # Positions where the recorded and the synthetic noises start and end.
        self._recorded, self._synthetic = bounds[: n_recorded + 1], bounds[n_recorded:]
        self._device = torch.device("cpu")

    def __call__(self, wav: Tensor, others: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Degrade a batch on its device, to which the bank is moved at the first call.

        Args:
            wav: (B, N) clean speech.
            others: (B, N') speech for babble.
            draws: Source of randomness.

        Returns:
            The input (B, N), at a random level, and its target (B, N), at the same level.
        """
        c, (n_batch, n), device = self.config, wav.shape, wav.device
        if device != self._device:
            self._bank, self._rooms, self._device = self._bank.to(device), self._rooms.to(device), device
        chance = draws.uniform(n_batch, 5)
        noisy, clean = self._in_rooms(wav, chance[:, 0] < c.room, draws)
        snr = c.snr_min_db + draws.uniform(n_batch, 1) * (c.snr_max_db - c.snr_min_db)
        ratio = 10 ** (-snr / 20) * (chance[:, 1:2] >= c.no_noise)
        noise = self._noises(n, others, draws)
        noisy = noisy + noise * (active_rms(noisy) / _rms(noise).clamp(min=1e-5) * ratio.to(device))
        limited = (chance[:, 2] < c.band_limit).nonzero()[:, 0]
        edges = draws.uniform(n_batch, 1)[limited], draws.uniform(n_batch, 1)[limited]
        if len(limited):
            cut, rows = self._band_limits(n, *(edge.to(device) for edge in edges)), limited.to(device)
            noisy, clean = (x.index_copy(0, rows, _filter(x[rows], cut)) for x in (noisy, clean))
        which, top = (draws.uniform(n_batch) * len(CODECS)).long(), 0.2 + 0.6 * draws.uniform(n_batch, 1)
        top = torch.where(chance[:, 4:5] < c.clipping, top, 1.0).to(device) * noisy.abs().amax(dim=1, keepdim=True)
        noisy = noisy.clamp(-top, top)
        for row in (chance[:, 3] < c.codec).nonzero()[:, 0].tolist():
            noisy[row] = torch.from_numpy(codec_damage(noisy[row].cpu().numpy(), int(which[row])))
        louder = draws.uniform(n_batch, 1) * (LOUDER_DB + QUIETER_DB) - QUIETER_DB
        level = TARGET_LEVEL * (10 ** (louder / 20)).to(device) / active_rms(noisy).clamp(min=1e-4)
        return noisy * level, clean * level

    def _in_rooms(self, wav: Tensor, inside: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return the speech, with the chosen items reverberated, and its target with early reflections only."""
        chosen = (draws.uniform(len(wav)) * len(self._rooms)).long()
        # A random distance: late reflections are weighted by it.
        late, rows = draws.uniform(len(wav), 1), inside.nonzero()[:, 0]
        if not len(rows):
            return wav, wav
        late, whole = late[rows].to(wav.device), self._rooms[chosen[rows].to(wav.device)].float()
        rows = rows.to(wav.device)
        early = whole.clone()
        early[:, round(EARLY_S * self.sample_rate) :] = 0
        noisy = wav.index_copy(0, rows, _convolve(wav[rows], early + (whole - early) * (0.3 + 0.7 * late)))
        return noisy, wav.index_copy(0, rows, _convolve(wav[rows], early))

    def _noises(self, n: int, others: Tensor, draws: Draws) -> Tensor:
        """Return noises (B, n): each is one noise, or a sum of two or three at different levels, randomly filtered."""
        c, n_batch = self.config, len(others)
        voices = _babble(F.pad(others[:, :n], (0, max(0, n - others.shape[1]))), draws)
        total = torch.zeros(n_batch, n, device=others.device)
        for k in range(3):
            kind, drawn = draws.uniform(n_batch), draws.uniform(n_batch, 4)
            gain = 10 ** -draws.uniform(n_batch, 1) * (draws.uniform(n_batch, 1) < c.second) if k else torch.ones(n_batch, 1)
            noise = voices.roll(-k, dims=0)
            for bounds, chosen in (
                (self._recorded, kind < c.recorded),
                (self._synthetic, (kind >= c.recorded) & (kind < c.recorded + c.synthetic)),
            ):
                rows = (chosen & (gain[:, 0] > 0)).nonzero()[:, 0]
                if len(rows):
                    noise = noise.index_copy(0, rows.to(others.device), self._pieces(n, drawn[rows], bounds))
            noise = shake(noise, draws.uniform(n_batch) < c.shaken)
            brief, drawn = draws.uniform(n_batch) < c.bursts, draws.uniform(n_batch, 1 + 3 * MAX_BURSTS)
            rows = brief.nonzero()[:, 0]
            if len(rows):
                gains, rows = self._bursts(n, drawn[rows]).to(noise.device), rows.to(noise.device)
                noise = noise.index_copy(0, rows, noise[rows] * gains)
            total = total + gain.to(others.device) / _rms(noise).clamp(min=1e-4) * noise
        return _filter(total, _colours(n, 4.0 * draws.normal(n_batch, 10).to(others.device)))

    def _pieces(self, n: int, drawn: Tensor, bounds: Tensor) -> Tensor:
        """Return segments (B, n) of the bank's noises between bounds, at random speeds and some reversed, from random numbers (B, 4).

        Each noise is as likely as another: a bark is as important as a minute of rain. A short one is repeated, with pauses.
        """
        which, place, speed, turned = drawn.double().unbind(dim=1)
        i = (which * (len(bounds) - 1)).long()
        start, length, step = bounds[i], (bounds[i + 1] - bounds[i]).double(), 1.5 ** (2 * speed - 1)
        spare = length - n * step
        period = torch.where(spare > 0, length + n * step, length + (0.1 + 0.4 * place) * self.sample_rate)
        offset = place * torch.where(spare > 0, spare, period)
        back = turned < 0.3
        device = self._bank.device
        offset, step = torch.where(back, offset + (n - 1) * step, offset), torch.where(back, -step, step)
        start, period, length, offset, step = (x[:, None].to(device) for x in (start, period, length, offset, step))
        # In double precision: a position among a million samples needs more digits than float32 has.
        where = (offset + torch.arange(n, device=device, dtype=torch.float64) * step).remainder(period)
        whole = where.floor()
        index = start + torch.minimum(whole, length - 2).clamp(min=0).long()
        piece = torch.lerp(self._bank[index].float(), self._bank[index + 1].float(), (where - whole).float())
        return piece / 32767 * (whole < length - 1)

    def _bursts(self, n: int, drawn: Tensor) -> Tensor:
        """Return gains (B, n) that are zero but for some bursts, with pauses between them, from random numbers (B, 1 + 3 * MAX_BURSTS)."""
        count = 1 + (drawn[:, :1] * MAX_BURSTS).long()
        start, length, fade = (x[..., None] for x in drawn[:, 1:].chunk(3, dim=1))
        # 30 ms to 1 s, as long or as soon over as steps, barks and horns.
        length = 0.03 * self.sample_rate * 33**length
        # Every millisecond; between these the gain is a straight line.
        since = torch.arange(0, n + 16, 16) - (start * n - 0.3 * length)
        inside = (since >= 0) & (since < length) & (torch.arange(MAX_BURSTS)[:, None] < count[..., None])
        course = (torch.exp(-since.clamp(min=0) / length * 6 * fade) * inside).amax(dim=1)
        return F.interpolate(course[:, None], scale_factor=16.0, mode="linear")[:, 0, :n]

    def _band_limits(self, n: int, high: Tensor, low: Tensor) -> Tensor:
        """Return the gains (B, n // 2 + 1) of band limits, as of telephones, old recordings and low rates, from random numbers (B, 1)."""
        hz = torch.linspace(0, self.sample_rate / 2, n // 2 + 1, device=high.device)[None]
        top = 2500 + 5000 * high
        bottom = torch.where(low < 0.5, torch.zeros_like(low), 100 + 500 * (low - 0.5))
        return torch.sigmoid((top - hz) / 60) * torch.where(bottom > 0, torch.sigmoid((hz - bottom) / 20), 1.0)


def _colours(n: int, knots_db: Tensor) -> Tensor:
    """Return smooth gains (B, n // 2 + 1) through points (B, K) in dB, equally far apart in frequency."""
    return 10 ** (F.interpolate(knots_db[:, None], n // 2 + 1, mode="linear", align_corners=True)[:, 0] / 20)


def shake(noise: Tensor, chosen: Tensor) -> Tensor:
    """Return noises (B, N), the chosen ones multiplied by the course of another item's level: more kinds from the same recordings."""
    rows = chosen.nonzero()[:, 0].to(noise.device)
    if not len(rows):
        return noise
    levels = F.avg_pool1d(noise.roll(1, dims=0)[rows, None].abs(), 512, 256, 256)
    course = F.interpolate(levels / levels.mean(dim=-1, keepdim=True).clamp(min=1e-5), noise.shape[-1], mode="linear")[:, 0]
    return noise.index_copy(0, rows, noise[rows] * (course + 0.05))


def _rms(wav: Tensor) -> Tensor:
    return wav.square().mean(dim=1, keepdim=True).sqrt()


def _babble(others: Tensor, draws: Draws) -> Tensor:
    """Return sums (B, N) of 1 to 6 voices of other items."""
    n_batch = len(others)
    n_voices = (1 + 6 * draws.uniform(n_batch, 1)).long()
    away = (draws.uniform(n_batch, 6) * (n_batch - 1)).long() + 1
    rows = (torch.arange(n_batch)[:, None] + away) % n_batch
    chosen = torch.zeros(n_batch, n_batch).scatter_add(1, rows, (torch.arange(6) < n_voices).float())
    return chosen.to(others.device) @ others


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


@dataclass(frozen=True)
class Compressed:
    """Signals with their spectra, compressed as in the input of the network.

    Attributes:
        wav: (B, N).
        spectrum: (B, F, T, 2), real and imaginary parts.
        magnitudes: (B, F, T).
    """

    wav: Tensor
    spectrum: Tensor
    magnitudes: Tensor

    def rows(self, first: int) -> Compressed:
        """Return all signals from one on."""
        return Compressed(self.wav[first:], self.spectrum[first:], self.magnitudes[first:])


def continue_from(model: Denoiser, earlier: Denoiser) -> None:
    """Copy the weights of another denoiser, with as many recurrent layers or fewer; the layers after these add nothing at first.

    Raises:
        ConfigError: If they differ in more than the number of layers, or the other one has more of them.
    """
    n = earlier.config.n_layers
    if replace(earlier.config, n_layers=model.config.n_layers) != model.config or n > model.config.n_layers:
        raise ConfigError(
            f"the initial denoiser is {earlier.config}, and the model is {model.config}; only n_layers may differ, and it must not be less"
        )
    model.load_state_dict(model.state_dict() | earlier.state_dict())
    with torch.no_grad():
        for layer in model.layers[n:]:
            for weights in layer.parameters():
                # The rows of the new state, after those of the reset and update gates.
                weights[2 * model.config.width :] = 0


class DenoiseObjective(Objective):
    """Loss of the denoiser: compressed spectrum and waveform error of the denoised speech.

    The spectrum is that of the resynthesised waveform, so that inconsistent masks are penalised. Levels are normalised, so that quiet
    recordings count as much as loud ones.

    Args:
        recipe: The settings.

    Source: the loss on compressed spectra, Braun and Tashev, A consolidated view of loss functions for supervised deep learning-based speech
    enhancement (2021); the asymmetric weight, which protects words, Wang et al., VoiceFilter-Lite (2020).
    """

    def __init__(self, recipe: DenoiseRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.model: Denoiser = Denoiser(recipe.model)
        if recipe.initial is not None:
            continue_from(self.model, load_module(recipe.initial, PART, denoiser_of)[0])
        self.noising = Noising(recipe.noising, recipe.model.sample_rate)
        self.taught, self.features = None, None
        if recipe.taught.folder is not None:
            self.taught = TaughtSpeech(recipe.taught.folder, recipe.model.hop_length)
            self.features = torch.nn.Linear(recipe.model.width, self.taught.dim)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        learning = self.taught is not None and self.training
        with torch.no_grad(), torch.autocast(batch["wav"].device.type, enabled=False):
            noisy, clean = self.noising(batch["wav"], batch["reference"], Draws.of(batch, 1))
            n_fresh, lesson = len(noisy), self._lesson(batch) if learning else None
            if lesson is not None:
                noisy, clean = torch.cat([noisy, lesson.noisy]), torch.cat([clean, lesson.clean])
            compressed = compress_spectrum(self.model.analyse(noisy))
            magnitudes, whole = magnitudes_of(compressed), torch.view_as_real(expand_spectrum(compressed))
            # A crop with hardly any speech is not amplified to the level of speech.
            level = torch.maximum(active_rms(clean), SOFTEST * active_rms(noisy))
            scale = TARGET_LEVEL / level.clamp(min=1e-5)
        gains, after, _ = self.model.gains(magnitudes)
        with torch.autocast(noisy.device.type, enabled=False):
            # The same as the expansion of gains times the compressed spectrum, in less time.
            spectrum = torch.view_as_complex(whole * gains.float().clamp(min=SMALLEST_GAIN)[..., None] ** (1 / COMPRESSION))
            made = self._compressed(self.model.synthesise(spectrum, noisy.shape[-1]) * scale)
            losses = self._errors(made, self._compressed(clean * scale))
            if lesson is None:
                return {name: value.mean() for name, value in losses.items()}
            share, own = self.recipe.taught.output_share, losses["loss"]
            theirs = self._errors(made.rows(n_fresh), self._compressed(lesson.taught * scale[n_fresh:]))["loss"]
            taught = own[n_fresh:].lerp(theirs, share)
            features = self._feature_error(after[self.recipe.taught.layer][n_fresh:], lesson.features)
            loss = (own[:n_fresh].sum() + taught.sum()) / len(noisy) + self.recipe.taught.feature_weight * features
            means = {name: value[:n_fresh].mean() for name, value in losses.items()}
            return means | {"loss": loss, "fresh": own[:n_fresh].mean(), "taught": theirs.mean(), "features": features}

    def _compressed(self, wav: Tensor) -> Compressed:
        """Return signals (B, N) with their compressed spectra."""
        spectrum = self.model.analyse(wav)
        magnitudes = magnitudes_of(spectrum)
        # As `compress_spectrum`; the exponential function is faster than a power.
        factor = ((COMPRESSION - 1) * (magnitudes + FLOOR).log()).exp()
        return Compressed(wav, torch.view_as_real(spectrum) * factor[..., None], magnitudes * factor)

    def _errors(self, made: Compressed, clean: Compressed) -> dict[str, Tensor]:
        """Return the parts of the loss of each item (B,) of B signals."""
        phases = (made.spectrum - clean.spectrum).square().sum(dim=-1).mean(dim=(1, 2))
        difference = made.magnitudes - clean.magnitudes
        weights = torch.where(difference < 0, self.recipe.attenuation_weight, 1.0)
        magnitudes = (difference.square() * weights).mean(dim=(1, 2))
        power = clean.wav.square().mean(dim=1).clamp(min=1e-6)
        error = ((made.wav - clean.wav).square().mean(dim=1) / power + SMALLEST_ERROR).log10()
        spectra = PHASE_SHARE * phases + (1 - PHASE_SHARE) * magnitudes
        loss = SPECTRUM_WEIGHT * spectra + self.recipe.error_weight * error
        return {"loss": loss, "phases": phases, "magnitudes": magnitudes, "error": error}

    def _lesson(self, batch: dict[str, Tensor]) -> Lesson:
        """Return taught crops for a batch, at random levels."""
        assert self.taught is not None
        draws, n, device = Draws.of(batch, 2), self.recipe.taught.batch_size, batch["wav"].device
        lesson = self.taught.crops(n, batch["wav"].shape[-1], draws)
        louder = draws.uniform(n, 1) * (LOUDER_DB + QUIETER_DB) - QUIETER_DB
        level = TARGET_LEVEL * 10 ** (louder / 20) / active_rms(lesson.noisy).clamp(min=1e-4)
        noisy, clean, taught = ((wav * level).to(device) for wav in (lesson.noisy, lesson.clean, lesson.taught))
        return Lesson(noisy, clean, taught, lesson.features.to(device))

    def _feature_error(self, state: Tensor, features: Tensor) -> Tensor:
        """Return the squared error of the teacher's features (B, T, D), predicted from a state (B, T', width)."""
        assert self.features is not None
        n, first = features.shape[1], self.recipe.taught.n_unknown
        error: Tensor = (self.features(state[:, first:n]) - features[:, first:]).square().mean()
        return error
