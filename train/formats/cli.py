"""`train import` and `train export`: dictionaries of other libraries."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.command import JsonOption
from pipeline.errors import DictionaryError

if TYPE_CHECKING:  # importing torch would make --help slow
    from train.dictionary.crosscoder import Crosscoder

ForeignPath = Annotated[
    Path,
    typer.Argument(
        metavar="PATH",
        help="A folder or file of dictionary_learning or its crosscoder forks, SAELens, sparsify, "
        "or a crosscoder from the Hub. Pickles that are more than tensors are refused.",
        show_default=False,
    ),
]
OutOption = Annotated[Path, typer.Option("--out", help="The folder to write.", show_default=False)]
ModelNames = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="Model of a layer of the file, as the store calls it; once per layer, in the file's "
        "order (default: model for one, a and b for two).",
    ),
]
HookpointNames = Annotated[
    list[str] | None,
    typer.Option(
        "--hookpoint",
        metavar="NAME",
        help="Hookpoint of a layer, as the store calls it; once per layer (default: the models).",
    ),
]
Kind = Annotated[
    str | None,
    typer.Option(
        "--kind",
        metavar="CLASS",
        help="AutoEncoderTopK or BatchTopKSAE, for a file without config.json: their keys are the "
        "same (default: what config.json says).",
    ),
]
DictionaryPath = Annotated[
    Path,
    typer.Argument(metavar="DICTIONARY", help="A dictionary's folder.", show_default=False),
]
Format = Annotated[
    str,
    typer.Option("--format", help="dictionary_learning or sae_lens (single-model dictionaries)."),
]
K = Annotated[
    int | None,
    typer.Option(
        "--k",
        min=1,
        help="Active features per row that BatchTopK classes hold (default: what it was trained "
        "or imported with).",
    ),
]
AsSafetensors = Annotated[
    bool,
    typer.Option(
        "--safetensors",
        help="dictionary_learning: model.safetensors, as on the Hub, in place of a .pt file "
        "(default: off; sae_lens always).",
    ),
]


def import_(
    path: ForeignPath,
    out: OutOption,
    models: ModelNames = None,
    hookpoints: HookpointNames = None,
    kind: Kind = None,
    as_json: JsonOption = False,
) -> None:
    """Makes a dictionary of this project of another library's.

    Its configuration keeps what only a way back needs: exported again, the
    tensors are the same to the bit. Example:

    train import trainer_0/ae.pt --out runs/ae --model base
    """
    from train.dictionary.artifact import save_dictionary
    from train.formats.read import import_dictionary

    if (out / "config.json").exists():
        raise DictionaryError(f"{out}: holds a config.json already; name another folder")
    imported = import_dictionary(
        path,
        models=tuple(models) if models else None,
        hookpoints=tuple(hookpoints) if hookpoints else None,
        kind=kind,
    )
    save_dictionary(out, imported.dictionary, imported.provenance)
    dictionary = imported.dictionary
    summary: dict[str, Any] = {
        "folder": str(out),
        "library": imported.source["library"],
        "kind": imported.source["kind"],
        "features": dictionary.partition.features,
        "hookpoints": {h.name: {"model": h.model, "width": h.width} for h in dictionary.hookpoints},
        "partition": {group.name: group.size for group in dictionary.partition.groups},
        "notes": imported.notes,
    }
    following = f"analyze report --dictionary {shlex.quote(str(out))}"
    print(json.dumps(summary, indent=2) if as_json else _imported(summary, following))


def export(
    dictionary: DictionaryPath,
    out: OutOption,
    format: Format,
    k: K = None,
    as_safetensors: AsSafetensors = False,
    as_json: JsonOption = False,
) -> None:
    """Writes a dictionary in another library's format.

    Crosscoders and DFCs go to dictionary_learning, whose layers are equally
    wide; dictionaries of one hookpoint also to SAELens. Example:

    train export runs/ae --out for_sae_lens --format sae_lens
    """
    from train.dictionary.artifact import load_dictionary, read_description
    from train.formats.write import FormatName, export_dictionary

    chosen: dict[str, FormatName] = {
        "dictionary_learning": "dictionary_learning",
        "sae_lens": "sae_lens",
    }
    if format not in chosen:
        raise DictionaryError(f"--format {format}: known are {', '.join(chosen)}")
    description = read_description(dictionary)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DictionaryError(f"{out}: is there and not an empty folder; name another one")
    trained = description.get("train")
    loaded = load_dictionary(dictionary)
    if k is not None:
        _refuse_other_k(loaded, k)
    exported = export_dictionary(
        loaded,
        out,
        chosen[format],
        source=_source(description),
        k=k or (trained.get("k") if isinstance(trained, dict) else None),
        as_safetensors=as_safetensors,
    )
    summary: dict[str, Any] = {
        "folder": str(out),
        "format": format,
        "kind": exported.kind,
        "files": exported.files,
        "notes": exported.notes,
    }
    print(json.dumps(summary, indent=2) if as_json else _exported(summary))


def _refuse_other_k(dictionary: Crosscoder, k: int) -> None:
    """Only BatchTopK's k is a note; that of the others is in their function, or nowhere."""
    kind, features = dictionary.activation.kind, dictionary.partition.features
    if kind != "batch_topk":
        raise DictionaryError(f"--k {k}: says what a BatchTopK dictionary holds, this is a {kind}")
    if k > features:
        raise DictionaryError(f"--k {k}: more than the dictionary's {features:,} features")


def _source(description: dict[str, Any]) -> dict[str, Any]:
    """What config.json knows that the weights do not say: of an import, or of training."""
    source = description.get("source")
    known = {key: description[key] for key in ("k", "group_sizes") if key in description}
    return {**known, **(source if isinstance(source, dict) else {})}


def _imported(summary: dict[str, Any], following: str) -> str:
    hookpoints = [
        f"  {name} (model {at['model']}, width {at['width']})"
        for name, at in summary["hookpoints"].items()
    ]
    return "\n".join(
        [
            f"{summary['folder']}: {summary['features']:,} features of a {summary['kind']} "
            f"({summary['library']})",
            "hookpoints:",
            *hookpoints,
            *(f"note: {note}" for note in summary["notes"]),
            f"next: {following}",
        ]
    )


def _exported(summary: dict[str, Any]) -> str:
    load = {
        "sae_lens": f"sae_lens.SAE.load_from_disk({summary['folder']!r})",
        "dictionary_learning": f"{summary['kind']}.from_pretrained"
        f"({str(Path(summary['folder']) / summary['files'][0])!r})",
    }[summary["format"]]
    return "\n".join(
        [
            f"{summary['folder']}: {summary['kind']} ({', '.join(summary['files'])})",
            *(f"note: {note}" for note in summary["notes"]),
            f"next: {load}",
        ]
    )
