"""Dictionaries of a run that its report holds beside the main one."""

from __future__ import annotations

from pathlib import Path

from pipeline.command import note
from pipeline.config import Config
from train.config import TrainConfig
from train.dictionary.artifact import read_description
from train.recipes.presets import planned
from train.recipes.recipe import output_folder


def baselines_of(settings: Config) -> list[Path]:
    """Dictionaries of the configuration's further recipes, as far as they have been trained."""
    plans = planned(settings.section("train", TrainConfig))
    folders = [
        output_folder(settings.dictionary_path, n, plan.name) for n, plan in enumerate(plans)
    ]
    trained = [folder for folder in folders[1:] if (folder / "config.json").exists()]
    return [folder for folder in trained if of_two_models(folder)]


def of_two_models(folder: Path) -> bool:
    """Whether it can be compared with; says so if not."""
    models = {str(hookpoint.get("model")) for hookpoint in read_description(folder)["hookpoints"]}
    if len(models) != 2:
        note(f"{folder} is not of two models; left out")
    return len(models) == 2
