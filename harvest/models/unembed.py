"""The way from a model's residual stream to its next-token scores: final norm and output head.

Both are found by structure, as layers are: the head is what transformers calls the output
embedding, the norm is the one whose output a probe pass saw going into it. A direction d is taken
as the whole residual stream: scores are W_U (norm(d) - norm(0)), so that the norm's gain (and a
LayerNorm's centring) is folded in and its bias is not, less their mean over the vocabulary, which
no softmax sees. d's length plays no part: it is scaled to a root mean square of 1 beforehand.
N directions, D width, V tokens, K kept of them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Module

from harvest.models import layers
from harvest.models.hookpoints import Place
from harvest.models.layers import NotFound
from harvest.models.probe import Observed, observe
from pipeline.errors import ModelError

TOKENS_AT_ONCE = 8192  # rows of the head widened to float32 at a time
PROPORTIONAL = 0.999  # cosine from which the head's input counts as the norm's output


@dataclass(frozen=True)
class Extremes:
    """Tokens with the largest scores, the largest first, or the smallest, the smallest first."""

    tokens: Int[Tensor, "directions kept"]
    scores: Float[Tensor, "directions kept"]


@dataclass(frozen=True)
class Unembedding:
    """A model's final norm, in float32, and output head, in the model's dtype.

    tokens: ids that the tokenizer knows, ascending; the head may have more rows. residual: names
    of the hookpoints of this model that are on its residual stream, from its first layer on.
    """

    norm: Module
    head_VD: Tensor
    tokens: Int[Tensor, " known"]
    residual: tuple[str, ...]

    @property
    def width(self) -> int:
        """Channels of the residual stream."""
        return int(self.head_VD.shape[1])

    @torch.no_grad()
    def folded(self, d_ND: Float[Tensor, "directions width"]) -> Float[Tensor, "directions width"]:
        """What the head is given for each direction; NaN for one of length 0."""
        d_ND = d_ND.to(self.head_VD.device, torch.float32)
        d_ND = d_ND / d_ND.square().mean(dim=1, keepdim=True).sqrt()
        folded: Tensor = self.norm(d_ND) - self.norm(torch.zeros_like(d_ND[:1]))
        return folded

    @torch.no_grad()
    def extremes(
        self, d_ND: Float[Tensor, "directions width"], count: int
    ) -> tuple[Extremes, Extremes]:
        """The `count` tokens that each direction promotes most, and those it suppresses most.

        Reads the head once, a block of tokens at a time; memory for directions x TOKENS_AT_ONCE.
        """
        u_ND = self.folded(d_ND)
        best = _Best(count, u_ND), _Best(count, u_ND)
        total_D = u_ND.new_zeros(self.width, dtype=torch.float64)
        for known in self.tokens.to(u_ND.device).split(TOKENS_AT_ONCE):
            head_VD = self.head_VD[known].float()
            total_D += head_VD.sum(dim=0, dtype=torch.float64)
            scores_NV = u_ND @ head_VD.T
            best[0].take(scores_NV, known)
            best[1].take(-scores_NV, known)
        mean_N1 = (u_ND.double() @ (total_D / len(self.tokens)))[:, None]
        promoted, suppressed = (one.scores.double() for one in best)
        return (
            Extremes(best[0].tokens, promoted - mean_N1),
            Extremes(best[1].tokens, -suppressed - mean_N1),
        )


def find_unembedding(name: str, module: Module, tokenizer: Any) -> Unembedding:
    """The unembedding of a loaded model. Costs a forward pass of 6 tokens.

    Raises ModelError if the model has no plain output head, or no norm right before it.
    """
    try:
        return _find(name, module, tokenizer)
    except NotFound as error:
        raise ModelError(f"models.{name}: no logit lens: {error}") from None


def token_texts(tokenizer: Any, tokens: Sequence[int]) -> list[str]:
    """Each token as it reads within a text, its space before a word included.

    A part of a character, which is no text by itself, as the tokenizer's own name of it.
    """
    before = _ordinary(tokenizer)
    lead = len(_decoded(tokenizer, before))
    texts = []
    for token, named in zip(tokens, tokenizer.convert_ids_to_tokens(list(tokens)), strict=True):
        text = _decoded(tokenizer, [*before, token])[lead:]
        texts.append(str(named) if "\ufffd" in text or not text else text)
    return texts


def _find(name: str, module: Module, tokenizer: Any) -> Unembedding:
    head: Any = module.get_output_embeddings()  # type: ignore[operator]
    if head is None:
        raise NotFound("it has no output head (an encoder, or a model without one)")
    weight: Any = getattr(head, "weight", None)
    plain = isinstance(weight, Tensor) and weight.ndim == 2 and weight.is_floating_point()
    if not plain or list(head.children()):
        raise NotFound(f"its output head is a {type(head).__name__}, not one plain matrix")
    embedding: Any = module.get_input_embeddings()  # type: ignore[operator]
    observed = observe(module, embedding.weight.device)
    path = _final_norm(observed, head)
    norm = copy.deepcopy(observed.modules[path]).float().to(weight.device).eval()
    known = sorted(id for id in tokenizer.get_vocab().values() if id < len(weight))
    return Unembedding(
        norm,
        weight.detach(),
        torch.tensor(known, dtype=torch.long),
        tuple(_residual(name, observed, path)),
    )


def _final_norm(observed: Observed, head: Module) -> str:
    """Path of the last norm before the head. Raises NotFound unless it gives the head its input."""
    at = next((path for path, inner in observed.modules.items() if inner is head), "")
    given = observed.traffic[at].input if at in observed.traffic else None
    if given is None:
        raise NotFound("its output head does not run in a plain pass")
    norms = {
        path: traffic
        for path, traffic in observed.traffic.items()
        if "Norm" in type(observed.modules[path]).__name__ and traffic.runs == 1
    }
    before = [path for path, one in norms.items() if one.left < observed.traffic[at].entered]
    last = max(before, key=lambda path: norms[path].left, default=None)
    gave = norms[last].output if last is not None else None
    if last is None or gave is None or not _proportional(gave, given):
        raise NotFound("its output head is not given what its last norm gives")
    return last


def _proportional(gave: Tensor, given: Tensor) -> bool:
    """Whether one is the other, or a positive multiple of it, token by token."""
    if gave.shape != given.shape:
        return False
    given = given.to(gave.device)
    cosine = torch.cosine_similarity(gave.float(), given.float(), dim=-1)
    return torch.equal(gave, given) or bool((cosine > PROPORTIONAL).all())


def _residual(name: str, observed: Observed, norm: str) -> list[str]:
    """Names in the store of inputs and outputs of layers, and of what the final norm is given."""
    stack = layers.layer_stack(observed)
    layer_paths = [f"{stack}.{child}" for child, _ in observed.modules[stack].named_children()]
    places = [Place(path, site, 0) for path in layer_paths for site in ("in", "out")]
    return [place.name(name) for place in (*places, Place(norm, "in", 0))]


class _Best:
    """The largest scores so far, with their tokens."""

    def __init__(self, count: int, u_ND: Tensor) -> None:
        self._count = count
        self.scores = u_ND.new_zeros(len(u_ND), 0)
        self.tokens = torch.zeros(len(u_ND), 0, dtype=torch.long, device=u_ND.device)

    def take(self, scores_NV: Tensor, tokens_V: Tensor) -> None:
        top = scores_NV.topk(min(self._count, len(tokens_V)), dim=1)
        scores = torch.cat([self.scores, top.values], dim=1)
        tokens = torch.cat([self.tokens, tokens_V[top.indices]], dim=1)
        best = scores.topk(min(self._count, scores.shape[1]), dim=1)
        self.scores, self.tokens = best.values, tokens.gather(1, best.indices)


def _ordinary(tokenizer: Any) -> list[int]:
    """Tokens of a letter, to stand before another: some tokenizers drop a text's first space."""
    ids: list[int] = tokenizer.encode("a", add_special_tokens=False)
    return ids


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    return text
