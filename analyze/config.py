"""The `analyze` section of the configuration file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field, model_validator

from pipeline.errors import ConfigError
from pipeline.specs import Section

EvidenceName = Literal[
    "readout_ratio", "direction", "mapped_norm", "other_norm_share", "steering_agreement"
]
ReportPart = Literal["features", "scaling", "transfer", "exclusivity", "fidelity", "steer"]
NullName = Literal["copy", "shared"]


class AnalyzeConfig(Section):
    """What the analysis computes and shows."""

    batch_rows: int = Field(4096, gt=0, description="rows encoded at a time")
    batch_tokens: int = Field(
        2048,
        gt=0,
        description="tokens of a forward pass of the models, padding included; logits of two "
        "passes are held",
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, ...")
    incomplete_store: bool = Field(
        False, description="analyze a store that some tasks of its harvest have not finished"
    )
    top_features: int = Field(
        20, gt=0, description="features shown per exclusive group, by summed activation"
    )
    contexts: int = Field(
        8, gt=0, description="text contexts per feature, each of another document"
    )
    report: list[ReportPart] = Field(
        ["features", "scaling", "transfer"],
        description="tables that `analyze report` makes besides norms: features, scaling, "
        "transfer, exclusivity (trains the null; runs the models if analyze.evidence asks for "
        "steering_agreement), fidelity and steer (run the models)",
    )
    report_documents: int = Field(
        100, gt=0, description="report: texts that fidelity runs the models on"
    )
    report_steered: int = Field(
        2, gt=0, description="report: features per model that steer is done with"
    )
    report_features: int = Field(
        2000,
        gt=0,
        description="features that `analyze features` describes and report.html lists at most, "
        "strongest claims first",
    )
    context_rows: int = Field(24, gt=0, description="rows of text shown on either side of a firing")
    min_fires: int = Field(
        10, gt=0, description="features that fire on fewer rows are not claimed for any model"
    )
    norm_exclusive: float = Field(
        0.9,
        ge=0.5,
        lt=1,
        description="a feature is tagged as one model's only where that model's share of its "
        "decoder norms, R or 1 - R, is above this",
    )
    norm_shared: float = Field(
        0.6,
        ge=0.5,
        lt=1,
        description="a feature is tagged as shared where neither model's share of its decoder "
        "norms is above this",
    )
    candidate_norm: float = Field(
        0.7,
        ge=0.5,
        lt=1,
        description="exclusivity: a feature that both models see may be called one model's only "
        "where that model's share of its decoder norms is above this; features of exclusive groups "
        "always may",
    )
    fdr: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="exclusivity: share of the features called exclusive that may be false",
    )
    counterpart: float = Field(
        0.5,
        gt=0,
        le=1,
        description="exclusivity: a feature has a linear counterpart, whatever its p-value, where "
        "the other model's activations tell at least this share of what the own ones tell of it",
    )
    evidence: list[EvidenceName] = Field(
        ["readout_ratio"],
        min_length=1,
        description="exclusivity: evidence that must all be beyond its null: readout_ratio, "
        "direction, mapped_norm, other_norm_share, steering_agreement (runs the models; not "
        "alone). All that have a null get p-values; those named decide",
    )
    steered_shared: int = Field(
        100,
        gt=0,
        description="exclusivity: shared features per model that are steered with beside the "
        "called ones, as the null of steering_agreement",
    )
    nulls: list[NullName] = Field(
        ["copy", "shared"],
        min_length=1,
        description="exclusivity: nulls that p-values are of, the largest counts: copy (the recipe "
        "trained on one model beside a copy of itself), shared (this dictionary's shared features)",
    )
    null_runs: int = Field(1, gt=0, description="exclusivity: dictionaries trained on copies")
    null_share: float = Field(
        1.0, gt=0, le=1, description="exclusivity: length of such a training, as a share of the own"
    )
    null_noise: bool = Field(
        True,
        description="exclusivity: blur the copy until it predicts its model as the other model "
        "does; false: an exact rotated copy",
    )
    match_cosine: float = Field(
        0.7,
        gt=0,
        le=1,
        description="compare: a feature has a counterpart in another dictionary where one's "
        "decoder directions have at least this cosine with its own",
    )
    match_correlation: float = Field(
        0.7,
        gt=0,
        le=1,
        description="compare: the same for the correlation of activations over the store's rows",
    )
    match_candidates: int = Field(
        16,
        gt=0,
        description="compare: features of the other dictionary, nearest by direction, that each "
        "feature's activations are held against",
    )
    planted: dict[str, str] = Field(
        {},
        description="model -> label of the domain that only this model was trained on, if known; "
        "fills the planted table",
    )
    planted_ratio: float = Field(
        3.0,
        gt=0,
        description="a feature counts for the planted domain if it fires at least this many times "
        "as often per row there as elsewhere",
    )

    @model_validator(mode="after")
    def _not_by_steering_alone(self) -> AnalyzeConfig:
        if set(self.evidence) == {"steering_agreement"}:
            raise ValueError(
                "evidence: steering_agreement alone cannot decide: it is asked of the features "
                "that other evidence calls; add readout_ratio"
            )
        return self

    @model_validator(mode="after")
    def _ordered(self) -> AnalyzeConfig:
        if self.norm_shared > self.norm_exclusive:
            raise ValueError(
                f"norm_shared ({self.norm_shared:g}) is above norm_exclusive "
                f"({self.norm_exclusive:g}); a feature would have both tags"
            )
        return self


def check_models(planted: dict[str, str], models: Iterable[str]) -> None:
    """Raises ConfigError unless there are two models and `planted` names no other."""
    known = list(models)
    if len(known) != 2:
        raise ConfigError(
            f"models: analyze compares two models, the configuration has {len(known)} "
            f"({', '.join(known)}); run harvest and train by themselves"
        )
    for model in planted:
        if model not in known:
            raise ConfigError(
                f"analyze.planted: unknown model {model!r}; the models are {', '.join(known)}"
            )
