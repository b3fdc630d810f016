"""Where a feature is looked at when a model is steered with it: where it fires, and where not.

Firing: the documents of its strongest rows (`KeptRows`), at every row of their first window at
which it fires; where it fires only beyond that, other documents that a sample holds. Silent:
documents on no row of which it fires, spread over the labels, at as many rows drawn at random.
Costs the tokenization of these documents and their rows' codes; for features that fire nearly
everywhere, or only late in long documents, of up to MOST_DOCUMENTS.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64

from analyze.causal.passages import (
    Passage,
    Reading,
    documents_of,
    find_passages,
    row_edges,
    sample_documents,
)
from analyze.statistics.kept_rows import KeptRows
from analyze.subject import Subject
from analyze.sweep.seen import Entries
from harvest.models.hooked import HookedModel
from pipeline.errors import StoreError
from store.reader import Store
from store.sweep import read_range

FIRST_DOCUMENTS, MOST_DOCUMENTS = 32, 256


@dataclass(frozen=True)
class Looked:
    """A passage, the rows of it that are looked at (numbers in the store), and the strongest one.

    activation: that of the feature on the strongest row; 0 where it does not fire.
    """

    passage: Passage
    rows: Int64[np.ndarray, " chosen"]
    strongest: int
    activation: float

    def reading(self, model: str) -> Reading:
        """The tokens up to the last of the rows, and where they are in them."""
        whole = self.passage.readings[model]
        positions = whole.positions[np.searchsorted(self.passage.rows, self.rows)]
        return Reading(whole.ids[: positions[-1] + 1], positions)


@dataclass(frozen=True)
class Scene:
    """The passages at which a feature is looked at, where it fires (strongest first) and not."""

    feature: int
    firing: tuple[Looked, ...]
    silent: tuple[Looked, ...]

    @property
    def passages(self) -> list[Passage]:
        """All of them."""
        return [looked.passage for looked in (*self.firing, *self.silent)]


@dataclass(frozen=True)
class Scenes:
    """A scene per feature, in the order asked for; documents not found again, by reason."""

    of: tuple[Scene, ...]
    left_out: dict[str, int]

    def passages(self, store: Store) -> list[Passage]:
        """All of them. Raises StoreError if no document of the features was found again."""
        found = [passage for scene in self.of for passage in scene.passages]
        if self.left_out and not found:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
            raise StoreError(
                f"{store.path}: no document to steer on is found again ({reasons}); "
                "harvest plain texts"
            )
        return found


def find_scenes(
    subject: Subject,
    models: Mapping[str, HookedModel],
    features: Sequence[int],
    top: KeptRows,
    batch_rows: int,
    seed: int = 0,
    on_documents: Callable[[int], None] = lambda documents: None,
) -> Scenes:
    """The scenes of some features. A feature whose rows are not found again has an empty one.

    top: strongest rows of every feature; batch_rows: encoded at a time; seed: of the silent rows;
    on_documents: told how many have been read. Raises StoreError as `find_passages` does.
    """
    finder = _Finder(subject, models, features, batch_rows, on_documents)
    strongest = {f: np.array([row for row, _ in top.of(f)], np.int64) for f in features}
    every = np.concatenate([np.zeros(0, np.int64), *strongest.values()])
    finder.read(documents_of(subject.store, every))
    found = {feature: Scene(feature, (), ()) for feature in features}
    missing, count = [feature for feature in features if len(strongest[feature])], FIRST_DOCUMENTS
    while missing:
        sampled = sample_documents(subject.store, count)
        finder.read(sampled)
        for feature in missing:
            found[feature] = _scene(finder, feature, strongest[feature], sampled, seed)
        if count == MOST_DOCUMENTS or len(sampled) < count:  # there are no more
            break
        missing = [f for f in missing if not _complete(found[f], len(strongest[f]))]
        count = min(2 * count, MOST_DOCUMENTS)
    return Scenes(tuple(found[feature] for feature in features), dict(finder.left_out))


def _complete(scene: Scene, documents: int) -> bool:
    firing, silent = (
        sum(len(one.rows) for one in looked) for looked in (scene.firing, scene.silent)
    )
    return len(scene.firing) == documents and silent == firing


def _scene(
    finder: _Finder,
    feature: int,
    strongest: Int64[np.ndarray, " rows"],
    sampled: Int64[np.ndarray, " documents"],
    seed: int,
) -> Scene:
    """What there is of a scene among the documents read so far."""
    own = finder.firing(feature, finder.documents(strongest))
    taken = {looked.passage.document for looked in own}
    others = finder.firing(feature, [d for d in sampled.tolist() if d not in taken])
    others.sort(key=lambda looked: -looked.activation)
    firing = (own + others)[: len(strongest)]
    rows = sum(len(looked.rows) for looked in firing)
    silent = _fewest(finder.silent(feature, sampled), len(firing), rows)
    return Scene(feature, tuple(firing), tuple(_drawn(silent, rows, [seed, feature])))


def _fewest(passages: list[Passage], documents: int, rows: int) -> list[Passage]:
    """So many of the first passages, and more if they do not have so many rows."""
    reached = np.cumsum([len(passage.rows) for passage in passages])
    enough = int(np.searchsorted(reached, rows)) + 1
    return passages[: max(documents, enough)]


def _drawn(passages: list[Passage], rows: int, seed: list[int]) -> list[Looked]:
    """Rows of the passages, uniformly, none twice; at most all of them."""
    if not passages:
        return []
    every = np.concatenate([passage.rows for passage in passages])
    picked = np.random.default_rng(seed).choice(every, min(rows, len(every)), replace=False)
    found = []
    for passage in passages:
        here = passage.rows[np.isin(passage.rows, picked)]
        if len(here):
            found.append(Looked(passage, here, int(here[0]), 0.0))
    return found


class _Finder:
    """Documents that have been read: their passages, and where the features fire in them."""

    def __init__(
        self,
        subject: Subject,
        models: Mapping[str, HookedModel],
        features: Sequence[int],
        batch_rows: int,
        on_documents: Callable[[int], None],
    ) -> None:
        self.subject, self.left_out = subject, Counter[str]()
        self._models, self._features = models, np.unique(np.array(features, np.int64))
        self._batch_rows, self._on_documents = batch_rows, on_documents
        self._edges = row_edges(subject.store)
        self._read: set[int] = set()
        self._passages: dict[int, Passage] = {}
        self._fired: dict[int, Entries] = {}

    def read(self, documents: Int64[np.ndarray, " documents"]) -> None:
        """Finds the passages of those not read before, and where the features fire in them."""
        new = [document for document in documents.tolist() if document not in self._read]
        self._read.update(new)
        found = find_passages(self.subject.store, self._models, np.array(new, np.int64))
        self.left_out.update(found.left_out)
        for passage in found.found:
            self._passages[passage.document] = passage
            self._fired[passage.document] = self._entries(passage.document)
            self._on_documents(1)

    def documents(self, rows: Int64[np.ndarray, " rows"]) -> list[int]:
        """The document of each row."""
        found: list[int] = (np.searchsorted(self._edges, rows, "right") - 1).tolist()
        return found

    def firing(self, feature: int, documents: Sequence[int]) -> list[Looked]:
        """The passages of some documents, in order, at all rows at which a feature fires."""
        found = []
        for document in documents:
            if document not in self._passages:
                continue
            passage, fired = self._passages[document], self._fired[document]
            here = np.flatnonzero((fired.features == feature) & np.isin(fired.rows, passage.rows))
            if len(here):
                rows, values = fired.rows[here], fired.values[here]
                peak = int(np.argmax(values))
                found.append(Looked(passage, rows, int(rows[peak]), float(values[peak])))
        return found

    def silent(self, feature: int, among: Int64[np.ndarray, " documents"]) -> list[Passage]:
        """Passages of those of some documents on no row of which the feature fires."""
        return [
            self._passages[document]
            for document in among.tolist()
            if document in self._passages and not (self._fired[document].features == feature).any()
        ]

    def _entries(self, document: int) -> Entries:
        """Where the features fire in a whole document."""
        first, last = int(self._edges[document]), int(self._edges[document + 1])
        none = np.zeros(0, np.int64)
        found = Entries(none, np.zeros(0, np.float32), none, none)
        for start in range(first, last, self._batch_rows):
            batch = read_range(self.subject.store, start, min(start + self._batch_rows, last))
            codes = self.subject.dictionary.encode(self.subject.view(batch))
            columns = codes.pattern.columns
            ours = torch.isin(columns, torch.from_numpy(self._features).to(columns.device))
            rows = batch.rows[codes.pattern.rows[ours].cpu().numpy()]
            found = found.join(
                Entries(
                    columns[ours].cpu().numpy(),
                    codes.values[ours].float().cpu().numpy(),
                    rows,
                    np.full(len(rows), document),
                )
            )
        return found
