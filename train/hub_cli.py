"""`train push`: a dictionary to the Hugging Face Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.command import JsonOption


def push(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DICTIONARY",
            help="Folder of a trained or imported dictionary.",
            show_default=False,
        ),
    ],
    repo: Annotated[
        str,
        typer.Argument(
            metavar="REPO",
            help="Where to on the Hub: owner/name; created if new.",
            show_default=False,
        ),
    ],
    private: Annotated[
        bool,
        typer.Option("--private", help="Create a private repository (default: public, as a rule)."),
    ] = False,
    revision: Annotated[
        str | None,
        typer.Option("--revision", help="Branch to push to; created if new (default: main)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Uploads a dictionary with a model card; log in with `hf auth login` before.

    The card says how it was trained and how well it does; a README.md in
    the folder takes its place. Checkpoints stay at home. Example:

    train push runs/demo/dictionary someone/demo-dfc --private
    """
    from train.hub import push_folder

    pushed = push_folder(folder, repo, private=private or None, revision=revision)
    if as_json:
        found = {"folder": str(folder), "repo": repo, "commit": pushed.commit, "url": pushed.url}
        print(json.dumps(found, indent=2))
        return
    print(f"{folder}: pushed to {pushed.url}")
    print(f'next: train.Dictionary.from_pretrained("{repo}", revision="{pushed.commit}")')
