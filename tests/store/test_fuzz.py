"""Whatever stands in a store's files, only StoreError comes out of it, in one line."""

import json
import shutil
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import StoreError
from store.files import group_metadata, json_bytes
from store.reader import Store
from store.repair import repair
from store.seal import sealed, unsealed
from store.summary import summarize
from store.verify import verify
from store.writer import PartWriter

DEEP = 20_000


class Files(dict):
    """Content by name; hypothesis would print all of it."""

    def __repr__(self) -> str:
        return "the files"


@pytest.fixture(scope="module")
def original(build_store, make_schema, tmp_path_factory):
    """The files of a store of two parts."""
    path = tmp_path_factory.mktemp("fuzz") / "store.zarr"
    schema = make_schema(config={"seed": 1, "corpus": {"limit": None}}, vocabulary={"a": 500})
    schema = build_store(path, [[(9, 12), (4, 0)], [(20,)]], schema).schema
    files = (file for file in path.rglob("*") if file.is_file())
    return schema, Files((file.relative_to(path), file.read_bytes()) for file in files)


@pytest.fixture(scope="module")
def damaged(original, memory_folder):
    """A copy of the store in which some files have another content."""
    folder = Path(tempfile.mkdtemp(dir=memory_folder))

    def make(changes: dict[Path, bytes]) -> Path:
        shutil.rmtree(folder)
        for name, content in {**original[1], **changes}.items():
            (folder / "store.zarr" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "store.zarr" / name).write_bytes(content)
        return folder / "store.zarr"

    return make


def use(path, schema) -> None:
    """Does with a store whatever can be done; anything but StoreError is a failure."""

    errors = []

    def attempt(work):
        try:
            return work()
        except StoreError as error:
            errors.append(str(error))
            return None

    result = verify(path)
    assert all(len(problem.splitlines()) == 1 for problem in result.problems)
    json.dumps(vars(result))
    summary = attempt(lambda: summarize(path))
    if summary is not None:
        json.dumps(asdict(summary))
    store = attempt(lambda: Store(path))
    if store is not None:
        _read(store, attempt)
    attempt(lambda: PartWriter(path, schema).close())
    assert [error for error in errors if "\n" in error or len(error) > 1000] == []


def _read(store, attempt) -> None:
    for hookpoint in store.schema.hookpoints:
        attempt(lambda name=hookpoint.name: store.statistics(name).norm_quantile(0.9))
    for model in store.schema.models:
        attempt(lambda name=model: store.paired_fraction(name))
    attempt(lambda: store.documents.labels)
    attempt(lambda: store.documents.validation_mask(0.5))
    for document in range(min(9, len(store.documents))):
        attempt(lambda number=document: store.documents.text(number).encode("utf-8", "replace"))
    for chunk in range(min(9, store.chunks)):
        attempt(lambda number=chunk: store.activations(store.schema.hookpoints[0].name, number))
        attempt(lambda number=chunk: store.document_chunk(number))


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([10**400, -1, 0, 2**31, 2**53, 2**63, 1.5]),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["..", "../x", "/etc", "a/b", "\0", "\ud83d", ".", "x" * 300, "zarr.json"]),
    st.sampled_from([[], {}, [[]], {"a": {}}, [None] * 20, ["a", "a"]]),
)


def places(value, before=()):
    """Where the values inside a JSON value stand, at any depth."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    for key, found in value.items() if isinstance(value, dict) else ():
        yield (*before, key)
        yield from places(found, (*before, key))


def changed(value, place, what, junk):
    """The value with the one at `place` taken away, replaced, or given company."""
    *path, last = place
    changed = json.loads(json.dumps(value))
    inner = changed
    for key in path:
        inner = inner[key]
    if what == "gone":
        del inner[last]
    elif what == "replaced":
        inner[last] = junk
    elif isinstance(inner, dict):
        inner[str(last) + "x"] = junk
    else:
        inner.append(junk)
    return changed


def draw_changed(data, value):
    every = list(places(value))
    place = every[data.draw(st.integers(0, len(every) - 1))]
    what = data.draw(st.sampled_from(["gone", "replaced", "replaced", "replaced", "more"]))
    return changed(value, place, what, data.draw(JUNK))


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_changed_metadata_is_at_most_a_store_error(original, damaged, data):
    schema, files = original
    names = sorted(name for name in files if name.name == "zarr.json")
    name = data.draw(st.sampled_from([Path("zarr.json"), Path("parts/00000/zarr.json"), *names]))
    found = draw_changed(data, json.loads(files[name]))
    use(damaged({name: json.dumps(found).encode()}), schema)


@given(data=st.data(), part=st.sampled_from(["", "parts/00000", "parts/00001"]))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_changed_attributes_whose_checksum_fits_are_at_most_a_store_error(
    original, damaged, data, part
):
    schema, files = original
    name = Path(part) / "zarr.json"
    attributes = unsealed(json.loads(files[name])["attributes"])
    found = draw_changed(data, attributes)
    with suppress(ValueError, AttributeError, TypeError):  # NaN, or no object, has no checksum
        found = sealed(found)
    with suppress(ValueError):
        use(damaged({name: json_bytes(group_metadata(found))}), schema)


CONTENTS = {
    "empty": b"",
    "cut short": b'{"zarr_format": 3, "node_type": "gr',
    "not UTF-8": b'{"attributes": "\xff\xfe"}',
    "UTF-16": '{"attributes": {}}'.encode("utf-16"),
    "a list": b"[]",
    "null": b"null",
    "NaN": b'{"attributes": {"rows": NaN}}',
    "a number too long": b'{"attributes": {"rows": ' + b"9" * 10_000 + b"}}",
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"attributes": ' * DEEP + b"1" + b"}" * DEEP,
    "nearly too deep": b'{"attributes": ' * 900 + b"1" + b"}" * 900,
    "a key twice": b'{"attributes": {"rows": 1, "rows": 2}, "attributes": {}}',
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize(
    "name",
    ["zarr.json", "parts/zarr.json", "parts/00000/zarr.json", "parts/00000/rows/zarr.json",
     "parts/00001/activations/a.mid/zarr.json", "parts/00000/documents/text/zarr.json"],
)  # fmt: skip
def test_any_other_content_is_at_most_a_store_error(original, damaged, name, content):
    path = damaged({Path(name): CONTENTS[content]})
    assert any(name in problem for problem in verify(path).problems)
    use(path, original[0])


@given(depth=st.integers(1, 1100))
@settings(max_examples=30, deadline=None)
def test_nesting_of_any_depth_is_at_most_a_store_error(original, damaged, depth):
    """In the configuration, where anything may stand, with a checksum that fits if it can."""
    schema, files = original
    nested: dict = {}
    for _ in range(depth):
        nested = {"x": nested}
    attributes = unsealed(json.loads(files[Path("zarr.json")])["attributes"])
    attributes["config"] = nested
    try:
        content = json.dumps(group_metadata(sealed(attributes))).encode()
    except RecursionError:
        content = b'{"attributes": {"config": ' + b'{"x": ' * depth + b"1" + b"}" * (depth + 2)
    use(damaged({Path("zarr.json"): content}), schema)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_junk_in_any_file_is_at_most_a_store_error(original, damaged, data):
    schema, files = original
    name = data.draw(st.sampled_from(sorted(files)))
    junk = data.draw(st.binary(max_size=200))
    same_size = data.draw(st.booleans())
    content = (junk + files[name])[: len(files[name])] if same_size else junk
    path = damaged({name: content})
    use(path, schema)
    with suppress(StoreError):
        repair(path)
        assert verify(path).problems == []


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/../../x", "..", "", ".", "a\0b", "a\x85", "zarr.json"]
)
@pytest.mark.parametrize("field", ["name", "model"])
def test_a_name_that_leads_out_of_the_store_is_refused(original, damaged, name, field):
    attributes = unsealed(json.loads(original[1][Path("zarr.json")])["attributes"])
    attributes["hookpoints"][0][field] = name
    content = json_bytes(group_metadata(sealed(attributes)))
    path = damaged({Path("zarr.json"): content})
    with pytest.raises(StoreError, match=rf"hookpoints\.0\.{field}: "):
        Store(path)
    use(path, original[0])


def test_a_symlinked_chunk_is_read_like_any_other(original, damaged, tmp_path):
    path = damaged({})
    chunk = path / "parts/00000/activations/a.mid/c/0/0"
    (tmp_path / "elsewhere").write_bytes(chunk.read_bytes())
    chunk.unlink()
    chunk.symlink_to(tmp_path / "elsewhere")
    assert verify(path).problems == []
    chunk.unlink()
    chunk.symlink_to("0")  # to itself
    assert any(str(chunk) in problem for problem in verify(path).problems)
    use(path, original[0])
