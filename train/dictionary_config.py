"""What one dictionary is and how it is trained: keys that may differ between those of a run.

A key whose default is null is the recipe's to say (train/recipes/presets.py).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from pipeline.specs import Section

LossName = Literal["squared", "l2"]
ActivationName = Literal["relu", "topk", "batch_topk", "jump_relu", "gated"]
SparsityName = Literal["none", "l1", "lp", "entropy", "l0"]
NormalizationName = Literal["crosscoder", "per_model", "sae", "mixed", "decoupled", "none"]
Share = Annotated[float, Field(ge=0, lt=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class DictionaryConfig(Section):
    """One dictionary. Defaults follow arXiv 2602.11729 and 2504.02922."""

    features: int = Field(16384, gt=0, description="features of each dictionary")
    hookpoints: list[str] | None = Field(
        None,
        min_length=1,
        description="hookpoints of the store, or models, that take part; null: all. One makes an "
        "SAE",
    )
    encoder_hookpoints: list[str] | None = Field(
        None, min_length=1, description="those of them that are encoded; null: all"
    )
    decoder_hookpoints: list[str] | None = Field(
        None,
        min_length=1,
        description="those of them that are reconstructed; null: all. Others than are encoded: "
        "a transcoder",
    )
    activation: ActivationName | None = Field(
        None, description="relu, topk, batch_topk, jump_relu or gated; null: the recipe's"
    )
    exclusive: dict[str, int | float] = Field(
        {},
        description="dfc: features that only this model sees, a share (0.05) or a number (512); "
        "0.05 for models not named (residual_dfc: half and half if none is). Shares of 256 "
        "features and more are rounded down to multiples of 8, where GPUs are twice as fast",
    )
    residual: bool | None = Field(
        None,
        description="train on what the best linear map from the other model's activations leaves "
        "of each of two models' (their hookpoints are taken in pairs): what both have linearly is "
        "gone, what one alone has is left. Little of that is active in a row, and too large a k "
        "finds less: start with a tenth of a dfc's; null: the recipe's",
    )
    k: int = Field(
        200,
        gt=0,
        validate_default=True,
        description="active features per row, on average over a batch (L0)",
    )
    k_start: int | None = Field(None, gt=0, description="k at step 0 when annealed; null: k")
    k_anneal_steps: int = Field(5000, ge=0, description="steps over which k falls from k_start")
    lr: float | None = Field(None, gt=0, description="null: 2e-4 / sqrt(features / 2^14)")
    warmup_steps: int = Field(1000, ge=0, description="steps of linear learning-rate warm-up")
    decay_start: int | None = Field(
        None, ge=0, description="step from which the rate falls linearly to 0; null: never"
    )
    precision: Literal["float32", "tf32", "bfloat16"] = Field(
        "float32",
        description="what dense products are multiplied in; weights, moments, codes and losses are "
        "float32 all the same. tf32 and bfloat16 are for GPUs, where they are several times faster",
    )
    gradient_clip: float = Field(1.0, gt=0, description="largest global gradient norm")
    loss: LossName = Field(
        "squared",
        description="squared: sum over models of |x - x_hat|^2 (papers); l2: mean of |x - x_hat|",
    )
    code_normalization: NormalizationName | None = Field(
        None,
        description="what a code is multiplied with to be ranked or penalised: crosscoder (sum of "
        "decoder norms), per_model (that sum / models that see the feature), sae (norm of the "
        "concatenated decoder), mixed (sae + 0.1 crosscoder), decoupled (a norm per hookpoint: "
        "a feature may be on for one model alone; batch_topk only), none; null: the recipe's",
    )
    center: bool | None = Field(
        None, description="subtract the decoder bias before encoding; null: the recipe's"
    )
    unit_norm_decoder: bool | None = Field(
        None,
        description="keep every decoder direction at norm 1: gradients are projected and "
        "directions renormalised (Bricken et al. 2023); null: the recipe's",
    )
    decoder_init_norm: float | None = Field(
        None, gt=0, description="decoder norm per model at step 0; null: the recipe's"
    )
    decoder_init: Literal["transposed", "independent"] = Field(
        "transposed", description="decoder at step 0: the encoder's transpose, or drawn for itself"
    )
    same_init: bool = Field(
        False, description="the same initial weights at all hookpoints, which have equal widths"
    )
    sparsity: SparsityName | None = Field(
        None,
        description="penalty: l1, lp (p falls from p_start to p_end), entropy, l0 (jump_relu: "
        "towards target_l0), none; null: the recipe's",
    )
    sparsity_weight: float | None = Field(
        None,
        ge=0,
        description="weight of the penalty, inputs having norm sqrt(mean width); null: what suits "
        "that width and the number of hookpoints (0.1 sqrt(width) for l1 of a crosscoder)",
    )
    sparsity_warmup_steps: int = Field(
        0, ge=0, description="steps over which that weight rises from 0"
    )
    target_l0: float | None = Field(
        None, gt=0, description="jump_relu: active features per row aimed at; null: k"
    )
    bandwidth: float | None = Field(
        None,
        gt=0,
        description="jump_relu: width of the straight-through estimate; null: 0.001 sqrt(width)",
    )
    threshold_init: float | None = Field(
        None,
        gt=0,
        description="jump_relu: thresholds at step 0; null: such that 2 target_l0 features a row "
        "are active",
    )
    p_start: float = Field(1.0, gt=0, description="lp: p until p_anneal_start")
    p_end: float = Field(0.2, gt=0, description="lp: p at the last step")
    p_anneal_start: int | None = Field(
        None, ge=0, description="lp: step from which p falls; null: a third of the steps"
    )
    p_updates: int = Field(10, gt=0, description="lp: in how many steps p falls")
    matryoshka: list[Fraction] | None = Field(
        None,
        description="nested dictionaries: growing shares of the features, the last one 1, each of "
        "which reconstructs by itself (arXiv 2503.17547); null: the recipe's",
    )
    designated: Share | None = Field(
        None,
        description="share of the features that all models see with one decoder direction (DSF); "
        "null: the recipe's",
    )
    designated_k: float = Field(
        2.0, gt=0, description="how much more of k per feature the designated ones get"
    )
    model_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        {}, description="weight of a model's reconstruction loss; 1 for models not named"
    )
    outlier_norm: float | None = Field(
        None,
        gt=1,
        description="rows whose norm exceeds this many medians of the batch do not count in the "
        "loss; null: all count",
    )
    ghost_grads: bool = Field(False, description="dead features fit the residual through exp(pre)")
    resample_every: int | None = Field(
        None,
        gt=0,
        description="steps between resamplings of features that are dead, from rows with a high "
        "loss (Bricken et al. 2023); null: never",
    )
    auxk_weight: float | None = Field(
        None, ge=0, description="weight of the dead-feature loss (AuxK); null: the recipe's"
    )
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

    # Field validators, so that an error is about one key: they see the fields declared above.
    @field_validator("k")
    @classmethod
    def _k_fits_features(cls, k: int, info: ValidationInfo) -> int:
        features = info.data.get("features")
        if features is not None and k > features:
            raise ValueError(f"k {k} is larger than features {features}")
        return k

    @field_validator("exclusive")
    @classmethod
    def _sizes_are_shares_or_numbers(cls, exclusive: dict[str, int | float]) -> dict[str, Any]:
        for model, size in exclusive.items():
            if size < 0 or (isinstance(size, float) and not size < 1):
                raise ValueError(
                    f"{model}: {size} is neither a share, from 0.0 to below 1, nor a whole number "
                    "of features"
                )
        return exclusive

    @field_validator("matryoshka")
    @classmethod
    def _shares_grow_to_one(cls, shares: list[float] | None) -> list[float] | None:
        if shares is not None and (sorted(set(shares)) != shares or shares[-1:] != [1.0]):
            raise ValueError(f"shares {shares} do not grow to 1.0")
        return shares
