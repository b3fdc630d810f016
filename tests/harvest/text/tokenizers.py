"""Tokenizers of the families that real models have, trained small, and chat templates for them.

The templates are written here in the shapes that real ones have.
"""

import json
from collections import Counter

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

FAMILIES = ("byte_level", "byte_level_prefix", "metaspace", "unigram", "wordpiece")

CHATML = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
    "{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
LLAMA3 = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
)
LLAMA3_TOKENS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}"
    "{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}"
)
GEMMA_TOKENS = ("<start_of_turn>", "<end_of_turn>")
# Qwen 3's manner: thoughts of earlier answers are left out, the last answer's are shown.
THINKING = (
    "{% for message in messages %}"
    "{% set content = message.content %}"
    "{% if message.role == 'assistant' and '</think>' in content and not loop.last %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}"
    "{% endif %}"
    "{% if message.role == 'assistant' and loop.last and '</think>' not in content %}"
    "{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' + content + '<|im_end|>\n' }}"
    "{% else %}"
    "{{ '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}"
    "{% endif %}"
    "{% endfor %}"
)


def train(family: str, texts: list[str], vocabulary: int = 500) -> PreTrainedTokenizerFast:
    """A tokenizer of one of FAMILIES; <s> before every text but in byte-level ones, as usual."""
    return {
        "byte_level": lambda: _byte_level(texts, vocabulary, add_prefix_space=False),
        "byte_level_prefix": lambda: _byte_level(texts, vocabulary, add_prefix_space=True),
        "metaspace": lambda: _metaspace(texts, vocabulary),
        "unigram": lambda: _unigram(texts, vocabulary),
        "wordpiece": lambda: _wordpiece(texts, vocabulary),
    }[family]()


def with_template(
    tokenizer: PreTrainedTokenizerFast, template: str, specials: tuple[str, ...]
) -> PreTrainedTokenizerFast:
    """Adds a chat template and its special tokens."""
    tokens = [AddedToken(text, special=True, normalized=False) for text in specials]
    tokenizer.add_tokens(tokens, special_tokens=True)
    tokenizer.chat_template = template
    return tokenizer


def most_frequent(texts: list[str], limit: int) -> list[str]:
    """The alphabet of a trainer with spaces as ▁; by itself it breaks ties anew in each process."""
    count = Counter("".join(texts).replace(" ", "▁"))
    return sorted(count, key=lambda character: (-count[character], character))[:limit]


def _byte_level(texts: list[str], vocabulary: int, add_prefix_space: bool):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )


def _metaspace(texts: list[str], vocabulary: int):
    """Llama 2's manner: spaces become ▁ in the normalizer, bytes for characters not known."""
    special = ["<unk>", "<s>", "</s>"]
    draft = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    draft.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    # Only while training: without it whole sentences would become tokens.
    draft.pre_tokenizer = pre_tokenizers.Split(Regex("▁+[^▁]*|[^▁]+"), "isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special + _byte_tokens(),
        initial_alphabet=most_frequent(texts, 60),
        limit_alphabet=60,
        show_progress=False,
    )
    draft.train_from_iterator(texts, trainer)
    draft.pre_tokenizer = None
    return _with_bos(_without_byte_specials(draft, special))


def _unigram(texts: list[str], vocabulary: int):
    """T5's and Gemma 1's manner: a unigram model behind NFKC, with bytes as last resort.

    Its trainer gives equal scores an order of their own in each process.
    """
    special = ["<unk>", "<s>", "</s>"]
    draft = Tokenizer(models.Unigram())
    draft.normalizer = normalizers.NFKC()
    draft.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trainer = trainers.UnigramTrainer(
        vocab_size=vocabulary - 256, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    draft.train_from_iterator(texts, trainer)
    content = json.loads(draft.to_str())
    content["model"]["vocab"] += [[token, -20.0] for token in _byte_tokens()]
    content["model"]["byte_fallback"] = True
    return _with_bos(Tokenizer.from_str(json.dumps(content)))


def _wordpiece(texts: list[str], vocabulary: int):
    """BERT's manner: lower-cased, accents stripped, spaces never part of a token.

    Its trainer merges equals in an order of its own: another vocabulary in each process.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        mask_token="[MASK]",
    )


def _byte_tokens() -> list[str]:
    return [f"<0x{byte:02X}>" for byte in range(256)]


def _without_byte_specials(draft: Tokenizer, special: list[str]) -> Tokenizer:
    """As added tokens the bytes would match a literal "<0x0A>" in a text."""
    content = json.loads(draft.to_str())
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] in special]
    return Tokenizer.from_str(json.dumps(content))


def _with_bos(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
