"""Cuts a document that is longer than a model's context into windows that lose no token.

Pure. All models are cut at the same paired position, as late as their budgets allow, so they
read the same text in a window and a pair never straddles two. Where the next pair is out of
reach (thousands of tokens without one), the models that cannot reach it are cut at their budget.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64


def cut_windows(
    lengths: Sequence[int], positions: Sequence[np.ndarray], budgets: Sequence[int]
) -> Int64[np.ndarray, "edges models"]:
    """Edges of the windows: window w of model m holds tokens [edges[w, m], edges[w + 1, m]).

    lengths: tokens of the document per model; positions: the paired tokens per model, ascending;
    budgets: most tokens of a window per model, at least 1. A window may be empty for a model.
    """
    models = range(len(lengths))
    rows = len(positions[0])
    edges = [[0] * len(lengths)]
    paired = 0
    while any(edges[-1][m] < lengths[m] for m in models):
        limits = [edges[-1][m] + budgets[m] for m in models]
        within = min(int(np.searchsorted(positions[m], limits[m])) for m in models)
        if all(lengths[m] <= limits[m] for m in models):
            edges.append(list(lengths))
        elif within > paired:
            paired = within
            edges.append([int(positions[m][within - 1]) + 1 for m in models])
        else:
            ahead = [int(positions[m][paired]) if paired < rows else lengths[m] for m in models]
            edges.append([min(limits[m], ahead[m]) for m in models])
    return np.array(edges, np.int64)
