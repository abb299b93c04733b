"""The neural vocoder: harmonics and noise, filtered in the STFT domain by a network at frame rate."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vcae.audio.f0 import continuous_log_f0
from vcae.audio.mel import mel_filterbank
from vcae.config import VocoderConfig
from vcae.model.blocks import ConvNeXtStack

# Keeps exp() of a predicted log-magnitude finite whatever the network says.
MAX_LOG_MAGNITUDE = 8.0
# A correction changes no bin by more than this, in nats (26 dB).
MAX_CORRECTION = 3.0


def pulse_train(log_f0: Tensor, n_samples: int, sample_rate: int, hop_length: int, max_hz: float) -> Tensor:
    """Make a band-limited pulse train that follows F0.

    The sum of cosines 2 cos(k phase), k = 1..K, has the closed form sin((K + 1/2) phase) / sin(phase / 2) - 1.

    Args:
        log_f0: (B, T), natural log of Hz, without gaps; frame t stands at sample t * hop_length.
        n_samples: Samples to make.
        sample_rate: Hz.
        hop_length: Samples.
        max_hz: Highest harmonic.

    Returns:
        (B, n_samples) with unit mean power.
    """
    at = torch.arange(n_samples, device=log_f0.device)
    left = (at // hop_length).clamp(max=log_f0.shape[-1] - 1)
    right = (left + 1).clamp(max=log_f0.shape[-1] - 1)
    share = (at % hop_length) / hop_length
    f0 = torch.exp(log_f0[:, left] * (1 - share) + log_f0[:, right] * share)
    # Summed in float64 so that an hour's phase keeps its precision; a device without it (mps) sums on the CPU.
    exact = f0.cpu().double() if f0.device.type == "mps" else f0.double()
    turns = torch.cumsum(exact / sample_rate, dim=-1)
    phase = (2 * math.pi * (turns - turns.round())).float().to(f0.device)
    n_harmonics = (max_hz / f0).floor().clamp(min=1)
    half = torch.sin(phase / 2)
    near_zero = half.abs() < 1e-4
    ratio = torch.sin((n_harmonics + 0.5) * phase) / torch.where(near_zero, torch.ones_like(half), half)
    pulses = torch.where(near_zero, 2 * n_harmonics + 1, ratio) - 1
    return pulses * torch.rsqrt(2 * n_harmonics + 1)


class HarmonicNoiseVocoder(nn.Module):
    """Filter a pulse train and white noise, frame by frame and bin by bin, into speech that has the mel it was asked for.

    For each frame and bin the network predicts a magnitude and a phase offset for the harmonic part and a magnitude for
    the noise part, as corrections to the envelope that the mel itself gives. Phase comes from F0, so the network needs
    no adversary to be intelligible. Harmonics run through unvoiced frames too (F0 is interpolated there): the network
    turns them down where the mel shows none, so that a wrong voicing decision does little harm.

    What overlapping frames and the draw of the noise make of those magnitudes has another mel than the one given. A few
    corrections put that right: each measures the result's mel, changes every bin by what its bands lack, and synthesises again,
    as Griffin-Lim does towards a linear magnitude.

    Shape:
        - mel: (B, n_mels, T), natural log magnitude
        - f0: (B, T) in Hz, 0 where unvoiced
        - wav: (B, N), N = (T - 1) * hop_length unless given

    Source: harmonic plus noise, Stylianou (2001); source-filter in the STFT domain, Wang et al., Neural source-filter
    waveform models (2019); ConvNeXt at frame rate with an inverse STFT, Siuzdak, Vocos (2023); alternating projections,
    Griffin and Lim (1984), with the momentum of Perraudin et al. (2013).
    """

    window: Tensor
    filterbank: Tensor
    spread: Tensor

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        n_bins = config.mel.n_fft // 2 + 1
        self.input = nn.Conv1d(config.mel.n_mels + 2, config.width, 5, padding=2)
        self.stack = ConvNeXtStack(config.width, config.n_blocks)
        self.norm = nn.LayerNorm(config.width)
        self.output = nn.Linear(config.width, (3 if config.head == "harmonic" else 2) * n_bins)
        nn.init.normal_(self.output.weight, std=0.01)
        nn.init.zeros_(self.output.bias)
        if config.refine_blocks:
            self.refine_input = nn.Linear(5 * n_bins + config.width, config.refine_width)
            self.refine_stack = ConvNeXtStack(config.refine_width, config.refine_blocks)
            self.refine_output = nn.Linear(config.refine_width, 2 * n_bins)
            nn.init.zeros_(self.refine_output.weight)
            nn.init.zeros_(self.refine_output.bias)
        self.register_buffer("window", torch.hann_window(config.mel.win_length), persistent=False)
        filters = mel_filterbank(config.mel)
        self.register_buffer("filterbank", filters, persistent=False)
        self.register_buffer("spread", (filters / filters.sum(0).clamp(min=1e-8)).T.contiguous(), persistent=False)

    def envelope(self, mel: Tensor) -> Tensor:
        """Return the log-magnitude (B, n_fft // 2 + 1, T) that the mel's bands give to bins excited by unit-power sound."""
        c = self.config.mel
        # The mean STFT magnitude of unit white noise under a Hann window, times the area of a slaney band, is what a band reads.
        per_unit = math.sqrt(3 / 8 * c.win_length * math.pi / 4) * c.n_fft / c.sample_rate
        return torch.log(torch.matmul(self.spread, torch.exp(mel)).clamp(min=c.floor)) - math.log(per_unit)

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
            n_corrections: How often the mel is put right; the config's number when None.
        """
        c = self.config.mel
        n = (mel.shape[-1] - 1) * c.hop_length if n_samples is None else n_samples
        log_f0 = continuous_log_f0(f0)
        features = torch.cat([mel, (log_f0 - 5.0).unsqueeze(1), (f0 > 0).float().unsqueeze(1)], dim=1)
        hidden = self.norm(self.stack(self.input(features)).transpose(1, 2))
        out = self.output(hidden).float().transpose(1, 2)
        with torch.autocast(mel.device.type, enabled=False):
            mel = mel.float()
            envelope = self.envelope(mel)
            if self.config.head == "harmonic":
                harmonic, phase, breath = out.chunk(3, dim=1)
                pulses = pulse_train(log_f0.float(), n, c.sample_rate, c.hop_length, self.config.harmonic_max_hz)
                noise = torch.randn_like(pulses) if noise is None else noise
                gain = torch.exp((envelope + harmonic).clamp(max=MAX_LOG_MAGNITUDE))
                spectrum = self._stft(pulses) * torch.polar(gain, phase)
                spectrum = spectrum + self._stft(noise) * torch.exp((envelope + breath).clamp(max=MAX_LOG_MAGNITUDE))
            else:
                magnitude, phase = out.chunk(2, dim=1)
                spectrum = torch.polar(16 * torch.exp((envelope + magnitude).clamp(max=MAX_LOG_MAGNITUDE)), phase)
        if self.config.refine_blocks:
            spectrum = self._refine(spectrum, hidden, envelope, n)
        with torch.autocast(mel.device.type, enabled=False):
            k = self.config.n_corrections if n_corrections is None else n_corrections
            return self._istft(self._correct(spectrum, envelope, n, k), n)

    def _refine(self, spectrum: Tensor, hidden: Tensor, envelope: Tensor, n: int) -> Tensor:
        c = self.config.mel
        with torch.autocast(hidden.device.type, enabled=False):
            draft = self._stft(self._istft(spectrum, n))
            unit = draft / draft.abs().clamp(min=1e-7)
            hop = torch.arange(draft.shape[1], device=draft.device) * (2 * math.pi * c.hop_length / c.n_fft)
            in_time = unit[..., 1:] * unit[..., :-1].conj() * torch.polar(torch.ones_like(hop), -hop)[:, None]
            in_time = torch.nn.functional.pad(torch.view_as_real(in_time), (0, 0, 1, 0))
            in_band = torch.nn.functional.pad(torch.view_as_real(-unit[:, 1:] * unit[:, :-1].conj()), (0, 0, 0, 0, 1, 0))
            level = draft.abs().clamp(min=c.floor).log() - envelope
            features = torch.cat([level, in_time[..., 0], in_time[..., 1], in_band[..., 0], in_band[..., 1]], dim=1)
        x = self.refine_input(torch.cat([features.transpose(1, 2), hidden], dim=-1))
        x = self.refine_stack(x.transpose(1, 2)).transpose(1, 2)
        with torch.autocast(hidden.device.type, enabled=False):
            gain, phase = self.refine_output(x.float()).transpose(1, 2).chunk(2, dim=1)
            return draft * torch.polar(torch.exp(gain.clamp(-MAX_CORRECTION, MAX_CORRECTION)), phase)

    def _correct(self, spectrum: Tensor, envelope: Tensor, n: int, n_corrections: int) -> Tensor:
        previous = None
        for _ in range(n_corrections):
            consistent = self._stft(self._istft(spectrum, n))
            spectrum = consistent if previous is None else consistent + self.config.momentum * (consistent - previous)
            previous = consistent
            mel = torch.log(torch.matmul(self.filterbank, spectrum.abs()).clamp(min=self.config.mel.floor))
            change = (envelope - self.envelope(mel)).clamp(-MAX_CORRECTION, MAX_CORRECTION)
            spectrum = spectrum * torch.exp(change)
        return spectrum

    def _stft(self, wav: Tensor) -> Tensor:
        c = self.config.mel
        return torch.stft(wav, c.n_fft, c.hop_length, c.win_length, self.window, center=True, return_complex=True)

    def _istft(self, spectrum: Tensor, n: int) -> Tensor:
        c = self.config.mel
        return torch.istft(spectrum, c.n_fft, c.hop_length, c.win_length, self.window, center=True, length=n)
