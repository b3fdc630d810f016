"""`harvest modules MODEL`: the module tree with shapes, and what the kinds of hookpoints mean."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.command import ConfigOption, JsonOption, SetOption, read_config
from pipeline.command import console as screen
from pipeline.errors import ModelError
from pipeline.specs import ModelSpec

if TYPE_CHECKING:
    from harvest.models.modules import ModuleTree

UNNAMED = "MODEL"  # a model that the configuration does not name has no key in it
WIDE = 1000  # a path that is cut or wrapped cannot be copied

ModelArgument = Annotated[
    str, typer.Argument(help="A model of the configuration by name, a local folder, or a hub name.")
]
LayerOption = Annotated[
    int | None,
    typer.Option("--layer", help="Show this layer; -1 is the last (default: the first)."),
]
AllOption = Annotated[
    bool, typer.Option("--all", help="Show every layer, alike or not (default: off).")
]


def modules_(
    model: ModelArgument,
    layer: LayerOption = None,
    all_: AllOption = False,
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lists a model's modules, what flows through them, and its kinds of hookpoints."""
    settings = read_config(config, set_)
    models = settings.models if settings.raw.get("models") else {}
    from harvest.models.modules import list_modules
    from harvest.models.quiet import quiet

    with quiet(), screen.status(f"reading {escape(model)}"):  # the hub may keep us waiting
        if model in models:
            tree = list_modules(model, models[model], layer, all_)
        else:
            tree = _modules_of_path(model, list(models), layer, all_)
    if as_json:
        print(json.dumps(tree.to_json(), indent=2))
    else:
        _show(tree)


def _modules_of_path(path: str, known: list[str], layer: int | None, all_: bool) -> ModuleTree:
    """The modules of a folder or hub name. Its errors name it, and the models that are `known`."""
    from harvest.models.modules import list_modules

    try:
        spec = ModelSpec(path=path, hookpoint=("resid_post.-1",))
    except ValidationError as error:
        raise ModelError(f"{path!r} cannot name a model: {error.errors()[0]['msg']}") from None
    try:
        return list_modules(UNNAMED, spec, layer, all_)
    except ModelError as error:
        said, key = str(error), f"models.{UNNAMED}.path: "
        if not said.startswith(key):
            raise
        others = f"; the configuration's models are {', '.join(known)}" if known else ""
        raise ModelError(said.removeprefix(key) + others) from error


def _show(tree: ModuleTree) -> None:
    modules = _table("module", "class", "in", "out")
    for row in tree.modules:
        own = f"[cyan]{escape(row.kind)}[/]"
        modules.add_row(escape(row.path), own, _words(row.input), _words(row.output))
        if row.alike:
            modules.add_row(f"[dim]... {row.alike} more like {row.path}[/]")
    kinds = _table("hookpoint", "reads", "width")
    for kind in tree.kinds:
        reads = escape(kind.place) if kind.place else f"[dim]{escape(kind.reason or '')}[/]"
        kinds.add_row(kind.hookpoint, reads, "" if kind.width is None else str(kind.width))
    console = Console(highlight=False, width=WIDE)
    console.print(modules, "", "[dim]T texts of N tokens each[/]", "", kinds, sep="\n")


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, pad_edge=False, header_style="bold")


def _words(shape: list[str | int] | None) -> str:
    names = {"texts": "T", "tokens": "N"}
    return "-" if shape is None else " x ".join(names.get(str(n), str(n)) for n in shape)
