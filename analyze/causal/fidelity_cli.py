"""`analyze fidelity`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from analyze.command import DictionaryOption, Opened, OutOption, open_all, read_settings, rows_table
from pipeline.command import ConfigOption, JsonOption, SetOption, StoreOption, progress_bar

if TYPE_CHECKING:
    import polars as pl

    from analyze.causal.passages import Passages
    from pipeline.specs import ModelSpec

DOCUMENTS = 200
PARAGRAPHS = [
    "Each model runs over texts of the store: clean, and with its activations at the rows' places, "
    "all of its hookpoints at once, replaced by the dictionary's reconstruction, by zero, and by "
    "the store's mean. Other positions keep what they have. Measured is the prediction of the next "
    "token at every row that one follows, in nats.",
    "loss_recovered = (CE_zero - CE_reconstruction) / (CE_zero - CE_clean) (arXiv 2404.16014), "
    "loss_recovered_mean the same with the mean in the place of zero: it flatters less. kl_*: "
    "KL(clean || replaced). top1_agreement: how often the likeliest token stays the same.",
    "fve is about the store's mean, averaged over a model's hookpoints; l0 of the whole "
    "dictionary; dead: share of the features a model sees that fire on none of these rows.",
    "Texts are documents that training held out (all, where it held out none), as many of every "
    "label as can be, up to their first window; which, their hashes decide. Chats are left out.",
]
SHOWN = {  # column -> heading: the table has to fit into a terminal
    "model": "model",
    "label": "label",
    "ce_clean": "CE",
    "ce_reconstruction": "CE patched",
    "loss_recovered": "recovered",
    "kl_reconstruction": "KL",
    "top1_agreement": "top1",
    "fve": "FVE",
}


def fidelity(
    store: StoreOption = None,
    dictionary: DictionaryOption = None,
    out: OutOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    documents: Annotated[
        int, typer.Option("--documents", min=1, help="Texts to run, at most.")
    ] = DOCUMENTS,
    as_json: JsonOption = False,
) -> None:
    """Loss recovered: what is left of the models' predictions with reconstructed activations?"""
    settings, section = read_settings(config, set_)
    specs = settings.models  # what is wrong with them is said before anything is opened
    opened = open_all(settings, section, store, dictionary, out)
    table, passages, files = write_fidelity(opened, specs, documents)
    kind = "held out" if opened.subject.held_out.any() else "of all"
    _say(table, passages, kind, files, as_json)


def write_fidelity(
    opened: Opened, specs: dict[str, ModelSpec], documents: int = DOCUMENTS
) -> tuple[pl.DataFrame, Passages, list[Path]]:
    """The table, the passages that the models ran on, and the files; under a progress bar."""
    from analyze.causal.fidelity import fidelity_table
    from analyze.causal.fidelity_plots import fidelity_figure, fidelity_png
    from analyze.causal.models import open_models, refuse_other_weights
    from analyze.causal.passages import find_passages, sample_documents
    from pipeline.errors import StoreError

    subject = opened.subject
    held_out = subject.held_out if subject.held_out.any() else None
    models = open_models(subject.store, specs)
    passages = find_passages(
        subject.store, models, sample_documents(subject.store, documents, held_out)
    )
    if not passages.found:
        raise StoreError(
            f"{subject.store.path}: no text of it can be run again ({_left_out(passages)}); "
            "name a store of plain texts, and the models that it was harvested from"
        )
    refuse_other_weights(subject.store, models, passages.found)
    with progress_bar("rows") as bar:
        rows = sum(len(passage.rows) for passage in passages.found)
        task = bar.add_task("run models", total=rows * len(models), note="")
        table = fidelity_table(
            subject,
            models,
            passages.found,
            opened.section.batch_tokens,
            opened.section.batch_rows,
            lambda n: bar.update(task, advance=n),
        )
    png, figure = partial(fidelity_png, table), fidelity_figure(table)
    return table, passages, opened.tables.write("fidelity", table, png, figure)


fidelity.__doc__ = "\n\n".join([fidelity.__doc__ or "", *PARAGRAPHS])


def _say(
    table: pl.DataFrame, passages: Passages, kind: str, files: list[Path], as_json: bool
) -> None:
    if as_json:
        value: dict[str, Any] = {
            "fidelity": table.to_dicts(),
            "documents": len(passages.found),
            "of": kind,
            "left_out": passages.left_out,
            "files": [str(file) for file in files],
        }
        print(json.dumps(value, indent=2))
        return
    rows = table.select(*SHOWN).rename(SHOWN).to_dicts()
    title = f"next-token predictions in {len(passages.found)} documents ({kind}), nats"
    Console().print(rows_table(rows, title))
    if passages.left_out:
        print(f"left out: {_left_out(passages)}")
    print(f"written: {', '.join(str(file) for file in files)}")


def _left_out(passages: Passages) -> str:
    said = [f"{number} {reason}" for reason, number in passages.left_out.items()]
    return ", ".join(said) or "none has rows"
