"""Several processes that train one dictionary: each takes its slice of every global batch.

`torchrun --nproc-per-node 2 -m train run ...` starts them; gloo connects CPUs, NCCL GPUs. Every
process (rank) holds the whole dictionary and does the same step on it, so what a step depends on
must be of the global batch and equal, bit by bit, on all ranks: sums are taken by collectives that
give every rank the same, or from gathered values in rank order. A single process is `ALONE`, for
which nothing is sent, nor computed otherwise than without ranks. R ranks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from jaxtyping import Bool
from torch import Tensor

from pipeline.errors import ConfigError
from train.slurm import TORCHRUN

BUCKET_BYTES = 32 * 2**20  # gradients that are sent together
PATIENCE = timedelta(hours=2)  # others wait while rank 0 validates and writes


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the one that writes, validates and speaks."""
        return self.rank == 0

    def rows_of(self, batch_rows: int) -> int:
        """Rows of a global batch that each rank takes. Raises ConfigError if they are not equal."""
        if batch_rows % self.size:
            raise ConfigError(
                f"train.batch_rows: {batch_rows} rows cannot be shared equally by {self.size} "
                f"processes; make it a multiple of {self.size}"
            )
        return batch_rows // self.size

    def sum(self, values: Tensor) -> Tensor:
        """The sum over ranks, as a new tensor."""
        total = values.detach().clone(memory_format=torch.contiguous_format)
        if self.size > 1:
            dist.all_reduce(total)
        return total

    def largest(self, number: int) -> int:
        """The largest of the ranks' numbers, over the CPUs: no device is waited for."""
        if self.size == 1:
            return number
        found = torch.tensor(number)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def any(self, flags: Bool[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
        """Where the flag is set on any rank."""
        if self.size == 1:
            return flags
        found = flags.to(torch.uint8)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return found > 0

    def gather(self, values: Tensor) -> Tensor:
        """The tensors of all ranks, of one shape, stacked in rank order."""
        values = values.detach().contiguous()
        if self.size == 1:
            return values[None]
        found = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(found, values)
        return torch.stack(found)

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replaces every gradient by the sum over ranks, in place.

        Which parameters have one depends on the configuration alone, so it is the same on all.
        """
        if self.size == 1:
            return
        for bucket in _buckets([p.grad for p in parameters if p.grad is not None]):
            flat = torch.cat([grad.reshape(-1) for grad in bucket])
            dist.all_reduce(flat)
            parts = flat.split([grad.numel() for grad in bucket])
            for grad, part in zip(bucket, parts, strict=True):
                grad.copy_(part.view_as(grad))

    def barrier(self) -> None:
        """Waits until all ranks are here."""
        self.largest(0)


ALONE = Ranks()


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """Runs of gradients of one dtype of at most BUCKET_BYTES, or a single one that is more."""
    bucket: list[Tensor] = []
    held = 0
    for grad in gradients:
        if bucket and (held + grad.nbytes > BUCKET_BYTES or grad.dtype != bucket[0].dtype):
            yield bucket
            bucket, held = [], 0
        bucket.append(grad)
        held += grad.nbytes
    if bucket:
        yield bucket


def started_together() -> bool:
    """Whether torchrun started this process as one of several."""
    return all(key in os.environ for key in TORCHRUN) and int(os.environ["WORLD_SIZE"]) > 1


@contextmanager
def connected() -> Iterator[Ranks]:
    """The processes that torchrun started together, connected; ALONE for one without others."""
    if not started_together():
        yield ALONE
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    # Both: what only the hosts must agree on goes over gloo, without waiting for a device.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
