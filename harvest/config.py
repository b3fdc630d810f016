"""The `harvest` section of the configuration file."""

from __future__ import annotations

from pydantic import Field

from pipeline.config import Section


class HarvestConfig(Section):
    """How the corpus is cut into forward passes and into blocks."""

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
        "holds at least a chunk of rows, which is what a killed harvest repeats at most",
    )
    block_characters: int = Field(
        500_000,
        ge=1,
        description="text of a block: one of long documents ends early, so that its "
        "activations fit into memory (about 2 bytes x width for every 4 characters)",
    )
