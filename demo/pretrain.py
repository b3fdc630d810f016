"""Trains a small causal language model on packed documents and measures its bits per byte."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

CONTEXT = 256
BATCH = 16
WARM_UP = 50


@dataclass(frozen=True)
class Recipe:
    """How long and how fast one model learns."""

    steps: int
    matrix_rate: float
    other_rate: float
    seed: int


def build_a(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Llama: RMSNorm, SwiGLU, rotary positions over whole heads, no biases."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def build_b(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """GPT-NeoX: LayerNorm, GELU, attention and MLP in parallel, rotary over a part of each head."""
    config = GPTNeoXConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=6,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return GPTNeoXForCausalLM(config)


def encode(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> list[np.ndarray]:
    """Each text's token ids with the end-of-text token behind them."""
    end = tokenizer.eos_token_id
    ids = tokenizer(list(texts), return_attention_mask=False)["input_ids"]
    return [np.array([*document, end], dtype=np.int64) for document in ids]


def pack_blocks(documents: list[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """The documents end to end in random order, cut into rows of one token more than a context."""
    order = generator.permutation(len(documents))
    stream = np.concatenate([documents[index] for index in order])
    rows = len(stream) // (CONTEXT + 1)
    return stream[: rows * (CONTEXT + 1)].reshape(rows, CONTEXT + 1)


def batches(domains: list[list[np.ndarray]], steps: int, seed: int) -> Iterator[torch.Tensor]:
    """Batches with an equal share of each domain; a domain that runs out starts anew, reshuffled."""
    share = BATCH // len(domains)
    streams = [
        endless_rows(documents, np.random.default_rng([seed, index]))
        for index, documents in enumerate(domains)
    ]
    for _ in range(steps):
        rows = [next(stream) for stream in streams for _ in range(share)]
        yield torch.from_numpy(np.stack(rows))


def endless_rows(
    documents: list[np.ndarray], generator: np.random.Generator
) -> Iterator[np.ndarray]:
    """Rows of packed documents without end."""
    while True:
        yield from generator.permutation(pack_blocks(documents, generator))


def learning_factor(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to a tenth... of nothing."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (step - WARM_UP) / (steps - WARM_UP)))


def optimizers(model: PreTrainedModel, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embeddings, biases and norms."""
    embedding = model.get_input_embeddings().weight
    matrices = [p for p in model.parameters() if p.ndim == 2 and p is not embedding]
    others = [p for p in model.parameters() if p.ndim != 2 or p is embedding]
    return [
        torch.optim.Muon(
            matrices, lr=recipe.matrix_rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=recipe.other_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def next_token_loss(model: PreTrainedModel, rows: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of each row's tokens after the first."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(rows[:, :-1], use_cache=False).logits
    return cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())
