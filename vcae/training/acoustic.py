"""Training of the acoustic model on aligned speech."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vcae.checkpoint import read_tensors, write_tensors
from vcae.config import at_least, positive, within
from vcae.errors import CheckpointError
from vcae.model.acoustic import MAX_DURATION_S, MIN_DURATION_S, AcousticConfig, AcousticModel, Symbols
from vcae.model.prosody import MAX_RELATIVE
from vcae.model_file import read_header
from vcae.training.resume import git_commit, load_state, save_state

# Name of the transcripts in a file's metadata.
FACTS = "spoken"
# Largest gradient norm.
CLIP_NORM = 1.0


@dataclass(frozen=True)
class AcousticRecipe:
    """Settings of `recipes/say/train.py`.

    Attributes:
        model: Sizes of the network.
        spoken: Folder of aligned speech, written by prepare.py.
        hold_out_every: Hold out every n-th recording of each reader.
        n_epochs: Passes over all recordings.
        batch_steps: Steps of the latent in a batch, with padding.
        learning_rate, weight_decay, warmup: Of AdamW; the share of the training in which the rate grows.
        average_decay: Of the weights' moving average.
        seed: Of everything random.
        output_dir: Folder of the results.
    """

    model: AcousticConfig = field(default_factory=AcousticConfig)
    spoken: str = "cache/spoken"
    hold_out_every: int = 40
    n_epochs: int = 16
    batch_steps: int = 3000
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.05
    average_decay: float = 0.998
    seed: int = 0
    output_dir: str = "runs/say"

    def __post_init__(self) -> None:
        positive(self, "n_epochs", "batch_steps", "learning_rate", "warmup")
        at_least(self, 2, "hold_out_every")
        within(self, 0, 1, "average_decay")


@dataclass(frozen=True)
class Spoken:
    """An aligned recording.

    Attributes:
        speaker: Corpus and speaker.
        text: The transcript.
        symbol, stress, place: (P,) int64, as in `vcae.model.acoustic.Symbols`.
        durations: (P,) in seconds.
        f0: (T,) in Hz, 0 where unvoiced.
        latent: (ceil(T / 2), latent_dim), float16.
    """

    speaker: str
    text: str
    symbol: Tensor
    stress: Tensor
    place: Tensor
    durations: Tensor
    f0: Tensor
    latent: Tensor


def write_spoken(path: str | Path, found: Sequence[Spoken]) -> None:
    """Write aligned recordings as one file.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    facts = json.dumps([[s.speaker, s.text] for s in found], ensure_ascii=False)
    tensors = {name: torch.cat([getattr(s, name) for s in found]) for name in ("symbol", "stress", "place", "durations", "f0")}
    tensors["latent"] = torch.cat([s.latent for s in found]).half()
    tensors["sizes"] = torch.tensor([[len(s.symbol), len(s.f0), len(s.latent)] for s in found])
    write_tensors(path, tensors, {FACTS: facts})


def read_spoken(folder: str | Path) -> list[Spoken]:
    """Read the files of `write_spoken` in a folder.

    Raises:
        CheckpointError: If there is none, or one is damaged or another file.
    """
    found: list[Spoken] = []
    for path in sorted(Path(folder).glob("*.safetensors")):
        facts, (tensors, _) = read_header(path).get(FACTS), read_tensors(path)
        if facts is None:
            raise CheckpointError(f"{path} holds no aligned speech; write it with recipes/say/prepare.py")
        sizes = tensors["sizes"].T.tolist()
        of_symbols = (torch.split(tensors[name], sizes[0]) for name in ("symbol", "stress", "place", "durations"))
        parts = zip(
            json.loads(facts),
            *of_symbols,
            torch.split(tensors["f0"], sizes[1]),
            torch.split(tensors["latent"], sizes[2]),
            strict=True,
        )
        found += [Spoken(speaker, text, *rest) for (speaker, text), *rest in parts]
    if not found:
        raise CheckpointError(f"{folder} holds no aligned speech; write it with recipes/say/prepare.py")
    return found


@dataclass(frozen=True)
class Batch:
    """Recordings of a batch, padded.

    Attributes:
        symbols, speaker: Inputs of the model.
        symbol_mask: (B, 1, P); step_mask: (B, 1, T).
        durations: (B, P) in seconds.
        latent: (B, latent_dim, T).
        voiced, relative: (B, 2 T): 1 where voiced; natural log of F0 over the recording's mean, 0 where unvoiced.
    """

    symbols: Symbols
    speaker: Tensor
    symbol_mask: Tensor
    step_mask: Tensor
    durations: Tensor
    latent: Tensor
    voiced: Tensor
    relative: Tensor


def make_batch(found: Sequence[Spoken], speakers: Sequence[str]) -> Batch:
    """Pad recordings to a batch."""

    def padded(values: list[Tensor]) -> Tensor:
        result: Tensor = pad_sequence(values, batch_first=True)
        return result

    symbols = Symbols(*(padded([getattr(s, name) for s in found]) for name in ("symbol", "stress", "place")))
    n_symbols, n_steps = (torch.tensor([len(x) for x in xs]) for xs in ([s.symbol for s in found], [s.latent for s in found]))
    latent = padded([s.latent.float() for s in found]).transpose(1, 2)
    frames = 2 * latent.shape[-1]
    voiced, relative = torch.zeros(2, len(found), frames).unbind(0)
    for n, spoken in enumerate(found):
        heard = spoken.f0 > 0
        voiced[n, : len(heard)] = heard.float()
        if bool(heard.any()):
            log_f0 = spoken.f0[heard].log()
            relative[n, : len(heard)][heard] = (log_f0 - log_f0.mean()).clamp(-MAX_RELATIVE, MAX_RELATIVE)
    symbol_mask, step_mask = ((torch.arange(int(n.max())) < n[:, None]).float()[:, None] for n in (n_symbols, n_steps))
    speaker = torch.tensor([speakers.index(s.speaker) for s in found])
    durations = padded([s.durations for s in found])
    return Batch(symbols, speaker, symbol_mask, step_mask, durations, latent, voiced, relative)


def batches(found: Sequence[Spoken], n_steps: int, rng: np.random.Generator) -> Iterator[list[Spoken]]:
    """Yield every recording once, in batches of similar lengths of about `n_steps` steps each, in random order."""
    lengths = np.array([len(s.latent) for s in found])
    groups, group, longest = list[list[int]](), list[int](), 0
    for n in map(int, np.argsort(lengths * rng.uniform(0.9, 1.1, len(found)))):
        longest = max(longest, int(lengths[n]))
        if group and (len(group) + 1) * longest > n_steps:
            groups.append(group)
            group, longest = [], int(lengths[n])
        group.append(n)
    groups.append(group)
    for at in rng.permutation(len(groups)):
        yield [found[n] for n in groups[at]]


def losses_of(network: AcousticModel, batch: Batch) -> dict[str, Tensor]:
    """Return the losses: mean absolute error of the latent, of log durations, of voicing (cross-entropy) and of relative log-F0."""
    encoded = network.encode(batch.symbols, batch.speaker, batch.symbol_mask)
    durations = batch.durations.clamp(MIN_DURATION_S, MAX_DURATION_S).log()
    # The pauses at both ends are as long as the recording happens to be.
    inner = batch.symbol_mask[:, 0].clone()
    inner[:, 0] = 0
    inner[torch.arange(len(inner)), batch.symbol_mask[:, 0].sum(1).long() - 1] = 0
    n_steps = batch.latent.shape[-1]
    latent, voicing, relative = network(encoded, batch.durations, batch.speaker, n_steps, batch.step_mask)
    frames = batch.step_mask[:, 0].repeat_interleave(2, dim=1)
    heard = batch.voiced * frames

    def mean(error: Tensor, weight: Tensor) -> Tensor:
        return (error.float() * weight).sum() / weight.sum().clamp(min=1)

    return {
        "latent": mean((latent - batch.latent).abs().mean(dim=1), batch.step_mask[:, 0]),
        "durations": mean((network.log_durations(encoded) - durations).abs(), inner),
        "voicing": mean(F.binary_cross_entropy_with_logits(voicing.float(), batch.voiced, reduction="none"), frames),
        "f0": mean((relative - batch.relative).abs(), heard),
    }


class AcousticTraining:
    """Training that can stop after any epoch and go on.

    Args:
        recipe: The settings; the model's speakers are those of the recordings.
        found: Recordings to train on.
    """

    def __init__(self, recipe: AcousticRecipe, found: Sequence[Spoken]) -> None:
        speakers = tuple(sorted({s.speaker for s in found}))
        self.recipe, self.found, self.epoch = recipe, found, 0
        self.sizes = replace(recipe.model, speakers=speakers)
        torch.manual_seed(recipe.seed)
        self.network, self.commit = AcousticModel(self.sizes), git_commit()
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), recipe.learning_rate, (0.9, 0.98), weight_decay=recipe.weight_decay
        )
        self._state = Path(recipe.output_dir) / "state.safetensors"
        if self._state.exists():
            self.epoch = int(load_state(self._state, self.network, self.optimizer, self.average)["step"])

    def averaged(self) -> AcousticModel:
        """Return a network with the moving average of the weights."""
        network = AcousticModel(self.sizes)
        network.load_state_dict(self.average)
        return network.eval().requires_grad_(False)

    def run_epoch(self) -> dict[str, float]:
        """Train on every recording once and save the state; return the mean losses."""
        recipe, rng = self.recipe, np.random.default_rng([self.recipe.seed, self.epoch])
        groups = list(batches(self.found, recipe.batch_steps, rng))
        total: dict[str, float] = {}
        self.network.train()
        for n, group in enumerate(groups):
            done = (self.epoch + n / len(groups)) / recipe.n_epochs
            for options in self.optimizer.param_groups:
                options["lr"] = (
                    recipe.learning_rate * min(1.0, done / recipe.warmup) * (0.505 + 0.495 * math.cos(math.pi * done))
                )
            batch = make_batch(group, self.sizes.speakers)
            with torch.autocast("cpu", torch.bfloat16):
                found = losses_of(self.network, batch)
            self.optimizer.zero_grad()
            torch.autograd.backward(torch.stack(list(found.values())).sum())
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), CLIP_NORM)
            self.optimizer.step()
            self._follow(self.epoch * len(groups) + n)
            for name, value in found.items():
                total[name] = total.get(name, 0.0) + float(value.detach()) / len(groups)
        self.epoch += 1
        self._state.parent.mkdir(parents=True, exist_ok=True)
        save_state(self._state, self.network, self.optimizer, self.epoch, {"git_commit": self.commit}, self.average)
        return total

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        share = 1 - min(self.recipe.average_decay, (step + 1) / (step + 10))
        for name, value in self.network.state_dict().items():
            self.average[name].lerp_(value, share)
