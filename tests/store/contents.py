"""What a reader finds in a store, and ways to damage one."""

import json
from pathlib import Path

import torch

from store.arrays import part_arrays
from store.chunks import check_chunk, write_chunk
from store.files import group_metadata, json_bytes
from store.reader import Store
from store.seal import sealed, unsealed


def content(store: Store, rows: int, documents: int) -> list:
    """Everything that a reader finds, cut to these many rows and documents."""
    values = [
        torch.cat([store.activations(h.name, chunk) for chunk in range(store.chunks)])[:rows]
        if rows
        else torch.zeros(0, h.width)
        for h in store.schema.hookpoints
    ]
    columns = [store.column(name)[:rows] for name in store.schema.row_columns]
    texts = [store.documents.text(number) for number in range(documents)]
    return [v.tolist() for v in [*values, *columns]] + texts


def flip(file: Path, position: int = 3, bits: int = 1) -> None:
    """Changes one byte."""
    data = bytearray(file.read_bytes())
    data[position] ^= bits
    file.write_bytes(data)


def forge(folder: Path, **values) -> None:
    """Changes attributes of a group so that their checksum still fits."""
    attributes = unsealed(json.loads((folder / "zarr.json").read_bytes())["attributes"])
    metadata = group_metadata(sealed({**attributes, **values}))
    (folder / "zarr.json").write_bytes(json_bytes(metadata))


def overwrite(store: Store, part: int, name: str, change, chunk: int = 0) -> Path:
    """Changes values of a chunk so that its checksum still fits; returns its file."""
    (array,) = (array for array in part_arrays(store.schema) if array.name == name)
    file = array.file(store.parts[part].folder, chunk)
    values = check_chunk(file, array.layout).copy()
    change(values)
    write_chunk(file, values, array.layout)
    return file
