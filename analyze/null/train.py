"""Trains the null: the dictionary's own recipe on a pair without differences.

Costs what training the dictionary cost, times `share`, which shortens the run and all of its
schedules alike. A null that has been trained is not trained again; an interrupted one goes on.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from analyze.norms import model_pair
from analyze.null.pair import NullPair
from analyze.null.rows import NullRows
from analyze.subject import Subject
from pipeline.errors import DictionaryError
from pipeline.memory import out_of_memory
from store.files import json_bytes, read_json, write_json
from train.config import TrainConfig
from train.device import resolve_device
from train.dictionary.artifact import CONFIG, load_dictionary, read_description
from train.loop import train_on
from train.source import StoreRows
from train.steps import OnStep

SEED_STEP = 1_000_003  # a null's weights and order of rows are not those of the dictionary
SCHEDULES = (
    *("warmup_steps", "decay_start", "k_anneal_steps", "threshold_start", "p_anneal_start"),
    *("sparsity_warmup_steps", "resample_every"),
)
MADE_FOR = "null.json"
NO_ROOM = "set analyze.device to cpu, or judge without it by --null shared"


def null_config(subject: Subject, seed: int, share: float, device: str = "auto") -> TrainConfig:
    """The settings that the dictionary was trained with, another seed, and `share` of its steps.

    Raises DictionaryError if the dictionary does not say how it was trained.
    """
    said: dict[str, Any] = dict(subject.description.get("train", {}))
    if not said:
        raise DictionaryError(
            f"{subject.folder / CONFIG}: does not say how it was trained (an import?), so no null "
            'can be trained like it; use --null shared, or --set "analyze.nulls=[shared]"'
        )
    steps = max(1, round(said.get("steps", 0) * share))
    shorter = {k: round(said[k] * share) for k in SCHEDULES if isinstance(said.get(k), int)}
    if "resample_every" in shorter:
        shorter["resample_every"] = max(1, shorter["resample_every"])
    if "threshold_start" in shorter:
        shorter["threshold_start"] = min(shorter["threshold_start"], steps - 1)
    others = {
        "steps": steps,
        "seed": said.get("seed", 0) + SEED_STEP * (1 + seed),
        "validate_every": steps,
        "checkpoint_every": max(1, steps // 4),
        "keep_best": False,
        "keep_checkpoints": 1,
        "device": device,
        "wandb": {"mode": "off"},
        "recipes": [subject.recipe],
        **_split(subject),
        "sweep": {},
    }
    try:
        return TrainConfig.model_validate({**said, **shorter, **others})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DictionaryError(
            f"{subject.folder / CONFIG}: train.{place}: {first['msg']}; "
            "no null can be trained like it, use --null shared"
        ) from None


def _split(subject: Subject) -> dict[str, Any]:
    """Where the dictionary has features of one model alone, the null has no others.

    So it shows many such features, each of which has a counterpart that reads the other model.
    """
    models = model_pair(subject.dictionary)
    if not any(subject.dictionary.partition.exclusive_group(model) for model in models):
        return {}
    half = subject.features // 2
    return {"exclusive": {models[0]: half, models[1]: subject.features - half}}


def train_null(
    subject: Subject,
    pair: NullPair,
    config: TrainConfig,
    folder: Path,
    on_step: OnStep = lambda done, note: None,
) -> Subject:
    """The null's dictionary on the null pair's rows, trained in `folder` if it is not there yet."""
    rows = NullRows(StoreRows(subject.store, config), pair)
    made_for = {"key": _key(subject, pair, config)}
    place = folder / "dictionary"
    same = (folder / MADE_FOR).exists() and read_json(folder / MADE_FOR) == made_for
    if not (same and (place / CONFIG).exists()):
        if not same:  # what is there must not pass for what is to come, wherever this run ends
            (place / CONFIG).unlink(missing_ok=True)
        write_json(folder / MADE_FOR, made_for)
        with out_of_memory(DictionaryError, "training a null", NO_ROOM):
            train_on(rows, config, place, on_step, fresh=not same)
    device = resolve_device(config.device, "analyze.device")
    dictionary = load_dictionary(place).to(device)
    null = Subject(subject.store, dictionary, place, read_description(place))
    return replace(null, view=pair.view, view_name=pair.name)


def _key(subject: Subject, pair: NullPair, config: TrainConfig) -> str:
    known = {
        "subject": subject.fingerprint,
        "pair": pair.name,
        "train": config.model_dump(mode="json"),
    }
    return hashlib.sha256(json_bytes(known)).hexdigest()
