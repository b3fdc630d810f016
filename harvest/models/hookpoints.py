"""What `models.X.hookpoint` names: module paths and kinds (resid_post.3), found in a loaded model.

A place is one tensor of a forward pass, or the channels of it that one attention head has.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch.nn import ModuleList

from harvest.models import layers
from harvest.models.layers import NotFound
from harvest.models.probe import PROBE, Observed
from pipeline.errors import ModelError
from pipeline.specs import ModelSpec

KINDS: dict[str, tuple[Callable[[Observed, int], str], str]] = {
    "resid_pre": (layers.layer_path, "in"),
    "resid_post": (layers.layer_path, "out"),
    "attn_out": (layers.attention_out, "out"),
    "mlp_in": (layers.mlp_in, "in"),
    "mlp_out": (layers.mlp_out, "out"),
    "heads": (layers.projection, "in"),
}
KIND = re.compile(r"([a-z_]+)\.(-?\d+)(?:\.(\d+))?")
PER_HEAD = {"each_head": 2, "head": 3}


@dataclass(frozen=True)
class Place:
    """Where activations are read: `in` or `out` of a module, and which of its channels.

    width: channels of this place; head: which head's, None for all channels.
    """

    path: str
    site: str
    width: int
    head: int | None = None

    @property
    def channels(self) -> slice:
        """The place's channels in the module's tensor."""
        start = 0 if self.head is None else self.head * self.width
        return slice(start, start + self.width)

    def name(self, model: str) -> str:
        """The hookpoint's name in the store, e.g. a.model.layers.2.out."""
        head = "" if self.head is None else f".head{self.head}"
        return f"{model}.{self.path}.{self.site}{head}"


def find_places(name: str, spec: ModelSpec, observed: Observed) -> list[Place]:
    """Every place that the model's hookpoints name, in their order.

    Raises ModelError if there is no such module, if it does not give one vector per token, if a
    kind cannot be told in this architecture, or if two hookpoints are one place.
    """
    found: dict[str, str] = {}
    places = []
    for text in spec.hookpoint:
        try:
            here = resolve(text, spec.site, observed)
        except NotFound as error:
            raise ModelError(f"models.{name}.hookpoint: {text!r} in {spec.path}: {error}") from None
        for place in here:
            own = place.name(name)
            if own in found:
                raise ModelError(
                    f"models.{name}.hookpoint: {found[own]!r} and {text!r} are the same place, "
                    f"{own}; leave one of them out"
                )
            found[own] = text
        places += here
    return places


def resolve(text: str, site: str, observed: Observed) -> list[Place]:
    """The places that one hookpoint names: one, or one per head. Raises NotFound."""
    path, colon, own_site = text.rpartition(":")
    if colon:
        if own_site not in ("in", "out"):
            raise NotFound(f"a hookpoint ends in :in or :out, not :{own_site}")
        return [_place(path, own_site, observed)]
    kind = KIND.fullmatch(text)
    if kind is None or kind[1] not in KINDS | PER_HEAD:
        return [_place(text, site, observed)]
    if (kind[3] is not None) != (kind[1] == "head"):
        raise NotFound("kinds are written resid_post.LAYER, each_head.LAYER and head.LAYER.HEAD")
    try:
        return _of_kind(kind[1], int(kind[2]), kind[3], observed)
    except NotFound as error:
        raise NotFound(f"{error}; name a module's path instead (see `harvest modules`)") from None


def _of_kind(kind: str, layer: int, head: str | None, observed: Observed) -> list[Place]:
    find, site = KINDS["heads" if kind in PER_HEAD else kind]
    place = _place(find(observed, layer), site, observed)
    if kind not in PER_HEAD:
        return [place]
    count = layers.head_count(observed, layer)
    if head is not None and int(head) >= count:
        raise NotFound(f"its layers have heads 0 to {count - 1}")
    wanted = range(count) if head is None else [int(head)]
    return [replace(place, width=place.width // count, head=number) for number in wanted]


def _place(path: str, site: str, observed: Observed) -> Place:
    if path not in observed.modules:
        raise NotFound(_no_such_module(path, observed))
    traffic = observed.traffic.get(path)
    remedy = "name a layer, or a module inside one"
    if traffic is None:
        raise NotFound(f"{path}.{site} cannot be read, the model does not run it; {remedy}")
    if traffic.runs > 1:
        raise NotFound(f"{path}.{site} runs {traffic.runs} times in a pass; {remedy}")
    width = observed.width(path, site)
    value = traffic.at(site)
    if width is None or value is None or not value.is_floating_point():
        got = "no tensor" if value is None else f"{value.dtype} {tuple(value.shape)}"
        raise NotFound(
            f"{path}.{site} gives {got.removeprefix('torch.')} for {PROBE[0]} texts of {PROBE[1]} "
            f"tokens, not one vector per token; {remedy}"
        )
    return Place(path, site, width)


def _no_such_module(path: str, observed: Observed) -> str:
    near = difflib.get_close_matches(path, [*observed.modules, *_kinds_like(path)], 3, cutoff=0.7)
    stacks = [
        f"{stack}.0 to {stack}.{len(module) - 1}"
        for stack, module in observed.modules.items()
        if isinstance(module, ModuleList) and len(module)
    ]
    return (
        f"no module {path!r}"
        + (f"; its layers are {', '.join(stacks[:3])}" if stacks else "")
        + (f"; did you mean {' or '.join(near)}?" if near else "")
    )


def _kinds_like(text: str) -> list[str]:
    """The kinds of hookpoints with the numbers of a text that may be one, misspelt."""
    _, _, numbers = text.partition(".")
    if re.fullmatch(r"-?\d+\.\d+", numbers):
        return [f"head.{numbers}"]
    layer = re.fullmatch(r"-?\d+", numbers)
    return [f"{kind}.{numbers}" for kind in [*KINDS, "each_head"]] if layer else []
