"""Train the network that detects faults in speech, on clean speech with synthetic faults at known times.

python recipes/anomaly/learn_faults.py recipes/anomaly/conf/faults.yaml speech=SPEECH.csv
"""

import random
import sys
from pathlib import Path

import numpy as np
import torch
from faults import KINDS, SAMPLE_RATE, Fault, make_fault
from rich.console import Console
from rich.progress import track
from settings import FaultsRecipe
from torch.nn import functional as F
from trials import read_manifest

import vcae
from vcae.anomaly import faults as found_faults
from vcae.anomaly.faults import HOP, FaultNet
from vcae.audio.io import read_sound, resample
from vcae.checkpoint import write_tensors
from vcae.config import load_config, to_dict
from vcae.errors import ConfigError, VcaeError
from vcae.files import hash_file

# A frame counts as faulty up to this distance from the fault, in s; around a splice, which is a point, to both sides.
NEAR_S = 0.008
# Kinds that are made by `make_other` instead of `make_fault` half of the time.
VARIED = ("click", "dropout", "hum", "splice")


def load_speech(recipe: FaultsRecipe) -> list[np.ndarray]:
    """Return recordings (N,) at 16 kHz that are long enough for a crop.

    Raises:
        ConfigError: If there are none.
    """
    if recipe.speech is None:
        raise ConfigError("speech is not set; set it to the path of a manifest")
    rows = read_manifest(recipe.speech, ("path", "split", "duration_s"))
    paths = [r["path"] for r in rows if r["split"] == recipe.speech_split and float(r["duration_s"]) > recipe.crop_s + 1]
    paths = random.Random(recipe.seed).sample(paths, min(recipe.n_speech, len(paths)))
    if not paths:
        raise ConfigError(
            f"{recipe.speech} has no recording of the split {recipe.speech_split!r} over {recipe.crop_s + 1:.0f} s"
        )
    found = []
    for path in track(paths, "speech", console=Console(stderr=True)):
        sound = read_sound(path)
        found.append(resample(sound.wav, sound.sample_rate, SAMPLE_RATE).astype(np.float32))
    return found


def vary(wav: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return speech with a random spectral tilt, level and noise floor, as of another microphone and room."""
    spectrum = np.fft.rfft(wav)
    gain_db = np.interp(np.linspace(0, 1, len(spectrum)), np.linspace(0, 1, 5), 4 * rng.standard_normal(5))
    if rng.random() < 0.5:
        gain_db -= np.interp(np.fft.rfftfreq(len(wav), 1 / SAMPLE_RATE), [0, 40, 90], [30, 20, 0])
    wav = np.fft.irfft(spectrum * 10 ** (gain_db / 20), len(wav))
    wav = wav / max(float(np.abs(wav).max()), 1e-6) * rng.uniform(0.05, 0.95)
    noise = np.cumsum(rng.standard_normal(len(wav))) if rng.random() < 0.3 else rng.standard_normal(len(wav))
    noise = noise - noise.mean()
    level = 10 ** (rng.uniform(-85, -30) / 20) * np.abs(wav).max()
    return np.asarray(np.round((wav + noise / noise.std() * level) * 32767) / 32767)


def make_other(
    wav: np.ndarray, kind: str, speech: list[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, list[Fault]]:
    """Add a fault with a wider range of shapes and strengths than `make_fault`'s, for a more varied training.

    Args:
        wav: (N,) at 16 kHz.
        kind: click, dropout, hum or splice.
        speech: Recordings from which a splice may take a part.
        rng: Source of randomness.
    """
    n, out, peak = len(wav), wav.copy(), float(np.abs(wav).max())
    start = int(rng.integers(SAMPLE_RATE // 4, n - SAMPLE_RATE))
    if kind == "click":
        size = int(rng.integers(1, 48))
        shape = rng.standard_normal(size) if rng.random() < 0.5 else (-1.0) ** np.arange(size)
        shape = shape * np.exp(-np.arange(size) / rng.uniform(1, 12))
        end = start + size
        out[start:end] += rng.uniform(0.2, 1.0) * peak * shape / np.abs(shape).max()
    elif kind == "dropout":
        end = start + int(rng.uniform(0.015, 0.25) * SAMPLE_RATE)
        # Zeros, the last sample repeated, or a strong attenuation.
        way = rng.integers(3)
        out[start:end] = 0.0 if way == 0 else out[start] if way == 1 else 0.003 * out[start:end]
    elif kind == "hum":
        end = start + int(rng.uniform(0.3, 0.95) * SAMPLE_RATE)
        t = np.arange(end - start) / SAMPLE_RATE
        f0, tilt = rng.choice([50, 60, 100, 120]) * rng.uniform(0.995, 1.005), rng.uniform(0, 1.5)
        tone = sum(np.sin(2 * np.pi * f0 * k * t + rng.uniform(0, 6)) / k**tilt for k in range(1, int(rng.integers(2, 25))))
        fade = np.minimum(1, np.minimum(t, t[::-1]) / rng.uniform(0.001, 0.05))
        out[start:end] += (
            tone * fade * 10 ** (-rng.uniform(3, 20) / 20) * np.sqrt(np.square(wav).mean() / np.square(tone).mean())
        )
    else:
        other = speech[rng.integers(len(speech))].astype(np.float64)
        first = int(rng.integers(0, len(other) - SAMPLE_RATE))
        piece = other[first : first + n - start] * peak / max(float(np.abs(other).max()), 1e-6)
        fade = int(rng.integers(1, 48))
        ramp, end = np.linspace(0, 1, fade), start
        mixed = out[start : start + fade] * (1 - ramp) + piece[:fade] * ramp
        out = np.concatenate([out[:start], mixed, piece[fade:], out[start + len(piece) :]])
    return out, [Fault(kind, start / SAMPLE_RATE, end / SAMPLE_RATE)]


def draw(speech: list[np.ndarray], recipe: FaultsRecipe, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a crop (N,) of speech with up to `most_faults` faults, and their labels (K, T), 1 in faulty frames."""
    n = round(recipe.crop_s * SAMPLE_RATE)
    wav = speech[rng.integers(len(speech))]
    # Half a second longer than the crop, as a splice shortens it.
    start = rng.integers(0, len(wav) - n - SAMPLE_RATE // 2)
    wav = vary(wav[start : start + n + SAMPLE_RATE // 2], rng)
    labels = np.zeros((len(KINDS), 1 + n // HOP), np.float32)
    kinds = list(rng.permutation(len(KINDS))[: rng.integers(0, recipe.most_faults + 1)])
    # Splices come first, as they shift everything after them.
    for k in sorted(kinds, key=lambda k: KINDS[k] != "splice"):
        if KINDS[k] in VARIED and rng.random() < 0.5:
            wav, faults = make_other(wav, KINDS[k], speech, rng)
        else:
            wav, faults = make_fault(wav, KINDS[k], int(rng.integers(1 << 31)))
        for fault in faults:
            first = max(0, round((fault.start_s - NEAR_S) * SAMPLE_RATE / HOP))
            last = round((fault.end_s + NEAR_S) * SAMPLE_RATE / HOP) + 1
            labels[k, first:last] = 1
    return np.resize(wav, n).astype(np.float32), labels


def learn(recipe: FaultsRecipe) -> FaultNet:
    """Train the network."""
    if found_faults.KINDS != KINDS:
        raise ConfigError(f"the network knows {found_faults.KINDS}, the recipe makes {KINDS}; let them agree")
    torch.manual_seed(recipe.seed)
    speech, net = load_speech(recipe), FaultNet()
    optimizer = torch.optim.AdamW(net.parameters(), recipe.learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, recipe.max_steps, pct_start=0.1)
    weight = torch.full((len(KINDS), 1), recipe.fault_weight)
    mean = 0.0
    for step in track(range(recipe.max_steps), "training", console=Console(stderr=True)):
        rng = np.random.default_rng([recipe.seed, step])
        crops = [draw(speech, recipe, rng) for _ in range(recipe.batch_size)]
        wav, labels = (torch.from_numpy(np.stack(part)) for part in zip(*crops, strict=True))
        loss = F.binary_cross_entropy_with_logits(net(wav), labels, pos_weight=weight)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        mean += (float(loss.detach()) - mean) / min(step + 1, 50)
        if (step + 1) % 50 == 0:
            print(f"step {step + 1}: loss {mean:.4f}", flush=True)
        if (step + 1) % 500 == 0:
            save(net, recipe)
    return net


def save(net: FaultNet, recipe: FaultsRecipe) -> str:
    """Write the weights in float16 and a file with their SHA-256; return the SHA-256."""
    path = Path(recipe.output)
    settings = {k: v for k, v in to_dict(recipe).items() if k not in ("speech", "output")}
    data = "LibriSpeech (Panayotov et al. 2015), speechocean762 (Zhang et al. 2021), CMU ARCTIC (Kominek and Black 2004), Kathleen (CC0)"
    info = {
        "author": "The vcae developers",
        "licence": "CC BY 4.0",
        "data": data,
        "recipe": repr(settings),
        "version": vcae.__version__,
    }
    write_tensors(path, {name: value.half() for name, value in net.state_dict().items()}, info)
    digest = hash_file(path)
    path.with_suffix(".sha256").write_text(f"{digest}  {path.name}\n")
    return digest


def main() -> None:
    recipe = load_config(FaultsRecipe, sys.argv[1], sys.argv[2:])
    digest = save(learn(recipe), recipe)
    print(f"wrote {recipe.output}, sha256 {digest}")


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        sys.exit(f"error: {error}")
