"""Noises and simulated rooms in one file: `python recipes/denoise/prepare.py recipes/denoise/conf/bank.yaml sounds=ESC10.csv`."""

import csv
import sys
from pathlib import Path

import numpy as np
import torch
from settings import NoiseBankRecipe

from vcae.audio.f0 import SAMPLE_RATE
from vcae.audio.io import read_sound, resample
from vcae.checkpoint import write_tensors
from vcae.config import load_config
from vcae.errors import DataError, VcaeError
from vcae.training.noises import make_noise

# Seconds of a room's response.
ROOM_S = 0.6


def read_noises(recipe: NoiseBankRecipe) -> list[np.ndarray]:
    """Return the sounds of the folds that are not held out, (n,) each, at full scale, silence at their ends cut."""
    table = Path(recipe.sounds)
    try:
        rows = list(csv.DictReader(table.open(newline="", encoding="utf-8")))
    except OSError as error:
        raise DataError(f"cannot read the table of sounds {table} ({error.strerror}); give sounds=PATH") from error
    found = []
    for row in rows:
        if int(row["fold"]) in recipe.held_out:
            continue
        sound = read_sound(table.parent / row["path"])
        wav = np.trim_zeros(resample(sound.wav, sound.sample_rate, SAMPLE_RATE).round(4))
        if len(wav) > SAMPLE_RATE // 10:
            found.append(wav / np.abs(wav).max())
    if not found:
        raise DataError(f"{table} has no sound outside of the folds {recipe.held_out}; hold out fewer")
    return found


def simulate_room(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return the response (n,) of a random shoebox between two random places, its direct sound first, of about energy 1 in that."""
    import pyroomacoustics as pra

    size = rng.uniform([2.5, 2.5, 2.2], [9, 8, 4.0])
    seconds = float(np.exp(rng.uniform(np.log(0.15), np.log(0.9))))
    absorption, order = pra.inverse_sabine(max(seconds, 0.07 * float(np.prod(size)) ** (1 / 3)), size)
    room = pra.ShoeBox(size, fs=SAMPLE_RATE, materials=pra.Material(min(absorption, 0.99)), max_order=min(order, 25))
    room.add_source(rng.uniform(0.3, size - 0.3))
    room.add_microphone(rng.uniform(0.3, size - 0.3))
    room.compute_rir()
    response = np.asarray(room.rir[0][0])
    response = response[int(np.flatnonzero(np.abs(response) > 0.5 * np.abs(response).max())[0]) :]
    response = np.pad(response[:n], (0, max(0, n - len(response))))
    return response / np.sqrt(np.square(response[: SAMPLE_RATE // 200]).sum())


def main() -> None:
    try:
        recipe = load_config(NoiseBankRecipe, sys.argv[1], sys.argv[2:])
        noises = read_noises(recipe)
    except VcaeError as error:
        sys.exit(f"error: {error}")
    rng, n = np.random.default_rng(recipe.seed), round(ROOM_S * SAMPLE_RATE)
    rooms = np.stack([simulate_room(rng, n) for _ in range(recipe.n_rooms)])
    made = [make_noise(rng, round(recipe.made_s * SAMPLE_RATE), SAMPLE_RATE) for _ in range(recipe.n_made)]
    n_recorded, noises = len(noises), noises + [noise / np.abs(noise).max() for noise in made]
    bounds = np.cumsum([0, *(len(noise) for noise in noises)])
    tensors = {
        "audio": torch.from_numpy(np.round(np.concatenate(noises) * 32767).astype(np.int16)),
        "bounds": torch.from_numpy(bounds),
        "n_recorded": torch.tensor(n_recorded),
        "rooms": torch.from_numpy(rooms).half(),
    }
    write_tensors(recipe.output, tensors, {"seed": str(recipe.seed)})
    print(
        f"{recipe.output}: {n_recorded} noises recorded, {len(made)} made, {bounds[-1] / SAMPLE_RATE / 60:.1f} minutes, {len(rooms)} rooms"
    )


if __name__ == "__main__":
    main()
