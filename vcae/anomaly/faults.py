"""Detection of faults in recorded speech, to a few ms: a small network trained on clicks, dropouts, hum, splices, clipping and codec damage."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vcae.checkpoint import read_tensors
from vcae.errors import CheckpointError

KINDS = ("click", "dropout", "clipping", "hum", "splice", "codec")
SAMPLE_RATE = 16000
# A frame every 4 ms.
HOP = 64
# Window lengths: short for sudden faults, long for hum; of the long ones only the lowest bins are used.
SHORT, LONG, LOW_BINS = 256, 1024, 48
WEIGHTS = Path(__file__).with_name("faults.safetensors")
WIDTH, DILATIONS = 64, (1, 2, 4, 8, 16)
# Length of the chunks in which long recordings are processed, and of their overlap, in s.
CHUNK_S, CONTEXT_S = 20.0, 1.0


class FaultNet(nn.Module):
    """Network that predicts the log odds of each kind of fault in each frame.

    Shape:
        - wav: (B, N) at 16 kHz; output: logits (B, K, T) of `KINDS`, T = 1 + N // 64
    """

    def __init__(self) -> None:
        super().__init__()
        n_in = SHORT // 2 + 1 + LOW_BINS + 2
        self.enter = nn.Conv1d(n_in, WIDTH, 5, padding=2)
        self.mix = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 7, padding=3 * d, dilation=d, groups=WIDTH) for d in DILATIONS)
        self.widen = nn.ModuleList(nn.Conv1d(WIDTH, 2 * WIDTH, 1) for _ in DILATIONS)
        self.narrow = nn.ModuleList(nn.Conv1d(2 * WIDTH, WIDTH, 1) for _ in DILATIONS)
        self.leave = nn.Conv1d(WIDTH, len(KINDS), 1)

    def forward(self, wav: Tensor, peak: Tensor | None = None) -> Tensor:
        x = self.enter(fault_features(wav, peak))
        for mix, widen, narrow in zip(self.mix, self.widen, self.narrow, strict=True):
            x = x + narrow(F.gelu(widen(F.layer_norm(mix(x).transpose(1, 2), (WIDTH,)).transpose(1, 2))))
        found: Tensor = self.leave(x)
        return found


def fault_features(wav: Tensor, peak: Tensor | None = None) -> Tensor:
    """Return the input features: log spectra of short frames, lowest bins of long ones, largest step, and runs of equal samples.

    Args:
        wav: (B, N) at 16 kHz.
        peak: (B, 1), peak of the whole recording if `wav` is a part of it.

    Returns:
        (B, D, T), T = 1 + N // 64. Levels are relative to the recording's peak, so loudness has no effect.
    """
    wav = wav / (wav.abs().amax(dim=1, keepdim=True) if peak is None else peak).clamp(min=1e-5)
    n = 1 + wav.shape[1] // HOP
    spectra = []
    for size, bins in ((SHORT, SHORT // 2 + 1), (LONG, LOW_BINS)):
        window = torch.hann_window(size, device=wav.device)
        spectrum = torch.stft(wav, size, HOP, window=window, center=True, pad_mode="constant", return_complex=True)
        spectra.append((spectrum[:, :bins, :n].abs() / (size / 4) + 1e-5).log() / 3 + 2)
    steps = F.pad(wav.diff(n=2, dim=1).abs(), (HOP // 2 + 1, HOP // 2 + 1))
    step = (F.max_pool1d(steps[:, None], HOP, HOP)[..., :n] + 1e-5).log() / 3 + 2
    equal = F.pad((wav.diff(dim=1) == 0).float(), (HOP // 2, HOP // 2 + 1))
    same = F.avg_pool1d(equal[:, None], HOP, HOP)[..., :n]
    pieces = [F.pad(piece, (0, n - piece.shape[-1])) for piece in (*spectra, step, same)]
    return torch.cat(pieces, dim=1)


@lru_cache(maxsize=1)
def shipped_fault_net() -> FaultNet:
    """Return the network with the shipped weights.

    Raises:
        CheckpointError: If the file is missing or damaged.
    """
    net = FaultNet()
    try:
        net.load_state_dict({name: value.float() for name, value in read_tensors(WEIGHTS)[0].items()}, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"{WEIGHTS} does not fit this version ({error}); reinstall vcae") from error
    return net.eval().requires_grad_(False)


@torch.no_grad()
def fault_strengths(wav: Tensor, net: FaultNet | None = None) -> Tensor:
    """Return the log odds (K, T) of each kind of fault in each frame of 4 ms of a recording (N,) at 16 kHz.

    Long recordings are processed in overlapping chunks.
    """
    net = net or shipped_fault_net()
    chunk, context = round(CHUNK_S * SAMPLE_RATE) // HOP * HOP, round(CONTEXT_S * SAMPLE_RATE) // HOP * HOP
    n, peak = 1 + len(wav) // HOP, wav.abs().amax()[None, None]
    found = torch.zeros(len(KINDS), n)
    for start in range(0, len(wav), chunk):
        first = max(0, start - context)
        heard = net(wav[None, first : start + chunk + context], peak)[0]
        skipped = (start - first) // HOP
        last = n if start + chunk >= len(wav) else (start + chunk) // HOP
        found[:, start // HOP : last] = heard[:, skipped : skipped + last - start // HOP]
    return found
