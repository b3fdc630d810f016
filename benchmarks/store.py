"""What each codec costs in bytes, speed, error and FVE, and what the store itself costs.

Activations are those of the demo's trained models. Bytes per second count bfloat16 values, however
many bytes a codec stores. The same dictionary (the demo's DFC, fewer steps, one seed) is trained
from each store and judged on the held-out rows as the models gave them.

    python -m benchmarks.store [--store runs/demo/store.zarr]
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import torch
import typer
from numcodecs import Blosc, Shuffle, Zstd
from rich.console import Console
from rich.table import Table

from benchmarks.demo_run import demo_store, demo_training
from benchmarks.synthetic import noise_store
from store.block import Block
from store.chunks import check_chunk
from store.loader import LoaderOptions, ShuffledLoader
from store.reader import Store
from store.schema import CodecName
from store.sweep import read_range, sweep
from store.writer import PartWriter
from train.dictionary.artifact import load_dictionary
from train.evaluate import evaluate
from train.loop import train

HELD_OUT = 0.1
OPENED_CHUNKS = 10_000


def main(
    store: Annotated[Path | None, typer.Option(help="A store of the demo.")] = None,
    steps: Annotated[int, typer.Option(help="Training steps per codec.")] = 400,
) -> None:
    """Prints three tables."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        read = demo_store(store, scratch)
        _codecs(read, scratch, steps)
        _candidates(read)
        _costs(scratch)


def recode(store: Store, path: Path, codec: CodecName) -> tuple[Store, float]:
    """The same rows in another codec, and the seconds that the writer took."""
    schema = replace(store.schema, codec=codec, parts=1)
    seconds = 0.0
    with PartWriter(path, schema, commit_rows=schema.chunk_rows) as writer:
        ends = np.concatenate(store.documents.row_ends)
        for first in range(0, len(store.documents), 64):
            block = _block(store, ends, first, min(first + 64, len(store.documents)))
            begin = time.perf_counter()
            writer.append(block, first)
            seconds += time.perf_counter() - begin
        begin = time.perf_counter()
        writer.finish()
        seconds += time.perf_counter() - begin
    return Store(path), seconds


def _block(store: Store, ends: np.ndarray, first: int, last: int) -> Block:
    start, stop = int(ends[first - 1]) if first else 0, int(ends[last - 1])
    names, labels = store.documents.label_names, store.documents.labels
    rows = stop - start
    return Block(
        texts=[store.documents.text(n) for n in range(first, last)],
        labels=[names[labels[n]] for n in range(first, last)],
        sources=[store.documents.source_names[n] for n in store.documents.sources[first:last]],
        activations={n: v.clone() for n, v in read_range(store, start, stop).activations.items()},
        document=(store.column_range("document", start, stop) - first).astype(np.int32),
        char_start=store.column_range("char_start", start, stop),
        char_end=store.column_range("char_end", start, stop),
        tokens={m: store.column_range(f"token_{m}", start, stop) for m in store.schema.models},
        tokens_read=dict.fromkeys(store.schema.models, rows),
        tokens_paired=dict.fromkeys(store.schema.models, rows),
    )


def _codecs(raw: Store, scratch: Path, steps: int) -> None:
    columns = ["codec", "B/row", "write", "read", "loader", "mean err", "max err"]
    names = [hookpoint.name for hookpoint in raw.schema.hookpoints]
    table = Table(*columns, *(f"FVE {name.split('.')[0]}" for name in names), title="codecs")
    plain = 2 * sum(hookpoint.width for hookpoint in raw.schema.hookpoints)
    for codec in get_args(CodecName):
        store, seconds = recode(raw, scratch / f"{codec}.zarr", codec)
        bytes_ = sum(
            store.activation_file(n, c)[0].stat().st_size
            for n in names
            for c in range(store.chunks)
        )
        errors = [_error(raw, store, name) for name in names]
        config = demo_training(recipes=["dfc"], steps=steps, decay_start=steps * 3 // 4)
        train(store, config, scratch / f"dictionary-{codec}")
        dictionary = load_dictionary(scratch / f"dictionary-{codec}")
        held_out = sweep(raw, 2048, "validation", config.validation_fraction)
        fve = evaluate(dictionary, held_out).fve
        table.add_row(
            codec,
            f"{bytes_ / store.rows:.0f}",
            f"{store.rows * plain / seconds / 1e9:.2f} GB/s",
            f"{store.rows * plain / _median(lambda s=store: _read(s)) / 1e9:.2f} GB/s",
            f"{_loader_rate(store):,.0f} rows/s",
            f"{max(mean for mean, _ in errors):.2%}",
            f"{max(most for _, most in errors):.2%}",
            *(f"{fve[name]:.4f}" for name in names),
        )
    console = Console(width=110)
    console.print(table)
    console.print("errors: |stored - given| as a share of the hookpoint's root mean square value")


def _error(raw: Store, store: Store, name: str) -> tuple[float, float]:
    """Mean and largest absolute error over all values, in units of the rms value."""
    total = squares = most = 0.0
    for chunk in range(raw.chunks):
        given, stored = raw.activations(name, chunk).float(), store.activations(name, chunk).float()
        difference = (given - stored).abs()
        total += float(difference.sum())
        most = max(most, float(difference.max()))
        squares += float(given.square().sum())
    values = raw.rows * raw.hookpoint(name).width
    rms = (squares / values) ** 0.5
    return total / values / rms, most / rms


def _read(store: Store) -> None:
    """Every value in order, as numbers, in memory of the reader's own."""
    for batch in sweep(store, 1 << 20, verify=False):
        for values in batch.activations.values():
            values.clone()


def _loader_rate(store: Store) -> float:
    rates = []
    for _ in range(3):
        batches = iter(ShuffledLoader(store, LoaderOptions(4096)))
        for _ in islice(batches, store.rows // 4096):
            pass
        begin = time.perf_counter()
        for _ in islice(batches, 2 * store.rows // 4096):
            pass
        rates.append(2 * (store.rows // 4096) * 4096 / (time.perf_counter() - begin))
        batches.close()
    return statistics.median(rates)


def _candidates(store: Store) -> None:
    """Lossless codecs on one hookpoint's first 16 MB."""
    name = store.schema.hookpoints[-1].name
    rows = (16 << 20) // (2 * store.hookpoint(name).width)
    values = read_range(store, 0, min(rows, store.rows)).activations[name]
    bits = values.contiguous().view(torch.int16).numpy().view(np.uint16)
    table = Table("lossless codec", "ratio", "encode", "decode", title=f"{name}, 16 MB")
    for title, encode, decode in _lossless():
        begin = time.perf_counter()
        encoded = encode(bits)
        middle = time.perf_counter()
        decode(encoded)
        seconds = time.perf_counter() - middle
        speeds = (bits.nbytes / s / 1e9 for s in (middle - begin, seconds))
        ratio = f"{bits.nbytes / len(encoded):.3f}"
        table.add_row(title, ratio, *(f"{speed:.2f} GB/s" for speed in speeds))
    exponents = np.bincount((bits >> 7 & 255).ravel(), minlength=256) / bits.size
    entropy = -sum(p * np.log2(p) for p in exponents if p)
    table.add_row("(entropy of sign, exponent and mantissa apart)", f"{16 / (8 + entropy):.3f}")
    Console(width=88).print(table)


def _lossless() -> list[tuple[str, Callable[[Any], Any], Callable[[Any], Any]]]:
    found: list[tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = []
    for name, level, shuffle, block in (
        ("zstd", 1, 1, 1 << 20),
        ("zstd", 3, 1, 1 << 20),
        ("zstd", 5, 1, 0),
        ("zstd", 1, 1, 0),
        ("zstd", 1, 2, 1 << 20),
        ("lz4", 1, 1, 0),
        ("lz4", 1, 2, 0),
    ):
        blosc = Blosc(name, level, shuffle, block, typesize=2)
        shuffled = ("", "bytes", "bits")[shuffle]
        size = f"{block >> 20} MiB blocks" if block else "blosc's own blocks"
        title = f"blosc {name} {level}, {shuffled} shuffled, {size}"
        found.append((title, blosc.encode, blosc.decode))
    zstd, shuffle2 = Zstd(1), Shuffle(2)
    found.append(("zstd 1 alone", zstd.encode, zstd.decode))
    found.append(
        (
            "numcodecs shuffle, then zstd 1",
            lambda bits: zstd.encode(shuffle2.encode(bits)),
            lambda data: shuffle2.decode(zstd.decode(data)),
        )
    )
    try:
        from numcodecs.pcodec import PCodec
    except ImportError:
        print("pcodec is left out; to have it: pip install -e '.[benchmarks]'")
        return found
    pcodec = PCodec(level=4)
    # Sign last: values of one size are then neighbours among the unsigned integers.
    turned = lambda bits: pcodec.encode((bits << 1) | (bits >> 15))  # noqa: E731
    found.append(("pcodec 4, as uint16", pcodec.encode, pcodec.decode))
    found.append(("pcodec 4, as uint16, sign last", turned, pcodec.decode))
    return found


def _costs(scratch: Path) -> None:
    """A commit, a checksum, opening."""
    table = Table("the store itself", "", title="widths 2304 + 2304")
    wide = noise_store(scratch / "wide.zarr", 60_000, (2304, 2304))
    file, layout = wide.activation_file("a", 0)
    seconds = _median(lambda: check_chunk(file, layout))
    table.add_row("compare a chunk's checksum", f"{layout.chunk_bytes / seconds / 1e9:.1f} GB/s")
    with PartWriter(scratch / "commit.zarr", replace(wide.schema, parts=1)) as writer:
        ends = wide.documents.row_ends[0]
        blocks = [_block(wide, ends, 16 * n, 16 * n + 16) for n in range(6)]
        rows = [int(ends[16 * n + 15] - (ends[16 * n - 1] if n else 0)) for n in range(6)]
        seconds = _median(lambda: writer.append(blocks.pop(), len(blocks)), 6)
    table.add_row(
        f"append and commit a block of {statistics.median(rows):,.0f} rows", f"{seconds:.2f} s"
    )
    many = noise_store(scratch / "many.zarr", OPENED_CHUNKS * 16, (8, 8), chunk_rows=16)
    table.add_row(
        f"open a store of {many.chunks:,} chunks",
        f"{_median(lambda: Store(many.path).chunk_sizes):.3f} s",
    )
    options = LoaderOptions(256, validation_fraction=0.1)
    table.add_row(
        "    and a loader over it, without a batch",
        f"{_median(lambda: ShuffledLoader(Store(many.path), options)):.3f} s",
    )
    Console(width=88).print(table)


def _median(call: Callable[[], object], times: int = 5) -> float:
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


if __name__ == "__main__":
    typer.run(main)
