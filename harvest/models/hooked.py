"""A language model, read at any number of places in one pass, through nnsight.

The pass stops right behind the last place: later layers and the output head cost nothing. Only the
modules that are read are instrumented, and the block that reads them is captured once: nnsight
adds about 0.25 ms per pass. Activations equal those of a plain forward hook bit for bit.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Embedding, Module, ModuleList

from harvest.models.hookpoints import find_places
from harvest.models.load import load_model, load_tokenizer
from harvest.models.probe import first_input, first_output, observe, text_config
from harvest.reason import first_line
from pipeline.errors import ModelError
from pipeline.specs import ModelSpec
from store.schema import Hookpoint


@dataclass(frozen=True)
class Kept:
    """A tensor of the pass and its version: a larger one later says that it was overwritten."""

    value: Tensor
    version: int


class HookedModel:
    """A loaded model in evaluation mode, with its tokenizer and its hookpoints.

    hookpoints: name in the store and width, in the order of the configuration. One thread at a time
    may use a model; several models may run in several threads. Raises ModelError if the model
    cannot be loaded or a hookpoint cannot be found or read.
    """

    def __init__(self, name: str, spec: ModelSpec) -> None:
        self.name = name
        self.spec = spec
        self._module = load_model(name, spec)
        self.tokenizer: Any = load_tokenizer(name, spec)
        try:
            observed = observe(self._module, self.device)
        except Exception as error:  # of a model's own code, which may raise anything
            raise ModelError(
                f"models.{name}.path: {spec.path}: cannot run a forward pass over a few tokens "
                f"({first_line(error)})"
            ) from error
        self.places = find_places(name, spec, observed)
        self.hookpoints = tuple(
            Hookpoint(name=place.name(name), model=name, width=place.width) for place in self.places
        )
        self._reads = sorted(
            {(place.path, place.site) for place in self.places},
            key=lambda read: observed.traffic[read[0]].order(read[1]),
        )
        self._kept: list[Kept] = []
        self._copied: set[int] = set()
        self._reader = self._instrument()
        ids = torch.zeros((1, 1), dtype=torch.long)
        self.activations(ids, torch.ones_like(ids))  # learns which places need a copy

    @property
    def module(self) -> Module:
        """The model itself, as transformers made it."""
        return self._module

    @property
    def device(self) -> torch.device:
        """Where token ids go: the device of the embedding."""
        device: torch.device = self._embedding.weight.device
        return torch.device("cpu") if device.type == "meta" else device

    @property
    def vocabulary(self) -> int:
        """Number of token ids that the model can embed."""
        return int(self._embedding.weight.shape[0])

    @property
    def parameter_count(self) -> int:
        """Number of weights of the whole model, its output head included."""
        return sum(weights.numel() for weights in self._module.parameters())

    @property
    def context(self) -> int | None:
        """Most tokens that the model was built to read at once, where its config says so."""
        limit = getattr(text_config(self._module), "max_position_embeddings", None)
        if not isinstance(limit, int) or limit <= 0:
            return None
        return limit - _positions_before_the_first(self._module)

    @property
    def bidirectional(self) -> bool:
        """Whether a token sees those behind it, as in an encoder."""
        said = [getattr(module, "is_causal", None) for module in self._module.modules()]
        known = [causal for causal in said if isinstance(causal, bool)]
        return not any(known) if known else "CausalLM" not in type(self._module).__name__

    def activations(
        self, input_ids: Int[Tensor, "batch seq"], attention_mask: Int[Tensor, "batch seq"]
    ) -> dict[str, Float[Tensor, "batch seq _"]]:
        """What flows through each hookpoint, by its name, in the model's dtype.

        Each lies on the device where the model computes it. Heads of one layer share their memory;
        nothing that the model does later changes it.
        """
        while True:
            self._pass(input_ids, attention_mask)
            overwritten = {
                number
                for number, kept in enumerate(self._kept)
                if kept.value._version != kept.version
            }
            if not overwritten:
                break
            self._copied |= overwritten
        found = {read: kept.value for read, kept in zip(self._reads, self._kept, strict=True)}
        self._kept.clear()
        return {
            hookpoint.name: found[place.path, place.site][..., place.channels]
            for hookpoint, place in zip(self.hookpoints, self.places, strict=True)
        }

    def _pass(self, input_ids: Tensor, attention_mask: Tensor) -> None:
        self._kept.clear()
        device = self.device
        with torch.no_grad():
            # Bound, for nnsight would move them to the first module that is read.
            run = partial(
                self._module,
                input_ids=input_ids.to(device),
                attention_mask=attention_mask.to(device),
            )
            self._reader.trace(fn=run, trace=False)

    def _instrument(self) -> Any:
        """An nnsight model of the modules that are read, which reads them in every pass."""
        from nnsight import NNsight

        paths = list(dict.fromkeys(path for path, _ in self._reads))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*nnsight already serves")
            reader = NNsight(ModuleList(self._module.get_submodule(path) for path in paths))
        keep = self._keep
        places = [(reader[paths.index(path)], site) for path, site in self._reads]
        with reader.edit(inplace=True) as tracer:
            for envoy, site in places:
                keep(first_input(*envoy.inputs) if site == "in" else first_output(envoy.output))
            tracer.stop()
        return reader

    def _keep(self, value: Tensor | None) -> None:
        """Takes the next tensor of the pass, as a copy if an earlier pass wrote over it."""
        assert value is not None
        value = value.clone() if len(self._kept) in self._copied else value
        self._kept.append(Kept(value, value._version))

    @property
    def _embedding(self) -> Any:
        return self._module.get_input_embeddings()  # type: ignore[operator]


def _positions_before_the_first(module: Module) -> int:
    """Rows of a position table that no token uses: RoBERTa counts from its padding id on."""
    for path, inner in module.named_modules():
        if path.endswith("position_embeddings") and isinstance(inner, Embedding):
            return 0 if inner.padding_idx is None else inner.padding_idx + 1
    return 0
