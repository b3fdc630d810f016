"""`harvest align`: how the models' tokenizers cut a text or the corpus, and what pairs."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.command import ConfigOption, JsonOption, SetOption, read_config
from pipeline.errors import ConfigError, CorpusError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harvest.align_sample import Aligned, Tally
    from harvest.config import HarvestConfig
    from harvest.text.tokens import TextTokenizer
    from pipeline.specs import ModelSpec

SHOWN_ROWS = 60

TextOption = Annotated[
    str | None, typer.Option("--text", help="Align this text (default: a sample of the corpus).")
]
DocumentsOption = Annotated[
    int, typer.Option("--documents", min=1, help="Documents of the corpus to align (default: 200).")
]


def align(
    text: TextOption = None,
    documents: DocumentsOption = 200,
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Shows the models' tokens under each other, pairs in brackets, and the share that pairs.

    Of a corpus, the beginning of one document of each source, and counts by source and label.
    Loads tokenizers only.
    """
    if text == "":
        raise ConfigError("--text: given ''; give some text, or leave it out to align the corpus")
    from transformers.utils import logging

    from harvest.align_sample import align_documents, tally
    from harvest.corpus.document import Document

    settings = read_config(config, set_)
    logging.set_verbosity_error()
    from harvest.config import HarvestConfig

    chosen = settings.section("harvest", HarvestConfig)
    if text is None:
        from harvest.corpus.reader import read_documents

        corpus = settings.corpus
        chats = any(source.chat_column for source in corpus.named_sources.values())
        loaded = load_tokenizers(settings.models, chosen, chats)
        read = list(islice(read_documents(corpus), documents))
        if not read:
            raise CorpusError("corpus: has no documents to align; name another file or column")
    else:
        loaded = load_tokenizers(settings.models, chosen, chats=False)
        read = [Document(text, "", source="text")]
    aligned, left_out = align_documents(read, [ours for _, ours in loaded.values()])
    shown = list({one.document.source: one for one in reversed(aligned)}.values())[::-1]
    counts = tally(aligned)
    if as_json:
        print(json.dumps(_as_json(list(loaded), shown, counts, left_out), indent=2))
    else:
        _print(loaded, shown, counts, left_out, rows=SHOWN_ROWS if text is None else None)


def load_tokenizers(
    specs: Mapping[str, ModelSpec], harvest: HarvestConfig, chats: bool
) -> dict[str, tuple[Any, TextTokenizer]]:
    """Each model's tokenizer as transformers has it, and ours of it. Raises ModelError."""
    from harvest.models.load import load_tokenizer
    from harvest.text.template import chat_templates
    from harvest.text.tokens import TextTokenizer

    tokenizers = {name: load_tokenizer(name, spec) for name, spec in specs.items()}
    templates = chat_templates(specs, tokenizers) if chats else {}
    return {
        name: (
            tokenizer,
            TextTokenizer(tokenizer, name, templates.get(name), harvest.template_tokens),
        )
        for name, tokenizer in tokenizers.items()
    }


def _print(
    loaded: Mapping[str, tuple[Any, TextTokenizer]],
    shown: list[Aligned],
    counts: list[Tally],
    left_out: dict[str, int],
    rows: int | None,
) -> None:
    from rich.text import Text

    from harvest import wording
    from harvest.align_view import console, side_by_side, tally_table

    out = console()
    decode = [tokenizer.decode for tokenizer, _ in loaded.values()]
    for one in shown:
        label = f", {one.document.label}" if one.document.label else ""
        out.print(Text(f"{one.document.source}{label}", "bold"))
        out.print(side_by_side(one, list(loaded), decode, out.width, rows))
    out.print(tally_table(counts, list(loaded)))
    if left_out:
        out.print(Text(wording.left_out(left_out)))


def _as_json(
    models: list[str], shown: list[Aligned], counts: list[Tally], left_out: dict[str, int]
) -> dict[str, Any]:
    return {
        "counts": [
            {
                "source": one.source,
                "label": one.label,
                "documents": one.documents,
                "tokens": dict(zip(models, one.tokens, strict=True)),
                "rows": one.rows,
                "paired_fraction": dict(zip(models, one.paired, strict=True)),
            }
            for one in counts
        ],
        "left_out": left_out,
        "shown": [_alignment(one, models) for one in shown],
    }


def _alignment(one: Aligned, models: list[str]) -> dict[str, Any]:
    """A document's text, each model's tokens as [id, start, end], and the rows that they make."""
    return {
        "source": one.document.source,
        "label": one.document.label,
        "text": one.document.text,
        "tokens": {
            name: [
                list(token)
                for token in zip(
                    own.ids.tolist(), own.starts.tolist(), own.ends.tolist(), strict=True
                )
            ]
            for name, own in zip(models, one.tokens, strict=True)
        },
        "rows": [
            dict(zip(models, row, strict=True))
            for row in zip(*(found.tolist() for found in one.pairing.positions), strict=True)
        ],
    }
