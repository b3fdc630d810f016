"""Trains the two tokenizers: one in SentencePiece's manner, one over bytes in GPT-2's."""

import json
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

A_SIZE, B_SIZE = 4096, 6144
A_SPECIAL = ["<unk>", "<s>", "</s>"]
A_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
B_SPECIAL = "<|endoftext|>"
B_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_a(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """BPE over characters with "▁" for the space; a character without a token becomes its bytes."""
    draft = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    draft.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\r\n\t]"), "isolated"),
            pre_tokenizers.Metaspace(prepend_scheme="never"),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=A_SIZE,
        special_tokens=A_SPECIAL + A_BYTES,
        limit_alphabet=160,
        show_progress=False,
    )
    draft.train_from_iterator(texts, trainer)
    tokenizer = with_plain_bytes(draft)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", A_SPECIAL.index("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        clean_up_tokenization_spaces=False,
    )


def with_plain_bytes(draft: Tokenizer) -> Tokenizer:
    """The tokenizer with its byte tokens in the vocabulary only.

    The trainer also registers them as added tokens, which would match a text's literal "<0x0A>".
    """
    content = json.loads(draft.to_str())
    content["added_tokens"] = [
        token for token in content["added_tokens"] if token["content"] in A_SPECIAL
    ]
    return Tokenizer.from_str(json.dumps(content))


def train_b(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """BPE over bytes, which may join a run of spaces into one token; adds nothing at the start."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(B_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=B_SIZE,
        special_tokens=[B_SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=B_SPECIAL,
        pad_token=B_SPECIAL,
        clean_up_tokenization_spaces=False,
    )
