"""Ranks that are threads of this process: the same exchanges without a network."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from train.ranks import Ranks


@dataclass
class Board:
    """What the ranks of a group put down for each other."""

    barrier: threading.Barrier
    slots: dict[int, Any] = field(default_factory=dict)

    def exchange(self, rank: int, value: Any) -> list[Any]:
        """Everyone's values in rank order."""
        self.barrier.wait()
        self.slots[rank] = value.clone() if isinstance(value, Tensor) else value
        self.barrier.wait()
        return [self.slots[number] for number in range(self.barrier.parties)]


@dataclass(frozen=True)
class ThreadRanks(Ranks):
    """One thread among others."""

    board: Board = None

    def sum(self, values: Tensor) -> Tensor:
        return torch.stack(self.board.exchange(self.rank, values.detach())).sum(dim=0)

    def largest(self, number: int) -> int:
        return max(self.board.exchange(self.rank, number))

    def any(self, flags: Tensor) -> Tensor:
        return torch.stack(self.board.exchange(self.rank, flags)).any(dim=0)

    def gather(self, values: Tensor) -> Tensor:
        return torch.stack(self.board.exchange(self.rank, values.detach()))

    def sum_gradients(self, parameters) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        for own, total in zip(gradients, [self.sum(grad) for grad in gradients], strict=True):
            own.copy_(total)


def on_ranks(size: int, work: Callable[[Ranks], Any]) -> list[Any]:
    """What `work` returns on each of so many ranks."""
    board = Board(threading.Barrier(size, timeout=30))
    found: dict[int, Any] = {}
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            found[rank] = work(ThreadRanks(rank, size, board))
        except BaseException as error:
            errors.append(error)
            board.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise next(
            (e for e in errors if not isinstance(e, threading.BrokenBarrierError)), errors[0]
        )
    return [found[rank] for rank in range(size)]
