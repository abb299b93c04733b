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
from vcae.model.denoiser import Denoiser, band_shapes

# Numbers of bands, and how many of them are single bins.
BANDS = {"20 bands": (20, 1), "32 bands": (32, 8), "80 bands": (80, 32), "128 bands": (128, 64)}


def ideal(network: Denoiser, shapes: Tensor, clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """Return a noisy recording (N,) with the ideal gain of each band."""
    wanted, heard = (network.analyse(torch.from_numpy(x)[None]) for x in (clean, noisy))
    powers = [shapes @ x[:, :-1].abs().square() for x in (wanted, heard)]
    gains = shapes.T @ (powers[0] / (powers[1] + 1e-12)).sqrt().clamp(max=1.0)
    gains = torch.cat([gains, gains[:, -1:]], dim=1)
    return network.synthesise(gains * heard, len(noisy))[0].numpy()


def main() -> None:
    try:
        recipe = load_config(DenoiseTestRecipe, sys.argv[1], sys.argv[2:])
        found = list(mixtures(replace(recipe, others=())))
    except VcaeError as error:
        sys.exit(f"error: {error}")
    network = Denoiser(DenoiserConfig())
    systems = {name: band_shapes(DenoiserConfig(n_bands=n, n_low=low)) for name, (n, low) in BANDS.items()}
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
