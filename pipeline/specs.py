"""What the configuration file says of a model and of the corpus: the sections that stages share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]


class Section(BaseModel):
    """Base of every section: frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class ModelSpec(Section):
    """One language model and the places in it where activations are read."""

    path: str = Field(description="local folder in Hugging Face format, or a name on the hub")
    hookpoint: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        min_length=1,
        description="one hookpoint or a list of them; each a module path as in the model's code, "
        "e.g. model.layers.13, with :in or :out behind it where `site` does not say it, or a kind "
        "and a layer: resid_pre.13, resid_post.13, attn_out.13, mlp_in.13, mlp_out.13, heads.13 "
        "(all heads before the output projection), each_head.13 (one hookpoint per head), "
        "head.13.5 (`harvest modules MODEL` lists them)",
    )
    site: Literal["in", "out"] = Field(
        "out", description="read a module's input or its output, where a hookpoint says neither"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "bfloat16", description="dtype the model computes in"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, ...")
    device_map: str | dict[str, int | str] | None = Field(
        None,
        description="spread one model over several devices, as in transformers: auto, balanced, "
        "or module path: device; replaces `device`",
    )
    # Without a slash: transformers would load such a name from the hub, as code.
    attention: Annotated[str, StringConstraints(pattern=r"^\w+$")] | None = Field(
        None,
        description="attention implementation of transformers: eager, sdpa, flash_attention_2, "
        "... (null: the model's own default)",
    )
    adapter: str | None = Field(
        None,
        description="PEFT adapter put on the model: a local folder or a hub name "
        "(needs `pip install crossdiff[peft]`)",
    )
    revision: str | None = Field(None, description="hub revision: a branch, tag or commit")
    chat_template: str | None = Field(
        None,
        description="for chats: a .jinja file, or the name of another model of this run whose "
        "template and text this one borrows (null: its tokenizer's own)",
    )
    trust_remote_code: bool = Field(False, description="run code that the model repository ships")


class SourceSpec(Section):
    """One source of documents."""

    path: str | None = Field(
        None,
        description="a .parquet, .jsonl, .json or .txt file, a folder with a dataset or with such "
        "files, the name of a dataset on the hub, or - for standard input",
    )
    format: Literal["auto", "parquet", "jsonl", "text", "lines"] = Field(
        "auto",
        description="kind of local files or of standard input: text is one document per file, "
        "lines one per line (auto: by the file's ending; standard input: jsonl)",
    )
    name: str | None = Field(None, description="configuration of a hub dataset")
    split: str = Field("train", description="split of a hub dataset")
    revision: str | None = Field(None, description="revision of a hub dataset: a branch or commit")
    text_column: str = Field("text", description="column that holds the text")
    chat_column: str | None = Field(
        None,
        description="column that holds a chat instead: a list of {role, content}; each model reads "
        "it in its own chat template",
    )
    label_column: str | None = Field(
        None, description="column with a label per document (its domain), shown in reports"
    )
    limit: int | None = Field(None, gt=0, description="read at most this many documents")
    weight: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="share of the documents, beside other sources"
    )


class CorpusSpec(SourceSpec):
    """The text that all models read: one source, or several by name."""

    sources: dict[Identifier, SourceSpec] = Field(
        default_factory=dict,
        description="several sources by name, each with the keys of `corpus` and a weight; a "
        "document keeps the name of its source (a corpus of one source is called `corpus`)",
    )
    deduplicate: bool = Field(
        False, description="leave out a document whose text was there before (8 bytes x documents)"
    )

    @model_validator(mode="after")
    def _one_or_several(self) -> CorpusSpec:
        if not self.sources:
            if self.path is None:
                raise ValueError("needs a path, or sources")
            return self
        own = sorted(self.model_fields_set - {"sources", "deduplicate"})
        if own:
            raise ValueError(
                f"{' and '.join(own)} stand beside sources; put them into each of the sources"
            )
        for name, source in self.sources.items():
            if source.path is None:
                raise ValueError(f"sources.{name} needs a path")
        return self

    @property
    def named_sources(self) -> dict[str, SourceSpec]:
        """Every source by its name; the only one of a plain corpus is called `corpus`."""
        if self.sources:
            return dict(self.sources)
        own = self.model_dump(exclude={"sources", "deduplicate"})
        return {"corpus": SourceSpec.model_validate(own)}

    @property
    def piped(self) -> bool:
        """Whether a source is standard input, which can be read only once."""
        return any(source.path == "-" for source in self.named_sources.values())
