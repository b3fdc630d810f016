"""The `store` section of the configuration file."""

from __future__ import annotations

from pydantic import Field

from pipeline.specs import Section
from store.schema import CodecName


class StoreConfig(Section):
    """How activations are laid out on disk."""

    chunk_rows: int | None = Field(
        None,
        ge=1,
        le=1 << 24,
        description="rows per chunk file, the unit of sequential reading and of shuffling; null: "
        "the power of two that gives the widest hookpoint chunks of about 16 MiB",
    )
    codec: CodecName = Field(
        "none",
        description="none: bfloat16, mapped (fastest); lossless: zstd over shuffled bytes, about "
        "two thirds of the size; int8: eight bits a value with scales per row, half of the size, "
        "lossy (benchmarks/RESULTS.md says what each costs)",
    )
