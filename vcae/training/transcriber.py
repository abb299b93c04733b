"""Training of the transcriber on cached latents of transcribed speech."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vcae.checkpoint import read_tensors, write_tensors
from vcae.errors import CheckpointError
from vcae.model.transcriber import LETTERS, PHONES, Transcriber
from vcae.model_file import read_header
from vcae.training.config import TranscriberRecipe
from vcae.training.resume import git_commit, load_state, save_state

# Name of the transcripts in a file's metadata.
FACTS = "readings"
# Largest gradient norm.
CLIP_NORM = 1.0
# Share of the latent's channels that are hidden at random.
HIDDEN_CHANNELS = 0.1
# Standard deviation of the random gain and offset of each channel over a recording, which stand for other voices and microphones.
CHANNEL_GAIN, CHANNEL_OFFSET = 0.2, 0.3
# Longest time that is hidden at once, in steps, and the number of such times in each 100 steps.
HIDDEN_STEPS, HIDDEN_TIMES = 6, 3


@dataclass(frozen=True)
class Reading:
    """A transcribed recording.

    Attributes:
        speaker: Corpus and speaker.
        text: The transcript.
        latent: (T, latent_dim), float16.
    """

    speaker: str
    text: str
    latent: Tensor


def write_readings(path: str | Path, readings: Sequence[Reading]) -> None:
    """Write the latents and transcripts of recordings as one file.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    facts = json.dumps([[r.speaker, r.text] for r in readings], ensure_ascii=False)
    lengths = torch.tensor([len(r.latent) for r in readings])
    write_tensors(path, {"latent": torch.cat([r.latent for r in readings]).half(), "lengths": lengths}, {FACTS: facts})


def read_readings(path: str | Path) -> list[Reading]:
    """Read a file of `write_readings`.

    Raises:
        CheckpointError: If it is missing, damaged, or another file.
    """
    facts, (tensors, _) = read_header(Path(path)).get(FACTS), read_tensors(Path(path))
    if facts is None:
        raise CheckpointError(f"{path} holds no transcribed latents; write them with recipes/transcribe/prepare.py")
    latents = torch.split(tensors["latent"], tensors["lengths"].tolist())
    return [Reading(speaker, text, latent) for (speaker, text), latent in zip(json.loads(facts), latents, strict=True)]


@dataclass(frozen=True)
class Item:
    """A recording ready for training: its latent (T, latent_dim), the numbers of its phones and letters, and its corpus."""

    latent: Tensor
    phones: Tensor
    letters: Tensor
    corpus: str = ""


def make_items(readings: Sequence[Reading], words: Callable[[str], list[str]], said: Mapping[str, Sequence[str]]) -> list[Item]:
    """Return the recordings whose words all have a pronunciation, and which are long enough for their phones.

    Args:
        readings: The recordings.
        words: Splits a transcript into the dictionary's words.
        said: Phones of each word.
    """
    phone, letter = ({symbol: 1 + n for n, symbol in enumerate(symbols)} for symbols in (PHONES, LETTERS))
    items = []
    for reading in readings:
        spoken = words(reading.text)
        if not spoken or any(word not in said for word in spoken):
            continue
        phones = torch.tensor([phone[p] for word in spoken for p in said[word]])
        letters = torch.tensor([letter[c] for c in " ".join(spoken)])
        # Equal neighbours need a blank between them.
        if max(len(x) + int((x[1:] == x[:-1]).sum()) for x in (phones, letters)) <= len(reading.latent):
            items.append(Item(reading.latent, phones, letters, reading.speaker.partition("/")[0]))
    return items


def batches(items: Sequence[Item], n_steps: int, rng: np.random.Generator) -> Iterator[list[Item]]:
    """Yield every recording once, in batches of similar lengths of about `n_steps` steps each, in random order."""
    lengths = np.array([len(item.latent) for item in items])
    order = np.argsort(lengths * rng.uniform(0.9, 1.1, len(items)))
    groups, group = list[list[int]](), list[int]()
    for n in map(int, order):
        if group and (len(group) + 1) * max(lengths[n], lengths[group].max()) > n_steps:
            groups.append(group)
            group = []
        group.append(n)
    groups.append(group)
    for at in rng.permutation(len(groups)):
        yield [items[n] for n in groups[at]]


def vary(latent: Tensor, recipe: TranscriberRecipe, rng: np.random.Generator) -> Tensor:
    """Return a latent (T, latent_dim) at another speed, with noise, changed channels, and with times and channels hidden."""
    n = len(latent)
    speed = rng.uniform(1 / recipe.speed, recipe.speed)
    x = F.interpolate(latent.float().T[None], size=max(round(n * speed), 1), mode="linear")[0].T.clone()
    x += float(rng.uniform(0, recipe.noise)) * torch.from_numpy(rng.standard_normal(tuple(x.shape), np.float32))
    gain, offset = (torch.from_numpy(rng.standard_normal(x.shape[1], np.float32)) for _ in range(2))
    x = x * (1 + CHANNEL_GAIN * gain) + CHANNEL_OFFSET * offset
    x[:, torch.from_numpy(rng.random(x.shape[1]) < HIDDEN_CHANNELS)] = 0
    for _ in range(rng.integers(0, 2 + HIDDEN_TIMES * len(x) // 100)):
        at = int(rng.integers(len(x)))
        x[at : at + int(rng.integers(1, HIDDEN_STEPS + 1))] = 0
    return x


def loss_of(network: Transcriber, items: Sequence[Item], latents: Sequence[Tensor], letters_weight: float) -> Tensor:
    """Return the CTC loss per symbol: that of the phones, and that of the letters by its weight."""
    lengths = torch.tensor([len(x) for x in latents])
    padded = torch.nn.utils.rnn.pad_sequence(list(latents), batch_first=True).transpose(1, 2)
    mask = (torch.arange(padded.shape[-1]) < lengths[:, None]).float()[:, None]
    with torch.autocast("cpu", torch.bfloat16, enabled=network.training):
        made = network(padded, mask)
    losses = []
    for output, targets in zip(made, ([i.phones for i in items], [i.letters for i in items]), strict=True):
        sizes = torch.tensor([len(t) for t in targets])
        each = F.ctc_loss(output.permute(2, 0, 1), torch.cat(targets), lengths, sizes, reduction="none", zero_infinity=True)
        losses.append(each.sum() / sizes.sum())
    return losses[0] + letters_weight * losses[1]


def learning_rate(recipe: TranscriberRecipe, done: float) -> float:
    """Return the learning rate when a share of the training is done: linear warm-up, then half a cosine."""
    warm = min(1.0, done / recipe.warmup)
    return recipe.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


class TranscriberTraining:
    """Training that can stop after any epoch and go on.

    Args:
        recipe: The settings.
        items: From `make_items`.
    """

    def __init__(self, recipe: TranscriberRecipe, items: Sequence[Item]) -> None:
        self.recipe, self.items, self.epoch = recipe, items, 0
        torch.manual_seed(recipe.seed)
        self.network, self.commit = Transcriber(recipe.model), git_commit()
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), recipe.learning_rate, (0.9, 0.98), weight_decay=recipe.weight_decay
        )
        self._state = Path(recipe.output_dir) / "state.safetensors"
        if self._state.exists():
            self.epoch = int(load_state(self._state, self.network, self.optimizer, self.average)["step"])

    def averaged(self) -> Transcriber:
        """Return a network with the moving average of the weights."""
        network = Transcriber(self.recipe.model)
        network.load_state_dict(self.average)
        return network.eval().requires_grad_(False)

    def run_epoch(self) -> float:
        """Train on every recording once, or on a corpus's share of them, and save the state; return the mean loss."""
        recipe, rng = self.recipe, np.random.default_rng([self.recipe.seed, self.epoch])
        used = [item for item in self.items if rng.random() < recipe.corpus_shares.get(item.corpus, 1.0)]
        groups = list(batches(used, recipe.batch_steps, rng))
        total = 0.0
        self.network.train()
        for n, group in enumerate(groups):
            for options in self.optimizer.param_groups:
                options["lr"] = learning_rate(recipe, (self.epoch + n / len(groups)) / recipe.n_epochs)
            loss = loss_of(self.network, group, [vary(item.latent, recipe, rng) for item in group], recipe.letters_weight)
            self.optimizer.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), CLIP_NORM)
            self.optimizer.step()
            self._follow(self.epoch * len(groups) + n)
            total += float(loss.detach())
        self.epoch += 1
        self._state.parent.mkdir(parents=True, exist_ok=True)
        save_state(self._state, self.network, self.optimizer, self.epoch, {"git_commit": self.commit}, self.average)
        return total / len(groups)

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        """Update the moving average; it moves faster in the first steps, to forget the initial weights."""
        share = 1 - min(self.recipe.average_decay, (step + 1) / (step + 10))
        for name, value in self.network.state_dict().items():
            self.average[name].lerp_(value, share)
