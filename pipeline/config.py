"""One YAML file configures every stage: shared `run_dir`, `models`, `corpus`, and a section each.

A stage validates only its own section, with a model that stands next to its code; unknown keys
are refused with the file, the key, what was given and what is allowed. Relative paths are taken
from the current directory, as on the command line.
"""

from __future__ import annotations

import difflib
import reprlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from rich.markup import escape

from pipeline.errors import ConfigError
from pipeline.specs import CorpusSpec, Identifier, ModelSpec, Section

DEFAULT_FILE = Path("pipeline.yaml")
SECTIONS = ("store", "harvest", "train", "analyze", "slurm")
SHARED = ("run_dir", "models", "corpus")

SectionT = TypeVar("SectionT", bound=Section)


@dataclass(frozen=True)
class Config:
    """A parsed configuration file with its overrides; sections are validated when asked for."""

    source: str
    raw: dict[str, Any]
    overridden: frozenset[str] = field(default_factory=frozenset)

    @property
    def run_dir(self) -> Path:
        """Folder beneath which everything of this run is written."""
        path = self._validate("run_dir", Annotated[str, Field(min_length=1)], "runs/default")
        return Path(path).expanduser()

    @property
    def models(self) -> dict[str, ModelSpec]:
        """Model name -> specification, in the order of the file."""
        return self._validate(
            "models", Annotated[dict[Identifier, ModelSpec], Field(min_length=1)], None
        )

    @property
    def corpus(self) -> CorpusSpec:
        """The corpus specification."""
        return self._validate("corpus", CorpusSpec, None)

    @property
    def store_path(self) -> Path:
        """Where this run's activation store lies."""
        return self.run_dir / "store.zarr"

    @property
    def dictionary_path(self) -> Path:
        """Where this run's main dictionary lies."""
        return self.run_dir / "dictionary"

    @property
    def analysis_path(self) -> Path:
        """Where this run's tables and plots lie."""
        return self.run_dir / "analysis"

    def section(self, name: str, kind: type[SectionT]) -> SectionT:
        """Validates section `name` against its pydantic model. Raises ConfigError."""
        return self._validate(name, kind, {})

    def _validate(self, key: str, kind: Any, default: Any) -> Any:
        value = self.raw.get(key)
        value = default if value is None else value
        if value is None:
            raise ConfigError(f"{self.source}: {key}: missing; this command needs it")
        try:
            return TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            raise ConfigError(self._explain(key, kind, error)) from None

    def _explain(self, key: str, kind: Any, error: ValidationError) -> str:
        first = error.errors()[0]
        location = ".".join([key, *(str(step) for step in first["loc"] if step != "[key]")])
        overridden = any(f"{location}.".startswith(f"{key}.") for key in self.overridden)
        where = "--set" if overridden else self.source
        given = first["input"]
        if first["type"] == "extra_forbidden":
            allowed = allowed_keys(kind, first["loc"])
            return (
                f"{where}: {location}: unknown key (given {given!r})"
                f"{_suggest(str(first['loc'][-1]), allowed)}; allowed: {', '.join(allowed)}"
            )
        if first["type"] == "missing":
            return f"{where}: {location}: missing; this key is required"
        message = _lower_first(first["msg"].removeprefix("Value error, "))
        return f"{where}: {location}: given {reprlib.repr(given)}; {message}"


def load_config(file: Path, overrides: list[str], explicit: bool = True) -> Config:
    """Reads `file` and applies `section.key=value` overrides.

    A missing file is an error unless it is merely the default (`explicit` false): then every
    section takes its defaults. Raises ConfigError.
    """
    found = explicit or file.exists()
    raw = _read_yaml(file) if found else {}
    _refuse_unknown(str(file), raw, [*SHARED, *SECTIONS])
    keys = frozenset(_override(raw, text) for text in overrides)
    _refuse_unknown("--set", raw, [*SHARED, *SECTIONS])
    return Config(str(file) if found else f"{file} (not found)", raw, keys)


def allowed_keys(kind: Any, location: tuple[int | str, ...] = ()) -> list[str]:
    """Names of the fields of the (possibly nested) model that `location` points into."""
    model = _model_at(kind, list(location[:-1]))
    return sorted(model.model_fields) if model else []


def describe(kind: type[Section], name: str) -> str:
    """The keys of a section with defaults and meanings, as rich markup, for `--help`.

    Keys that a section within it has as well are described once.
    """
    heading = f"Keys of section `{name}` (set with --set {name}.KEY=VALUE):"
    return escape("\n\n".join([heading, *_describe_keys(kind, "", frozenset())]))


def _describe_keys(kind: type[Section], prefix: str, known: frozenset[str]) -> list[str]:
    lines = []
    for key, info in kind.model_fields.items():
        if key in known:
            continue
        default = info.get_default(call_default_factory=True, validated_data={})
        if isinstance(default, Section):
            lines += _describe_keys(type(default), f"{prefix}{key}.", frozenset(kind.model_fields))
            continue
        shown = "required" if info.is_required() else f"default {_yaml_word(default)}"
        if get_origin(info.annotation) is Literal:
            shown = f"{' | '.join(get_args(info.annotation))}; {shown}"
        lines.append(f"{prefix}{key} ({shown}): {info.description}")
    return lines


def _yaml_word(value: Any) -> str:
    """A default as it would stand in the file."""
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()


def _model_at(kind: Any, steps: list[int | str]) -> type[BaseModel] | None:
    """Follows field names and dictionary keys from an annotation to a nested model."""
    candidates = [kind]
    while candidates:
        here = candidates.pop()
        if isinstance(here, type) and issubclass(here, BaseModel):
            if not steps:
                return here
            info = here.model_fields.get(str(steps[0]))
            return _model_at(info.annotation, steps[1:]) if info else None
        inner = [part for part in getattr(here, "__args__", ()) if part is not type(None)]
        if getattr(here, "__origin__", None) is dict and steps:
            return _model_at(inner[1], steps[1:])
        candidates.extend(inner)
    return None


class _StrictLoader(yaml.SafeLoader):
    """YAML without tags that run code, and without a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key_node.value!r} is given twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        raw = yaml.load(file.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file; name a configuration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError(f"{file}: expected `key: value` lines at the top, got {raw!r}")
    return raw


def _refuse_unknown(source: str, raw: dict[str, Any], allowed: list[str]) -> None:
    for key, value in raw.items():
        if key not in allowed:
            raise ConfigError(
                f"{source}: {key}: unknown key (given {value!r}){_suggest(str(key), allowed)}; "
                f"allowed: {', '.join(allowed)}"
            )


def _override(raw: dict[str, Any], text: str) -> str:
    """Applies one `a.b=value` to `raw` in place and returns the dotted key."""
    dotted, equals, value = text.partition("=")
    if not equals or not dotted:
        raise ConfigError(f"--set {text}: expected section.key=value, e.g. train.k=64")
    try:
        parsed = value if value == "-" else yaml.safe_load(value)  # standard input, not a list
    except yaml.YAMLError:
        parsed = value
    *parents, last = dotted.split(".")
    node = raw
    for step in parents:
        child = node.setdefault(step, {})
        if child is None:
            child = node[step] = {}
        if not isinstance(child, dict):
            raise ConfigError(f"--set {text}: {step} holds {child!r}, which has no keys inside")
        node = child
    node[last] = parsed
    return dotted


def _suggest(word: str, allowed: list[str]) -> str:
    near = difflib.get_close_matches(word, allowed, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
