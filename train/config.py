"""The `train` section of the configuration file."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator

from pipeline.specs import Section
from train.dictionary_config import DictionaryConfig

RecipeName = Literal[
    "dfc",
    "residual_dfc",
    "batch_topk_crosscoder",
    "dsf",
    "crosscoder",
    "standard",
    "gated",
    "topk",
    "batch_topk",
    "jump_relu",
    "p_anneal",
    "gated_anneal",
    "matryoshka",
]


class WandbConfig(Section):
    """Where metrics go besides metrics.jsonl."""

    mode: Literal["off", "offline", "online"] = Field("off", description="off, offline or online")
    project: str = Field("crossdiff", description="project name on wandb")


class TrainConfig(DictionaryConfig):
    """How dictionaries are trained. Defaults follow arXiv 2602.11729 and 2504.02922."""

    recipes: list[str | dict[str, Any]] = Field(
        ["dfc"],
        min_length=1,
        description="dictionaries trained on the same batches, each a recipe's name or "
        "{recipe: NAME, name: FOLDER, and keys that differ}; the first is the main one. Recipes: "
        + ", ".join(get_args(RecipeName)),
    )
    sweep: dict[str, list[Any]] = Field(
        {},
        description="keys with lists of values: every recipe is trained with each combination, "
        "all on the same batches",
    )
    steps: int = Field(100_000, gt=0, description="optimizer steps")
    batch_rows: int = Field(2048, gt=0, description="rows per step")
    seed: int = Field(0, ge=0, description="seed of the initial weights and the order of rows")
    incomplete_store: bool = Field(
        False, description="train on a store that some tasks of its harvest have not finished"
    )
    window_chunks: int | None = Field(
        None,
        gt=0,
        description="chunks that the loader mixes at a time; null: 256, or what decodes to 4 GiB. "
        "A store of up to that many is shuffled uniformly; lower it when two windows of a larger "
        "one do not fit into memory",
    )
    live_buffer_rows: int | None = Field(
        None,
        gt=0,
        description="--live: rows that are mixed at a time, in memory (2 bytes x width per "
        "hookpoint each); null: 262,144, or as many as 4 GiB hold",
    )
    verify_chunks: bool = Field(
        True, description="compare checksums the first time that a run touches a chunk"
    )
    loader_threads: int = Field(2, gt=0, description="threads that gather batches ahead")
    validation_fraction: float = Field(
        0.05, ge=0, lt=1, description="share of documents held out, by a hash of their text"
    )
    validation_rows: int = Field(
        65_536,
        gt=0,
        description="held-out rows read per validation, spread over the store (--live: the first "
        "that come, kept in memory)",
    )
    validate_every: int = Field(5000, gt=0, description="steps between validations")
    log_every: int = Field(50, gt=0, description="steps between lines of metrics.jsonl")
    checkpoint_every: int = Field(5000, gt=0, description="steps between checkpoints")
    keep_checkpoints: int = Field(2, gt=0, description="newest checkpoints kept")
    keep_best: bool = Field(
        True, description="also keep the checkpoint with the least held-out loss"
    )
    skip_bad_batches: int = Field(
        0, ge=0, description="batches whose loss or gradient is not finite that a run may skip"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, ...")
    cuda_graphs: bool = Field(
        False,
        description="experimental: on CUDA, record the steps of dictionaries of up to 64 M "
        "parameters and replay them, which changes no bit; launching them takes longer than the "
        "GPU does",
    )
    wandb: WandbConfig = Field(WandbConfig(), description="optional logging to wandb")

    # Field validators, so that an error is about one key: they see the fields declared above.
    @field_validator("live_buffer_rows")
    @classmethod
    def _buffer_holds_two_batches(cls, rows: int | None, info: ValidationInfo) -> int | None:
        batch_rows = info.data.get("batch_rows")
        if rows is not None and batch_rows is not None and rows < 2 * batch_rows:
            raise ValueError(f"a buffer holds at least two batches of {batch_rows} rows")
        return rows

    @field_validator("steps")
    @classmethod
    def _threshold_starts_in_time(cls, steps: int, info: ValidationInfo) -> int:
        start = info.data.get("threshold_start")
        if start is not None and start >= steps:
            raise ValueError(
                f"threshold_start {start} is not before the last of {steps} steps: "
                "there would be no inference threshold"
            )
        return steps

    @field_validator("recipes")
    @classmethod
    def _entries_name_recipes(
        cls, recipes: list[str | dict[str, Any]]
    ) -> list[str | dict[str, Any]]:
        known = get_args(RecipeName)
        plain = [entry for entry in recipes if isinstance(entry, str)]
        if len(set(plain)) != len(plain):
            raise ValueError("names one recipe twice")
        for entry in recipes:
            name = entry.get("recipe") if isinstance(entry, dict) else entry
            if name not in known:
                raise ValueError(f"recipe {name!r} is unknown; try {', '.join(known)}")
        return recipes

    @field_validator("sweep")
    @classmethod
    def _swept_keys_are_those_of_a_dictionary(
        cls, sweep: dict[str, list[Any]]
    ) -> dict[str, list[Any]]:
        for key, values in sweep.items():
            if key not in DictionaryConfig.model_fields:
                raise ValueError(f"{key!r} cannot differ between dictionaries of one run")
            if not values:
                raise ValueError(f"{key} has no values")
        return sweep
