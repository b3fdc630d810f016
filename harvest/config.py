"""The `harvest` section of the configuration file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.specs import Section


class HarvestConfig(Section):
    """Which positions become rows, and how the corpus is cut into forward passes and blocks."""

    rows: int | None = Field(
        None, ge=1, description="stop at exactly this many rows (null: read the whole corpus)"
    )
    pair: Literal["last", "mean"] = Field(
        "last",
        description="what a row holds of each model: its activation at the last token of the "
        "stretch of text that the row stands for, or the mean over the stretch's tokens",
    )
    template_tokens: Literal["keep", "drop"] = Field(
        "keep",
        description="in chats, whether the template's own tokens become rows, paired by their "
        "place in it (turn start, role, header end, turn end)",
    )
    skip_first: int = Field(
        0,
        ge=0,
        description="leave out rows of the first positions of a forward pass, special tokens "
        "included: many models put enormous activations there",
    )
    skip_special: bool = Field(
        False,
        description="leave out special tokens that stand in the text itself; those that the "
        "tokenizer puts around a text never become rows",
    )
    outlier_norm: float | None = Field(
        None,
        gt=1,
        allow_inf_nan=False,
        description="leave out rows with a norm above this many times the median of their block, "
        "at any hookpoint (null: none; the DFC paper: 2)",
    )
    max_tokens: int = Field(
        1024,
        ge=1,
        description="context window of a forward pass, special tokens included; longer documents "
        "are read in several windows, and a model with a shorter context uses its own",
    )
    batch_tokens: int = Field(
        16384,
        ge=1,
        description="tokens of a forward pass, padding included; lower it when memory runs out",
    )
    block_documents: int = Field(
        64,
        ge=1,
        description="documents that are planned, run and written at a time; a commit to the store "
        "holds at least a chunk of rows; a killed harvest repeats that and a few blocks at most",
    )
    block_characters: int = Field(
        500_000,
        ge=1,
        description="text of a block: one of long documents ends early, so that its "
        "activations fit into memory (about 2 bytes x width for every 4 characters)",
    )
