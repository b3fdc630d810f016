"""What `store info` says about a store, as JSON values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from store.reader import Store


def summarize(path: Path) -> dict[str, Any]:
    """Rows, documents, hookpoints with norms and paired fractions, labels. Raises StoreError."""
    store = Store(path)
    counts = np.bincount(store.documents.labels, minlength=len(store.documents.label_names))
    hookpoints = []
    for hookpoint in store.schema.hookpoints:
        statistics = store.statistics(hookpoint.name)
        hookpoints.append(
            {
                "name": hookpoint.name,
                "model": hookpoint.model,
                "width": hookpoint.width,
                "dtype": hookpoint.dtype,
                "norm_median": statistics.norm_quantile(0.5),
                "norm_p99": statistics.norm_quantile(0.99),
                "paired_fraction": store.paired_fraction(hookpoint.model),
            }
        )
    return {
        "path": str(path),
        "rows": store.rows,
        "documents": len(store.documents),
        "parts": len(store.parts),
        "complete": store.complete,
        "bytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        "hookpoints": hookpoints,
        "labels": dict(zip(store.documents.label_names, counts.tolist(), strict=True)),
        "fingerprints": store.schema.fingerprints,
    }
