"""Recognition of units by a critic of text: what tells recognised phones from real text teaches the recogniser, also by REINFORCE."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcae.training.config import TextCriticConfig

# Smoothing of the share of each unit in a phone, in units.
PRIOR = 1.0


class UnitReader(nn.Module):
    """Classify units as phones.

    Shape:
        - units: (B, T), int64
        - output: (B, T, n_phones), logits
    """

    def __init__(self, n_units: int, n_phones: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_units, width)
        self.output = nn.Conv1d(width, n_phones, 3, padding=1)

    def forward(self, units: Tensor) -> Tensor:
        logits: Tensor = self.output(self.embedding(units).mT).mT
        return logits


class TextCritic(nn.Module):
    """Score phones as real text.

    Shape:
        - phones: (B, T, n_phones), probabilities
        - output: (B, T), logits; large where the neighbourhood looks like real text
    """

    def __init__(self, n_phones: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(n_phones, width, 5, padding=2),
            nn.GELU(),
            nn.Conv1d(width, width, 5, padding=2),
            nn.GELU(),
            nn.Conv1d(width, 1, 1),
        )

    def forward(self, phones: Tensor) -> Tensor:
        scores: Tensor = self.layers(phones.mT)[:, 0]
        return scores


class CriticTraining:
    """Training of a recogniser of units against a critic of text, without pairs of speech and text.

    Source: the losses of Baevski et al., Unsupervised speech recognition (2021); with `reinforce`, symbols are sampled and learned by
    Williams, Simple statistical gradient-following algorithms for connectionist reinforcement learning (1992), and the reward has two
    parts: the critic's score of the text, and how well the symbol predicts the unit, as an autoencoder needs.

    Args:
        sequences: Units of recordings.
        text: Phones of text, with the repetitions and gaps that units have (see `channel_text`).
        sizes: Number of units and of phones.
        config: Settings.
        seed: Seed of the weights and of the batches.
    """

    def __init__(
        self, sequences: Sequence[np.ndarray], text: np.ndarray, sizes: tuple[int, int], config: TextCriticConfig, seed: int
    ) -> None:
        torch.manual_seed(seed)
        self.config, self._rng = config, np.random.default_rng(seed)
        self._units, self._text = np.concatenate(list(sequences)), text
        self.n_units, self.n_phones = sizes
        self.reader, self.critic = UnitReader(*sizes, config.width), TextCritic(self.n_phones, config.width)
        self._reading = torch.optim.Adam(self.reader.parameters(), config.reader_rate, (0.5, 0.98))
        self._criticising = torch.optim.Adam(self.critic.parameters(), config.critic_rate, (0.5, 0.98), weight_decay=1e-4)
        # How often each phone was sampled for each unit.
        self._pairs = torch.ones(self.n_phones, self.n_units)

    def run(self, n_steps: int, reinforce: bool = False, on_step: Callable[[int, float], None] | None = None) -> None:
        """Train for steps; each one has a step of the critic and one of the recogniser."""
        for step in range(n_steps):
            units, real = self._crops(self._units), F.one_hot(self._crops(self._text), self.n_phones).float()
            logits = self.reader(units)
            made = self._sample(logits)[1] if reinforce else logits.softmax(dim=2)
            loss = self._criticise(real, made.detach())
            self._reading.zero_grad()
            lost = self._policy_loss(units, logits) if reinforce else self._adversarial_loss(logits, made)
            lost.backward()  # type: ignore[no-untyped-call]
            self._reading.step()
            if on_step is not None:
                on_step(step, loss)

    def _crops(self, stream: np.ndarray) -> Tensor:
        at = self._rng.integers(0, len(stream) - self.config.crop, self.config.batch_size)
        return torch.from_numpy(stream[at[:, None] + np.arange(self.config.crop)].astype(np.int64))

    def _sample(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return sampled phones (B, T), and the same one-hot."""
        phones = torch.distributions.Categorical(logits=logits.detach()).sample()  # type: ignore[no-untyped-call]
        return phones, F.one_hot(phones, self.n_phones).float()

    def _criticise(self, real: Tensor, made: Tensor) -> float:
        mixed_by = torch.rand(len(real), 1, 1)
        mixed = (mixed_by * real + (1 - mixed_by) * made).requires_grad_(True)
        slope = torch.autograd.grad(self.critic(mixed).mean(dim=1).sum(), mixed, create_graph=True)[0]
        penalty = (slope.flatten(1).norm(dim=1) * self.config.crop**0.5 - 1).square().mean()
        right, wrong = self.critic(real).mean(dim=1), self.critic(made).mean(dim=1)
        loss = F.softplus(-right).mean() + F.softplus(wrong).mean()
        self._criticising.zero_grad()
        (loss + self.config.gradient_penalty * penalty).backward()
        self._criticising.step()
        return float(loss.detach())

    def _adversarial_loss(self, logits: Tensor, made: Tensor) -> Tensor:
        use = made.mean(dim=(0, 1))
        diversity = (use * use.clamp(min=1e-8).log()).sum()
        smoothness = (logits[:, 1:] - logits[:, :-1]).square().mean()
        fooled = F.softplus(-self.critic(made).mean(dim=1)).mean()
        return fooled + self.config.diversity * diversity + self.config.smoothness * smoothness

    def _policy_loss(self, units: Tensor, logits: Tensor) -> Tensor:
        phones, one_hot = self._sample(logits)
        self._pairs *= 0.99
        self._pairs.index_put_((phones.flatten(), units.flatten()), torch.ones(units.numel()), accumulate=True)
        shares = (self._pairs + PRIOR) / (self._pairs + PRIOR).sum(dim=1, keepdim=True)
        with torch.no_grad():
            reward = self.critic(one_hot) + self.config.reconstruction * shares[phones, units].log()
            advantage = (reward - reward.mean()) / reward.std().clamp(min=1e-3)
        chosen = logits.log_softmax(dim=2).gather(2, phones[..., None])[..., 0]
        made = logits.softmax(dim=2)
        entropy = -(made * made.clamp(min=1e-8).log()).sum(dim=2).mean()
        loss: Tensor = -(advantage * chosen).mean() - self.config.entropy * entropy
        return loss

    def frozen(self) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function that gives the likeliest phone (T,) of each unit of a sequence (T,), by the recogniser as it is now."""
        reader = copy.deepcopy(self.reader)

        @torch.inference_mode()
        def read(units: np.ndarray) -> np.ndarray:
            phones: np.ndarray = reader(torch.from_numpy(units.astype(np.int64))[None])[0].argmax(dim=1).numpy()
            return phones

        return read


def channel_text(sequences: Sequence[np.ndarray], stay: float, skip: float, rng: np.random.Generator) -> np.ndarray:
    """Return text as one row in which some phones are missing, and some stand twice or more, as in units of speech.

    Args:
        sequences: Phones of text.
        stay: Share of symbols that repeat the one before.
        skip: Share of phones that are missing.
        rng: Source of randomness.
    """
    row = np.concatenate(list(sequences))
    # Silences at the borders of sequences would stand twice.
    row = row[np.concatenate([[True], (row[1:] != 0) | (row[:-1] != 0)])]
    row = row[(row == 0) | (rng.random(len(row)) >= skip)]
    repeated: np.ndarray = np.repeat(row, np.where(row == 0, 1, rng.geometric(1 - stay, len(row))))
    return repeated
