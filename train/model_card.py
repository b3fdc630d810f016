"""The model card of a dictionary: what it is, how it was trained, how well it does. Plain text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

GENERATED = "<!-- written by crossdiff; delete this line to keep your own text -->"
LIBRARY = "crossdiff"


def model_card(repo_id: str, description: dict[str, Any], figures: dict[str, Any]) -> str:
    """README.md for a repository. `description`: config.json; `figures`: see hub.read_figures.

    Says nothing of a licence: that is the user's to choose.
    """
    tags = ["sparse-dictionary", "interpretability", _what(description)]
    head = ["---", f"library_name: {LIBRARY}", "tags:", *(f"- {tag}" for tag in tags), "---"]
    sections = [
        f"# {repo_id.split('/')[-1]}",
        _summary(description),
        "## Figures\n\n" + _figures(description, figures),
        "## Hookpoints\n\n" + _hookpoints(description),
        "## Partition\n\n" + _partition(description),
        "## Use\n\n" + _use(repo_id),
        "## Configuration\n\n" + _configuration(description),
    ]
    return "\n".join([*head, GENERATED, "", "\n\n".join(sections), ""])


def _what(description: dict[str, Any]) -> str:
    """sparse-autoencoder, transcoder, crosscoder or dedicated-feature-crosscoder."""
    hookpoints = description["hookpoints"]
    if len(hookpoints) == 1:
        return "sparse-autoencoder"
    models = {entry["model"] for entry in hookpoints}
    if any(g["size"] and not models <= set(g["models"]) for g in description["partition"]):
        return "dedicated-feature-crosscoder"
    both = any(entry.get("reads", True) and entry.get("writes", True) for entry in hookpoints)
    return "crosscoder" if both else "transcoder"


def _summary(description: dict[str, Any]) -> str:
    features = sum(group["size"] for group in description["partition"])
    models = ", ".join(dict.fromkeys(entry["model"] for entry in description["hookpoints"]))
    activation = description.get("activation", {}).get("kind", "batch_topk")
    recipe = f"recipe `{description['recipe']}`, " if "recipe" in description else ""
    return (
        f"A {_what(description).replace('-', ' ')} of {features:,} features on {models}: {recipe}"
        f"activation `{activation}`, code normalization `{description['code_normalization']}`."
        + _residual(description)
        + _origin(description)
    )


def _residual(description: dict[str, Any]) -> str:
    """That codes and reconstructions are of residuals, and how much the maps predict."""
    if not description.get("residual"):
        return ""
    shares = (description.get("predicted") or {}).items()
    known = ", ".join(f"{_number(share, percent=True)} of {_cell(name)}" for name, share in shares)
    return (
        "\n\nIt reads both models' raw activations and encodes and reconstructs what the best "
        "affine map from the other model's leaves of each hookpoint's"
        + (f" (predicted, and taken off: {known})" if known else "")
        + ". The FVE below is of what is left."
    )


def _origin(description: dict[str, Any]) -> str:
    """A line on the file of another library that it was imported from, without its folder."""
    source = description.get("source")
    if not isinstance(source, dict):
        return ""
    file, kind = Path(str(source.get("file"))).name, source.get("kind")
    return f"\n\nImported from `{file}`: {kind} of {source.get('library')}."


def _figures(description: dict[str, Any], figures: dict[str, Any]) -> str:
    if not figures:
        return "None are known for this dictionary."
    lines = ["| figure | value |", "|---|---|"]
    fve = figures.get("fve") or {}
    for entry in description["hookpoints"]:
        if entry["name"] in fve:
            lines.append(f"| FVE of {_cell(entry['name'])} | {_number(fve[entry['name']])} |")
    for key, label in (("l0", "L0 (active features per row)"), ("dead_fraction", "dead features")):
        if key in figures:
            lines.append(f"| {label} | {_number(figures[key], percent=key != 'l0')} |")
    if figures.get("rows"):
        lines.append(f"| held-out rows | {figures['rows']:,} |")
    lines.append("\nFVE: 1 - sum abs(x - x_hat)^2 / sum abs(x - mean)^2 on held-out rows.")
    return "\n".join(lines)


def _number(value: float | None, percent: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:.1%}" if percent else f"{value:.4g}"


def _hookpoints(description: dict[str, Any]) -> str:
    rows = []
    for entry in description["hookpoints"]:
        roles = [role for role in ("reads", "writes") if entry.get(role, True)]
        cells = (_cell(entry["name"]), _cell(entry["model"]), entry["width"], " and ".join(roles))
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(["| name | model | width | the dictionary |", "|---|---|---|---|", *rows])


def _partition(description: dict[str, Any]) -> str:
    rows, start = [], 0
    for group in description["partition"]:
        stop = start + group["size"]
        span = f"{start:,} to {stop - 1:,}" if group["size"] else "-"
        seers = _cell(", ".join(group["models"]))
        rows.append(f"| {_cell(group['name'])} | {seers} | {group['size']:,} | {span} |")
        start = stop
    return "\n".join(["| group | seen by | features | numbers |", "|---|---|---|---|", *rows])


def _use(repo_id: str) -> str:
    return (
        "```python\nfrom train import Dictionary\n\n"
        f'dictionary = Dictionary.from_pretrained("{repo_id}")\n'
        "codes = dictionary.encode(activations)  # raw activations; see Hookpoints for widths\n```"
    )


def _configuration(description: dict[str, Any]) -> str:
    behind = {key: description[key] for key in ("recipe", "train") if key in description}
    text = json.dumps(behind, indent=1) if behind else "unknown"
    return f"```json\n{text}\n```"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
