"""Random numbers of a step, independent of the number of processes: drawn for the whole batch, of which each process uses its rows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

# Stream whose seeds are in a range of their own.
THIRD = 3


class Draws:
    """Seeded source of random numbers, on the CPU.

    Args:
        seed: Determines all numbers.
        rank: Number of this process's part of the batch, from 0.
        world: Number of parts of the same size.
    """

    def __init__(self, seed: int, rank: int = 0, world: int = 1) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._rank, self._world = rank, world

    @classmethod
    def of(cls, batch: Mapping[str, Tensor], stream: int) -> Draws:
        """Return the source of a batch from `CropDataset`; one batch may have three streams, 1 to 3."""
        rank, world = batch["part"].tolist()
        index = int(batch["index"])
        return cls(index * 2 + stream if stream < THIRD else (1 << 60) + index, rank, world)

    def uniform(self, n_rows: int, *shape: int) -> Tensor:
        """Draw (n_rows, *shape), uniform from 0 to 1."""
        return self._rows(torch.rand(n_rows * self._world, *shape, generator=self._generator), n_rows)

    def normal(self, n_rows: int, *shape: int) -> Tensor:
        """Draw (n_rows, *shape), normal with mean 0 and standard deviation 1."""
        return self._rows(torch.randn(n_rows * self._world, *shape, generator=self._generator), n_rows)

    def _rows(self, drawn: Tensor, n_rows: int) -> Tensor:
        return drawn[self._rank * n_rows : (self._rank + 1) * n_rows]
