import json
import shutil

import pytest

from pipeline.errors import StoreError
from store.part import PartState, TokenCounts, part_metadata, read_part, write_part
from store.reader import Store
from store.root import schema_digest
from store.writer import PartWriter

from .contents import flip, forge


@pytest.fixture
def store(build_store, tmp_path):
    return build_store(tmp_path / "store.zarr", [[(9, 12)]])


DAMAGES = [
    {"rows": -1},
    {"rows": "21"},
    {"rows": True},
    {"rows": 2**60},
    {"rows": 20},
    {"commits": None},
    {"log_bytes": 1.5},
    {"complete": None},
    {"complete": 1},
    {"labels": None},
    {"labels": [1]},
    {"labels": ["prose", "prose"]},
    {"tokens": {"a": {"read": 1, "paired": 1}}},
    {"tokens": {"a": {"read": 1, "paired": 1}, "b": {"read": 1}}},
    {"statistics": {}},
    {"statistics": {"a.mid": [], "b.mid": []}},
    {"extra": 1},
]


@pytest.mark.parametrize("opener", ["reader", "writer"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_attributes_that_mean_nothing_are_refused_with_the_name_of_their_file(
    store, make_schema, damage, opener
):
    forge(store.path / "parts/00000", **damage)
    with pytest.raises(StoreError, match=r"parts/00000/zarr\.json: damaged part attributes"):
        Store(store.path) if opener == "reader" else PartWriter(store.path, make_schema())


@pytest.mark.parametrize("content", [{}, {"attributes": {}}, {"attributes": []}, {"attributes": 1}])
def test_a_group_without_attributes_is_refused(store, content):
    (store.path / "parts/00000/zarr.json").write_text(json.dumps(content))
    with pytest.raises(StoreError, match=r"parts/00000/zarr\.json: .*--repair"):
        Store(store.path)


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("mean", 0), 1e101, "less than or equal"),
        (("squared_deviations", 5), -1.0, "greater than or equal"),
        (("norm_bins",), {"x": 21}, "invalid literal"),
        (("norm_bins",), {"007": 21}, "no bin of norms"),
        (("norm_bins",), {"999999": 21}, "no bin of norms"),
        (("norm_bins",), {"5": 20}, "count"),
        (("count",), 20, "count"),
        (("mean",), [0.0] * 7, "have widths"),
        (("squared_deviations",), [], "have widths"),
    ],
)
def test_statistics_that_no_rows_have_are_refused(store, where, value, message):
    folder = store.parts[0].folder
    statistics = json.loads((folder / "zarr.json").read_bytes())["attributes"]["statistics"]
    *path, last = where
    inner = statistics["a.mid"]
    for key in path:
        inner = inner[key]
    inner[last] = value
    forge(folder, statistics=statistics)
    with pytest.raises(StoreError, match=message):
        Store(store.path)


def test_infinity_in_attributes_is_refused(store):
    file = store.parts[0].folder / "zarr.json"
    file.write_text(file.read_text().replace('"mean": [', '"mean": [Infinity,', 1))
    with pytest.raises(StoreError, match=r"zarr\.json: damaged attributes .*--repair"):
        Store(store.path)


def test_a_changed_attribute_is_refused_by_its_checksum(store):
    file = store.parts[0].folder / "zarr.json"
    file.write_text(file.read_text().replace('"cursor": 1', '"cursor": 2'))
    with pytest.raises(StoreError, match=r"zarr\.json: checksum of its attributes is .*changed"):
        Store(store.path)


def test_a_part_of_another_store_is_refused(store, build_store, make_schema, tmp_path):
    other = build_store(tmp_path / "other.zarr", [[(9, 12)]], make_schema(fingerprints={"a": "2"}))
    shutil.rmtree(store.parts[0].folder)
    shutil.copytree(other.parts[0].folder, store.parts[0].folder)
    with pytest.raises(StoreError, match=r"parts/00000/zarr\.json: .* store with another schema"):
        Store(store.path)


def test_parts_that_disagree_on_hookpoints_are_refused(build_store, make_schema, tmp_path):
    parts = [[(9, 12)], [(4,)]]
    store = build_store(tmp_path / "store.zarr", parts)
    other = build_store(tmp_path / "other.zarr", parts, make_schema(widths=(6, 12)))
    shutil.rmtree(store.parts[1].folder)
    shutil.copytree(other.parts[1].folder, store.parts[1].folder)
    with pytest.raises(StoreError, match=r"parts/00001/zarr\.json: .* store with another schema"):
        Store(store.path)


def test_a_state_that_was_written_reads_back_the_same(make_schema, store, tmp_path):
    schema, state = make_schema(), store.parts[0].state
    write_part(tmp_path, schema, state)
    assert part_metadata(schema, read_part(tmp_path, schema)) == part_metadata(schema, state)


def test_an_empty_state_reads_back_the_same(make_schema, tmp_path):
    schema = make_schema()
    write_part(tmp_path, schema, PartState.empty(schema))
    found = read_part(tmp_path, schema)
    assert (found.rows, found.commits, found.labels) == (0, 0, ())
    assert found.tokens == {"a": TokenCounts(read=0, paired=0), "b": TokenCounts(read=0, paired=0)}


@pytest.mark.parametrize(
    "other",
    [{"chunk_rows": 8}, {"widths": (6, 11)}, {"codec": "int8"}, {"parts": 3}, {"config": {"x": 1}}],
)
def test_another_schema_has_another_digest(other, make_schema):
    assert schema_digest(make_schema(**other)) != schema_digest(make_schema())


def test_a_schema_has_the_digest_that_it_has_when_it_is_read_again(make_schema, tmp_path):
    schema = make_schema(config={"layers": (1, 2), "by_number": {1: "x"}})
    PartWriter(tmp_path / "store.zarr", schema).close()
    assert schema_digest(Store(tmp_path / "store.zarr").schema) == schema_digest(schema)


METADATA = {
    "data_type": "float32",
    "shape": [21, 7],
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [16, 7]}},
    "codecs": [],
    "node_type": "group",
    "fill_value": 1.0,
}


@pytest.mark.parametrize("key", METADATA)
@pytest.mark.parametrize("array", ["activations/a.mid", "rows/document", "documents/hash"])
def test_array_metadata_that_says_otherwise_is_refused_by_its_key(store, array, key):
    file = store.parts[0].folder / array / "zarr.json"
    metadata = json.loads(file.read_bytes())
    file.write_text(json.dumps({**metadata, key: METADATA[key]}))
    with pytest.raises(StoreError, match=rf"{array}/zarr\.json: damaged array metadata \({key}"):
        Store(store.path)


def test_array_metadata_that_is_gone_is_refused(store):
    (store.parts[0].folder / "rows/token_b/zarr.json").unlink()
    with pytest.raises(StoreError, match=r"rows/token_b/zarr\.json: no such file"):
        Store(store.path)


def test_a_complete_part_whose_arrays_are_of_another_length_is_refused(store):
    file = store.parts[0].folder / "rows/token_b/zarr.json"
    file.write_text(file.read_text().replace("  21\n", "  20\n", 1))
    with pytest.raises(StoreError, match=r"shape\[0\]: store has 20, now 21"):
        Store(store.path)
    forge(store.parts[0].folder, complete=False)
    assert Store(store.path).rows == 21


def test_whatever_is_laid_out_anew_keeps_its_checksum(store):
    file = store.path / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_bytes()), sort_keys=True))
    assert Store(store.path).rows == 21


def test_a_changed_root_is_refused_by_its_checksum(store):
    file = store.path / "zarr.json"
    file.write_text(file.read_text().replace('"seed": 1', '"seed": 2'))
    with pytest.raises(StoreError, match=r"store\.zarr/zarr\.json: checksum of its attributes"):
        Store(store.path)


def test_a_root_that_is_no_json_says_what_can_be_done(store):
    flip(store.path / "zarr.json", 0)
    with pytest.raises(StoreError, match=r"zarr\.json: cannot be read as JSON .*restore it"):
        Store(store.path)
