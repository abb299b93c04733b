"""Noises and simulated rooms in one file: `python recipes/denoise/prepare.py recipes/denoise/conf/bank.yaml sounds=ESC10.csv`."""

import csv
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from settings import NoiseBankRecipe

from vcae.audio.f0 import SAMPLE_RATE
from vcae.audio.io import read_sound, resample
from vcae.checkpoint import read_tensors, write_tensors
from vcae.config import load_config
from vcae.errors import DataError, VcaeError
from vcae.training.noises import make_noise

# Seconds of a room's response.
ROOM_S = 0.6


def sound_files(recipe: NoiseBankRecipe) -> list[Path]:
    """Return the sounds of the folds that are not held out."""
    found = []
    for table in map(Path, (recipe.sounds, *recipe.more_sounds)):
        try:
            rows = list(csv.DictReader(table.open(newline="", encoding="utf-8")))
        except OSError as error:
            raise DataError(f"cannot read the table of sounds {table} ({error.strerror}); give sounds=PATH") from error
        found += [table.parent / row["path"] for row in rows if int(row["fold"]) not in recipe.held_out]
    if not found:
        raise DataError(f"{recipe.sounds} has no sound outside of the folds {recipe.held_out}; hold out fewer")
    return found


def read_noise(path: Path) -> np.ndarray:
    """Return a recorded noise (n,) at full scale, silence at its ends cut."""
    sound = read_sound(path)
    wav = np.trim_zeros(resample(sound.wav, sound.sample_rate, SAMPLE_RATE).round(4))
    return wav / max(float(np.abs(wav).max(initial=0)), 1e-9)


def made_noise(seed: int, index: int, n: int) -> np.ndarray:
    """Return a synthetic noise (n,) at full scale."""
    noise = make_noise(np.random.default_rng([seed, index]), n, SAMPLE_RATE)
    return noise / np.abs(noise).max()


def read_rooms(recipe: NoiseBankRecipe) -> torch.Tensor:
    """Return responses of rooms (n_rooms, n), from a file or simulated."""
    if recipe.rooms is not None:
        return read_tensors(Path(recipe.rooms))[0]["rooms"][: recipe.n_rooms]
    rng = np.random.default_rng(recipe.seed)
    return torch.from_numpy(np.stack([simulate_room(rng, round(ROOM_S * SAMPLE_RATE)) for _ in range(recipe.n_rooms)]))


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
        files, rooms = sound_files(recipe), read_rooms(recipe)
        n = round(recipe.made_s * SAMPLE_RATE)
        with ProcessPoolExecutor(recipe.workers) as pool:
            recorded = [wav for wav in pool.map(read_noise, files, chunksize=8) if len(wav) > SAMPLE_RATE // 10]
            made = list(pool.map(made_noise, repeat(recipe.seed), range(recipe.n_made), repeat(n, recipe.n_made), chunksize=8))
    except VcaeError as error:
        sys.exit(f"error: {error}")
    bounds = np.cumsum([0, *(len(noise) for noise in recorded + made)])
    tensors = {
        "audio": torch.from_numpy(np.concatenate([np.round(noise * 32767).astype(np.int16) for noise in recorded + made])),
        "bounds": torch.from_numpy(bounds),
        "n_recorded": torch.tensor(len(recorded)),
        "rooms": rooms.half(),
    }
    Path(recipe.output).parent.mkdir(parents=True, exist_ok=True)
    write_tensors(recipe.output, tensors, {"seed": str(recipe.seed)})
    print(
        f"{recipe.output}: {len(recorded)} noises recorded, {len(made)} made, {bounds[-1] / SAMPLE_RATE / 60:.1f} minutes, {len(rooms)} rooms"
    )


if __name__ == "__main__":
    main()
