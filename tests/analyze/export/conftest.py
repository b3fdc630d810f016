"""A store of uneven documents with token ids, a dictionary whose codes vary, and a server."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analyze.subject import open_subject
from store.block import Block
from store.reader import Store
from store.schema import Hookpoint, StoreSchema
from store.writer import PartWriter
from train.dictionary.activation import ReLU
from train.dictionary.artifact import save_dictionary
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import dedicated

A, B = "a.mid.out", "b.mid.out"
WIDTHS = {A: 6, B: 8}
LENGTHS = [11, 1, 0, 40, 7, 64, 3, 0, 25, 100, 2, 5]  # rows per document
FEATURES = 20


@pytest.fixture(scope="session")
def uneven_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two parts of the same twelve lengths, chunks of 32 rows; every token id is its row's own."""
    path = tmp_path_factory.mktemp("uneven") / "store.zarr"
    hookpoints = (Hookpoint(A, "a", WIDTHS[A]), Hookpoint(B, "b", WIDTHS[B]))
    schema = StoreSchema(hookpoints, 32, {"models.a": "1", "models.b": "2"}, {}, parts=2)
    generator = torch.Generator().manual_seed(3)
    lengths = np.array(LENGTHS)
    rows = int(lengths.sum())
    words = np.concatenate([np.arange(length, dtype=np.int32) for length in LENGTHS])
    for part in range(2):
        ids = np.arange(part * rows, (part + 1) * rows, dtype=np.int32)
        block = Block(
            texts=[
                "".join(f"w{n:02d} " for n in range(length)) or f"empty {part}{number}"
                for number, length in enumerate(LENGTHS)
            ],
            labels=["some"] * len(lengths),
            sources=["corpus"] * len(lengths),
            activations={
                name: torch.randn(rows, width, generator=generator).bfloat16()
                for name, width in WIDTHS.items()
            },
            document=np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
            char_start=4 * words,
            char_end=4 * words + 4,
            tokens={"a": 1000 + ids, "b": 5000 + ids},
            tokens_read={"a": rows, "b": rows},
            tokens_paired={"a": rows, "b": rows},
        )
        with PartWriter(path, schema, part) as writer:
            writer.append(block, 1)
            writer.finish()
    return Store(path)


@pytest.fixture(scope="session")
def uneven_subject(uneven_store, tmp_path_factory):
    """Groups [a: 4 | shared: 11 | b: 5], ReLU: feature 0 never fires, 19 on every row."""
    shapes = (HookpointShape(A, "a", WIDTHS[A]), HookpointShape(B, "b", WIDTHS[B]))
    partition = dedicated(("a", "b"), FEATURES, {"a": 4, "b": 5})
    dictionary = Crosscoder(shapes, partition, activation=ReLU())
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in dictionary.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
        dictionary.b_enc.sub_(1.0)
        dictionary.b_enc[0], dictionary.b_enc[19] = -100, 100
    folder: Path = tmp_path_factory.mktemp("uneven_run") / "dictionary"
    save_dictionary(folder, dictionary, {"recipe": "dfc"})
    return open_subject(uneven_store, folder, "cpu")


Reply = tuple[int, bytes] | tuple[int, bytes, dict[str, str]]


def _completion(text: Any, reason: str = "stop") -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    return json.dumps({"choices": [{**choice, "finish_reason": reason}]}).encode()


class Stub:
    """An OpenAI-compatible server in a thread, that answers as a test tells it to.

    Calls `reply` with each request's body, one at a time; keeps what it was sent.
    """

    def __init__(self, reply: Callable[[dict[str, Any]], Reply]) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        stub, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    stub.bodies.append(body)
                    stub.headers.append({k.lower(): v for k, v in self.headers.items()})
                    stub.paths.append(self.path)
                    status, content, *more = reply(body)
                try:
                    self.send_response(status)
                    self.send_header("content-length", str(len(content)))
                    for name, value in (more[0] if more else {}).items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    pass  # who asked has gone

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "Stub":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[dict[str, Any]], Reply]], Stub]]:
    """Starts servers that answer with status, content and perhaps headers; closes them."""
    with ExitStack() as stack:
        yield lambda reply: stack.enter_context(Stub(reply))


@pytest.fixture
def completion() -> Callable[..., bytes]:
    """Writes the JSON of an answer: text, and why it ends."""
    return _completion
