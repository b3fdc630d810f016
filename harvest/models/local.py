"""Whether a model's path means a folder on this machine or a name on the hub."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.specs import ModelSpec


def local_folder(name: str, spec: ModelSpec) -> Path | None:
    """The model's folder, or None if its path is a hub name. Touches no network.

    A hub name is `model` or `owner/model`, unless there is a folder of the first word here: then
    a path below it was meant. Raises ModelError if a folder is meant and no model is there.
    """
    path = Path(spec.path).expanduser()
    if path.is_dir():
        if not (path / "config.json").exists():
            raise ModelError(f"models.{name}.path: {spec.path}: no model there (no config.json)")
        return path
    first = spec.path.split("/")[0]
    hub = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", spec.path) and not Path(first).is_dir()
    if not hub:
        raise ModelError(f"models.{name}.path: {spec.path}: no such folder")
    return None
