import json
import multiprocessing
import os
import re
import socket
import threading

import pytest

from pipeline.errors import StoreError
from store.writer import PartWriter


@pytest.fixture
def arguments(make_schema, tmp_path):
    return tmp_path / "store.zarr", make_schema()


def refusal(arguments) -> str:
    with pytest.raises(StoreError) as refused:
        PartWriter(*arguments)
    return str(refused.value)


def test_a_second_writer_of_the_same_part_is_told_who_holds_it_and_since_when(arguments):
    with PartWriter(*arguments):
        message = refusal(arguments)
    wanted = rf"{arguments[0]}/parts/00000: process {os.getpid()} on {socket.gethostname()} "
    assert re.match(re.escape(wanted) + r"\(since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", message)
    assert message.endswith("is writing here; wait for it, or stop it")


def test_the_second_refusal_says_the_same(arguments):
    with PartWriter(*arguments):
        assert refusal(arguments) == refusal(arguments)


def _refused(arguments, queue) -> None:
    try:
        PartWriter(*arguments)
        queue.put("")
    except StoreError as error:
        queue.put(str(error))


def test_a_writer_in_another_process_is_refused(arguments):
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    with PartWriter(*arguments):
        process = context.Process(target=_refused, args=(arguments, queue))
        process.start()
        process.join(30)
    assert f"process {os.getpid()} on " in queue.get()


def _hold_and_die(arguments) -> None:
    PartWriter(*arguments)
    os._exit(0)


def test_what_a_dead_writer_signed_is_overwritten(arguments):
    process = multiprocessing.get_context("fork").Process(target=_hold_and_die, args=(arguments,))
    process.start()
    process.join(30)
    holder = arguments[0].with_name(".store.zarr.part00000.holder")
    assert json.loads(holder.read_bytes())["pid"] == process.pid
    with PartWriter(*arguments):
        assert f"process {os.getpid()} " in refusal(arguments)


@pytest.mark.parametrize(
    "signed",
    ["", "{", "[]", "{}", '{"pid": "x", "host": "HERE", "since": ""}', '{"pid": 1}',
     '{"pid": 999999999, "host": "HERE", "since": "2020"}',
     '{"pid": 99999999999999999999999, "host": "HERE", "since": "2020"}'],
)  # fmt: skip
def test_a_holder_that_cannot_be_known_is_another_process(signed, arguments):
    with PartWriter(*arguments):
        holder = arguments[0].with_name(".store.zarr.part00000.holder")
        holder.write_text(signed.replace("HERE", socket.gethostname()))
        assert "parts/00000: another process is writing here" in refusal(arguments)


def test_a_holder_on_another_machine_is_named(arguments):
    with PartWriter(*arguments):
        holder = arguments[0].with_name(".store.zarr.part00000.holder")
        holder.write_text('{"pid": 7, "host": "node12", "since": "2026-01-01 10:00:00+00:00"}')
        message = refusal(arguments)
    assert "process 7 on node12 (since 2026-01-01 10:00:00+00:00) is writing here" in message


def test_writers_of_different_parts_do_not_meet(make_schema, tmp_path):
    schema = make_schema(parts=2)
    with PartWriter(tmp_path / "store.zarr", schema, 0) as first:
        second = PartWriter(tmp_path / "store.zarr", schema, 1)
        second.close()
    assert first.folder != second.folder


def test_a_writer_closed_in_another_thread_lets_the_part_go(arguments):
    writer = PartWriter(*arguments)
    thread = threading.Thread(target=writer.close)
    thread.start()
    thread.join()
    PartWriter(*arguments).close()


def test_a_refused_writer_holds_no_lock(make_schema, tmp_path):
    PartWriter(tmp_path / "store.zarr", make_schema()).close()
    with pytest.raises(StoreError):
        PartWriter(tmp_path / "store.zarr", make_schema(chunk_rows=8))
    PartWriter(tmp_path / "store.zarr", make_schema()).close()


def test_a_closed_writer_leaves_no_name(arguments):
    PartWriter(*arguments).close()
    assert not arguments[0].with_name(".store.zarr.part00000.holder").exists()
