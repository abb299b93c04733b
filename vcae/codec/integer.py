"""The priors in integer arithmetic: the same results on every machine, with any number of threads.

An entropy decoder must compute bit for bit what the encoder computed. Here all weights, inputs and results are integers, stored as float64: as
long as sums stay below 2**53, they are exact in any order of summation, and fast matrix products can be used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from vcae.codec.prior import CEILING, ContextNetwork

# Fixed point: weights, activations and outputs in units of 2**-12, inputs in units of 2**-10.
WEIGHT_BITS = 12
NUMBER_BITS = 10
ONE = 1 << WEIGHT_BITS
# Weights are stored in 16 bits.
MAX_WEIGHT = (1 << 15) - 1
# exp(-x) for x in steps of 1 / 64 up to 16, in units of 2**-24.
EXP_STEPS = 64
EXP_RANGE = 16
EXP_BITS = 24


def exponentials() -> Tensor:
    """Return the table of exp(-x) that is stored in a codec's file, so that all machines use the same values: (1025,), int32."""
    x = np.arange(EXP_RANGE * EXP_STEPS + 1) / EXP_STEPS
    return torch.from_numpy(np.maximum(np.round(np.exp(-x) * (1 << EXP_BITS)), 1).astype(np.int32))


def to_integers(network: ContextNetwork) -> dict[str, Tensor]:
    """Return a network's weights as integers, int16, with biases of products as int32."""

    def rounded(value: Tensor, bits: int = WEIGHT_BITS) -> Tensor:
        return torch.round(value.detach().double().cpu() * (1 << bits))

    def small(value: Tensor) -> Tensor:
        return rounded(value).clamp(-MAX_WEIGHT, MAX_WEIGHT).to(torch.int16)

    tensors = {"table": small(network.table), "bias": small(network.bias)}
    if network.numbers is not None:
        tensors["numbers.weight"] = small(network.numbers.weight)
        tensors["bias"] = small(network.bias + network.numbers.bias)
    for name, layer in (("hidden", network.hidden), ("output", network.output)):
        tensors[f"{name}.weight"] = small(layer.weight)
        tensors[f"{name}.bias"] = rounded(layer.bias, 2 * WEIGHT_BITS).clamp(-(2**31) + 1, 2**31 - 1).to(torch.int32)
    return tensors


def shift_down(x: np.ndarray, bits: int) -> np.ndarray:
    """Divide integers by 2**bits and round to the nearest; halves are rounded up."""
    return np.floor((x + (1 << bits >> 1)) / (1 << bits))


class IntegerNetwork:
    """`ContextNetwork` in integer arithmetic.

    Args:
        tensors: From `to_integers`.
        table_sizes: Those of the network.

    Shape:
        - symbols: (N, len(table_sizes)); numbers: (N, n_numbers) in units of 2**-10; output: (N, n_outputs) in units of 2**-12
    """

    def __init__(self, tensors: Mapping[str, Tensor], table_sizes: tuple[int, ...]) -> None:
        wide = {name: value.numpy().astype(np.float64) for name, value in tensors.items()}
        self._offsets = np.concatenate([[0], np.cumsum(table_sizes)[:-1]]).astype(np.int64)
        self._table, self._bias = wide["table"], wide["bias"]
        numbers = wide.get("numbers.weight")
        self._numbers = None if numbers is None else np.ascontiguousarray(numbers.T)
        self._layers = [(np.ascontiguousarray(wide[f"{name}.weight"].T), wide[f"{name}.bias"]) for name in ("hidden", "output")]

    def known(self, symbols: np.ndarray) -> np.ndarray:
        """Return the contribution of symbols (N, K) to the first hidden layer, (N, width); it can be reused."""
        total: np.ndarray = self._table[symbols + self._offsets].sum(axis=1) + self._bias
        return total

    def after(self, known: np.ndarray, numbers: np.ndarray | None = None) -> np.ndarray:
        """Return the output (N, n_outputs) for a result of `known` and numbers (N, n_numbers)."""
        x = known
        if self._numbers is not None and numbers is not None:
            x = x + shift_down(numbers @ self._numbers, NUMBER_BITS)
        for weight, bias in self._layers:
            x = shift_down(np.clip(x, 0, CEILING * ONE) @ weight + bias, WEIGHT_BITS)
        return x

    def __call__(self, symbols: np.ndarray, numbers: np.ndarray | None = None) -> np.ndarray:
        return self.after(self.known(symbols), numbers)


class Softmax:
    """Softmax from integer logits, in units of 2**-12, to unnormalised integer probabilities.

    Args:
        table: From `exponentials`, as stored in the codec's file.
    """

    def __init__(self, table: Tensor) -> None:
        self._table = table.numpy().astype(np.float64)

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        under = (logits.max(axis=-1, keepdims=True) - logits) * (EXP_STEPS / ONE)
        weights: np.ndarray = self._table[np.minimum(np.floor(under), len(self._table) - 1).astype(np.int64)]
        return weights


class Logistic:
    """Tables of a discretised logistic distribution, by mean in eighths and scale in quarter octaves.

    Symbol 0 is `HALF` below the integer part of the mean; values outside the window are clipped to it.

    Args:
        table: From `logistic_tables`, as stored in the codec's file.
    """

    def __init__(self, table: Tensor) -> None:
        self._table = table.numpy().astype(np.float64)

    def rows(self, fraction: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Return probabilities (N, 2 * HALF) for fractions (N,), 0 to 7, and scales (N,), 0 to SCALES - 1."""
        picked: np.ndarray = self._table[scale, fraction]
        return picked


FRACTION_BITS = 3
FRACTIONS = 1 << FRACTION_BITS
HALF = 48
# Scales from 2**-5 to 2**5, four per octave.
SCALES_AN_OCTAVE = 4
LOWEST_OCTAVE = -5
SCALES = 10 * SCALES_AN_OCTAVE + 1
LOGISTIC_BITS = 22


def logistic_tables() -> Tensor:
    """Return the probabilities stored in a codec's file: (SCALES, FRACTIONS, 2 * HALF), int32, in units of 2**-22."""
    symbols = np.arange(2 * HALF) - HALF
    rows = np.empty((SCALES, FRACTIONS, 2 * HALF))
    for s in range(SCALES):
        scale = 2.0 ** (LOWEST_OCTAVE + s / SCALES_AN_OCTAVE)
        for f in range(FRACTIONS):
            mean = f / FRACTIONS
            edges = (np.append(symbols, HALF) - 0.5 - mean) / scale
            below = np.array([_sigmoid(x) for x in edges])
            above = np.array([_sigmoid(-x) for x in edges])
            mass = np.where(symbols < mean, below[1:] - below[:-1], above[:-1] - above[1:])
            mass[0], mass[-1] = below[1], above[-2]
            rows[s, f] = mass
    return torch.from_numpy(np.maximum(np.round(rows * (1 << LOGISTIC_BITS)), 1).astype(np.int32))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0
