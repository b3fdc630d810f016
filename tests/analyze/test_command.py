"""What commands of analyze share."""

import io

import pytest
from rich.console import Console

from analyze import command
from analyze.command import bar_when_needed


@pytest.fixture
def screen(monkeypatch):
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=100)
    plain = command.progress_bar

    def on_screen(unit):
        bar = plain(unit)
        bar.live.console = console
        return bar

    monkeypatch.setattr(command, "progress_bar", on_screen)
    return shown


def test_what_is_known_already_shows_no_bar(screen):
    with bar_when_needed("rows", "sweep known", 100) as update:
        update(advance=100)
    assert screen.getvalue() == ""


def test_what_must_be_waited_for_shows_one_to_its_end(screen):
    with bar_when_needed("rows", "sweep [new]", 100) as update:
        for advance in (0, 40, 60):
            update(advance=advance)
    assert "sweep [new]" in screen.getvalue()
    assert "100%" in screen.getvalue()
