"""Discrete codes for the content latent: one codebook, several residual ones, bits, or one-hot."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn

from vcae.errors import ConfigError
from vcae.model.config import QuantizerConfig

KMEANS_STEPS = 10
EPSILON = 1e-5


@dataclass(frozen=True)
class QuantizerOutput:
    """Result of quantising a latent.

    Attributes:
        quantized: (B, D, T), the decoder's input; its gradient passes to the latent (straight-through).
        codes: (B, S, T), integers from 0 to codebook_size - 1, one row per stage.
        commitment_loss: Scalar, without its weight; keeps the latent near its codes, or its codes in use.
        perplexity: (S,), exponential of the entropy of this batch's codes: the effective number of codes in use.
    """

    quantized: Tensor
    codes: Tensor
    commitment_loss: Tensor
    perplexity: Tensor


class Quantizer(nn.Module, ABC):
    """Base class of discrete codes for a latent. Time steps are coded independently, so a signal in sections gives the same codes.

    Shape:
        - latent: (B, D, T); mask: (B, 1, T), 1.0 on valid steps, or None; output: `QuantizerOutput`
    """

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def bits(self) -> float:
        """Bits per time step without entropy coding."""
        return self.config.n_stages * math.log2(self.config.codebook_size)

    @abstractmethod
    def encode(self, latent: Tensor) -> Tensor:
        """Return the codes (B, S, T) of a latent (B, D, T)."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Return the decoder's input (B, D, T) for codes (B, S, T) of all stages or of the first ones."""

    def check_codes(self, codes: Tensor) -> None:
        """Raise ConfigError for codes outside this quantizer's range."""
        stages, n = self.config.n_stages, self.config.codebook_size
        if codes.dim() != 3 or not 1 <= codes.shape[1] <= stages:
            raise ConfigError(f"codes have shape {tuple(codes.shape)}; (B, S, T) with 1 to {stages} stages is needed")
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < n:
            raise ConfigError(f"codes run from {int(codes.min())} to {int(codes.max())}; this model has 0 to {n - 1}")


def make_quantizer(config: QuantizerConfig, latent_dim: int) -> Quantizer:
    """Build the quantizer of a config.

    Raises:
        ConfigError: If the latent's width does not suit it.
    """
    if config.kind == "binary" and 2**latent_dim != config.codebook_size:
        raise ConfigError(
            f"a binary code of {latent_dim} channels has {2**latent_dim} codes, not {config.codebook_size}; set content.latent_dim "
            f"to log2 of quantizer.codebook_size"
        )
    if config.kind == "onehot" and latent_dim != config.codebook_size:
        raise ConfigError(
            f"quantizer.kind onehot needs content.latent_dim equal to quantizer.codebook_size; got {latent_dim} and {config.codebook_size}"
        )
    if config.kind == "vq":
        return ResidualQuantizer(config, latent_dim)
    return BinaryQuantizer(config) if config.kind == "binary" else OneHotQuantizer(config)


class Codebook(nn.Module):
    """One codebook, learned as the exponential moving average of the latents assigned to each code.

    In training, k-means on the first batch initialises it, and rarely used codes are replaced by random latents of the
    batch. Several processes share one codebook: their counts and sums are added.

    Shape:
        - latent: (N, D), float32; codes: (N,)

    Source: van den Oord et al., Neural discrete representation learning (2017), with the moving mean of its appendix; k-means start and
    restarts as in Zeghidour et al., SoundStream (2021).
    """

    vectors: Tensor
    counts: Tensor
    sums: Tensor
    started: Tensor

    def __init__(self, config: QuantizerConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("vectors", torch.randn(config.codebook_size, dim))
        # State of the moving average, needed only in training.
        self.register_buffer("counts", torch.ones(config.codebook_size))
        self.register_buffer("sums", self.vectors.clone())
        self.register_buffer("started", torch.zeros(()))

    def nearest(self, latent: Tensor) -> Tensor:
        """Return the nearest code of each latent; computed in blocks of bounded memory."""
        blocks = torch.split(latent, 1 << 15)
        return (
            torch.cat([torch.cdist(block, self.vectors).argmin(dim=1) for block in blocks])
            if len(latent)
            else latent.new_zeros(0).long()
        )

    @torch.no_grad()
    def start(self, latent: Tensor, steps: int = KMEANS_STEPS) -> None:
        """Initialise the codebook by k-means on a first batch."""
        vectors, counts = kmeans(latent, self.config.codebook_size, steps)
        self.vectors.copy_(vectors)
        self.counts.copy_(counts.clamp(min=self.config.dead_code_threshold))
        self.sums.copy_(vectors * self.counts[:, None])
        self.started.fill_(1.0)

    @torch.no_grad()
    def learn(self, latent: Tensor, codes: Tensor) -> None:
        """Move the codebook towards a batch, then restart rarely used codes."""
        counts, sums = _tally(latent, codes, self.config.codebook_size)
        _sum_over_processes(counts, sums)
        self.counts.lerp_(counts, 1 - self.config.ema_decay)
        self.sums.lerp_(sums, 1 - self.config.ema_decay)
        total = self.counts.sum()
        # Additive smoothing: a code without a count keeps finite values.
        smoothed = (self.counts + EPSILON) / (total + self.config.codebook_size * EPSILON) * total
        self.vectors.copy_(self.sums / smoothed[:, None])
        dead = self.counts < self.config.dead_code_threshold
        if bool(dead.any()) and len(latent):
            fresh = _draw(latent, self.config.codebook_size)
            self.vectors.copy_(torch.where(dead[:, None], fresh, self.vectors))
            self.counts.masked_fill_(dead, self.config.dead_code_threshold)
            self.sums.copy_(torch.where(dead[:, None], fresh * self.config.dead_code_threshold, self.sums))


def kmeans(points: Tensor, n: int, steps: int) -> tuple[Tensor, Tensor]:
    """Cluster points (N, D) around n means, starting from random points; several processes cluster their points together.

    Returns:
        The means (n, D), and the number of points assigned to each (n,).

    Source: Lloyd, Least squares quantization in PCM (1982).
    """
    means = _draw(points, n)
    counts = torch.ones(n, device=points.device)
    for _ in range(steps):
        codes = torch.cdist(points, means).argmin(dim=1)
        counts, sums = _tally(points, codes, n)
        _sum_over_processes(counts, sums)
        means = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], means)
    return means, counts


def _tally(latent: Tensor, codes: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    counts = torch.zeros(codebook_size, device=latent.device).index_add_(0, codes, torch.ones_like(codes, dtype=torch.float32))
    sums = torch.zeros(codebook_size, latent.shape[1], device=latent.device).index_add_(0, codes, latent)
    return counts, sums


def _draw(latent: Tensor, n: int) -> Tensor:
    """Draw n latents at random, without repetition if there are enough; every process gets those of the first one."""
    order = torch.randperm(len(latent), device=latent.device)
    drawn = latent[order.repeat(-(-n // max(len(latent), 1)))[:n]].clone()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.broadcast(drawn, 0)
    return drawn


def _sum_over_processes(*tensors: Tensor) -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        for tensor in tensors:
            torch.distributed.all_reduce(tensor)


def perplexity(codes: Tensor, codebook_size: int) -> Tensor:
    """Return the exponential of the entropy of codes (N,), the effective number of codes in use; 1 for no codes."""
    shares = torch.bincount(codes, minlength=codebook_size).float() / max(len(codes), 1)
    return torch.exp(-(shares * shares.clamp(min=1e-12).log()).sum())


class ResidualQuantizer(Quantizer):
    """Residual vector quantizer: each codebook codes the error of those before it. With one stage it is a plain vector quantizer.

    With stage dropout, a fraction of the training items uses only the stages up to a random one, so that the first stages decode alone.

    Source: residual vector quantisation with quantizer dropout, Zeghidour et al., SoundStream (2021).
    """

    def __init__(self, config: QuantizerConfig, dim: int) -> None:
        super().__init__(config)
        self.stages = nn.ModuleList(Codebook(config, dim) for _ in range(config.n_stages))

    def _books(self) -> list[Codebook]:
        return [book for book in self.stages if isinstance(book, Codebook)]

    def forward(self, latent: Tensor, mask: Tensor | None = None) -> QuantizerOutput:
        with torch.autocast(latent.device.type, enabled=False):
            return self._quantize(latent.float(), mask)

    def _quantize(self, latent: Tensor, mask: Tensor | None) -> QuantizerOutput:
        n_batch, dim, n = latent.shape
        flat = latent.transpose(1, 2).reshape(-1, dim)
        valid = torch.ones(len(flat), dtype=torch.bool, device=flat.device) if mask is None else mask.reshape(-1) > 0
        last = torch.full((n_batch,), self.config.n_stages, device=flat.device)
        if self.training and self.config.stage_dropout and self.config.n_stages > 1:
            drawn = torch.randint(1, self.config.n_stages + 1, (n_batch,)).to(flat.device)
            last = torch.where(torch.rand(n_batch).to(flat.device) < self.config.stage_dropout, drawn, last)
        last = last.repeat_interleave(n)
        residual, total = flat, torch.zeros_like(flat)
        codes, losses, used = [], [], []
        for stage, book in enumerate(self._books()):
            heard = valid & (stage < last)
            seen = residual.detach()
            if self.training and not bool(book.started):
                book.start(seen[heard])
            code = book.nearest(seen)
            vectors = F.embedding(code, book.vectors)
            if self.training:
                book.learn(seen[heard], code[heard])
            error = (residual - vectors).square().mean(dim=1)
            losses.append((error * heard).sum() / heard.sum().clamp(min=1))
            used.append(perplexity(code[valid], self.config.codebook_size))
            total = total + vectors * (stage < last)[:, None]
            residual = residual - vectors
            codes.append(code.view(n_batch, n))
        quantized = flat + (total - flat).detach()
        shaped = quantized.view(n_batch, n, dim).transpose(1, 2)
        return QuantizerOutput(
            shaped if mask is None else shaped * mask, torch.stack(codes, 1), torch.stack(losses).mean(), torch.stack(used)
        )

    @torch.no_grad()
    def fit(self, latent: Tensor, steps: int) -> None:
        """Set all codebooks by k-means on latents (N, D): the first on them, each other one on what those before it leave."""
        residual = latent
        for book in self._books():
            book.start(residual, steps)
            residual = residual - F.embedding(book.nearest(residual), book.vectors)

    @torch.no_grad()
    def encode(self, latent: Tensor) -> Tensor:
        """Return the codes (B, S, T) of a latent (B, D, T)."""
        residual = latent.float().transpose(1, 2).reshape(-1, latent.shape[1])
        codes = []
        for book in self._books():
            code = book.nearest(residual)
            residual = residual - F.embedding(code, book.vectors)
            codes.append(code.view(len(latent), -1))
        return torch.stack(codes, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the sum (B, D, T) of the stages' vectors for codes (B, S, T); fewer stages than the quantizer has are allowed."""
        self.check_codes(codes)
        books = self._books()[: codes.shape[1]]
        parts = [F.embedding(codes[:, s], book.vectors) for s, book in enumerate(books)]
        return torch.stack(parts).sum(0).transpose(1, 2)


class BinaryQuantizer(Quantizer):
    """Binary quantizer: each channel becomes a bit, -1 or 1; the code is the number with these bits, the first channel highest.

    Its commitment loss pulls each channel to -1 or 1; the entropy of the bits over the batch, subtracted, keeps both values in use.

    Source: lookup-free quantisation, Yu et al., Language model beats diffusion: tokenizer is key to visual generation (2023), here with the
    entropy of each bit instead of that of all codes.
    """

    powers: Tensor

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__(config)
        self.n_bits = int(math.log2(config.codebook_size))
        self.register_buffer("powers", 2 ** torch.arange(self.n_bits - 1, -1, -1), persistent=False)

    def forward(self, latent: Tensor, mask: Tensor | None = None) -> QuantizerOutput:
        latent = latent.float()
        valid = torch.ones_like(latent[:, :1]) if mask is None else mask
        bits = torch.where(latent > 0, 1.0, -1.0)
        total = valid.sum().clamp(min=1)
        commitment = ((latent - bits).square().mean(dim=1, keepdim=True) * valid).sum() / total
        share = (torch.sigmoid(4 * latent) * valid).sum(dim=(0, 2)) / total
        entropy = -(share * share.clamp(min=1e-6).log() + (1 - share) * (1 - share).clamp(min=1e-6).log()).mean()
        codes = self.encode(latent)
        used = perplexity(codes[:, 0][valid[:, 0] > 0], self.config.codebook_size)
        quantized = latent + (bits - latent).detach()
        return QuantizerOutput(quantized * valid, codes, commitment - entropy + math.log(2), used[None])

    def encode(self, latent: Tensor) -> Tensor:
        """Return the codes (B, 1, T) of a latent (B, log2 codebook_size, T)."""
        return ((latent > 0).long() * self.powers[:, None]).sum(dim=1, keepdim=True)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the bits (B, log2 codebook_size, T), -1 or 1, of codes (B, 1, T)."""
        self.check_codes(codes)
        return torch.where((codes & self.powers[:, None]) > 0, 1.0, -1.0)


class OneHotQuantizer(Quantizer):
    """One-hot quantizer: the latent's channels are logits; the largest one becomes 1, all others 0.

    In training a channel is sampled with Gumbel noise and a softmax whose temperature falls from `temperature` to `final_temperature`
    over `temperature_steps` batches; the gradient is that softmax's. Its commitment loss is the divergence of the codes' mean
    probabilities from uniform, in nats.

    Source: Jang et al., Categorical reparameterization with Gumbel-softmax (2017); the even use of codes as in Baevski et al., wav2vec 2.0 (2020).
    """

    steps: Tensor

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__(config)
        self.register_buffer("steps", torch.zeros(()))

    @property
    def temperature(self) -> float:
        """Present temperature, which falls geometrically."""
        c = self.config
        share = min(1.0, float(self.steps) / c.temperature_steps)
        return float(c.temperature * (c.final_temperature / c.temperature) ** share)

    def forward(self, latent: Tensor, mask: Tensor | None = None) -> QuantizerOutput:
        latent = latent.float()
        valid = torch.ones_like(latent[:, :1]) if mask is None else mask
        if self.training:
            hard = F.gumbel_softmax(latent, self.temperature, hard=True, dim=1)
            self.steps += 1
        else:
            soft = torch.softmax(latent, dim=1)
            hard = self.decode(self.encode(latent)) + soft - soft.detach()
        mean = (torch.softmax(latent, dim=1) * valid).sum(dim=(0, 2)) / valid.sum().clamp(min=1)
        uneven = math.log(self.config.codebook_size) + (mean * mean.clamp(min=1e-12).log()).sum()
        codes = hard.argmax(dim=1, keepdim=True)
        used = perplexity(codes[:, 0][valid[:, 0] > 0], self.config.codebook_size)
        return QuantizerOutput(hard * valid, codes, uneven, used[None])

    def encode(self, latent: Tensor) -> Tensor:
        """Return the codes (B, 1, T) of a latent (B, codebook_size, T)."""
        return latent.argmax(dim=1, keepdim=True)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the one-hot code (B, codebook_size, T) of codes (B, 1, T)."""
        self.check_codes(codes)
        return F.one_hot(codes[:, 0], self.config.codebook_size).float().transpose(1, 2)
