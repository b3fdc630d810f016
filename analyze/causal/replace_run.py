"""Some texts of the replacement test: both models' clean passes, then the base model's moved ones.

N rows of the texts, n of them measured: those that a token follows; D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from analyze.causal.batches import Batch, padded_batches, put_rows, read_rows
from analyze.causal.logits import Predictions, compare, predictions
from analyze.causal.passages import Passage, Reading
from analyze.causal.replace_sets import FeatureSet
from analyze.pairing import HookpointPair
from analyze.subject import Subject
from harvest.models.hooked import HookedModel
from harvest.models.intervene import Edit, logits
from pipeline.errors import ModelError
from train.dictionary.codes import SparseCodes
from train.dictionary.crosscoder import Crosscoder

NONE, ACTIVATIONS, TARGET = "none", "activations", "target"


@dataclass(frozen=True)
class Pair:
    """The model that runs on and the one that it is compared with.

    places: the base model's hookpoint (own) and the target's (other). vocabulary: token ids that
    the tokenizer knows; models may score more.
    """

    base: HookedModel
    target: HookedModel
    places: HookpointPair
    vocabulary: int

    @classmethod
    def of(cls, base: HookedModel, target: HookedModel, places: HookpointPair) -> Pair:
        """Raises ModelError unless the same ids are the same tokens for both."""
        one, other = (model.tokenizer.get_vocab() for model in (base, target))
        if one != other:
            token = next(token for token in (*one, *other) if one.get(token) != other.get(token))
            raise ModelError(
                f"models {base.name} and {target.name}: their tokenizers differ (token {token!r}: "
                f"{one.get(token)} and {other.get(token)}), so that their predictions cannot be "
                "compared; name models of one vocabulary"
            )
        return cls(base, target, places, max(one.values()) + 1)


@dataclass(frozen=True)
class Run:
    """What is kept of the clean passes.

    batch: of the base model; at: its measured rows; own_ND, other_ND: activations at the pair's
    hookpoints, row after row; codes: of the rows, some at a time; wanted_nV: the target's scores.
    """

    subject: Subject
    pair: Pair
    batch: Batch
    at: Predictions
    own_ND: Float[Tensor, "N D"]
    other_ND: Float[Tensor, "N D"]
    codes: list[SparseCodes]
    wanted_nV: Float[Tensor, "n V"]

    @classmethod
    def of(cls, subject: Subject, pair: Pair, passages: Sequence[Passage], batch_rows: int) -> Run:
        """Runs both models; rows are encoded `batch_rows` at a time."""
        rows = sum(len(passage.rows) for passage in passages)
        batches = {
            model.name: _together([passage.readings[model.name] for passage in passages])
            for model in (pair.base, pair.target)
        }
        clean: dict[str, Tensor] = {}
        for model in (pair.base, pair.target):
            clean.update(read_rows(model, [batches[model.name]], rows))
        codes = [
            subject.dictionary.encode({n: x[start : start + batch_rows] for n, x in clean.items()})
            for start in range(0, rows, batch_rows)
        ]
        at = predictions(batches[pair.base.name])
        own, other = (
            clean[subject.dictionary.hookpoints[number].name]
            for number in (pair.places.own, pair.places.other)
        )
        scores = _scores(pair.target, batches[pair.target.name])
        there = batches[pair.target.name]
        places_N = there.places[there.rows.argsort()]
        wanted_nV = _at(scores, places_N[at.rows], pair.vocabulary)
        return cls(subject, pair, batches[pair.base.name], at, own, other, codes, wanted_nV)

    @property
    def positions(self) -> int:
        """Rows measured."""
        return len(self.at.rows)

    def measured(self, one: FeatureSet, bias: bool) -> Float64[Tensor, " 2"]:
        """Sums over the measured rows of KL(target || replaced) and cross entropy, on a device."""
        if one.name == TARGET:
            found_nV = self.wanted_nV
        else:
            scores = _scores(self.pair.base, self.batch, self._edits(one, bias))
            found_nV = _at(scores, self.at.places, self.pair.vocabulary)
        places_n = torch.arange(self.positions)
        wanted = self.wanted_nV.to(found_nV.device)[None]
        at = Predictions(places_n, places_n, self.at.targets)
        compared = compare(wanted, found_nV[None], at)
        return torch.stack([compared.kl.sum(), compared.cross_entropy.sum()])

    def _edits(self, one: FeatureSet, bias: bool) -> dict[str, Edit]:
        if one.name == NONE:
            return {}
        if one.name == ACTIVATIONS:
            moved_ND = self.other_ND
        else:
            assert one.members is not None
            moved_ND = self._moved(one.members, bias)
        rows = self.batch.rows.to(moved_ND.device)
        name = self.subject.dictionary.hookpoints[self.pair.places.own].name
        return {name: put_rows(self.batch, moved_ND[rows])}

    def _moved(self, members_F: Bool[np.ndarray, " F"], bias: bool) -> Float[Tensor, "N D"]:
        """The base model's rows, moved by some features; in float32 or better."""
        dictionary = self.subject.dictionary
        members = torch.from_numpy(members_F).to(dictionary.b_enc.device)
        moves = [move(dictionary, codes, members, self.pair.places) for codes in self.codes]
        moved_ND = torch.cat(moves)
        if bias:
            moved_ND = moved_ND + bias_difference(dictionary, self.pair.places)
        return self.own_ND.to(moved_ND.device) + moved_ND


@torch.no_grad()
def move(
    dictionary: Crosscoder,
    codes: SparseCodes,
    members_F: Bool[Tensor, " F"],
    places: HookpointPair,
) -> Float[Tensor, "rows D"]:
    """sum over members j of f_j (d_j^other - d_j^own) in raw units; a decoder not there is zero."""
    values = codes.values * members_F[codes.pattern.columns]
    decoded = dictionary.decode_scaled(replace(codes, values=values), bias=False)
    by_number = dict(zip(dictionary.outputs, decoded, strict=True))
    own, other = (by_number[n] / dictionary.scale[n] for n in (places.own, places.other))
    return other - own


@torch.no_grad()
def bias_difference(dictionary: Crosscoder, places: HookpointPair) -> Float[Tensor, " D"]:
    """What both decode without any feature: other - own, raw units, means included."""
    found = []
    for number in (places.own, places.other):
        raw_D = dictionary.b_dec[str(number)] / dictionary.scale[number]
        if dictionary.means:
            raw_D = raw_D + dictionary.get_buffer(f"mean_{number}")
        found.append(raw_D)
    return found[1] - found[0]


def _together(readings: Sequence[Reading]) -> Batch:
    """All in one pass."""
    (batch,) = padded_batches(readings, 1 << 62)
    return batch


def _scores(
    model: HookedModel, batch: Batch, edits: dict[str, Edit] | None = None
) -> Float[Tensor, "batch seq V"]:
    return logits(model, batch.input_ids, batch.attention_mask, edits)


def _at(
    scores: Float[Tensor, "batch seq V"], places: Tensor, vocabulary: int
) -> Float[Tensor, "n V"]:
    """At places of the flattened positions, the scores of known tokens."""
    return scores.flatten(0, 1)[places.to(scores.device)][:, :vocabulary]
