"""Probe the content code for the speaker: a linear classifier of frames, against chance and against the mel itself.

    python benchmarks/probe.py MANIFEST --split dev [--checkpoint default]

Half of each speaker's utterances train the classifier, the other half is what the shares are counted on. A code that holds only what is
said lets it do no better than chance; the mel shows what it could do.
"""

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import vcae
from vcae.audio.frames import active_frames
from vcae.audio.io import read_sound

CONTEXT = 3
STEPS = 400


@torch.inference_mode()
def features(model: vcae.Model, path: Path) -> dict[str, Tensor]:
    """Return code and mel (T, D) of a recording's active frames, each with its neighbours."""
    sound = read_sound(path)
    seen = model.analyse(sound.wav, sound.sample_rate, sound.name)
    stride = model.autoencoder.config.content.stride
    keep = active_frames(seen.mel)[0, 0, ::stride] > 0
    found = {}
    for name, x in (
        ("code", model.autoencoder.encode_content(seen.mel)),
        ("mel", model.autoencoder.normalize(seen.mel)[..., ::stride]),
    ):
        at = torch.arange(x.shape[-1])
        found[name] = torch.cat([x[0][:, (at + k).clamp(0, x.shape[-1] - 1)] for k in range(-CONTEXT, CONTEXT + 1)]).T[keep]
    return found


def probe(train: list[tuple[Tensor, int]], test: list[tuple[Tensor, int]], n: int) -> tuple[float, float]:
    """Return the accuracy of a linear speaker classifier on frames, and on utterances by the mean of their frames."""
    torch.manual_seed(0)
    x = torch.cat([f for f, _ in train]).clone()
    y = torch.cat([torch.full((len(f),), s) for f, s in train])
    weight = 1 / torch.bincount(y, minlength=n).clamp(min=1).float()
    mean, deviation = x.mean(0), x.std(0) + 1e-5
    linear = torch.nn.Linear(x.shape[1], n)
    optimizer = torch.optim.AdamW(linear.parameters(), 0.02, weight_decay=0.01)
    for _ in range(STEPS):
        batch = torch.randint(len(x), (2048,))
        optimizer.zero_grad()
        F.cross_entropy(linear((x[batch] - mean) / deviation), y[batch], weight).backward()
        optimizer.step()
    frames, utterances = defaultdict(list), defaultdict(list)
    with torch.no_grad():
        for f, s in test:
            logits = linear((f - mean) / deviation).log_softmax(-1)
            frames[s].append((logits.argmax(-1) == s).float().mean())
            utterances[s].append((logits.mean(0).argmax() == s).float())
    # Speakers have equal weight, whatever their numbers of recordings.
    shares = [torch.stack([torch.stack(v).mean() for v in by.values()]).mean() for by in (frames, utterances)]
    return float(shares[0]), float(shares[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--checkpoint", default="default")
    args = parser.parse_args()
    model = vcae.load(args.checkpoint, device="cpu")
    by_speaker = defaultdict(list)
    with args.manifest.open(newline="", encoding="utf-8") as opened:
        for row in csv.DictReader(opened):
            if row["split"] == args.split and float(row["duration_s"]) >= 1:
                by_speaker[row["speaker"]].append(features(model, args.manifest.parent / row["path"]))
    speakers = sorted(by_speaker)
    for name in ("code", "mel"):
        sets: list[list[tuple[Tensor, int]]] = [[], []]
        for s, speaker in enumerate(speakers):
            for n, found in enumerate(by_speaker[speaker]):
                sets[n % 2].append((found[name], s))
        frames, utterances = probe(sets[0], sets[1], len(speakers))
        print(
            f"{name}: {frames:.3f} of frames, {utterances:.3f} of utterances; chance {1 / len(speakers):.3f} ({len(speakers)} speakers)"
        )


if __name__ == "__main__":
    main()
