"""A feature's direction carried over to the model that it is not claimed for.

If that model has the feature after all, in whatever direction, the linear map between the models'
activations (`analyze.transfer`) carries the decoder to it, and steering with what comes out does
there what the feature does here. The map shrinks what it cannot carry, so only its direction is
taken: the step is given the length that it has in the own model, relative to the median norm of
the activations where it is added. S, T widths of the own and the other hookpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from analyze.causal.steer_steps import Step, median_norm
from analyze.pairing import hookpoint_pairs
from analyze.statistics.moments import Moments
from analyze.subject import Subject
from analyze.transfer.directions import Maps, fit_maps, own_decoder
from pipeline.errors import DictionaryError


class Carrier:
    """Maps between the hookpoints of each pair, fitted when first asked for."""

    def __init__(self, subject: Subject, moments: Moments) -> None:
        self._subject, self._moments = subject, moments
        try:
            self._pairs = hookpoint_pairs(subject.dictionary)
        except DictionaryError:  # not as many of one model as of the other: none stand opposite
            self._pairs = []
        self._maps: dict[int, Maps] = {}

    def steps(self, own: Sequence[Step]) -> list[Step]:
        """For the other model: of each of these steps of its owner that has a direction.

        Where the map leaves nothing of the direction there is none. Raises StoreError if the
        store has too few rows for a map.
        """
        return [
            step
            for one in own
            if one.steered == one.claimed_for and one.vector_D is not None
            for step in self._opposite(one)
        ]

    def _opposite(self, own: Step) -> list[Step]:
        dictionary = self._subject.dictionary
        for number, pair in enumerate(self._pairs):
            if own.number not in (pair.own, pair.other):
                continue
            if number not in self._maps:
                self._maps[number] = fit_maps(self._moments, pair)
            maps = self._maps[number]
            maps = maps if pair.own == own.number else maps.reversed()
            feature = torch.tensor([own.feature], device=dictionary.b_enc.device)
            carry_TS = maps.there.weight_TS
            there_T = carry_TS @ own_decoder(dictionary, own.number, feature)[0]
            if not float(there_T.norm()) > 0:
                return []
            number, other = maps.pair.other, dictionary.hookpoints[maps.pair.other]
            length = own.relative * median_norm(self._subject, number)
            return [
                replace(
                    own,
                    steered=other.model,
                    number=number,
                    hookpoint=other.name,
                    vector_D=there_T / there_T.norm() * length,
                    carry_DS=carry_TS,
                )
            ]
        return []
