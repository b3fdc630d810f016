"""A store is removed whole, unless somebody writes it or it is none."""

import shutil

import pytest

from pipeline.errors import StoreError
from store.holder import part_lock
from store.reader import Store
from store.remove import remove_store
from tests.train.conftest import write_store


@pytest.fixture
def path(tmp_path):
    return write_store(tmp_path / "store.zarr", documents=3)


def test_a_store_is_removed_and_one_that_is_not_there_is_no_error(path):
    remove_store(path)
    assert not path.exists()
    assert not path.with_name("store.zarr.tmp").exists()
    remove_store(path)


def test_something_else_is_left_where_it_is(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.png").write_bytes(b"x")
    with pytest.raises(StoreError, match="is not a store, so it is not removed"):
        remove_store(tmp_path / "photos")
    assert (tmp_path / "photos" / "me.png").exists()


def test_one_that_is_being_written_is_left(path):
    lock = part_lock(path, 0)
    lock.acquire()
    with pytest.raises(StoreError, match="is writing here; wait for it, or stop it"):
        remove_store(path)
    lock.release()
    assert Store(path).complete


def test_a_link_is_left_for_the_user_to_remove(path, tmp_path):
    (tmp_path / "link.zarr").symlink_to(path)
    with pytest.raises(StoreError, match=r"is a link to .*store.zarr; remove the store there"):
        remove_store(tmp_path / "link.zarr")
    assert Store(path).complete


def test_what_a_killed_removal_left_goes_with_the_next(path):
    shutil.copytree(path, path.with_name("store.zarr.tmp"))
    remove_store(path)
    assert not path.with_name("store.zarr.tmp").exists()
