"""`train push`: a dictionary to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def push(
    folder: Annotated[Path, typer.Argument(help="Folder of a trained dictionary.")],
    repo: Annotated[str, typer.Argument(help="Where to on the Hub: owner/name; created if new.")],
    private: Annotated[
        bool,
        typer.Option("--private", help="Create a private repository (default: public, as a rule)."),
    ] = False,
    revision: Annotated[
        str | None,
        typer.Option("--revision", help="Branch to push to; created if new (default: main)."),
    ] = None,
) -> None:
    """Uploads a trained dictionary with a model card; log in with `hf auth login` before."""
    from train.hub import push_folder

    pushed = push_folder(folder, repo, private=private or None, revision=revision)
    print(f"{folder}: pushed to {pushed.url}")
    print(f'next: train.Dictionary.from_pretrained("{repo}", revision="{pushed.commit}")')
