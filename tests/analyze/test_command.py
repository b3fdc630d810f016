"""What commands of analyze share."""

import io

import pytest
from rich.console import Console

from analyze import command
from analyze.command import bar_when_needed, word


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


@pytest.mark.parametrize(
    ("value", "said"),
    [
        *((0.00146, "0.0015"), (-3e-7, "-3e-07"), (0.0, "0.000"), (0.01, "0.010")),
        *((0.0996, "0.100"), (12.34567, "12.346"), (3, "3"), (None, "–"), ("b", "b")),
    ],
)
def test_small_values_keep_two_digits(value, said):
    assert word(value) == said
