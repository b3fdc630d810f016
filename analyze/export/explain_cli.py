"""`analyze explain`."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from analyze.command import (
    DictionaryOption,
    Opened,
    OutOption,
    open_all,
    read_settings,
    rows_table,
)
from pipeline.command import (
    ConfigOption,
    JsonOption,
    SetOption,
    StoreOption,
    note,
    progress_bar,
)
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from analyze.export.endpoint import Endpoint
    from analyze.export.explain import Explained, Job

SAVE_EVERY = 10.0
SHOWN = 10  # explanations on the terminal
WINDOWS = 100  # stretches of text that silent ones are taken from

FeaturesOption = Annotated[
    str,
    typer.Option(
        "--features",
        help="all; exclusive: those that may be one model's own; a group of the partition; or "
        "numbers and ranges, such as 3,17,100-200.",
    ),
]
EXPLAIN = [
    "Reads the table `contexts` (made by analyze features). Of each feature's contexts every third "
    "is held back; the others are shown with the tokens it fires on marked, <<so>>. The answer is "
    "kept as text in the table `explanations`; features that have one are not asked for again.",
    "detection: the model is shown its explanation and, mixed, contexts held back and stretches of "
    "text on which the feature is silent, all unmarked, and says which fit. Balanced accuracy, "
    "(sensitivity + specificity) / 2; chance is 0.5 (detection score of arXiv 2410.13928).",
    "Texts of the store are sent to the endpoint. The key is read from an environment variable, "
    "sent as the header Authorization, and written nowhere.",
]


def explain(
    endpoint: Annotated[
        str,
        typer.Option(
            "--endpoint",
            help="Address of an OpenAI-compatible interface, up to and with /v1: of a server of "
            "your own (vLLM, llama.cpp, Ollama) or a provider.",
            show_default=False,
        ),
    ],
    model_name: Annotated[
        str,
        typer.Option("--model-name", help="The explainer, as it names it.", show_default=False),
    ],
    key_variable: Annotated[
        str, typer.Option("--key-variable", help="Environment variable with the key.")
    ] = "OPENAI_API_KEY",
    features: FeaturesOption = "exclusive",
    limit: Annotated[int, typer.Option(min=1, help="Features asked for in this run.")] = 100,
    score: Annotated[
        bool, typer.Option("--score/--no-score", help="Test explanations by detection.")
    ] = True,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Explain again what is explained (default: off).")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say how many requests it would be; send none."),
    ] = False,
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Requests at a time.")] = 4,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one request.")] = 60.0,
    retries: Annotated[
        int, typer.Option(min=0, max=20, help="Further tries after 429, 5xx or no answer.")
    ] = 4,
    max_tokens: Annotated[int, typer.Option(min=8, help="Longest answer, in tokens.")] = 300,
    request: Annotated[
        str | None,
        typer.Option(
            "--request",
            help="JSON object of fields to add to every request; null leaves one out, as in "
            '{"max_tokens": null, "max_completion_tokens": 2000} (default: none).',
        ),
    ] = None,
    store: StoreOption = None,
    dictionary: DictionaryOption = None,
    out: OutOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """A sentence per feature by a language model, with a score of how well it tells the feature."""
    settings, section = read_settings(config, set_)
    from analyze.export.endpoint import Endpoint
    from analyze.export.explain import estimate
    from analyze.export.explanations import read_explanations

    asked = Endpoint(
        url=endpoint,
        model_name=model_name,
        key=None if dry_run else (os.environ.get(key_variable, "").strip() or None),
        key_variable=key_variable,
        timeout=timeout,
        retries=retries,
        max_tokens=max_tokens,
        extra=_fields(request),
    )
    opened = open_all(settings, section, store, dictionary, out)
    known = read_explanations(opened.tables)
    jobs = _jobs(opened, features, {} if fresh else known, limit, score)
    if dry_run:
        _say_estimate(estimate(jobs, max_tokens).__dict__, asked.shown, as_json)
        return
    if asked.unprotected:
        note(
            f"the key in {key_variable} goes unencrypted to "
            f"{asked.shown}; an https address protects it"
        )
    found, files = _ask(opened, jobs, asked, known, parallel)
    _say_explained(found, len(known), files, as_json)


def _fields(request: str | None) -> dict[str, Any]:
    try:
        value = json.loads(request or "{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ConfigError(f"--request: given {request!r}; give a JSON object, {{...}}")
    return value


def _jobs(
    opened: Opened, features: str, known: dict[int, Explained], limit: int, score: bool
) -> list[Job]:
    """What is to be asked, of the likeliest exclusive and strongest features first."""
    from analyze.export.chosen import chosen_features
    from analyze.export.explain import Limits, plan_jobs
    from analyze.export.order import in_order
    from analyze.export.silent import draw_windows

    contexts = opened.tables.read("contexts")
    if contexts is None:
        raise ConfigError(
            f"{opened.out}: no table contexts of this dictionary and store; run `analyze features` "
            "first, with the same --out"
        )
    chosen = chosen_features(opened.subject.dictionary, features)
    reach = int(contexts["pieces"].list.len().max() or 0) // 2  # type: ignore[arg-type]
    windows = []
    if score:
        with progress_bar("windows") as bar:
            task = bar.add_task("silent texts", total=WINDOWS, note="")
            drawn = draw_windows(opened.subject, WINDOWS, reach)
            windows = list(bar.track(drawn, task_id=task))
    return plan_jobs(
        contexts, in_order(opened.tables, chosen), windows, known, Limits(features=limit)
    )


def _ask(
    opened: Opened,
    jobs: list[Job],
    endpoint: Endpoint,
    known: dict[int, Explained],
    parallel: int,
) -> tuple[list[Explained], list[Path]]:
    """Results as they came, and the table's files, which are written every ten seconds."""
    from analyze.export.endpoint import Chat
    from analyze.export.explain import explain_all
    from analyze.export.explanations import NAME, explanations_table

    found: list[Explained] = []
    files: list[Path] = []
    everything, saved = dict(known), time.monotonic()
    chat = Chat(endpoint)
    try:
        with progress_bar("features") as bar:
            task = bar.add_task("explain", total=len(jobs), note="")
            for result in explain_all(jobs, chat, endpoint.model_name, parallel):
                found.append(result)
                everything[result.feature] = result
                bar.update(task, advance=1)
                if time.monotonic() - saved > SAVE_EVERY:
                    opened.tables.write(NAME, explanations_table(everything.values()))
                    saved = time.monotonic()
    finally:
        chat.close()
        if found:
            files = opened.tables.write(NAME, explanations_table(everything.values()))
    return found, files


def _say_estimate(value: dict[str, int], address: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps(value, indent=2))
        return
    print(
        f"{value['requests']:,} requests for {value['features']:,} features to {address}: about "
        f"{value['prompt_tokens']:,} tokens of prompts, at most {value['answer_tokens']:,} of "
        "answers; nothing was sent"
    )


def _say_explained(found: list[Explained], kept: int, files: list[Path], as_json: bool) -> None:
    explained = [one for one in found if one.explanation is not None]
    scores = [one.detection for one in found if one.detection is not None]
    mean = sum(scores) / len(scores) if scores else None
    errors = [one.error for one in found if one.error is not None]
    if errors and not explained:
        raise ConfigError(f"--endpoint: nothing was explained; the last answer: {errors[-1]}")
    if as_json:
        value = {
            "explained": len(explained),
            "failed": len(errors),
            "kept": kept,
            "mean_detection": mean,
            "files": [str(file) for file in files],
        }
        print(json.dumps(value, indent=2))
        return
    if explained:
        rows = [
            {"feature": one.feature, "explanation": one.explanation, "detection": one.detection}
            for one in explained[:SHOWN]
        ]
        Console().print(rows_table(rows, "explanations"))
    scored = "" if mean is None else f", mean detection {mean:.2f} (chance 0.5)"
    if not found:
        print("nothing to ask for: none of these features has contexts and lacks an explanation")
    print(f"{len(explained)} explained now{scored}; {kept} were known")
    if errors:
        print(f"{len(errors)} failed, such as: {errors[-1]}; run again to ask for them again")
    if files:
        print(f"written: {', '.join(str(file) for file in files)}")


explain.__doc__ = "\n\n".join([explain.__doc__ or "", *EXPLAIN])
