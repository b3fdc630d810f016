"""What made the page: configuration, versions, fingerprint, and the commands that make it again."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from analyze.analysis import Analysis
from analyze.tables import Tables

PACKAGES = ("crossdiff", "torch", "numpy", "polars", "transformers", "nnsight", "zarr")
SECRETS = ("token", "password", "secret", "api_key", "hf_token")
# Which command makes which table, in the order in which they are best run.
MADE_BY = {
    "features": "analyze features",
    "contexts": "analyze features",
    "neighbours": "analyze features",
    "mirrors": "analyze features",
    "tokens": "analyze features",
    "scaling": "analyze scaling",
    "transfer": "analyze transfer",
    "fidelity": "analyze fidelity",
    "steer": "analyze steer",
    "steer_texts": "analyze steer --generate 2",
    "replace": "analyze replace",
    "exclusivity": "analyze exclusivity",
}


@dataclass(frozen=True)
class Made:
    """configuration: YAML; dictionary: its config.json; missing: table -> command to make it."""

    configuration: str
    dictionary: str
    versions: dict[str, str]
    fingerprint: str
    models: dict[str, str]
    commands: list[str]
    missing: dict[str, str]


def made(
    analysis: Analysis,
    baselines: list[Analysis],
    tables: Tables,
    raw_config: dict[str, Any],
    page: Path,
) -> Made:
    """Provenance of the page that is written to `page`."""
    missing = {name: command for name, command in MADE_BY.items() if not tables.has(name)}
    there = dict.fromkeys(command for name, command in MADE_BY.items() if name not in missing)
    longest = [one for one in there if not any(more.startswith(f"{one} ") for more in there)]
    subject = analysis.subject
    what = f"--store {_word(subject.store.path)} --dictionary {_word(subject.folder)}"
    commands = [f"{command} {what} --out {_word(tables.folder)}" for command in longest]
    beside = "".join(f" --baseline {_word(baseline.folder)}" for baseline in baselines)
    report = f"analyze report {what}{beside} --out {_word(page.parent)}"
    return Made(
        configuration=_yaml(raw_config),
        dictionary=json.dumps(subject.description, indent=1, ensure_ascii=False, default=str),
        versions={"python": platform.python_version(), **_versions()},
        fingerprint=subject.fingerprint,
        models={
            name.removeprefix("models."): str(value)
            for name, value in subject.store.schema.fingerprints.items()
        },
        commands=[f"{command} --config config.yaml" for command in [*commands, report]],
        missing=missing,
    )


def _word(path: Path) -> str:
    return shlex.quote(str(path))


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _yaml(raw_config: dict[str, Any]) -> str:
    plain = json.loads(json.dumps(_without_secrets(raw_config), default=str))
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)
    return text


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            str(key): "(not shown)" if str(key).lower() in SECRETS else _without_secrets(inner)
            for key, inner in value.items()
        }
    return [_without_secrets(inner) for inner in value] if isinstance(value, list) else value
