import errno
import sys
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from pipeline import command
from pipeline.errors import CrossdiffError


@pytest.fixture
def program(monkeypatch):
    """Runs a program whose command `stage` raises `error`."""

    def run(error, *arguments):
        app = command.make_app("Test.")

        @app.command()
        def stage():
            """Fails."""
            if error is not None:
                raise error

        @app.command()
        def other():
            """Makes `stage` a command that must be named."""

        monkeypatch.setattr(sys, "argv", ["program", *(arguments or ["stage"])])
        command.run(app)

    return run


@pytest.fixture
def ended(program, capsys):
    """Exit code and standard error of a program that ends by itself."""

    def run(error, *arguments):
        with pytest.raises(SystemExit) as stop:
            program(error, *arguments)
        return stop.value.code or 0, capsys.readouterr().err

    return run


def test_success_exits_with_zero_and_says_nothing(ended):
    assert ended(None) == (0, "")


def test_an_error_of_the_user_is_one_line_and_code_one(ended):
    assert ended(CrossdiffError("x.yaml: bad\n  key")) == (1, "error: x.yaml: bad key\n")


def test_an_error_is_printed_with_its_brackets(ended):
    assert ended(CrossdiffError("[red]a[/] [b]"))[1] == "error: [red]a[/] [b]\n"


def test_a_long_error_stays_one_line(ended):
    assert ended(CrossdiffError("word " * 200))[1].count("\n") == 1


def test_an_interrupt_says_how_to_go_on(ended):
    message = "error: interrupted; run the same command again to continue\n"
    assert ended(KeyboardInterrupt()) == (130, message)


FULL = "free space and run the same command again"


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, FULL),
        (errno.EDQUOT, FULL),
        (errno.EFBIG, FULL),
        (errno.EACCES, "make it writable"),
        (errno.EROFS, "make it writable"),
    ],
)
def test_a_disk_that_refuses_is_one_line_with_the_file(ended, number, remedy):
    message = f"error: runs/x/zarr.json: reason; {remedy}, or choose another run_dir\n"
    assert ended(OSError(number, "reason", "runs/x/zarr.json")) == (1, message)


def test_a_full_disk_without_a_file_name_is_one_line(ended):
    _, err = ended(OSError(errno.ENOSPC, "No space left on device"))
    assert err.startswith("error: output: No space left on device;")


def test_too_little_memory_is_one_line(ended):
    code, err = ended(torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB\nmore"))
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("error: out of memory: CUDA out of memory. Tried 2 GiB; lower")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be ..."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
    ],
)
def test_other_ways_of_having_too_little_memory_are_one_line(ended, error):
    code, err = ended(error)
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("error: out of memory: ")


@pytest.mark.parametrize(
    "error", [ValueError("ours"), OSError(errno.EIO, "ours"), RuntimeError("ours")]
)
def test_a_mistake_of_ours_keeps_its_traceback(program, error):
    with pytest.raises(type(error), match="ours"):
        program(error)


def test_debug_shows_the_traceback_of_an_error_of_the_user(program):
    with pytest.raises(CrossdiffError, match="bad"):
        program(CrossdiffError("bad"), "stage", "--debug")


def test_debug_may_stand_before_the_command(program):
    with pytest.raises(CrossdiffError, match="bad"):
        program(CrossdiffError("bad"), "--debug", "stage")


def test_an_unknown_option_is_a_usage_error(ended):
    code, err = ended(None, "stage", "--bogus")
    assert (code, "--bogus" in err) == (2, True)


def test_help_tells_of_debug(program, capsys):
    with pytest.raises(SystemExit):
        program(None, "--help")
    assert "--debug" in capsys.readouterr().out


@pytest.mark.parametrize("shown", ["loss 0.5", "rows/s", "100%"])
def test_progress_shows_note_rate_and_share(shown):
    bar = command.progress_bar("rows")
    bar.add_task("train", total=10, note="loss 0.5")
    for done in (4, 10):
        bar.update(bar.task_ids[0], completed=done)
    out = StringIO()
    Console(file=out, width=160).print(bar.get_renderable())
    assert shown in out.getvalue()


@pytest.mark.parametrize(
    ("config", "overrides", "expected"),
    [
        (None, None, "train run"),
        (Path("pipeline.yaml"), [], "train run"),
        (Path("my run.yaml"), None, "train run --config 'my run.yaml'"),
        (None, ["run_dir=x y", "train.k=8"], "train run --set 'run_dir=x y' --set train.k=8"),
    ],
)
def test_the_next_command_has_the_options_of_this_one(config, overrides, expected):
    assert command.next_command("train run", config, overrides) == expected


def test_the_next_command_names_places_that_were_given():
    text = command.next_command("analyze report", None, None, store=Path("a b"), out=None)
    assert text == "analyze report --store 'a b'"
