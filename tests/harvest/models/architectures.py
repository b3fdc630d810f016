"""Tiny models with random weights, one per architecture family, built from their configs.

Three layers each, grouped-query attention and a head width that is not hidden / heads wherever the
family knows them. A family also says, written by hand, which modules its hookpoint kinds mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

LAYERS = 3
VOCABULARY = 320
SIZE = {"vocab_size": VOCABULARY, "num_hidden_layers": LAYERS, "num_attention_heads": 4}
GATED = {**SIZE, "hidden_size": 32, "intermediate_size": 48, "max_position_embeddings": 64}
GROUPED = {**GATED, "num_key_value_heads": 2}
WIDE_HEADS = {**GROUPED, "head_dim": 16}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
WINDOWED = {"sliding_window": 4, "layer_types": ["sliding_attention"] * 2 + ["full_attention"]}


@dataclass(frozen=True)
class Family:
    """One architecture: its classes, the size of its config, and where its kinds lie in a layer.

    `attention`, `mlp_in` and `mlp_out` are paths inside a layer; `projection` is the module whose
    input is the heads; an empty name means that the kind is not to be tested.
    """

    model: str
    config: str
    size: dict[str, Any]
    layers: str = "model.layers"
    attention: str = "self_attn"
    projection: str = "self_attn.o_proj"
    mlp_in: str = "mlp"
    mlp_out: str = "mlp"
    heads_width: int = 32
    heads: int = 4
    bidirectional: bool = False

    def kinds(self, layer: int) -> dict[str, tuple[str, str]]:
        """Hookpoint as a user writes it -> (module path, site), for the kinds without heads."""
        inside = f"{self.layers}.{layer}"
        kinds = {
            f"resid_pre.{layer}": (inside, "in"),
            f"resid_post.{layer}": (inside, "out"),
            f"attn_out.{layer}": (f"{inside}.{self.attention}", "out"),
            f"mlp_in.{layer}": (f"{inside}.{self.mlp_in}", "in"),
            f"mlp_out.{layer}": (f"{inside}.{self.mlp_out}", "out"),
            f"heads.{layer}": (f"{inside}.{self.projection}", "in"),
        }
        return {kind: place for kind, place in kinds.items() if not place[0].endswith(".")}

    def build(self) -> transformers.PreTrainedModel:
        """The model in evaluation mode; the same weights at every call."""
        torch.manual_seed(0)
        config = getattr(transformers, self.config)(**self.size)
        return getattr(transformers, self.model)(config).eval()

    def save(self, folder: Path) -> Path:
        """Writes the model to a folder, with a tokenizer of one word."""
        self.build().save_pretrained(folder)
        words = Tokenizer(WordLevel({"<unk>": 0}, unk_token="<unk>"))
        PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(folder)
        return folder


FAMILIES = {
    "llama": Family("LlamaForCausalLM", "LlamaConfig", GROUPED),
    "mistral": Family("MistralForCausalLM", "MistralConfig", {**GROUPED, "sliding_window": 4}),
    "qwen3": Family("Qwen3ForCausalLM", "Qwen3Config", WIDE_HEADS, heads_width=64),
    "gemma2": Family(
        "Gemma2ForCausalLM",
        "Gemma2Config",
        {**WIDE_HEADS, **WINDOWED, "query_pre_attn_scalar": 16},
        heads_width=64,
    ),
    "gemma3": Family(
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        {**WIDE_HEADS, **WINDOWED, "query_pre_attn_scalar": 16},
        heads_width=64,
    ),
    "mixtral": Family(
        "MixtralForCausalLM",
        "MixtralConfig",
        {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "qwen3_moe": Family(
        "Qwen3MoeForCausalLM",
        "Qwen3MoeConfig",
        {**WIDE_HEADS, **EXPERTS, "num_experts": 4, "mlp_only_layers": [0]},
        heads_width=64,
    ),
    "gpt_neox": Family(
        "GPTNeoXForCausalLM",
        "GPTNeoXConfig",
        GATED,
        layers="gpt_neox.layers",
        attention="attention",
        projection="attention.dense",
    ),
    "gpt2": Family(
        "GPT2LMHeadModel",
        "GPT2Config",
        {"vocab_size": VOCABULARY, "n_layer": LAYERS, "n_head": 4, "n_embd": 32, "n_positions": 64}
        | {"bos_token_id": 0, "eos_token_id": 0},
        layers="transformer.h",
        attention="attn",
        projection="attn.c_proj",
    ),
    "opt": Family(
        "OPTForCausalLM",
        "OPTConfig",
        {**SIZE, "hidden_size": 32, "ffn_dim": 48, "max_position_embeddings": 64}
        | {"word_embed_proj_dim": 32},
        layers="model.decoder.layers",
        projection="self_attn.out_proj",
        mlp_in="",  # on tokens of all texts in one row
        mlp_out="",
    ),
    "falcon": Family(
        "FalconForCausalLM",
        "FalconConfig",
        {**SIZE, "hidden_size": 32, "alibi": False},
        layers="transformer.h",
        attention="self_attention",
        projection="self_attention.dense",
    ),
    "phi": Family("PhiForCausalLM", "PhiConfig", GATED, projection="self_attn.dense"),
    "bloom": Family(
        "BloomForCausalLM",
        "BloomConfig",
        {"vocab_size": VOCABULARY, "n_layer": LAYERS, "n_head": 4, "hidden_size": 32},
        layers="transformer.h",
        attention="self_attention.dense",
        projection="self_attention.dense",
        mlp_out="mlp.dense_4h_to_h",
    ),
    "bert": Family(
        "BertModel",
        "BertConfig",
        GATED,
        layers="encoder.layer",
        attention="attention.output.dense",
        projection="attention.output.dense",
        mlp_in="intermediate",
        mlp_out="output.dense",
        bidirectional=True,
    ),
}
