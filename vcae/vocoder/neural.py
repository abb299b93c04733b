"""The neural vocoder: harmonics and noise, filtered in the STFT domain by a network at frame rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcae.audio.mel import mel_filterbank
from vcae.model.blocks import KERNEL, ConvNeXtStack
from vcae.vocoder.config import VocoderConfig
from vcae.vocoder.excitation import PitchTrack, pulse_train, white_noise

# Largest predicted log-magnitude; keeps its exp() finite.
MAX_LOG_MAGNITUDE = 8.0
# A correction changes no bin by more than this factor (26 dB).
MAX_CORRECTION = 20.0
INPUT_KERNEL = 5
CHUNK_S = 20.0


class HarmonicNoiseVocoder(nn.Module):
    """Vocoder that filters a pulse train and white noise, frame by frame and bin by bin, into speech with the given mel.

    For each frame and bin the network predicts a magnitude and a phase offset for the harmonic part and a magnitude for
    the noise part, as corrections to the envelope that the mel itself gives. Phase comes from F0, so the result is intelligible
    without adversarial training. Harmonics continue through unvoiced frames (F0 is interpolated there); the network
    attenuates them where the mel shows none, so a wrong voicing decision does little harm.

    Overlapping frames and random noise change the mel of the result. A few iterations correct it: each measures the mel of the
    result, scales every bin by the ratio of the given to the measured bands, and synthesises again, as Griffin-Lim does towards a
    linear magnitude.

    Shape:
        - mel: (B, n_mels, T), natural log magnitude
        - f0: (B, T) in Hz, 0 where unvoiced
        - wav: (B, N), N = (T - 1) * hop_length unless given

    Source: harmonic plus noise, Stylianou (2001); source-filter in the STFT domain, Wang et al., Neural source-filter
    waveform models (2019); ConvNeXt at frame rate with an inverse STFT, Siuzdak, Vocos (2023); alternating projections,
    Griffin and Lim (1984), with the momentum of Perraudin et al. (2013).
    """

    window: Tensor
    short_window: Tensor
    filterbank: Tensor
    spread: Tensor
    uncovered: Tensor

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        n_bins = config.mel.n_fft // config.subframes // 2 + 1
        self.input = nn.Conv1d(config.mel.n_mels + 2, config.width, INPUT_KERNEL, padding=INPUT_KERNEL // 2)
        self.stack = ConvNeXtStack(config.width, config.n_blocks)
        self.norm = nn.LayerNorm(config.width)
        self.output = nn.Linear(config.width, config.subframes * 3 * n_bins)
        nn.init.normal_(self.output.weight, std=0.01)
        nn.init.zeros_(self.output.bias)
        self.register_buffer("window", torch.hann_window(config.mel.n_fft), persistent=False)
        self.register_buffer("short_window", torch.hann_window(config.mel.n_fft // config.subframes), persistent=False)
        filters = mel_filterbank(config.mel)
        self.register_buffer("filterbank", filters, persistent=False)
        self.register_buffer("spread", (filters / filters.sum(0).clamp(min=1e-8)).T.contiguous(), persistent=False)
        self.register_buffer("uncovered", (filters.sum(0) == 0).float().unsqueeze(1), persistent=False)

    def envelope(self, mel: Tensor) -> Tensor:
        """Return the log-magnitude response (B, n_fft // 2 + 1, T) that gives unit-power excitation the mel's bands."""
        c = self.config.mel
        # For unit white noise, a band's value is the mean STFT magnitude under a Hann window times the area of a slaney band.
        per_unit = math.sqrt(3 / 8 * c.win_length * math.pi / 4) * c.n_fft / c.sample_rate
        return torch.log(self.spread_bands(mel).clamp(min=c.floor)) - math.log(per_unit)

    def spread_bands(self, mel: Tensor) -> Tensor:
        """Return for each bin the mean magnitude of its bands: (B, n_fft // 2 + 1, T)."""
        return torch.matmul(self.spread, torch.exp(mel).clamp(min=self.config.mel.floor))

    def forward(
        self,
        mel: Tensor,
        f0: Tensor,
        n_samples: int | None = None,
        noise: Tensor | None = None,
        n_corrections: int | None = None,
    ) -> Tensor:
        """Synthesise.

        Args:
            mel: (B, n_mels, T).
            f0: (B, T) in Hz, 0 where unvoiced.
            n_samples: Length of the output; from (T - 1) * hop_length to T * hop_length - 1.
            noise: (B, n_samples) of unit white noise; drawn from torch's generator when None.
            n_corrections: Iterations that correct the mel; the config's number when None.
        """
        c = self.config.mel
        n = (mel.shape[-1] - 1) * c.hop_length if n_samples is None else n_samples
        k = self.config.n_corrections if n_corrections is None else n_corrections
        noise = torch.randn(mel.shape[0], n, device=mel.device) if noise is None else noise
        return self.synthesise(mel, PitchTrack.of(f0, c.sample_rate, c.hop_length), noise, k)

    def stream(
        self,
        mel: Tensor,
        f0: Tensor,
        n_samples: int | None = None,
        seed: int = 0,
        n_corrections: int | None = None,
        chunk_s: float = CHUNK_S,
        follow: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """Synthesise in chunks that, joined, equal the whole: each is computed with its full receptive field.

        Memory depends on the chunk's length alone.

        Args:
            mel: (B, n_mels, T).
            f0: (B, T) in Hz, 0 where unvoiced.
            n_samples: As in `forward`.
            seed: Seed of the noise.
            n_corrections: As in `forward`.
            chunk_s: Length of a chunk in seconds.
            follow: (B, N), a recording whose pulse positions to use, see `PitchTrack.follow`.

        Yields:
            (B, chunk samples), the last one shorter.
        """
        c = self.config.mel
        n = (mel.shape[-1] - 1) * c.hop_length if n_samples is None else n_samples
        pitch = PitchTrack.of(f0, c.sample_rate, c.hop_length)
        pitch = pitch if follow is None else pitch.follow(follow, c.sample_rate, c.hop_length)
        step = max(round(chunk_s * c.frame_rate), 1)
        for first in range(0, -(-n // c.hop_length), step):
            yield self.section(lambda start, stop: mel[..., start:stop], pitch, (first, first + step), n, seed, n_corrections)

    def section(
        self,
        read: Callable[[int, int], Tensor],
        pitch: PitchTrack,
        span: tuple[int, int],
        n_samples: int,
        seed: int = 0,
        n_corrections: int | None = None,
    ) -> Tensor:
        """Synthesise one chunk of the result of `stream`, from a mel that is read in sections.

        Args:
            read: Returns frames `start` to `stop` of the mel, (B, n_mels, stop - start).
            pitch: (B, T), pitch track of the whole signal.
            span: First frame of the chunk, and first frame of the next one.
            n_samples: Length of the whole signal.
            seed: Seed of the noise.
            n_corrections: As in `forward`.

        Returns:
            (B, n), the samples of the span, cut off at `n_samples`.
        """
        hop, n_frames, (first, beyond) = self.config.mel.hop_length, pitch.turns.shape[-1], span
        k = self.config.n_corrections if n_corrections is None else n_corrections
        context = self.receptive_frames(k)
        start, stop = max(first - context, 0), min(beyond + context, n_frames)
        offset, end = start * hop, n_samples if stop == n_frames else (stop - 1) * hop
        mel = read(start, stop)
        noise = white_noise(seed, mel.shape[0], offset, end).to(mel.device)
        wav = self.synthesise(mel, pitch[start:stop], noise, k)
        return wav[:, first * hop - offset : min(beyond * hop, n_samples) - offset]

    def receptive_frames(self, n_corrections: int) -> int:
        """Return the receptive field of a sample in frames to each side."""
        c = self.config.mel
        network = INPUT_KERNEL // 2 + self.config.n_blocks * (KERNEL // 2)
        # A sample depends on the frames whose windows cover it, and these on the samples they cover: once, and again in each correction.
        return network + (n_corrections + 1) * -(-c.n_fft // c.hop_length) + 1

    def predict(self, mel: Tensor, log_f0: Tensor, voiced: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict the filters of harmonics and noise.

        Args:
            mel: (B, n_mels, T).
            log_f0: (B, T), natural log of Hz, without gaps.
            voiced: (B, T), 1.0 or 0.0.

        Returns:
            Three tensors (B, K, T * subframes) with K = n_fft // subframes // 2 + 1 bins: the harmonics' log gain over the mel's envelope,
            their phase offset in radians, and the noise's log gain over the envelope.
        """
        features = torch.cat([mel, (log_f0 - 5.0).unsqueeze(1), voiced.unsqueeze(1)], dim=1)
        hidden = self.norm(self.stack(self.input(features)).transpose(1, 2))
        out = self.output(hidden).float().unflatten(-1, (self.config.subframes, 3, -1))
        harmonic, phase, breath = out.permute(3, 0, 4, 1, 2).flatten(3).unbind(0)
        return harmonic, phase, breath

    def between(self, envelope: Tensor) -> Tensor:
        """Interpolate an envelope (B, n_fft // 2 + 1, T) linearly onto the subframes: (B, K, T * subframes)."""
        s = self.config.subframes
        left = envelope[:, ::s]
        right = torch.cat([left[..., 1:], left[..., -1:]], dim=-1)
        return torch.stack([left + (right - left) * (i / s) for i in range(s)], dim=-1).flatten(2)

    def correction(self, wanted: Tensor, magnitude: Tensor) -> Tensor:
        """Return the factor for each bin that moves its bands towards the wanted ones.

        Args:
            wanted: (B, n_fft // 2 + 1, T), the wanted band magnitudes, spread over the bins.
            magnitude: (B, n_fft // 2 + 1, T), magnitude of the present signal.

        Returns:
            (B, n_fft // 2 + 1, T), between 1 / `MAX_CORRECTION` and `MAX_CORRECTION`.
        """
        bands = torch.matmul(self.filterbank, magnitude).clamp(min=self.config.mel.floor)
        # A bin that no band covers, such as the first and the last, stays unchanged.
        present = torch.matmul(self.spread, bands) + self.uncovered
        return ((wanted + self.uncovered) / present).clamp(1 / MAX_CORRECTION, MAX_CORRECTION)

    def synthesise(self, mel: Tensor, pitch: PitchTrack, noise: Tensor, n_corrections: int) -> Tensor:
        """Synthesise (B, N) from a mel (B, n_mels, T), a pitch track and unit white noise (B, N)."""
        c, n = self.config.mel, noise.shape[-1]
        harmonic, phase, breath = self.predict(mel, pitch.log_f0, pitch.voiced)
        with torch.autocast(mel.device.type, enabled=False):
            envelope = self.envelope(mel.float())
            pulses = pulse_train(pitch, n, c.sample_rate, c.hop_length, self.config.harmonic_max_hz)
            pulse_frames, noise_frames = (_stft(x, self.short_window, self._short_hop) for x in (pulses, noise))
            # The signal may end before the last subframes.
            frames = slice(0, pulse_frames.shape[-1])
            between, harmonic, phase, breath = (x[..., frames] for x in (self.between(envelope), harmonic, phase, breath))
            filtered = pulse_frames * torch.polar(torch.exp((between + harmonic).clamp(max=MAX_LOG_MAGNITUDE)), phase)
            filtered = filtered + noise_frames * torch.exp((between + breath).clamp(max=MAX_LOG_MAGNITUDE))
            return self.correct(_inverse_stft(filtered, self.short_window, self._short_hop, n), mel.float(), n_corrections)

    def correct(self, wav: Tensor, mel: Tensor, n_corrections: int) -> Tensor:
        """Move the mel of a sound (B, N) towards a given one (B, n_mels, T) in `n_corrections` iterations."""
        wanted, n = self.spread_bands(mel), wav.shape[-1]
        previous = wav
        for _ in range(n_corrections):
            # Transforms are linear: momentum on the sound is momentum on its spectrum.
            spectrum = self._stft(wav + self.config.momentum * (wav - previous))
            previous = wav
            # The small constant keeps the gradient of the square root finite.
            magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt()
            wav = _inverse_stft(spectrum * self.correction(wanted, magnitude), self.window, self.config.mel.hop_length, n)
        return wav

    def _stft(self, wav: Tensor) -> Tensor:
        return _stft(wav, self.window, self.config.mel.hop_length)

    @property
    def _short_hop(self) -> int:
        return self.config.mel.hop_length // self.config.subframes


def _stft(wav: Tensor, window: Tensor, hop_length: int) -> Tensor:
    return torch.stft(wav, len(window), hop_length, len(window), window, center=True, return_complex=True)


def _inverse_stft(spectrum: Tensor, window: Tensor, hop_length: int, n: int) -> Tensor:
    """Invert an STFT with centred frames; three times as fast as torch.istft, which sums and checks the windows at each call."""
    n_fft, n_frames = len(window), spectrum.shape[-1]
    overlap = n_fft // hop_length
    frames = (torch.fft.irfft(spectrum.transpose(1, 2), n_fft) * window).view(-1, n_frames, overlap, hop_length)
    squares = window.square().view(overlap, hop_length)
    wav = frames.new_zeros(len(frames), n_frames + overlap - 1, hop_length)
    weight = frames.new_zeros(n_frames + overlap - 1, hop_length)
    for i in range(overlap):
        wav[:, i : i + n_frames] += frames[:, :, i]
        weight[i : i + n_frames] += squares[i]
    wav = (wav / weight.clamp(min=1e-8)).flatten(1)[:, n_fft // 2 :]
    return F.pad(wav, (0, max(n - wav.shape[-1], 0)))[:, :n]
