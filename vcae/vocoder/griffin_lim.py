"""Griffin-Lim: a vocoder without weights, for models that have none."""

from __future__ import annotations

import torch
from torch import Tensor

from vcae.audio.config import MelConfig
from vcae.audio.mel import mel_filterbank


def griffin_lim(mel: Tensor, config: MelConfig, n_samples: int | None = None, n_iter: int = 32, seed: int = 0) -> Tensor:
    """Turn a log-mel into sound by least squares (negative bins cut off) and the fast Griffin-Lim algorithm.

    Args:
        mel: (B, n_mels, T), natural log magnitude.
        config: Definition of the mel.
        n_samples: Length of the output, (T - 1) * hop_length when None.
        n_iter: Iterations.
        seed: Seed of the initial phases.

    Returns:
        (B, N), on the CPU.

    Source: Griffin and Lim (1984); Perraudin et al., A fast Griffin-Lim algorithm (2013); librosa's implementation.
    """
    import librosa

    c = config
    wavs = []
    inverse = torch.linalg.pinv(mel_filterbank(c).double())
    magnitudes = torch.matmul(inverse, torch.exp(mel.detach().cpu().double())).clamp(min=c.floor)
    for item in magnitudes.numpy():
        length = (item.shape[-1] - 1) * c.hop_length if n_samples is None else n_samples
        wav = librosa.griffinlim(
            item,
            n_iter=n_iter,
            hop_length=c.hop_length,
            win_length=c.win_length,
            n_fft=c.n_fft,
            length=length,
            random_state=seed,
        )
        wavs.append(torch.from_numpy(wav).float())
    return torch.stack(wavs)
