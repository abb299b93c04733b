"""The CPU and a GPU side by side: `python benchmarks/cuda.py [--seconds 10] [--runs 5] [--devices cpu cuda]`.

Three kinds of work, with the checkpoint `default`: a conversion, 32 crops of 2 s through the autoencoder at once, and a training step on 16 of
them. For each device the best time of `--runs`, after one to warm up; for each device but the first the largest relative difference of the
results from those of the first. Arithmetic in TF32 is off, so that differences are those of float32.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from vcae.environment import prepare

prepare()

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from vcae.audio.io import Sound, read_sound  # noqa: E402
from vcae.audio.mel import LogMel  # noqa: E402
from vcae.tasks.convert import convert  # noqa: E402
from vcae.tasks.model import Model, load  # noqa: E402
from vcae.voice.voice import voice_from_sounds  # noqa: E402

SOURCE, REFERENCE = "demo/clips/source.flac", "demo/clips/reference.flac"
BATCH, CROP_S, TRAINED = 32, 2.0, 16


def crops(model: Model, wav: np.ndarray, n: int = BATCH) -> tuple[Tensor, Tensor]:
    """Return the log-mels (n, n_mels, T) of crops of a recording on the model's device, and F0 (n, T) of a constant 150 Hz."""
    size = round(CROP_S * model.sample_rate)
    starts = np.linspace(0, max(len(wav) - size, 0), n).astype(int)
    wavs = torch.from_numpy(np.stack([np.resize(wav[start:], size) for start in starts])).float().to(model.device)
    mel = LogMel(model.mel_config).to(model.device)(wavs)
    return mel, torch.full((n, mel.shape[-1]), 150.0, device=model.device)


def converted(model: Model, source: Sound, reference: Sound) -> Callable[[], dict[str, Tensor]]:
    """Return the work of a conversion."""
    voice = voice_from_sounds(model, [reference])

    def work() -> dict[str, Tensor]:
        made = convert(model, source, voice)
        return {"mel": made.mel, "f0": made.f0}

    return work


def in_a_batch(model: Model, wav: np.ndarray) -> Callable[[], dict[str, Tensor]]:
    """Return the work of converting all crops at once, each to the voice of the one before it."""
    mel, f0 = crops(model, wav)
    network = model.autoencoder

    @torch.inference_mode()
    def work() -> dict[str, Tensor]:
        latent, speaker = network.encode_content(mel), network.encode_speaker(mel)
        mel_again = network.decode(latent, f0, speaker.roll(1, 0), reference=network.encode_reference(mel))
        return {"latent": latent, "speaker": speaker, "mel": mel_again}

    return work


def in_training(model: Model, wav: np.ndarray) -> Callable[[], dict[str, Tensor]]:
    """Return the work of a training step on the difference of mels, from the same weights each time."""
    mel, f0 = crops(model, wav, TRAINED)
    network = model.autoencoder
    trained = [p.requires_grad_() for p in network.parameters()]
    # A step of 0 leaves the weights as they are and costs what another does.
    optimizer = torch.optim.AdamW(trained, lr=0.0, weight_decay=0.0)

    @torch.enable_grad()
    def work() -> dict[str, Tensor]:
        speaker, reference = network.encode_speaker(mel), network.encode_reference(mel)
        loss = (network.decode(network.encode_content(mel), f0, speaker, reference=reference) - mel).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        gradients = [p.grad.norm() for p in trained if p.grad is not None]
        optimizer.step()
        return {"loss": loss.detach(), "gradients": torch.stack(gradients)}

    return work


def measure(device: str, seconds: float, runs: int) -> dict[str, tuple[float, dict[str, Tensor]]]:
    """Return the best time in s and the results, on the CPU, of each kind of work on a device."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    sound, reference = read_sound(SOURCE), read_sound(REFERENCE)
    source = Sound(np.resize(sound.wav, round(seconds * sound.sample_rate)), sound.sample_rate)
    found = {}
    for name, make in {
        f"conversion of {seconds:g} s": lambda model: converted(model, source, reference),
        f"batch of {BATCH} crops": lambda model: in_a_batch(model, sound.wav),
        f"training step on {TRAINED} crops": lambda model: in_training(model, sound.wav),
    }.items():
        work = make(load(device=device))
        work()
        times = []
        for _ in range(runs):
            start = time.perf_counter()
            result = work()
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        found[name] = (min(times), {key: value.detach().float().cpu() for key, value in result.items()})
    return found


def difference(result: dict[str, Tensor], like: dict[str, Tensor]) -> float:
    """Return the largest difference of two results, relative to the largest value of each part."""
    return max(float((result[key] - value).abs().max() / value.abs().max()) for key, value in like.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--devices", nargs="+", default=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
    args = parser.parse_args()
    found = {device: measure(device, args.seconds, args.runs) for device in args.devices}
    first = args.devices[0]
    for name in found[first]:
        for device in args.devices:
            seconds, result = found[device][name]
            of = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
            other = "" if device == first else f", differs by {difference(result, found[first][name][1]):.1e}"
            print(f"{name}: {device} ({of}) {1000 * seconds:.1f} ms{other}")
    if "cuda" not in args.devices:
        print("there is no CUDA device here; figures are of the CPU")


if __name__ == "__main__":
    main()
