"""A dictionary of another library, from a folder or file, as a Crosscoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import DictionaryError
from train.dictionary.crosscoder import Crosscoder
from train.formats import (
    dl_crosscoder,
    dl_plain,
    dl_topk,
    hub_crosscoders,
    sae_lens,
    sparsify,
)
from train.formats.draft import Draft, bind
from train.formats.files import Found, find
from train.formats.format import Format
from train.formats.kept import dtype_name, pack

FORMATS: tuple[Format, ...] = (
    *sae_lens.FORMATS,
    *sparsify.FORMATS,
    *dl_plain.FORMATS,
    *dl_topk.FORMATS,
    *dl_crosscoder.FORMATS,
    *hub_crosscoders.FORMATS,
)
OURS = "crossdiff-dictionary"


@dataclass(frozen=True)
class Imported:
    """A dictionary that was read.

    notes: a line per thing that was assumed or lost; source: JSON values that say where it came
    from, with what only a way back needs; it belongs into config.json under `source`.
    """

    dictionary: Crosscoder
    notes: list[str]
    source: dict[str, Any]

    @property
    def provenance(self) -> dict[str, Any]:
        """What config.json says of it besides its architecture, as of a trained dictionary."""
        known = {key: self.source[key] for key in ("k", "group_sizes") if key in self.source}
        return {**known, "source": self.source}


def import_dictionary(
    path: Path,
    *,
    models: tuple[str, ...] | None = None,
    hookpoints: tuple[str, ...] | None = None,
    kind: str | None = None,
) -> Imported:
    """Reads any known format; nothing is unpickled.

    models, hookpoints: names per hookpoint, in the file's order (default: `model`; `a`, `b`);
    kind: the class, where two have the same keys. Raises DictionaryError naming the file.
    """
    found = find(Path(path))
    if found.config.get("format") == OURS:
        raise DictionaryError(
            f"{found.file.parent}: is a dictionary of this project already; use it as it is"
        )
    form = recognise(found, kind)
    draft = form.read(found)
    return Imported(bind(draft, models, hookpoints), draft.notes, _source(found, form, draft))


def recognise(found: Found, kind: str | None = None) -> Format:
    """The format of a file. Raises DictionaryError for none or several."""
    matching = [form for form in FORMATS if form.matches(found)]
    matching = [form for form in matching if form.file] or matching
    if not matching:
        keys = ", ".join(f"{key}{tuple(v.shape)}" for key, v in sorted(found.tensors.items())[:16])
        known = ", ".join(dict.fromkeys(form.kind for form in FORMATS))
        raise DictionaryError(
            f"{found.file}: not a dictionary that is understood; its keys are {keys}; "
            f"understood are {known}"
        )
    names = [form.kind for form in matching]
    if kind is not None and kind not in names:
        raise DictionaryError(f"{found.file}: has the keys of {' or '.join(names)}, not of {kind}")
    if len(matching) == 1:
        return matching[0]
    said = {kind} if kind else _said(found)
    chosen = [form for form in matching if form.kind in said]
    if len(chosen) != 1:
        raise DictionaryError(
            f"{found.file}: {' and '.join(names)} have the same keys, and no config.json says "
            f"which it is; name it: --kind {names[0]} or --kind {names[1]}"
        )
    return chosen[0]


def _said(found: Found) -> set[str]:
    """Classes that the configuration names, where there is a choice."""
    trainers = {"TopKTrainer": "AutoEncoderTopK", "BatchTopKTrainer": "BatchTopKSAE"}
    trainer = str(found.setting("trainer_class"))
    return {str(found.setting("dict_class")), trainers.get(trainer, trainer)}


def _source(found: Found, form: Format, draft: Draft) -> dict[str, Any]:
    return {
        "library": form.library,
        "kind": draft.kind,
        "file": str(found.file),
        "dtypes": {key: dtype_name(tensor.dtype) for key, tensor in found.tensors.items()},
        "kept": pack(draft.kept),
        "notes": draft.notes,
        **draft.details,
    }
