"""`analyze norms`, and what `analyze report` takes of it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from analyze.command import (
    SWEEP,
    DictionaryOption,
    Opened,
    OutOption,
    bar_when_needed,
    open_all,
    read_settings,
    rows_table,
    word,
)
from analyze.config import AnalyzeConfig
from pipeline.command import (
    ConfigOption,
    JsonOption,
    SetOption,
    StoreOption,
    next_command,
)

if TYPE_CHECKING:
    from analyze.analysis import Analysis

PARAGRAPHS = [
    "Relative decoder norm R = |d_A| / (|d_A| + |d_B|) (arXiv 2602.11729): 1 where only A has the "
    "feature, 0.5 shared, 0 only B; norms are over all of a model's hookpoints, as of one vector. "
    "The tag is A_only above 0.9, B_only below 0.1, shared from 0.4 to 0.6 (the bins of arXiv "
    "2504.02922), else other; analyze.norm_exclusive and analyze.norm_shared move the edges. "
    "norm_difference is that paper's 0.5 (1 + (|d_B| - |d_A|) / max), a function of R.",
    "decoder_norm, encoder_norm and R are in scaled units: those of (x - mean) * scale, in which "
    "training here gives every model the median activation norm sqrt(mean width), so that models "
    "compare. A decoder's norm is then length per activation, an encoder's activation per length. "
    "decoder_norm_raw is decoder_norm / scale: length in the model's own activations, per "
    "hookpoint. relative_decoder_norm_raw and relative_encoder_norm are R of those.",
    "decoder_cosine = <d_A, d_B> / (|d_A| |d_B|) over the models' paired hookpoints; empty where "
    "widths differ. Norms alone mislead: complete shrinkage, latent decoupling (see analyze "
    "scaling).",
]


def norms(
    store: StoreOption = None,
    dictionary: DictionaryOption = None,
    out: OutOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Decoder and encoder norms, relative norms, tag, group and firing of every feature."""
    settings, section = read_settings(config, set_)
    section = section.model_copy(update={"planted": {}})  # norms ask for no known answer
    opened = open_all(settings, section, store, dictionary, out)
    analysis = analyzed(opened)
    files = write_norms(opened, analysis)
    if as_json:
        print(json.dumps(_as_json(analysis, files), indent=2))
        return
    print_norms(analysis, section)
    print(f"written: {', '.join(str(file) for file in files)}")
    print("next:", next_command("analyze report", config, set_, store=store, dictionary=dictionary))


norms.__doc__ = "\n\n".join([norms.__doc__ or "", *PARAGRAPHS])


def analyzed(opened: Opened) -> Analysis:
    """The analysis that every report begins with; the sweep, if one is needed, under a bar."""
    from analyze.analysis import analyze

    subject = opened.subject
    with bar_when_needed("rows", f"sweep {subject.folder.name}", subject.store.rows) as update:
        return analyze(
            subject, opened.section, opened.out / SWEEP, lambda rows: update(advance=rows)
        )


def write_norms(opened: Opened, analysis: Analysis) -> list[Path]:
    """The norms table with its histogram."""
    from analyze.plots import histogram_figure, histogram_png, tag_edges

    table, models = analysis.table, analysis.models
    edges = tag_edges(opened.section.norm_exclusive, opened.section.norm_shared)
    png = partial(histogram_png, table, models, edges=edges)
    return opened.tables.write("norms", table, png, histogram_figure(table, models, edges))


def print_norms(analysis: Analysis, section: AnalyzeConfig) -> None:
    """Groups, tags and figures of the whole dictionary on the terminal."""
    from analyze.norms import group_summary
    from analyze.norms_table import norm_medians, tag_counts

    out = Console()
    first, second = analysis.models
    out.print(rows_table(group_summary(analysis.table).to_dicts(), "features by partition group"))
    edge, middle = section.norm_exclusive, section.norm_shared
    title = (
        f"alive features by group and tag (R > {edge:g}: {first} alone, < {1 - edge:g}: {second} "
        f"alone, {1 - middle:g} to {middle:g}: shared)"
    )
    out.print(rows_table(tag_counts(analysis.table, analysis.models).to_dicts(), title))
    known = norm_medians(analysis.table).items()
    medians = "  ".join(f"{name} {word(value)}" for name, value in known if value is not None)
    out.print(f"medians of alive features  {medians}")
    scales = "  ".join(f"{escape(name)} {value:.4g}" for name, value in _scales(analysis).items())
    out.print(f"scale (scaled = raw x scale)  {scales}")
    fve = "  ".join(f"{model} {word(value)}" for model, value in analysis.fve.items())
    dead = "  ".join(f"{model} {value:.1%}" for model, value in analysis.dead_fraction.items())
    out.print(f"held-out FVE  {fve}   dead  {dead}   L0 {word(analysis.l0)}")


def _scales(analysis: Analysis) -> dict[str, float]:
    """What each hookpoint's raw activations are multiplied with."""
    dictionary = analysis.dictionary
    factors = (dictionary.scale * dictionary.norm_scale).tolist()
    return {h.name: factor for h, factor in zip(dictionary.hookpoints, factors, strict=True)}


def _as_json(analysis: Analysis, files: list[Path]) -> dict[str, Any]:
    from analyze.norms import bin_counts, group_summary
    from analyze.norms_table import norm_medians, tag_counts

    return {
        "groups": group_summary(analysis.table).to_dicts(),
        "tags": tag_counts(analysis.table, analysis.models).to_dicts(),
        "relative_decoder_norm_bins": bin_counts(analysis.table),
        "medians": norm_medians(analysis.table),
        "scales": _scales(analysis),
        "fve": analysis.fve,
        "dead_fraction": analysis.dead_fraction,
        "files": [str(file) for file in files],
    }
