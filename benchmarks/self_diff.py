"""A model against itself: how many features does each method call exclusive? All are false.

    python -m benchmarks.self_diff                                    # after make demo; six minutes
    python -m benchmarks.self_diff --store runs/demo/store.zarr --dictionary runs/demo/dictionary

The recipe of a trained DFC, on the narrower model beside a copy of itself rotated into the other's
width: exact, and blurred by what the real models differ by (analyze/null/pair.py). Then what
membership in an exclusive group, the relative decoder norm, and `analyze exclusivity` at several
false-discovery rates call exclusive, beside what they call on the real pair.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import polars as pl
import typer
from torch import Tensor

from analyze.config import AnalyzeConfig
from analyze.norms import model_pair
from analyze.null.noise import blurring
from analyze.null.pair import null_pair
from analyze.null.train import null_config, train_null
from analyze.statistics.moments import Moments
from analyze.subject import Subject, open_subject
from analyze.sweep.gather import gather
from analyze.verdict.build import Verdict, exclusivity
from analyze.verdict.judge import LEVELS, called
from store.reader import Store

SEED = 100  # no null that the verdicts make has it
R_LOW, R_HIGH = 0.1, 0.9  # arXiv 2504.02922


def copy_of(
    subject: Subject,
    noise: Tensor | None,
    steps: float,
    folder: Path,
    exclusive: dict[str, int],
) -> Subject:
    """The dictionary's recipe, trained on a model beside its copy, with groups as large as its."""
    config = null_config(subject, SEED, steps).model_copy(update={"exclusive": exclusive})
    return train_null(subject, null_pair(subject.dictionary, SEED, noise), config, folder)


def claims(subject: Subject, found: Verdict, config: AnalyzeConfig) -> dict[str, str]:
    """How many features each method calls exclusive, by its name: to the first model + the other.

    In a blurred pair only the copy has the noise: what is called its own may be that.
    """
    models = model_pair(subject.dictionary)

    def each(calls: pl.DataFrame) -> str:
        return " + ".join(str(calls.filter(pl.col("claimed_for") == m).height) for m in models)

    fired = found.evidence.filter(pl.col("fires") >= config.min_fires)
    alone = fired.filter(pl.col("group").is_in(list(models)))
    R = pl.col("relative_decoder_norm")
    extreme = fired.filter((R < R_LOW) | (R > R_HIGH))
    return {
        "in an exclusive group": each(alone),
        f"R < {R_LOW:g} or > {R_HIGH:g}": each(extreme),
        **{
            f"exclusivity at {level:.0%}": each(called(found.table, level, config))
            for level in LEVELS
        },
    }


def main(
    store: Annotated[Path, typer.Option(help="A store of two models.")] = Path(
        "runs/demo/store.zarr"
    ),
    dictionary: Annotated[Path, typer.Option(help="A DFC trained on it.")] = Path(
        "runs/demo/dictionary"
    ),
    steps: Annotated[float, typer.Option(help="Share of the recipe's steps.")] = 1.0,
    work: Annotated[Path | None, typer.Option(help="Kept there, and gone on with.")] = None,
) -> None:
    """Prints a Markdown table."""
    config = AnalyzeConfig()
    with tempfile.TemporaryDirectory() as scratch:
        folder = work or Path(scratch)
        subject = open_subject(Store(store), dictionary)
        partition = subject.dictionary.partition
        groups = {
            model: partition.exclusive_group(model) for model in model_pair(subject.dictionary)
        }
        exclusive = {model: group.size for model, group in groups.items() if group is not None}
        moments = Moments(subject)
        gather(subject, [moments], config.batch_rows, folder / "pair" / "sweep")
        noise = blurring(subject, moments)
        subjects = {
            "the real pair": subject,
            "itself, an exact copy": copy_of(subject, None, steps, folder / "exact", exclusive),
            "itself, blurred": copy_of(subject, noise, steps, folder / "blurred", exclusive),
        }
        places = ("pair", "of_exact", "of_blurred")
        lines = {
            name: claims(one, exclusivity(one, config, folder / place), config)
            for (name, one), place in zip(subjects.items(), places, strict=True)
        }
    print(table(lines))


def table(lines: dict[str, dict[str, str]]) -> str:
    """Markdown: a row per method, a column per pair."""
    out = [f"| called exclusive | {' | '.join(lines)} |", "|---" * (1 + len(lines)) + "|"]
    for method in next(iter(lines.values())):
        out.append(f"| {method} | {' | '.join(one[method] for one in lines.values())} |")
    return "\n".join(out)


if __name__ == "__main__":
    typer.run(main)
