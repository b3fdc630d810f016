"""A causal language model, read at one hookpoint through nnsight.

The forward pass stops right behind the hookpoint: later layers and the output head cost nothing.
nnsight adds about 1 ms per pass. Activations equal those of a plain forward hook bit for bit.
"""

from __future__ import annotations

import difflib
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from harvest.reason import first_line, read_errors
from harvest.sources import local_folder
from pipeline.config import ModelSpec
from pipeline.errors import ModelError

PROBE = (2, 3)


class HookedModel:
    """A loaded model in evaluation mode, with its tokenizer and the width of its hookpoint.

    Raises ModelError if the model cannot be loaded or has no such hookpoint.
    """

    def __init__(self, name: str, spec: ModelSpec) -> None:
        self.name = name
        self.spec = spec
        self.hookpoint_name = hookpoint_name(name, spec)
        self.device = _device(name, spec)
        self._model = _load(name, spec, self.device)
        self._module: torch.nn.Module = self._model._module.eval()
        self.tokenizer: Any = self._model.tokenizer
        self._check_hookpoint()
        self._envoy = self._model.get(spec.hookpoint)
        self.width = self._probe_width()

    @property
    def vocabulary(self) -> int:
        """Number of token ids that the model can embed."""
        return int(self._module.get_input_embeddings().weight.shape[0])  # type: ignore[operator]

    @property
    def context(self) -> int | None:
        """Most tokens that the model was built to read at once, where its config says so."""
        limit = getattr(self._module.config, "max_position_embeddings", None)
        return limit if isinstance(limit, int) and limit > 0 else None

    def activations(
        self, input_ids: Int[Tensor, "batch seq"], attention_mask: Int[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch seq width"]:
        """What flows through the hookpoint, on the model's device, in the model's dtype."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        envoy = self._envoy
        if self.spec.site == "out":
            with torch.no_grad(), self._model.trace(inputs) as tracer:
                value = envoy.output.save()
                tracer.stop()
        else:
            with torch.no_grad(), self._model.trace(inputs) as tracer:
                value = envoy.input.save()
                tracer.stop()
        return value[0] if isinstance(value, tuple | list) else value

    def _check_hookpoint(self) -> None:
        modules = dict(self._module.named_modules())
        wanted = self.spec.hookpoint
        if wanted in modules and wanted:
            return
        near = difflib.get_close_matches(wanted, modules, n=3, cutoff=0.7)
        stacks = [
            f"{path}.0 to {path}.{len(module) - 1}"
            for path, module in modules.items()
            if isinstance(module, torch.nn.ModuleList) and len(module)
        ]
        raise ModelError(
            f"models.{self.name}.hookpoint: {self.spec.path} has no module {wanted!r}"
            + (f"; did you mean {' or '.join(near)}?" if near else "")
            + (f"; its layers are {', '.join(stacks[:3])}" if stacks else "")
        )

    def _probe_width(self) -> int:
        """Runs a few tokens to see that the hookpoint gives one vector per token, and how wide."""
        ids = torch.zeros(PROBE, dtype=torch.long)
        where = f"models.{self.name}.hookpoint: {self.hookpoint_name}"
        try:
            value = self.activations(ids, torch.ones_like(ids))
        except Exception as error:
            raise ModelError(
                f"{where} cannot be read in a forward pass ({first_line(error)}); "
                "name a module that the model runs, such as one of its layers"
            ) from error
        if not isinstance(value, Tensor) or value.ndim != 3 or value.shape[:2] != PROBE:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ModelError(
                f"{where} gives {got} for {PROBE[0]} texts of {PROBE[1]} tokens, not one vector "
                "per token; name a layer, or a module inside one"
            )
        return int(value.shape[2])


def hookpoint_name(model: str, spec: ModelSpec) -> str:
    """The hookpoint's name in the store, e.g. a.model.layers.2.out."""
    return f"{model}.{spec.hookpoint}.{spec.site}"


def _device(name: str, spec: ModelSpec) -> torch.device:
    if spec.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(spec.device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"models.{name}.device: {spec.device!r} cannot be used here "
            f"({first_line(error)}); try auto, cpu or cuda"
        ) from None
    return device


def _load(name: str, spec: ModelSpec, device: torch.device) -> Any:
    from nnsight.modeling.transformers import TransformersModel
    from safetensors import SafetensorError

    source = str(local_folder(name, spec) or spec.path)
    optional = {"trust_remote_code": True} if spec.trust_remote_code else {}
    try:
        return TransformersModel(
            source,
            task="text-generation",
            dispatch=True,
            dtype=getattr(torch, spec.dtype),
            revision=spec.revision,
            device=device,
            **optional,
        )
    except read_errors(KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"models.{name}.path: {spec.path}: cannot be loaded as a causal language model "
            f"({first_line(error)})"
        ) from error
