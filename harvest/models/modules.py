"""What modules a model has and what flows through them, so that a user can choose hookpoints.

The model is built without weights and run on fake tensors: a 70B model takes seconds and no memory
to speak of. Where that fails (code that looks at values), the weights are loaded after all.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.nn import ModuleList

from harvest.models import layers
from harvest.models.hookpoints import KINDS, resolve
from harvest.models.layers import NotFound
from harvest.models.load import load_config, load_model, model_class
from harvest.models.probe import PROBE, Observed, observe, text_config
from harvest.reason import first_line
from pipeline.errors import ModelError
from pipeline.specs import ModelSpec


@dataclass(frozen=True)
class ModuleRow:
    """One module: shapes of its first input and output, None where there is no tensor.

    A shape begins with `texts` and `tokens` where it has one entry per token. alike: how many
    modules right behind this one look the same and are left out.
    """

    path: str
    kind: str
    input: list[str | int] | None
    output: list[str | int] | None
    alike: int = 0


@dataclass(frozen=True)
class KindRow:
    """What a kind of hookpoint means in this model, or why it cannot be told."""

    hookpoint: str
    place: str | None
    width: int | None
    reason: str | None = None


@dataclass(frozen=True)
class ModuleTree:
    """A model's modules and its kinds of hookpoints."""

    model: str
    layers: int | None
    modules: list[ModuleRow]
    kinds: list[KindRow]

    def to_json(self) -> dict[str, Any]:
        """Plain lists and dictionaries."""
        return asdict(self)


def list_modules(
    name: str, spec: ModelSpec, layer: int | None = None, everything: bool = False
) -> ModuleTree:
    """The modules of a model; of layers that look the same only one, `layer` or else the first.

    Raises ModelError if the model cannot be built, or has no such layer.
    """
    observed = _observe(name, spec)
    chosen = None
    if layer is not None:
        try:
            chosen = layers.layer_path(observed, layer)
        except NotFound as error:
            raise ModelError(f"--layer {layer} in {spec.path}: {error}") from None
    rows = [_row(observed, path) for path in observed.modules]
    if not everything:
        rows = list(_collapsed(observed, rows, chosen))
    depth = getattr(observed.config, "num_hidden_layers", None)
    number = 0 if layer is None else layer
    return ModuleTree(spec.path, depth, rows, list(_kinds(observed, number)))


def _observe(name: str, spec: ModelSpec) -> Observed:
    from torch._subclasses.fake_tensor import FakeTensorMode

    config = load_config(name, spec)
    auto_class = model_class(name, spec, config)
    remote = {"trust_remote_code": True} if spec.trust_remote_code else {}
    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)
    device = torch.device("meta")
    try:
        with device:
            module = auto_class.from_config(config, dtype=torch.bfloat16, **remote).eval()
        text_config(module).use_cache = False
        with FakeTensorMode(allow_non_fake_inputs=True):
            return observe(module, device)
    except Exception:  # of a model's own code, which fake tensors may stop in any way
        return _observe_loaded(name, spec)


def _observe_loaded(name: str, spec: ModelSpec) -> Observed:
    module = load_model(name, spec)
    try:
        return observe(module, next(module.parameters()).device)
    except Exception as error:  # of a model's own code, which may raise anything
        raise ModelError(
            f"{spec.path}: cannot run a forward pass over a few tokens ({first_line(error)})"
        ) from error


def _row(observed: Observed, path: str) -> ModuleRow:
    kind = type(observed.modules[path]).__name__
    return ModuleRow(path, kind, _shape(observed, path, "in"), _shape(observed, path, "out"))


def _shape(observed: Observed, path: str, site: str) -> list[str | int] | None:
    value = observed.traffic[path].at(site) if path in observed.traffic else None
    if value is None:
        return None
    shape: list[str | int] = list(value.shape)
    return ["texts", "tokens", *shape[2:]] if tuple(shape[:2]) == PROBE else shape


def _collapsed(
    observed: Observed, rows: list[ModuleRow], chosen: str | None
) -> Iterator[ModuleRow]:
    """Leaves out list entries that look like the one before, but shows the chosen layer."""
    by_path = {row.path: row for row in rows}
    left_out: set[str] = set()
    alike: dict[str, int] = {}
    for path, module in observed.modules.items():
        if not isinstance(module, ModuleList):
            continue
        for run in _runs([f"{path}.{name}" for name, _ in module.named_children()], by_path):
            shown = chosen if chosen in run else run[0]
            alike[shown] = len(run) - 1
            left_out.update(entry for entry in run if entry != shown)
    for row in rows:
        steps = row.path.split(".")
        above = {".".join(steps[:end]) for end in range(1, len(steps) + 1)}
        if not above & left_out:
            yield ModuleRow(row.path, row.kind, row.input, row.output, alike.get(row.path, 0))


def _runs(entries: list[str], by_path: dict[str, ModuleRow]) -> Iterator[list[str]]:
    """Consecutive entries of a module list whose modules and shapes are the same."""
    run: list[str] = []
    before = None
    for entry in entries:
        inside = [row for path, row in by_path.items() if f"{path}.".startswith(f"{entry}.")]
        looks = [(row.path[len(entry) :], row.kind, row.input, row.output) for row in inside]
        if run and looks != before:
            yield run
            run = []
        run.append(entry)
        before = looks
    if run:
        yield run


def _kinds(observed: Observed, layer: int) -> Iterator[KindRow]:
    for kind in [*KINDS, "each_head"]:
        hookpoint = f"{kind}.{layer}"
        try:
            places = resolve(hookpoint, "out", observed)
        except NotFound as error:
            yield KindRow(hookpoint, None, None, re.sub(r"; name a .*", "", str(error)))
            continue
        first = places[0]
        number = "" if first.head is None else f", heads 0 to {len(places) - 1}"
        yield KindRow(hookpoint, f"{first.path}:{first.site}{number}", first.width)
