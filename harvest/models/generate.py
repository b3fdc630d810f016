"""Lets a model write on, token by token, with the activations at its hookpoints edited throughout.

The prompt takes one pass, every token behind it a pass of one position against the keys and values
kept so far, where the architecture keeps them; elsewhere everything is read again. Either way the
tokens are those of a loop that reads everything again for one prompt at a time, up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor

from harvest.models.hooked import HookedModel
from harvest.models.intervene import Edit, accepts, edited, run
from pipeline.errors import ModelError

CACHES = ("cache", "past_key_values")  # what transformers calls it, since 5.24 and before


def generate(
    model: HookedModel,
    input_ids: Int[Tensor, "batch seq"],
    attention_mask: Int[Tensor, "batch seq"],
    edits: Mapping[str, Edit] | None = None,
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> Int64[Tensor, "batch new"]:
    """The tokens behind each prompt, on the CPU; at most so many, fewer if all texts end before.

    Prompts are padded on either side, special tokens included. temperature: 0 takes the likeliest
    token, else tokens are drawn from softmax(logits / temperature). The draws of a line depend on
    `seed`, its number and `max_new_tokens` alone, so texts with different edits are coupled. Behind
    its end-of-text token a line is filled with that token. An edit gets the prompts padded on the
    left, then single positions, and has to treat all positions alike.

    Raises ModelError as `intervene.logits` does, and where the text would not fit into the context.
    """
    _refuse_too_long(model, attention_mask, max_new_tokens)
    draws = torch.rand(
        (len(input_ids), max_new_tokens),
        generator=torch.Generator().manual_seed(seed),
        dtype=torch.float64,
    )
    texts = _Texts(*_padded_left(input_ids, attention_mask))
    with edited(model, edits or {}):
        if accepts(model, "position_ids") or bool(texts.mask.all()):
            return _continued(model, texts, draws, temperature).cpu()
        lines = [  # positions would be counted from the padding on
            _continued(model, texts.line(n), draws[n : n + 1], temperature).cpu()
            for n in range(len(input_ids))
        ]
    longest = max(line.shape[1] for line in lines)
    return torch.cat(
        [torch.cat([line, line[:, -1:].expand(1, longest - line.shape[1])], 1) for line in lines]
    )


@dataclass(frozen=True)
class _Texts:
    """Tokens and mask, padded on the left, and what the model keeps of all but the last tokens."""

    ids: Int64[Tensor, "batch seq"]
    mask: Int64[Tensor, "batch seq"]
    past: Any = None

    def line(self, number: int) -> _Texts:
        """One of the texts, without its padding."""
        start = int(self.mask.shape[1] - self.mask[number].sum())
        return _Texts(self.ids[number : number + 1, start:], self.mask[number : number + 1, start:])

    def with_token(self, token: Int64[Tensor, " batch"], past: Any) -> _Texts:
        """The texts with one token more."""
        return _Texts(
            torch.cat([self.ids, token[:, None]], 1),
            torch.cat([self.mask, torch.ones_like(token[:, None])], 1),
            past,
        )


def _continued(
    model: HookedModel, texts: _Texts, draws: Float64[Tensor, "batch most"], temperature: float
) -> Int64[Tensor, "batch new"]:
    texts = replace(texts, ids=texts.ids.to(model.device), mask=texts.mask.to(model.device))
    ends = torch.tensor(_end_tokens(model), dtype=torch.long, device=model.device)
    first = texts.ids.shape[1]
    ended = torch.zeros(len(texts.ids), dtype=torch.bool, device=model.device)
    for draw in draws.to(model.device).T:
        scores, past = _next_scores(model, texts)
        token = pick(scores.to(model.device), temperature, draw)
        token = torch.where(ended, texts.ids[:, -1], token)
        texts = texts.with_token(token, past)
        ended = ended | torch.isin(token, ends)
        if bool(ended.all()):  # one wait per pass, which has to end anyway before the next
            break
    return texts.ids[:, first:]


def _next_scores(
    model: HookedModel, texts: _Texts
) -> tuple[Float[Tensor, "batch vocabulary"], Any]:
    """Logits of the next token of each text, and what the model keeps of the texts for it."""
    name = next((name for name in CACHES if accepts(model, name)), None)
    kept = 0 if texts.past is None else texts.ids.shape[1] - 1
    further: dict[str, Any] = {}
    if name is not None:
        further = {"use_cache": True, **({name: texts.past} if kept else {})}
    if accepts(model, "logits_to_keep"):
        further["logits_to_keep"] = 1
    if accepts(model, "position_ids"):
        further["position_ids"] = (texts.mask.cumsum(1) - 1).clamp(min=0)[:, kept:]
    output = run(model, texts.ids[:, kept:], texts.mask, **further)
    return output.logits[:, -1], getattr(output, name, None) if name else None


def pick(
    scores: Float[Tensor, "batch vocabulary"],
    temperature: float,
    draw: Float64[Tensor, " batch"],
) -> Int64[Tensor, " batch"]:
    """The likeliest token, or the one of softmax(scores / temperature) a draw of [0, 1) hits."""
    if temperature == 0:
        return scores.argmax(dim=1)
    cumulative = torch.softmax(scores.double() / temperature, dim=1).cumsum(dim=1)
    threshold = draw[:, None] * cumulative[:, -1:]
    found = torch.searchsorted(cumulative, threshold, right=True)[:, 0]
    return found.clamp(max=scores.shape[1] - 1)


def _padded_left(
    ids: Tensor, mask: Tensor
) -> tuple[Int64[Tensor, "batch seq"], Int64[Tensor, "batch seq"]]:
    """The same texts with all padding on the left."""
    ids, mask = ids.cpu().long(), mask.cpu().long()
    places = torch.arange(mask.shape[1])
    behind = mask.shape[1] - 1 - (mask * places).amax(dim=1)
    source = (places - behind[:, None]) % mask.shape[1]
    ids, mask = ids.gather(1, source), mask.gather(1, source)
    start = mask.shape[1] - int(mask.sum(dim=1).max())
    return ids[:, start:], mask[:, start:]


def _end_tokens(model: HookedModel) -> list[int]:
    """The ids that end a text, by the model's generation config, else by its tokenizer."""
    said = getattr(getattr(model.module, "generation_config", None), "eos_token_id", None)
    said = model.tokenizer.eos_token_id if said is None else said
    if said is None:
        return []
    return [int(said)] if isinstance(said, int) else [int(token) for token in said]


def _refuse_too_long(model: HookedModel, mask: Tensor, new: int) -> None:
    longest = int(mask.sum(dim=1).max())
    if model.context is not None and longest + new > model.context:
        raise ModelError(
            f"models.{model.name}: a prompt of {longest} tokens and {new} new ones do not fit into "
            f"its context of {model.context}; take fewer"
        )
