import json

import pytest

from pipeline.errors import StoreError
from store.reader import Store
from store.writer import PartWriter


@pytest.fixture
def store(build_store, tmp_path):
    return build_store(tmp_path / "store.zarr", [[(9, 12)]])


DAMAGES = [
    {},
    {"attributes": {}},
    {"attributes": []},
    {"rows": -1},
    {"rows": "21"},
    {"complete": None},
    {"labels": None},
    {"tokens": {"a": {"read": 1, "paired": 1}}},
    {"statistics": {}},
    {"statistics": {"a.mid": [], "b.mid": []}},
]


@pytest.mark.parametrize("opener", ["reader", "writer"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_attributes_are_refused_with_the_name_of_their_file(
    store, make_schema, damage, opener
):
    file = store.path / "parts/00000/zarr.json"
    content = json.loads(file.read_bytes())
    if not damage or "attributes" in damage:
        content = damage
    else:
        content["attributes"].update(damage)
    file.write_text(json.dumps(content))
    with pytest.raises(StoreError, match=r"parts/00000/zarr\.json: damaged part attributes"):
        Store(store.path) if opener == "reader" else PartWriter(store.path, make_schema())


def test_statistics_of_another_width_are_refused(store):
    file = store.path / "parts/00000/zarr.json"
    content = json.loads(file.read_bytes())
    statistics = content["attributes"]["statistics"]
    statistics["a.mid"], statistics["b.mid"] = statistics["b.mid"], statistics["a.mid"]
    file.write_text(json.dumps(content))
    with pytest.raises(StoreError, match=r"statistics of a\.mid have shape \(10,\)"):
        Store(store.path)
