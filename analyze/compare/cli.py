"""`analyze compare`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from analyze.command import (
    Opened,
    open_all,
    read_settings,
    rows_table,
    word,
)
from pipeline.command import (
    ConfigOption,
    JsonOption,
    SetOption,
    StoreOption,
    next_command,
    progress_bar,
)

if TYPE_CHECKING:
    from analyze.compare.table import Comparison
    from analyze.subject import Subject
    from pipeline.config import Config

PARAGRAPHS = [
    "Features are called A_only, B_only or shared by the verdicts of `analyze exclusivity` where "
    "both dictionaries have them, else by the tags of `analyze norms`; those that fire on fewer "
    "than analyze.min_fires rows are rare.",
    "By direction: each feature's match is the one of the other dictionary with the largest cosine "
    "of decoders, over the hookpoints that both features see, as of one vector, in scaled units. "
    "By activity: the one with the largest correlation (n S_jk - S_j S_k) / sqrt((n S_jj - S_j^2) "
    "(n S_kk - S_k^2)), S sums over all n rows of activations and their products. Correlations are "
    "exact, but only of pairs among each feature's analyze.match_candidates nearest by direction, "
    "from either side, and of exclusive features of one model with those of the other, which no "
    "hookpoint sees together. Only features that fire are matched.",
    "A match is a counterpart at analyze.match_cosine, or analyze.match_correlation. A finding "
    "replicates where its counterpart is called the same. share: of the findings, those that do; "
    "hold that of exclusive ones beside that of shared ones. chance: what it would be if calls had "
    "nothing to do with counterparts: (findings with a counterpart / findings) x (features of the "
    "other that are called so / its features that fire). mean max cosine (MMCS): over the features "
    "that fire. Dictionaries of other seeds share only a part of their features (arXiv "
    "2501.16615).",
]


def compare(
    dictionary: Annotated[Path, typer.Argument(help="The dictionary whose findings are held up.")],
    other: Annotated[Path, typer.Argument(help="Another one of the same store: seed, recipe, ...")],
    store: StoreOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for tables (default: where those of DICTIONARY are: RUN_DIR/analysis, "
            "or the folder of its name in there).",
        ),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Which findings of a dictionary does another one repeat, and what became of the rest?"""
    settings, section = read_settings(config, set_)
    from analyze.compare.plots import compare_figure, compare_png
    from analyze.compare.sides import check_models
    from analyze.compare.table import compare_table
    from analyze.subject import open_subject

    out = out or _tables_of(settings, dictionary)
    opened = open_all(settings, section, store, dictionary, out)
    facing = open_subject(opened.subject.store, other, section.device)
    check_models(opened.subject, facing)
    comparison = _compared(opened, facing, settings)
    table = compare_table(comparison)
    files = opened.tables.write(
        "compare",
        table,
        partial(compare_png, comparison, table),
        compare_figure(comparison, table),
    )
    judging = [
        next_command(
            "analyze exclusivity",
            config,
            set_,
            store=store,
            dictionary=one.folder,
            out=_tables_of(settings, one.folder),
        )
        for one, side in ((opened.subject, comparison.first), (facing, comparison.other))
        if not side.has_verdicts
    ]
    _say(comparison, files, judging, as_json)


compare.__doc__ = "\n\n".join([compare.__doc__ or "", *PARAGRAPHS])


def _tables_of(settings: Config, dictionary: Path) -> Path:
    """Where the report puts a dictionary's tables."""
    main = dictionary.resolve() == settings.dictionary_path.resolve()
    return settings.analysis_path if main else settings.analysis_path / dictionary.resolve().name


def _compared(opened: Opened, facing: Subject, settings: Config) -> Comparison:
    """Nearest directions, one sweep with both dictionaries, and what they call their features."""
    from analyze.compare.coactivation import Coactivation
    from analyze.compare.directions import nearest
    from analyze.compare.matches import match, pairs_of
    from analyze.compare.sides import find_verdicts, side_of
    from analyze.compare.table import Comparison

    subject, section = opened.subject, opened.section
    with progress_bar("pairs") as bar:
        task = bar.add_task("directions", total=subject.features * facing.features, note="")
        near = nearest(
            subject.dictionary,
            facing.dictionary,
            section.match_candidates,
            lambda pairs: bar.update(task, advance=pairs),
        )
    sums = Coactivation(subject, facing, near)
    opened.sweep([sums])
    subjects, fires = (subject, facing), [one.cpu().numpy() for one in sums.fires()]
    verdicts = [find_verdicts(one, _folders(opened.out, settings, one)) for one in subjects]
    by_verdict = all(table is not None for table in verdicts)
    first, other = (
        side_of(one, name, rows, section, found, by_verdict)
        for one, name, rows, found in zip(
            subjects, _names(subject.folder, facing.folder), fires, verdicts, strict=True
        )
    )
    pairs = pairs_of(near, sums.correlations())
    return Comparison(
        first,
        other,
        match(pairs, "direction", first.alive, other.alive),
        match(pairs, "activity", first.alive, other.alive),
        section,
        by_verdict,
    )


def _folders(out: Path, settings: Config, subject: Subject) -> list[Path]:
    """Where tables of a dictionary may be: here, in this run's folders, or in its own run's."""
    folder = subject.folder.resolve()
    own = folder.parent / "analysis"
    return [out, _tables_of(settings, folder), own, own / folder.name]


def _names(first: Path, other: Path) -> tuple[str, str]:
    """What the dictionaries are called: their folders' names where these tell them apart."""
    names = first.resolve().name, other.resolve().name
    if first.resolve() == other.resolve():
        return names[0], f"{names[1]} (itself)"
    return names if names[0] != names[1] else (str(first), str(other))


def _say(comparison: Comparison, files: list[Path], judging: list[str], as_json: bool) -> None:
    """judging: commands that give verdicts to those of the two that have none."""
    from analyze.compare.table import replication

    table = replication(comparison)
    section, called_by = comparison.config, "verdicts" if comparison.by_verdict else "tags"
    if as_json:
        value = {
            "called_by": called_by,
            "replication": table.to_dicts(),
            "mmcs": dict(zip(("first", "other"), comparison.mmcs, strict=True)),
            "files": [str(file) for file in files],
        }
        print(json.dumps(value, indent=2))
        return
    out = Console()
    for (name, against, by), part in table.group_by(
        "dictionary", "against", "by", maintain_order=True
    ):
        rows = [_shown(line) for line in part.to_dicts() if line["features"]]
        if rows:
            out.print(rows_table(rows, escape(f"by {by}: findings of {name} in {against}")))
    edges = f"cosine >= {section.match_cosine:g}, correlation >= {section.match_correlation:g}"
    out.print(f"counterparts: {edges}; called by {called_by}")
    without = [s.name for s in (comparison.first, comparison.other) if not s.has_verdicts]
    if len(without) == 1:
        print(f"{without[0]} has no verdicts yet: {judging[0]}")
    mmcs = " and ".join(word(value) for value in comparison.mmcs)
    out.print(f"mean max cosine: {mmcs} (the reverse)")
    print(f"written: {', '.join(str(file) for file in files)}")


def _shown(line: dict[str, Any]) -> dict[str, Any]:
    """A line of the summary, short enough for a terminal."""
    rest = {
        key.removeprefix("to_"): value
        for key, value in line.items()
        if key.startswith("to_") and value and key != f"to_{line['called']}"
    }
    return {
        "called": line["called"],
        "replicate": f"{line['replicated']} of {line['features']}",
        **{key: line[key] for key in ("share", "chance", "mutual", "median")},
        "the rest met": ", ".join(f"{kind} {count}" for kind, count in rest.items()),
    }
