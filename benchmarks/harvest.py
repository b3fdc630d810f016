"""A complete harvest against the bare truncated forward passes of its models.

Both run the same passes over the same documents, in turns in one process; the median of the turns
counts. Bare: tokens prepared ahead, a plain hook that keeps the activation and ends the pass,
nothing else. Complete: everything that `harvest run` does once its models are loaded, on an empty
store: reading, tokenizing, pairing, passes, gathering, statistics, writing, fsync.

    python -m benchmarks.harvest            # the demo's pair, and one of 30M parameters; 10 minutes
    python -m benchmarks.harvest --quick    # a quarter of the text, fewer turns
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
import yaml
from rich.console import Console
from rich.table import Table
from transformers import (
    AutoTokenizer,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.utils import logging

from benchmarks.bare_pass import Pass, bare_pass
from harvest.batches import padding
from harvest.corpus.blocks import read_blocks
from harvest.forward import Batch, batches
from harvest.models.hooked import HookedModel
from harvest.run import write_part
from harvest.settings import Settings
from harvest.setup import load_models, make_planner, make_schema
from harvest.tasks import WHOLE
from pipeline.command import console
from pipeline.config import load_config
from store.writer import PartWriter

TURNS = 5
DEMO = Path("pipeline.yaml")


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Less text, three turns.")] = False,
    memory_of: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Prints tokens per second of both, their ratio, padding, and peak memory."""
    if memory_of is not None:
        _print_memory(memory_of)
        return
    logging.disable_progress_bar()
    console.quiet = True
    with tempfile.TemporaryDirectory() as folder:
        table = Table("", box=None)
        columns = {}
        for name, config, documents in (
            ("demo pair", DEMO, 600),
            ("30M pair", _thirty_million(Path(folder)), 48),
        ):
            count = documents // 4 if quick else documents
            columns[name] = measure(config, count, 3 if quick else TURNS, Path(folder))
            table.add_column(name, justify="right")
        for line in next(iter(columns.values())):
            table.add_row(line, *(column[line] for column in columns.values()))
    Console(highlight=False).print(table)


def measure(config: Path, documents: int, turns: int, scratch: Path) -> dict[str, str]:
    """The figures of one pair of models."""
    overrides = [f"corpus.limit={documents}", f"run_dir={scratch / 'run'}"]
    settings = Settings.read(load_config(config, overrides))
    models = load_models(settings)
    planner = make_planner(settings, models)
    blocks = read_blocks(
        settings.corpus,
        cursor=0,
        state=None,
        task=0,
        of=1,
        seen=(),
        max_documents=settings.harvest.block_documents,
        max_characters=settings.harvest.block_characters,
    )
    plans = [planner(block.documents) for block in blocks]
    bare = [bare_pass(name, spec) for name, spec in settings.models.items()]
    passes = [
        (run, batch)
        for plan in plans
        for run, share in zip(bare, plan.models, strict=True)
        for batch in batches(share, settings.harvest.batch_tokens)
    ]
    tokens = sum(int(batch.attention_mask.sum()) for _, batch in passes)
    contenders: dict[str, Callable[[], float]] = {
        "bare": lambda: _bare(passes),
        "complete": lambda: _complete(settings, models, planner, scratch),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(turns + 1):
        for name, contender in contenders.items():
            took = contender()
            if turn:  # the first one warms up
                seconds[name].append(took)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    ratios = [
        least / whole for least, whole in zip(seconds["bare"], seconds["complete"], strict=True)
    ]
    padded = [
        padding([plan.models[m].lengths for plan in plans], settings.harvest.batch_tokens)
        for m in range(len(models))
    ]
    return {
        "parameters": ", ".join(f"{model.parameter_count / 1e6:.1f}M" for model in models),
        "tokens read": f"{tokens:,}",
        "rows": f"{sum(plan.rows for plan in plans):,}",
        "bare passes, tokens/s": f"{tokens / median['bare']:,.0f}",
        "harvest, tokens/s": f"{tokens / median['complete']:,.0f}",
        "ratio (median of turns)": f"{statistics.median(ratios):.3f}",
        "ratios of the turns": " ".join(f"{ratio:.3f}" for ratio in sorted(ratios)),
        "padding": ", ".join(f"{share:.1%}" for share in padded),
        "peak memory": _memory(config, overrides, scratch),
    }


def _bare(passes: list[tuple[Pass, Batch]]) -> float:
    """Seconds of all passes, each ended by a hook behind the model's last place."""
    begin = time.perf_counter()
    for run, batch in passes:
        run(batch.input_ids, batch.attention_mask)
    return time.perf_counter() - begin


def _complete(settings: Settings, models: list[HookedModel], planner: Any, scratch: Path) -> float:
    """Seconds of writing the whole store."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        path = Path(folder) / "store.zarr"
        changed = Settings(settings.models, settings.corpus, settings.harvest, settings.store, path)
        schema = make_schema(changed, models, {}, 1)
        with PartWriter(path, schema, 0, commit_rows=schema.chunk_rows) as writer:
            begin = time.perf_counter()
            write_part(changed, WHOLE, models, planner, writer)
            return time.perf_counter() - begin


def _memory(config: Path, overrides: list[str], scratch: Path) -> str:
    """Peak resident memory of a process that harvests, and of one that only loads the models."""
    file = scratch / "memory.json"
    file.write_text(json.dumps({"config": str(config), "overrides": overrides}))
    command = [sys.executable, "-m", "benchmarks.harvest", "--memory-of", str(file)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    peak = json.loads(output.splitlines()[-1])
    return f"{peak['harvest'] / 1e9:.2f} GB (models loaded: {peak['loaded'] / 1e9:.2f})"


def _print_memory(file: Path) -> None:
    logging.disable_progress_bar()
    console.quiet = True
    said = json.loads(file.read_text())
    settings = Settings.read(load_config(Path(said["config"]), said["overrides"]))
    models = load_models(settings)
    planner = make_planner(settings, models)
    loaded = _peak()
    _complete(settings, models, planner, file.parent)
    print(json.dumps({"loaded": loaded, "harvest": _peak()}))


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _thirty_million(folder: Path) -> Path:
    """A configuration of two models of about 30M parameters, with the demo's tokenizers."""
    shape = {
        "hidden_size": 512,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "max_position_embeddings": 512,
    }
    torch.manual_seed(0)
    models = {
        "a": LlamaForCausalLM(LlamaConfig(vocab_size=8192, intermediate_size=1408, **shape)),
        "b": GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=8192, intermediate_size=2048, **shape)),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
        AutoTokenizer.from_pretrained(f"demo/models/{name}").save_pretrained(folder / name)
    hookpoints = {"a": "model.layers.5", "b": "gpt_neox.layers.5"}
    file = folder / "thirty.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "models": {
                    name: {"path": str(folder / name), "hookpoint": path, "dtype": "float32"}
                    for name, path in hookpoints.items()
                },
                "corpus": {"path": "demo/corpus.parquet", "label_column": "domain"},
                "harvest": {"max_tokens": 512, "batch_tokens": 4096},
            }
        )
    )
    return file


if __name__ == "__main__":
    typer.run(main)
