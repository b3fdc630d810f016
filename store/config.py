"""The `store` section of the configuration file."""

from __future__ import annotations

from pydantic import Field

from pipeline.config import Section


class StoreConfig(Section):
    """How activations are laid out on disk."""

    chunk_rows: int = Field(
        8192,
        ge=1,
        le=1 << 24,
        description="rows per chunk file; the unit of sequential reading and of shuffling",
    )
