"""One batch of rows as the accumulators of a sweep see it.

B batch rows, D width of a hookpoint, N active entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from analyze.subject import Subject
from store.loader import Batch
from train.dictionary.codes import SparseCodes
from train.dictionary.crosscoder import Activations


@dataclass(frozen=True)
class Entries:
    """Active entries, each (entries,): feature, activation, store row, document."""

    features: np.ndarray
    values: np.ndarray
    rows: np.ndarray
    documents: np.ndarray

    def take(self, index: np.ndarray) -> Entries:
        """The entries at `index`."""
        return Entries(
            self.features[index], self.values[index], self.rows[index], self.documents[index]
        )

    def join(self, other: Entries) -> Entries:
        """Both, one behind the other."""
        return Entries(
            np.concatenate([self.features, other.features]),
            np.concatenate([self.values, other.values]),
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.documents, other.documents]),
        )


@dataclass(frozen=True)
class Seen:
    """A batch: its codes, and per hookpoint in order scaled inputs and their reconstructions.

    x_hat: x itself at hookpoints that are not reconstructed. whole: x, but for a dictionary of
    residuals the activations themselves, in its units. rows, documents, labels: (batch,), numbers
    in the store, and in the subject's labels; held_out: bool (batch,), rows of documents that
    training did not see; activations: the raw rows, for what else is to be made of them.
    """

    codes: SparseCodes
    x: list[Float[Tensor, "batch _"]]
    x_hat: list[Float[Tensor, "batch _"]]
    whole: list[Float[Tensor, "batch _"]]
    rows: np.ndarray
    documents: np.ndarray
    labels: np.ndarray
    held_out: np.ndarray
    activations: Activations

    @cached_property
    def entries(self) -> Entries:
        """The active entries on the CPU."""
        in_batch = self.codes.pattern.rows.cpu().numpy()
        return Entries(
            features=self.codes.pattern.columns.cpu().numpy(),
            values=self.codes.values.float().cpu().numpy(),
            rows=self.rows[in_batch],
            documents=self.documents[in_batch],
        )

    @cached_property
    def held_out_mask(self) -> Tensor:
        """`held_out` where the activations are."""
        return torch.from_numpy(self.held_out).to(self.x[0].device)


@torch.no_grad()
def look(subject: Subject, batch: Batch, chunk: int) -> Seen:
    """Encodes and decodes a batch that lies within one chunk of the store."""
    dictionary, store = subject.dictionary, subject.store
    activations = subject.view(batch)
    codes = dictionary.encode(activations)
    x = dictionary.scaled(activations)
    whole = x if dictionary.prediction is None else dictionary.scaled(activations, whole=True)
    written = dict(zip(dictionary.outputs, dictionary.decode_scaled(codes), strict=True))
    x_hat = [written.get(number, x_BD) for number, x_BD in enumerate(x)]
    documents = store.document_chunk(chunk)[batch.rows - store.chunk_rows_before[chunk]]
    labels = subject.labels.of_document[documents]
    held_out = subject.held_out[documents]
    return Seen(codes, x, x_hat, whole, batch.rows, documents, labels, held_out, activations)
