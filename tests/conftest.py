"""Two tiny models that differ as real pairs do, and a corpus of everything that breaks alignment.

Built once per session in a temporary folder; about 3 s.
"""

import json
import signal
from pathlib import Path

import polars as pl
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from tests.harvest.text.tokenizers import most_frequent

PROSE = (
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, "
    "must be in want of a wife. However little known the feelings or views of such a man may be "
    "on his first entering a neighbourhood, this truth is so well fixed in the minds of the "
    "surrounding families, that he is considered the rightful property of some one or other of "
    "their daughters.\n"
)
CODE = "def width(self) -> int:\n    for row in self.rows:\n        yield row[0], row[1:]\n\n"
AWKWARD = [
    "",
    "\r\n\r\n  two\r\n\tlines\r\n",
    "“Smart” quotes — ‘and’ dashes… déjà vu, naïve, œuvre",
    "family 👩‍👩‍👧‍👦, flag 🏳️‍🌈, wave 👋🏽, end",
    "漢字とかな交じり文。한국어 텍스트, 中文",
    "e\u0301 a\u0308\u0323 \u1100\u1161\u11a8 combining n\u0303",
    "    ",
    "░▒▓ box ▁▁ drawing ▁x",
]


def _metaspace_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """SentencePiece's manner: a space put before the text, bytes for rare characters, BOS."""
    draft = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    draft.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=520,
        special_tokens=special + [f"<0x{byte:02X}>" for byte in range(256)],
        initial_alphabet=most_frequent(texts, 60),
        limit_alphabet=60,
        show_progress=False,
    )
    draft.train_from_iterator(texts, trainer)
    content = json.loads(draft.to_str())
    # As added tokens the bytes would match a literal "<0x0A>" in a text.
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] in special]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def _byte_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """GPT-2's manner, spans trimmed of white space as its post-processor does by default."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tensors here are tiny: a second thread costs more than it gives."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> None:
    """A shell starts what runs in its background (`make test &`) with SIGINT ignored."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def model_pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a Llama (width 32) and a GPT-NeoX (width 48), random weights, 3 layers each."""
    root = tmp_path_factory.mktemp("models")
    texts = [PROSE, CODE, *AWKWARD] * 2
    shape = {"num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 256}
    torch.manual_seed(0)
    pair = {
        "a": (
            _metaspace_tokenizer(texts),
            LlamaForCausalLM(
                LlamaConfig(vocab_size=520, hidden_size=32, intermediate_size=64, **shape)
            ),
        ),
        "b": (
            _byte_tokenizer(texts),
            GPTNeoXForCausalLM(
                GPTNeoXConfig(vocab_size=400, hidden_size=48, intermediate_size=96, **shape)
            ),
        ),
    }
    for name, (tokenizer, model) in pair.items():
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return {name: root / name for name in pair}


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A parquet file with columns text and domain; document 3 is long, document 0 is empty."""
    texts = [*AWKWARD[:3], PROSE * 6, *AWKWARD[3:]]
    texts += [f"{number}. {PROSE[number * 7 :]}" for number in range(12)]
    texts += [CODE * (1 + number % 3) for number in range(12)]
    domains = ["awkward"] * (len(AWKWARD) + 1) + ["prose"] * 12 + ["code"] * 12
    file = tmp_path_factory.mktemp("corpus") / "corpus.parquet"
    pl.DataFrame({"text": texts, "domain": domains}).write_parquet(file)
    return file
