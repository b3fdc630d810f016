"""What a dictionary makes of rows that the models have just given, and how well, label by label.

Of one of residuals that is what the other model's row predicts and the residual's reconstruction
together: so much of it may be the other model's word.

B rows, D width, F features, L labels; H hookpoints that the dictionary reconstructs, by number.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from analyze.subject import Subject


class Rebuilt:
    """Sums over rows: squared errors and deviations (H, L) in raw units, and features that fired.

    Deviations are from the store's mean. All in float64; memory F x L bits.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self.means = {
            name: torch.from_numpy(subject.store.statistics(name).mean)
            for name in (subject.dictionary.hookpoints[n].name for n in subject.dictionary.outputs)
        }
        labels = len(subject.labels.names)
        self.errors_HL: dict[str, Float64[np.ndarray, " labels"]] = {}
        self.deviations_HL: dict[str, Float64[np.ndarray, " labels"]] = {}
        for name in self.means:
            self.errors_HL[name], self.deviations_HL[name] = np.zeros(labels), np.zeros(labels)
        self.rows_L: Int64[np.ndarray, " labels"] = np.zeros(labels, np.int64)
        self.active_L: Int64[np.ndarray, " labels"] = np.zeros(labels, np.int64)
        self.fired_LF: Bool[np.ndarray, "labels features"] = np.zeros(
            (labels, subject.features), bool
        )

    def take(
        self,
        activations: dict[str, Float[Tensor, "B _"]],
        labels_B: Int64[np.ndarray, " B"],
        batch_rows: int,
    ) -> dict[str, Float[Tensor, "B _"]]:
        """Encodes and decodes rows, `batch_rows` at a time; their reconstructions in raw units."""
        pieces: dict[str, list[Tensor]] = {name: [] for name in self.means}
        for start in range(0, len(labels_B), batch_rows):
            here = slice(start, start + batch_rows)
            rows = {name: values[here] for name, values in activations.items()}
            for name, x_hat_BD in self._take(rows, labels_B[here]).items():
                pieces[name].append(x_hat_BD)
        return {name: torch.cat(found) for name, found in pieces.items()}

    def _take(self, rows: dict[str, Tensor], labels_B: np.ndarray) -> dict[str, Tensor]:
        dictionary, count = self._subject.dictionary, len(self.rows_L)
        codes = dictionary.encode(rows)
        rebuilt, targets = dictionary.decode(codes), dictionary.targets(rows)
        for name, x_hat_BD in rebuilt.items():
            x_BD = rows[name].to(x_hat_BD.device).double()
            if targets is not rows:  # a residual's: what is predicted goes on top
                x_hat_BD = x_hat_BD + (x_BD - targets[name]).to(x_hat_BD.dtype)
                rebuilt[name] = x_hat_BD
            error_B = (x_BD - x_hat_BD).square().sum(dim=1)
            deviation_B = (x_BD - self.means[name].to(x_BD.device)).square().sum(dim=1)
            self.errors_HL[name] += np.bincount(labels_B, error_B.cpu().numpy(), count)
            self.deviations_HL[name] += np.bincount(labels_B, deviation_B.cpu().numpy(), count)
        on = (codes.values > 0).cpu().numpy()
        of_entry = labels_B[codes.pattern.rows.cpu().numpy()[on]]
        self.rows_L += np.bincount(labels_B, minlength=count)
        self.active_L += np.bincount(of_entry, minlength=count)
        self.fired_LF[of_entry, codes.pattern.columns.cpu().numpy()[on]] = True
        return rebuilt

    def fve(self, model: str, labels: list[int]) -> float | None:
        """1 - sum |x - x_hat|^2 / sum |x - mean|^2 on some labels, averaged over hookpoints."""
        names = [h.name for h in self._subject.dictionary.hookpoints if h.model == model]
        names = [name for name in names if name in self.means]
        spread = [float(self.deviations_HL[name][labels].sum()) for name in names]
        if not names or min(spread) == 0:
            return None
        shares = [
            float(self.errors_HL[name][labels].sum()) / all_of_it
            for name, all_of_it in zip(names, spread, strict=True)
        ]
        return 1 - sum(shares) / len(shares)

    def l0(self, labels: list[int]) -> float | None:
        """Active features per row on some labels."""
        rows = int(self.rows_L[labels].sum())
        return int(self.active_L[labels].sum()) / rows if rows else None

    def dead(self, model: str, labels: list[int]) -> float:
        """Share of the features that the model sees which fire on no row of some labels."""
        fired_F: np.ndarray = np.any(self.fired_LF[labels], axis=0)
        seen = [fired_F[run] for run in self._subject.dictionary.partition.visible(model)]
        count = sum(len(run) for run in seen)
        return 1 - sum(int(run.sum()) for run in seen) / count if count else 0.0
