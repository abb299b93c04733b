"""PESQ and STOI of ideal gains, which no denoiser by gains can exceed: `python recipes/denoise/ideal.py recipes/denoise/conf/test.yaml manifest=...`.

The gain of a band is the ratio of the clean to the noisy magnitude in it, at most one, and the phases are those of the noisy recording.
"""

import sys
from dataclasses import replace

import numpy as np
import torch
from mixtures import mixtures
from pesq import pesq
from pystoi import stoi
from rich.progress import track
from settings import DenoiseTestRecipe
from torch import Tensor

from vcae.audio.f0 import SAMPLE_RATE
from vcae.config import load_config
from vcae.errors import VcaeError
from vcae.model.config import DenoiserConfig
from vcae.model.denoiser import Denoiser

# Numbers of bands.
BANDS = (20, 32, 64)


def band_shapes(n_bands: int, n_bins: int) -> Tensor:
    """Return triangular bands (n_bands, n_bins) that sum to one in each bin, as wide as the hearing's bandwidths.

    Source: the scale of equivalent rectangular bandwidths, Glasberg and Moore (1990).
    """
    scale = np.log10(1 + 4.37e-3 * np.linspace(0, SAMPLE_RATE / 2, n_bins))
    place = scale / scale[-1] * (n_bands - 1)
    lower = np.floor(place).astype(int).clip(0, n_bands - 2)
    shapes = np.zeros((n_bands, n_bins), np.float32)
    shapes[lower, np.arange(n_bins)] = 1 - (place - lower)
    shapes[lower + 1, np.arange(n_bins)] += place - lower
    return torch.from_numpy(shapes)


def ideal(network: Denoiser, shapes: Tensor, clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """Return a noisy recording (N,) with the ideal gain of each band."""
    wanted, heard = (network.analyse(torch.from_numpy(x)[None]) for x in (clean, noisy))
    powers = [shapes @ x.abs().square() for x in (wanted, heard)]
    gains = shapes.T @ (powers[0] / (powers[1] + 1e-12)).sqrt().clamp(max=1.0)
    return network.synthesise(gains * heard, len(noisy))[0].numpy()


def main() -> None:
    try:
        recipe = load_config(DenoiseTestRecipe, sys.argv[1], sys.argv[2:])
        found = list(mixtures(replace(recipe, others=())))
    except VcaeError as error:
        sys.exit(f"error: {error}")
    config = DenoiserConfig()
    network, n_bins = Denoiser(config), config.n_fft // 2 + 1
    systems = {f"{n} bands": band_shapes(n, n_bins) for n in BANDS} | {"single bins": torch.eye(n_bins)}
    scores: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for mixture in track(found):
        clean, noisy = mixture.clean, mixture.noisy
        made = {"noisy": noisy, **{name: ideal(network, shapes, clean, noisy) for name, shapes in systems.items()}}
        for name, wav in made.items():
            judged = (pesq(SAMPLE_RATE, clean, wav, "wb"), stoi(clean, wav, SAMPLE_RATE))
            scores.setdefault((mixture.condition, name), []).append(judged)
    for (condition, name), values in scores.items():
        print(f"{condition}, {name}: PESQ {np.mean(values, 0)[0]:.2f}, STOI {np.mean(values, 0)[1]:.3f}")


if __name__ == "__main__":
    main()
