"""Memory of a process that trains from a store, read from the kernel: run once per store.

    python -m benchmarks.memory STORE BATCHES [WINDOW_CHUNKS]

Prints the largest anonymous memory (what the process itself holds) and the largest amount of page
cache that it has mapped (which the system takes back when it needs it), in bytes, as JSON.
"""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path

from store.loader import LoaderOptions, ShuffledLoader
from store.reader import Store


def resident() -> dict[str, int]:
    """Anonymous and mapped-file bytes of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Rss")}
    return {"anonymous": 1024 * kib["RssAnon"], "mapped": 1024 * kib["RssFile"]}


def main(path: str, batches: str, window: str | None = None) -> None:
    """Runs through `batches` batches of 4,096 rows."""
    before = resident()["anonymous"]
    options = LoaderOptions(4096, window_chunks=int(window) if window else None)
    loader = ShuffledLoader(Store(Path(path)), options)
    most = {"anonymous": 0, "mapped": 0}
    for number, _ in enumerate(islice(loader, int(batches))):
        if number % 16 == 0:
            most = {key: max(value, most[key]) for key, value in resident().items()}
    print(json.dumps({**most, "anonymous": most["anonymous"] - before}))


if __name__ == "__main__":
    main(*sys.argv[1:])
