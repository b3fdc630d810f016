"""`analyze export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from analyze.command import (
    DictionaryOption,
    Opened,
    bar_when_needed,
    open_all,
    orderly,
    read_settings,
)
from pipeline.command import (
    ConfigOption,
    JsonOption,
    SetOption,
    StoreOption,
    note,
)
from pipeline.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from analyze.export.delphi import DelphiSpec
    from harvest.models.texts import TextReader
    from pipeline.config import Config

TablesOption = Annotated[
    Path | None,
    typer.Option("--tables", help="Folder of the tables (default: RUN_DIR/analysis)."),
]

EXPORT = [
    "delphi: a cache of activations for EleutherAI's Delphi 0.1.1, to explain and score features "
    "with its own means. One sweep over the store. Sequences are the documents of the store in "
    "their order, as tokens of --model, with its end-of-text token between them. A token without "
    "a row (it paired with none of the other model's, or the harvest left it out) has no "
    "activation, which Delphi takes for 0; it is there, for the text, up to a document's last row, "
    "where the tokenizer of the configuration reads the document as the harvest did. Chats have "
    "the tokens of their rows alone. Load it with "
    'LatentDataset(raw_dir="FOLDER", sampler_cfg=..., constructor_cfg=...).',
    "notebook: FILE.parquet, a row per feature with what all tables say of it, and next to it "
    'FILE.contexts.parquet with the texts it fires on. pandas.read_parquet("FILE.parquet") reads '
    "them; the key `columns` of the file's metadata says what each column means "
    '(polars.read_parquet_metadata("FILE.parquet")["columns"]), and so does --json.',
]


def export(
    to: Annotated[
        Literal["delphi", "notebook"], typer.Option("--to", help="What for.", show_default=False)
    ],
    target: Annotated[
        Path,
        typer.Option("--out", help="delphi: a new folder; notebook: FILE.parquet."),
    ],
    store: StoreOption = None,
    dictionary: DictionaryOption = None,
    tables: TablesOption = None,
    features: Annotated[
        str | None,
        typer.Option(
            "--features",
            help="all; exclusive: those that may be one model's own; a group of the partition; or "
            "numbers and ranges, such as 3,17,100-200 (default: delphi: those that may be "
            "exclusive to --model; notebook: all).",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="delphi: whose tokens (default: the last model's)."),
    ] = None,
    ctx_len: Annotated[
        int,
        typer.Option(
            min=2, help="delphi: tokens per sequence; a multiple of Delphi's example_ctx_len (32)."
        ),
    ] = 256,
    splits: Annotated[
        int, typer.Option(min=1, max=1000, help="delphi: files; Delphi loads one at a time.")
    ] = 5,
    separator: Annotated[
        int | None,
        typer.Option(
            min=-1,
            help="delphi: id of the token between documents, -1 for none (default: the model's "
            "end-of-text token, as its tokenizer in the configuration says).",
        ),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Writes what is known of features for other programs: Delphi, or a notebook."""
    settings, section = read_settings(config, set_)
    opened = open_all(settings, section, store, dictionary, tables)
    if to == "notebook":
        _notebook(opened, target, features or "all", as_json)
    else:
        spec = _spec(opened, settings, features, model, ctx_len, splits, separator)
        with orderly():  # what is half written is removed
            _delphi(opened, spec, target, as_json)


def _notebook(opened: Opened, target: Path, features: str, as_json: bool) -> None:
    import polars as pl

    from analyze.export.chosen import chosen_features
    from analyze.export.columns import describe_columns
    from analyze.export.notebook import feature_table, write_parquet

    if target.suffix != ".parquet":
        raise ConfigError(f"--out: given {target}; name a file that ends in .parquet")
    dictionary = opened.subject.dictionary
    chosen = chosen_features(dictionary, features)
    table = feature_table(dictionary, opened.tables, chosen)
    write_parquet(table, target)
    files = [target]
    contexts = opened.tables.read("contexts")
    if contexts is not None:
        files.append(target.with_suffix(".contexts.parquet"))
        write_parquet(contexts.filter(pl.col("feature").is_in(chosen.tolist())), files[-1])
    if as_json:
        value = {"features": len(table), "files": [str(file) for file in files]}
        print(json.dumps({**value, "columns": describe_columns(table.columns)}, indent=2))
        return
    print(f"{len(table):,} features, {table.width} columns")
    if contexts is None:
        print("no contexts: run `analyze features` first to have them, too")
    print(f"written: {', '.join(str(file) for file in files)}")


def _spec(
    opened: Opened,
    settings: Config,
    features: str | None,
    model: str | None,
    ctx_len: int,
    splits: int,
    separator: int | None,
) -> DelphiSpec:
    from analyze.export.chosen import EXCLUSIVE, check_model, chosen_features
    from analyze.export.delphi import DelphiSpec
    from analyze.export.sequences import has_every_token

    dictionary = opened.subject.dictionary
    model = check_model(dictionary, model)
    tokenizer, reason = _tokenizer(settings, model)
    if separator is None:
        separator = _end_of_text(model, tokenizer, reason)
    return DelphiSpec(
        model=model,
        model_name=_model_name(settings, model),
        features=chosen_features(dictionary, features or EXCLUSIVE, model),
        ctx_len=ctx_len,
        separator=None if separator == -1 else separator,
        splits=splits,
        reader=None if has_every_token(opened.subject.store) else _reader(model, tokenizer, reason),
    )


def _delphi(opened: Opened, spec: DelphiSpec, target: Path, as_json: bool) -> None:
    from analyze.export.delphi import MIN_EXAMPLES, export_delphi

    with bar_when_needed("rows", "encode", opened.subject.store.rows) as update:
        done = export_delphi(
            opened.subject,
            spec,
            target,
            opened.section.batch_rows,
            lambda rows: update(advance=rows),
        )
    files = [str(file) for file in done.files]
    if as_json:
        value = {
            "hookpoint": done.hookpoint,
            "features": done.features,
            "entries": done.entries,
            "sequences": done.sequences.count,
            "ctx_len": done.sequences.ctx_len,
            "positions_left_out": done.sequences.left_out,
            "rare_features": done.rare,
            "separator": spec.separator,
            "documents_of_rows_only": done.not_whole,
            "files": files,
        }
        print(json.dumps(value, indent=2))
        return
    print(
        f"{done.features:,} features, {done.entries:,} activations in {done.sequences.count:,} "
        f"sequences of {spec.ctx_len} tokens of model {spec.model}"
    )
    if done.rare:
        print(
            f"{done.rare:,} of them fire on fewer than {MIN_EXAMPLES} tokens: Delphi leaves these "
            "out unless ConstructorConfig(min_examples=...) is lowered"
        )
    if done.not_whole:
        print(f"{done.not_whole:,} documents have only those of their tokens that have rows")
    print(f"written: {', '.join(files)}")


def _model_name(settings: Config, model: str) -> str:
    """What Delphi loads the tokenizer by: the model's hub name or folder, else its name here."""
    spec = settings.models.get(model) if settings.raw.get("models") else None
    if spec is None:
        return model
    folder = Path(spec.path).expanduser()
    return str(folder.resolve()) if folder.is_dir() else spec.path


def _tokenizer(settings: Config, model: str) -> tuple[Any, str]:
    """The model's tokenizer, or None and why it cannot be had."""
    if not settings.raw.get("models") or model not in settings.models:
        return None, "the configuration does not name the model"
    from harvest.models.load import load_tokenizer

    try:
        return load_tokenizer(model, settings.models[model]), ""
    except ModelError as error:
        return None, str(error)


def _reader(model: str, tokenizer: Any, reason: str) -> TextReader | None:
    """Reads texts as the harvest did; None, and a word of it, if that cannot be done."""
    if tokenizer is not None:
        from harvest.models.texts import TextReader

        try:
            return TextReader(tokenizer, model)
        except ModelError as error:
            reason = str(error)
    note(f"tokens of model {model} that have no row are missing ({reason})")
    return None


def _end_of_text(model: str, tokenizer: Any, reason: str) -> int:
    """The id of the model's end-of-text token; -1, and a word of it, if it is not known."""
    found = None if tokenizer is None else tokenizer.eos_token_id
    if found is None:
        note(
            f"nothing between documents, for the end-of-text token of model {model} is not known "
            f"({reason or 'its tokenizer has none'}); --separator ID names one"
        )
        return -1
    return int(found)


export.__doc__ = "\n\n".join([export.__doc__ or "", *EXPORT])
