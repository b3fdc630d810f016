"""The `train` section of the configuration file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from pipeline.specs import Section

RecipeName = Literal["dfc", "batch_topk_crosscoder"]
LossName = Literal["squared", "l2"]
NormalizationName = Literal["crosscoder", "per_model", "sae", "none"]
Share = Annotated[float, Field(ge=0, lt=1)]


class WandbConfig(Section):
    """Where metrics go besides metrics.jsonl."""

    mode: Literal["off", "offline", "online"] = Field("off", description="off, offline or online")
    project: str = Field("crossdiff", description="project name on wandb")


class TrainConfig(Section):
    """How dictionaries are trained. Defaults follow arXiv 2602.11729 and 2504.02922."""

    recipes: list[RecipeName] = Field(
        ["dfc"],
        min_length=1,
        description="dictionaries trained on the same batches; the first one is the main one",
    )
    features: int = Field(16384, gt=0, description="features of each dictionary")
    exclusive: dict[str, Share] = Field(
        {},
        description="dfc: share of the features only this model sees; 0.05 for models not named",
    )
    k: int = Field(
        200,
        gt=0,
        validate_default=True,
        description="active features per row, on average over a batch (L0)",
    )
    k_start: int | None = Field(None, gt=0, description="k at step 0 when annealed; null: k")
    k_anneal_steps: int = Field(5000, ge=0, description="steps over which k falls from k_start")
    steps: int = Field(100_000, gt=0, description="optimizer steps")
    batch_rows: int = Field(2048, gt=0, description="rows per step")
    lr: float | None = Field(None, gt=0, description="null: 2e-4 / sqrt(features / 2^14)")
    warmup_steps: int = Field(1000, ge=0, description="steps of linear learning-rate warm-up")
    decay_start: int | None = Field(
        None, ge=0, description="step from which the rate falls linearly to 0; null: never"
    )
    gradient_clip: float = Field(1.0, gt=0, description="largest global gradient norm")
    loss: LossName = Field(
        "squared",
        description="squared: sum over models of |x - x_hat|^2 (papers); l2: mean of |x - x_hat|",
    )
    code_normalization: NormalizationName = Field(
        "crosscoder",
        description="what a code is multiplied with to be ranked: crosscoder (sum of decoder "
        "norms), per_model (that sum / models that see the feature), sae (norm of the "
        "concatenated decoder), none",
    )
    decoder_init_norm: float = Field(0.4, gt=0, description="decoder norm per model at step 0")
    auxk_weight: float = Field(1 / 32, ge=0, description="weight of the dead-feature loss (AuxK)")
    auxk: int | None = Field(
        None, gt=0, description="dead features used per row; null: mean width // 2"
    )
    dead_after_rows: int = Field(
        10_000_000, gt=0, description="rows without firing after which a feature counts as dead"
    )
    threshold_start: int | None = Field(
        None,
        ge=0,
        description="step at which the inference threshold's EMA begins; null: 1000, "
        "or half of the steps if that is less",
    )
    threshold_beta: float = Field(0.999, gt=0, lt=1, description="decay of that EMA per step")
    seed: int = Field(0, ge=0, description="seed of the initial weights and the order of rows")
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
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, ...")
    wandb: WandbConfig = Field(WandbConfig(), description="optional logging to wandb")

    # Field validators, so that an error is about one key: they see the fields declared above.
    @field_validator("recipes")
    @classmethod
    def _each_recipe_once(cls, recipes: list[RecipeName]) -> list[RecipeName]:
        if len(set(recipes)) != len(recipes):
            raise ValueError("names one recipe twice")
        return recipes

    @field_validator("k")
    @classmethod
    def _k_fits_features(cls, k: int, info: ValidationInfo) -> int:
        features = info.data.get("features")
        if features is not None and k > features:
            raise ValueError(f"k {k} is larger than features {features}")
        return k

    @field_validator("live_buffer_rows")
    @classmethod
    def _buffer_holds_two_batches(cls, rows: int | None, info: ValidationInfo) -> int | None:
        batch_rows = info.data.get("batch_rows")
        if rows is not None and batch_rows is not None and rows < 2 * batch_rows:
            raise ValueError(f"a buffer holds at least two batches of {batch_rows} rows")
        return rows

    @field_validator("threshold_start")
    @classmethod
    def _threshold_starts_in_time(cls, start: int | None, info: ValidationInfo) -> int | None:
        steps = info.data.get("steps")
        if start is not None and steps is not None and start >= steps:
            raise ValueError(
                f"threshold_start {start} is not before the last of {steps} steps: "
                "there would be no inference threshold"
            )
        return start
