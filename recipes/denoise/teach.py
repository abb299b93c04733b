"""Let a teacher denoise noisy speech for the denoiser's training: `python recipes/denoise/teach.py recipes/denoise/conf/teach.yaml`.

Each shard in OUTPUT_DIR has a batch of recordings, as (R, N) int16: noisy, clean, and as the teacher denoised it; and (R, T, D) the teacher's
state for each of the denoiser's frames. Shards that exist are kept, so that an interrupted run resumes.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from settings import TeachRecipe
from teacher import HOP, DeepFilterNet

from vcae.audio.f0 import SAMPLE_RATE
from vcae.audio.loudness import TARGET_LEVEL
from vcae.checkpoint import write_tensors
from vcae.config import load_config
from vcae.errors import VcaeError
from vcae.model.config import DenoiserConfig
from vcae.training.data import CropDataset, SpeechCache
from vcae.training.denoise import Noising, active_rms
from vcae.training.draws import Draws
from vcae.training.taught import FULL_SCALE

PEAK = 0.95
# Components with less than this fraction of the largest deviation are not enlarged to the deviation of the others.
SMALLEST = 0.1


@dataclass(frozen=True)
class Components:
    """Principal components of the teacher's state.

    Attributes:
        mean: (512,). directions: (512, D), scaled so that the mean square of the features is 1.
    """

    mean: np.ndarray
    directions: np.ndarray

    @classmethod
    def of(cls, states: np.ndarray, n: int) -> "Components":
        """Compute them from states (M, 512)."""
        mean = states.mean(axis=0)
        _, values, axes = np.linalg.svd(states - mean, full_matrices=False)
        deviations = values[:n] / np.sqrt(len(states))
        scales = 1 / np.maximum(deviations, SMALLEST * deviations.max())
        return cls(mean, axes[:n].T * (scales / np.sqrt(np.square(deviations * scales).mean())))


def mixtures(recipe: TeachRecipe, shard: int) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy speech (R, N) at one level, without clipping, and its clean target (R, N)."""
    speech = CropDataset(SpeechCache(recipe.data.cache), recipe.data, recipe.seed)[shard]
    noisy, clean = Noising(recipe.noising, SAMPLE_RATE)(speech["wav"], speech["reference"], Draws(recipe.seed + shard))
    level = TARGET_LEVEL / active_rms(noisy).clamp(min=1e-4)
    level = level * PEAK / (noisy * level).abs().amax(dim=1, keepdim=True).clamp(min=PEAK)
    return (noisy * level).numpy(), (clean * level).numpy()


def at_frames(state: np.ndarray, n_samples: int) -> np.ndarray:
    """Return the states (T, 512) for the denoiser's frames from those of the teacher, which has 30 ms after the centre of its frame.

    The denoiser has 16 ms after the centre of its own, so it gets the teacher's state of 10 ms before.
    """
    hop = DenoiserConfig().hop_length
    place = np.clip((np.arange(n_samples // hop + 1) * hop - HOP) / HOP, 0, len(state) - 1.001)
    first = place.astype(int)
    share = (place - first)[:, None]
    frames: np.ndarray = state[first] * (1 - share) + state[first + 1] * share
    return frames


def teach(recipe: TeachRecipe, components: Components, shard: int) -> None:
    """Write a shard, unless it exists."""
    path = Path(recipe.output_dir) / f"{shard:04}.safetensors"
    if path.exists():
        return
    noisy, clean = mixtures(recipe, shard)
    teacher = DeepFilterNet()
    taught = [teacher(wav) for wav in noisy]
    states = np.stack([at_frames(one.state, noisy.shape[1]) for one in taught])
    wavs = {"noisy": noisy, "clean": clean, "taught": np.stack([one.wav for one in taught])}
    tensors = {name: torch.from_numpy(np.round(wav.clip(-1, 1) * FULL_SCALE).astype(np.int16)) for name, wav in wavs.items()}
    tensors["features"] = torch.from_numpy((states - components.mean) @ components.directions).half()
    write_tensors(path, tensors, {"teacher": "DeepFilterNet 3"})


def first_components(recipe: TeachRecipe) -> Components:
    """Return the components of the first shard's recordings."""
    noisy, teacher = mixtures(recipe, 0)[0], DeepFilterNet()
    return Components.of(np.concatenate([at_frames(teacher(wav).state, len(wav)) for wav in noisy]), recipe.n_features)


def main() -> None:
    try:
        recipe = load_config(TeachRecipe, sys.argv[1], sys.argv[2:])
        Path(recipe.output_dir).mkdir(parents=True, exist_ok=True)
        # Before the processes start: threads do not survive a fork.
        torch.set_num_threads(1)
        run = partial(teach, recipe, first_components(recipe))
        with ProcessPoolExecutor(recipe.workers) as pool:
            for _ in track(pool.map(run, range(recipe.n_shards)), description="teaching", total=recipe.n_shards):
                pass
    except VcaeError as error:
        sys.exit(f"error: {error}")
    print(f"{recipe.output_dir}: {recipe.n_shards} shards")


if __name__ == "__main__":
    main()
