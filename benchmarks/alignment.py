"""How much of two tokenizations pairs, by kinds of tokenizers and of text, and how fast.

Beside the rows that the alignment gives stands the most that is possible: the characters at which
both tokenizations cut the text cleanly, counted one by one from transformers' own offsets. They
must be equal. `python -m benchmarks.alignment`, about two minutes.
"""

from __future__ import annotations

import statistics
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Any

import polars as pl
import typer
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer

from harvest.corpus.document import Document
from harvest.text.align import Tokens, pair
from harvest.text.tokens import TextTokenizer
from tests.harvest.text.tokenizers import FAMILIES, train

DEMO = {"demo a": "demo/models/a", "demo b": "demo/models/b"}
KINDS = {"prose": "English", "a_domain": "German", "b_domain": "Python"}
SYMBOLS = [
    *(
        "👩‍👩‍👧‍👦",
        "🏳️‍🌈",
        "👋🏽",
        "漢字かな交じり文",
        "한국어",
        "\u1112\u1161\u11ab",
        "e\u0301",
        "a\u0308\u0323",
        "ﬁ½",
    ),
    *(
        "שָׁלוֹם",
        "مرحبا",
        "░▒▓",
        "“…”",
        "naïve",
        "Ελλάδα",
        "привет",
        "नमस्ते",
        "\u200b",
        "\r\n",
        " " * 9,
    ),
]
TURNS = 3


@dataclass(frozen=True)
class Contender:
    """A tokenizer as transformers has it, and ours of it."""

    name: str
    theirs: Any
    ours: TextTokenizer


def main(documents: int = 60, vocabulary: int = 4096) -> None:
    """Documents per kind of text; the families' tokenizers are trained on the demo's corpus."""
    texts = _texts(documents)
    corpus = pl.read_parquet("demo/corpus.parquet")["text"].to_list()
    demo = [_contender(name, AutoTokenizer.from_pretrained(path)) for name, path in DEMO.items()]
    families = [_contender(name, train(name, corpus[::4], vocabulary)) for name in FAMILIES]
    pairs = [tuple(demo), *combinations(families, 2)]
    console = Console(width=96)
    console.print(_paired(pairs, texts))
    console.print(_speed([*demo, *families], [Document(text, "") for text in corpus[:600]]))


def _contender(name: str, theirs: Any) -> Contender:
    ours = TextTokenizer(theirs, name)
    theirs.backend_tokenizer.post_processor = None  # it would trim white space off the offsets
    return Contender(name, theirs, ours)


def _texts(documents: int) -> dict[str, list[str]]:
    """Texts by kind; those of symbols repeat them in changing order."""
    frame = pl.read_parquet("demo/corpus.parquet")
    found = {
        name: frame.filter(pl.col("domain") == domain)["text"].to_list()[:documents]
        for domain, name in KINDS.items()
    }
    found["symbols"] = [
        " ".join(SYMBOLS[place * step % len(SYMBOLS)] for place in range(200))
        for step in range(1, documents + 1)
    ]
    return found


def _paired(pairs: Sequence[tuple[Contender, ...]], texts: dict[str, list[str]]) -> Table:
    table = Table(
        *("tokenizers", "text", "tokens", "rows", "possible", "share of tokens"),
        title="what pairs",
    )
    for contenders in pairs:
        for kind, chosen in texts.items():
            documents = [Document(text, "") for text in chosen]
            encoded = [contender.ours.encode(documents) for contender in contenders]
            rows = sum(len(pair(tokens)) for tokens in zip(*encoded, strict=True))
            possible = sum(
                len(set.intersection(*(_cuts(one.theirs, text) for one in contenders)))
                for text in chosen
            )
            tokens = [sum(map(len, one)) for one in encoded]
            table.add_row(
                ", ".join(contender.name for contender in contenders) * (kind == "English"),
                kind,
                " ".join(f"{count:,}" for count in tokens),
                f"{rows:,}",
                f"{possible:,}" if possible == rows else f"[red]{possible:,}[/]",
                " ".join(f"{rows / count:.1%}" for count in tokens),
                end_section=kind == "symbols",
            )
    return table


def _cuts(tokenizer: Any, text: str) -> set[int]:
    """Characters at which a token ends and that no token reaches across."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans = [(start, end) for start, end in encoded["offset_mapping"] if start < end]
    covered = {place for start, end in spans for place in range(start, end)}
    accents = "".join(filter(_merges, set(text)))
    ends, across = set(), set()
    for start, end in spans:
        # Accents and jamo that the normalizer merged into the character before have no offsets.
        if end not in covered:
            end += len(text[end:]) - len(text[end:].lstrip(accents))
        ends.add(end)
        across.update(range(start + 1, end))
    return ends - across


def _merges(character: str) -> bool:
    return unicodedata.combining(character) > 0 or 0x1160 <= ord(character) < 0x1200


def _speed(contenders: Sequence[Contender], documents: list[Document]) -> Table:
    table = Table("", "million tokens/s", title=f"speed, median of {TURNS}")
    encoded: dict[str, list[Tokens]] = {}
    for contender in contenders:
        seconds = []
        for _ in range(TURNS):
            begin = time.perf_counter()
            encoded[contender.name] = [
                tokens for block in _blocks(documents) for tokens in contender.ours.encode(block)
            ]
            seconds.append(time.perf_counter() - begin)
        count = sum(map(len, encoded[contender.name]))
        table.add_row(
            f"tokenize, {contender.name}", f"{count / statistics.median(seconds) / 1e6:.2f}"
        )
    for chosen in (contenders[:2], contenders[2:4], contenders[2:]):
        seconds = []
        for _ in range(TURNS):
            begin = time.perf_counter()
            for tokens in zip(*(encoded[one.name] for one in chosen), strict=True):
                pair(tokens)
            seconds.append(time.perf_counter() - begin)
        count = sum(len(tokens) for one in chosen for tokens in encoded[one.name])
        names = ", ".join(one.name for one in chosen)
        table.add_row(f"pair, {names}", f"{count / statistics.median(seconds) / 1e6:.2f}")
    return table


def _blocks(documents: list[Document], size: int = 64) -> list[list[Document]]:
    source = iter(documents)
    return list(iter(lambda: list(islice(source, size)), []))


if __name__ == "__main__":
    typer.run(main)
