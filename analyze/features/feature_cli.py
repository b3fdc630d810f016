"""`analyze feature`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from analyze.command import DictionaryOption, OutOption, open_all, read_settings
from analyze.features.cli import LensOption, lenses_of
from pipeline.command import ConfigOption, JsonOption, SetOption, StoreOption

PARAGRAPHS = [
    "Its firing, its texts with the strength of every piece behind it, the tokens that it promotes "
    "(see `analyze features`), the features nearest to it, and what norms, scaling, transfer, "
    "exclusivity and steer have found of it, where they have been run. Writes nothing.",
    "The models are loaded only if `analyze features` has not looked at this feature through them.",
]


def feature(
    number: Annotated[int, typer.Argument(help="The feature's number.", show_default=False)],
    store: StoreOption = None,
    dictionary: DictionaryOption = None,
    out: OutOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    lens: LensOption = True,
    as_json: JsonOption = False,
) -> None:
    """One feature on the terminal: where it fires, what it promotes, what is known of it."""
    settings, section = read_settings(config, set_)
    import numpy as np

    from analyze.features.card import known_tokens, make_card
    from analyze.features.choice import check_features
    from analyze.features.described import Sums, describe
    from analyze.features.terminal import show

    opened = open_all(settings, section, store, dictionary, out)
    check_features(opened.subject.dictionary, [number])
    sums = Sums.of(opened.subject, section)
    opened.sweep(sums.accumulators)
    tokens = known_tokens(opened.tables, number)
    lenses = lenses_of(opened, settings) if lens and tokens is None else None
    found = describe(opened.subject, sums, np.array([number]), section, lenses)
    notes = list(lenses.notes) if lenses else []
    tokens = found.tokens if tokens is None else tokens
    card = make_card(number, found, tokens, opened.tables, notes)
    if as_json:
        print(json.dumps(asdict(card), indent=2))
    else:
        show(card, Console())


feature.__doc__ = "\n\n".join([feature.__doc__ or "", *PARAGRAPHS])
