"""Trains a small causal language model on packed documents and measures its bits per byte."""

import copy
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

CONTEXT = 256
ROWS_PER_BATCH = 8
WARM_UP_STEPS = 60
STEPS_PER_SNAPSHOT = 200
ROWS_PER_EVALUATION = 32
IGNORED = -100
MATRIX_RATE, OTHER_RATE = 0.007, 0.004


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


def endless_rows(
    documents: list[np.ndarray], generator: np.random.Generator
) -> Iterator[np.ndarray]:
    """Rows of packed documents; a domain that runs out starts anew in another order."""
    while True:
        yield from generator.permutation(pack_blocks(documents, generator))


def batches(domains: list[list[np.ndarray]], seed: int) -> Iterator[torch.Tensor]:
    """Batches with an equal share of each domain."""
    streams = [
        endless_rows(documents, np.random.default_rng([seed, index]))
        for index, documents in enumerate(domains)
    ]
    while True:
        share = ROWS_PER_BATCH // len(streams)
        rows = [next(stream) for stream in streams for _ in range(share)]
        yield torch.from_numpy(np.stack(rows))


def optimizers(model: PreTrainedModel) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embeddings, biases and norms."""
    embedding = model.get_input_embeddings().weight
    matrices: list[torch.Tensor] = []
    others: list[torch.Tensor] = []
    for parameter in model.parameters():
        is_matrix = parameter.ndim == 2 and parameter is not embedding
        (matrices if is_matrix else others).append(parameter)
    return [
        torch.optim.Muon(
            matrices, lr=MATRIX_RATE, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def rate_factor(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to zero."""
    if step < WARM_UP_STEPS:
        return (step + 1) / WARM_UP_STEPS
    return 0.5 * (1 + math.cos(math.pi * (step - WARM_UP_STEPS) / (steps - WARM_UP_STEPS)))


def next_token_loss(model: PreTrainedModel, rows: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of each row's tokens after the first."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(rows[:, :-1], use_cache=False).logits
    return cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())


def train(model: PreTrainedModel, data: Iterator[torch.Tensor], steps: int, folder: Path) -> None:
    """Train for a number of steps; ``folder`` has a usable model from the first snapshot on."""
    chosen = optimizers(model)
    schedulers = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, steps))
        for optimizer in chosen
    ]
    started = time.monotonic()
    for step, rows in enumerate(itertools.islice(data, steps), start=1):
        loss = next_token_loss(model, rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, scheduler in zip(chosen, schedulers, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
        if step % 20 == 0:
            seconds = time.monotonic() - started
            print(f"{folder.name}: step {step}/{steps} loss {loss:.3f} {seconds:.0f} s", flush=True)
        if step % STEPS_PER_SNAPSHOT == 0 or step == steps:
            save(model, folder)


def save(model: PreTrainedModel, folder: Path) -> None:
    """Write the model in bfloat16; whole files replace the old, for whoever reads meanwhile."""
    partial = folder.with_name(folder.name + ".partial")
    copy.deepcopy(model).bfloat16().save_pretrained(partial)
    folder.mkdir(parents=True, exist_ok=True)
    for path in partial.iterdir():
        path.replace(folder / path.name)
    partial.rmdir()


@torch.inference_mode()
def bits_per_byte(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]
) -> float:
    """Bits the model spends on the texts, each read alone in windows of one context."""
    start = tokenizer.bos_token_id or tokenizer.eos_token_id
    windows = []
    for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]:
        ids = torch.tensor([start, *ids])
        windows += [ids[i : i + CONTEXT + 1] for i in range(0, len(ids) - 1, CONTEXT)]
    windows.sort(key=len)
    nats = 0.0
    for first in range(0, len(windows), ROWS_PER_EVALUATION):
        rows = pad_sequence(
            windows[first : first + ROWS_PER_EVALUATION], batch_first=True, padding_value=IGNORED
        )
        logits = model(rows[:, :-1].clamp(min=0), use_cache=False).logits
        targets = rows[:, 1:].flatten()
        nats += cross_entropy(logits.flatten(0, 1), targets, reduction="sum").item()
    return nats / math.log(2) / sum(len(text.encode()) for text in texts)


def unigram_bits_per_byte(training: Sequence[str], texts: Sequence[str]) -> float:
    """Bits a model of single byte frequencies (add-one) spends on the texts."""
    counts = np.bincount(np.frombuffer("".join(training).encode(), np.uint8), minlength=256) + 1
    bits = -np.log2(counts / counts.sum())
    return float(bits[np.frombuffer("".join(texts).encode(), np.uint8)].mean())
