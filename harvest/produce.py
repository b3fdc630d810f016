"""Documents to aligned rows, one block after another.

Models on one device run in turn on the same block; several devices run at the same time, each in
a thread. Beside a GPU the next block is planned while this one runs, and its passes begin while
this one's rows are still on their way. On CPUs the passes use every core, and a thread beside
them stops all cores whenever it takes one: there, planning goes beside the writing of the block
before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Int64

from harvest.background import ahead
from harvest.config import HarvestConfig
from harvest.corpus.blocks import DocumentBlock
from harvest.forward import RowsOnTheWay, row_activations
from harvest.models.hooked import HookedModel
from harvest.plan import BlockPlan, Planner
from pipeline.errors import ModelError
from store.block import Block, first_non_finite

OUTLIERS = "rows with an outlying norm"


@dataclass(frozen=True)
class RunBlock:
    """A block that the models have been run over; `block` waits for its rows."""

    documents: DocumentBlock
    plan: BlockPlan
    models: tuple[str, ...]
    activations: tuple[RowsOnTheWay, ...]
    outlier_norm: float | None

    def block(self, most_rows: int | None = None) -> Block:
        """The rows for the store, at most so many; of documents, then, only those that have some.

        What is said of tokens and of rows left out is said of all documents that the block keeps,
        the one that `most_rows` cuts included; what is said of documents, of all that were read.
        """
        activations: dict[str, torch.Tensor] = {}
        for found in self.activations:
            activations.update(found.arrived())
        keep, outliers = self._without_outliers(activations)
        cut = most_rows is not None and len(keep) > most_rows
        keep = keep[:most_rows]
        count = int(self.plan.document[keep[-1]]) + 1 if cut else len(self.plan.documents)
        whole = len(keep) == self.plan.rows
        index = torch.from_numpy(keep)
        dropped = {**self.plan.dropped, OUTLIERS: self.plan.document[outliers]}
        left_out = {
            **self.documents.excluded,
            **self.plan.left_out,
            **{reason: int((rows < count).sum()) for reason, rows in dropped.items()},
        }
        documents = self.plan.documents[:count]
        shares = dict(zip(self.models, self.plan.models, strict=True))
        return Block(
            texts=[document.text for document in documents],
            labels=[document.label for document in documents],
            sources=[document.source for document in documents],
            activations={
                name: values if whole else values[index] for name, values in activations.items()
            },
            document=self.plan.document[keep],
            char_start=self.plan.char_start[keep],
            char_end=self.plan.char_end[keep],
            tokens={name: share.ids[share.row_token[keep]] for name, share in shares.items()},
            tokens_read={
                n: int(share.document_tokens[:count].sum()) for n, share in shares.items()
            },
            tokens_paired=dict.fromkeys(self.models, len(keep)),
            excluded={reason: number for reason, number in left_out.items() if number},
        )

    def _without_outliers(
        self, activations: dict[str, torch.Tensor]
    ) -> tuple[Int64[np.ndarray, " kept"], Int64[np.ndarray, " outliers"]]:
        """Numbers of the rows that stay and of those that do not."""
        outlying = np.zeros(self.plan.rows, bool)
        finite = np.ones(self.plan.rows, bool)  # what is not has to stop the harvest
        if self.outlier_norm is not None and self.plan.rows:
            for values in activations.values():
                norm = torch.linalg.vector_norm(values, dim=1, dtype=torch.float64)
                outlying |= (norm > self.outlier_norm * norm.median()).numpy()
                finite &= norm.isfinite().numpy()
            outlying &= finite
        return np.flatnonzero(~outlying), np.flatnonzero(outlying)


def refuse_non_finite(block: Block, run: RunBlock) -> None:
    """Raises ModelError, naming hookpoint and place, if a row of the block is not finite."""
    found = first_non_finite(block)
    if found is None:
        return
    hookpoint, row = found
    number = run.documents.numbers[int(block.document[row])]
    raise ModelError(
        f"{hookpoint}: activation is not finite in document {number} at character "
        f"{int(block.char_end[row])}; give the model dtype bfloat16 or float32"
    )


def produce(
    models: list[HookedModel],
    planner: Planner,
    blocks: Iterable[DocumentBlock],
    config: HarvestConfig,
    before_pass: Callable[[], None] = lambda: None,
) -> Iterator[RunBlock]:
    """Runs every model over every block. `before_pass` may raise to end the work."""
    planned = ((block, planner(block.documents)) for block in blocks)
    devices = _by_device(models)
    with ThreadPoolExecutor(len(devices), thread_name_prefix="device") as pool:
        on_cpu = all(model.device.type == "cpu" for model in models)
        for documents, plan in planned if on_cpu else ahead(planned):
            yield RunBlock(
                documents,
                plan,
                tuple(model.name for model in models),
                _run(models, devices, plan, config, before_pass, pool),
                config.outlier_norm,
            )


def _by_device(models: list[HookedModel]) -> list[list[int]]:
    """Numbers of the models on each device."""
    numbers = sorted(range(len(models)), key=lambda number: str(models[number].device))
    grouped = groupby(numbers, key=lambda number: str(models[number].device))
    return [list(group) for _, group in grouped]


def _run(
    models: list[HookedModel],
    devices: list[list[int]],
    plan: BlockPlan,
    config: HarvestConfig,
    before_pass: Callable[[], None],
    pool: ThreadPoolExecutor,
) -> tuple[RowsOnTheWay, ...]:
    """Each model's rows, in the order of the models."""

    def in_turn(numbers: list[int]) -> list[RowsOnTheWay]:
        return [
            row_activations(
                models[n], plan.models[n], config.batch_tokens, config.pair, before_pass
            )
            for n in numbers
        ]

    # One device is served in this thread: CPU kernels keep the threads that they have.
    per_device = map(in_turn, devices) if len(devices) == 1 else pool.map(in_turn, devices)
    found: dict[int, RowsOnTheWay] = {}
    for numbers, arriving in zip(devices, per_device, strict=True):
        found.update(zip(numbers, arriving, strict=True))
    return tuple(found[n] for n in range(len(models)))
