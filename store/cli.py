"""The `store` program: `info`, `head`, `verify`, `import`."""

from __future__ import annotations

from pipeline.command import make_app, run
from store.head_cli import head
from store.import_cli import import_
from store.info_cli import info
from store.verify_cli import verify

app = make_app("Look at, check and import activation stores.")
app.command()(info)
app.command()(head)
app.command()(verify)
app.command("import")(import_)


def main() -> None:
    """Console entry point."""
    run(app)
