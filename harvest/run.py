"""Reads the corpus with every model and writes the aligned rows to the store, block by block.

The last blocks are written while the next is planned and run (harvest.produce). Killed at any
instant and run again, it ends with byte-for-byte the store of an undisturbed run on the same
machine. Memory: a few blocks of activations (see harvest.block_characters).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import Progress, TaskID

from harvest.background import Background
from harvest.corpus.blocks import DocumentBlock, read_blocks
from harvest.corpus.reader import count_documents
from harvest.fingerprint import fingerprints
from harvest.forecast import SAMPLE_CHARACTERS, forecast, no_documents, read_sample
from harvest.models.hooked import HookedModel
from harvest.plan import Planner
from harvest.produce import RunBlock, produce, refuse_non_finite
from harvest.progress import ProgressFile, read_progress
from harvest.room import bytes_below, refuse_without_room
from harvest.settings import Settings
from harvest.setup import already_complete, load_models, make_planner, make_schema
from harvest.stopping import Stopped, StopSignal, stop_signal
from harvest.tasks import WHOLE, Task
from harvest.wording import left_out
from pipeline.command import progress_bar
from pipeline.errors import CorpusError, StoreError
from store.completeness import unfinished
from store.files import make_folder
from store.reader import Store
from store.root import schema_digest
from store.writer import NonFinite, PartWriter


@dataclass(frozen=True)
class HarvestSummary:
    """What the store holds now, and how fast this run was (None if it had nothing to do).

    missing: tasks whose parts are not complete.
    """

    store: str
    rows: int
    documents: int
    bytes: int
    paired_fraction: dict[str, float]
    left_out: dict[str, int]
    missing: list[int]
    rows_per_second: float | None


def harvest(settings: Settings, task: Task = WHOLE) -> HarvestSummary:
    """Begins, continues or finds complete this task's part of the store at `settings.path`.

    Raises Stopped, with everything done committed, if SIGTERM or SIGINT comes meanwhile.
    """
    _make_parent(settings.path)
    prints = fingerprints(settings.models, settings.corpus)
    if already_complete(settings, prints, task):
        return summarize(settings.path, None)
    # Before minutes are spent on loading weights; what comes through a pipe can be read only once.
    sample = None if settings.corpus.piped else read_sample(settings.corpus, SAMPLE_CHARACTERS)
    models = load_models(settings)
    planner = make_planner(settings, models)
    schema = make_schema(settings, models, prints, task.of)
    if sample is not None:
        found = forecast(settings, planner(sample.documents), sample)
        if found is not None:
            refuse_without_room(settings.path, schema, found)
    with PartWriter(settings.path, schema, task.index, commit_rows=schema.chunk_rows) as writer:
        rate = write_part(settings, task, models, planner, writer)
    return summarize(settings.path, rate)


def write_part(
    settings: Settings,
    task: Task,
    models: list[HookedModel],
    planner: Planner,
    writer: PartWriter,
) -> float | None:
    """Writes what the part still lacks, and finishes it; rows per second. Raises Stopped."""
    return _Run(settings, task, models, planner, writer).write()


def summarize(path: Path, rate: float | None) -> HarvestSummary:
    """Reads the summary from the store itself."""
    store = Store(path)
    return HarvestSummary(
        store=str(path),
        rows=store.rows,
        documents=len(store.documents),
        bytes=bytes_below(path),
        paired_fraction={name: store.paired_fraction(name) for name in store.schema.models},
        left_out=store.excluded,
        missing=unfinished(store),
        rows_per_second=rate,
    )


class _Run:
    """Appends every block of a task behind the writer's cursor, which counts corpus documents."""

    def __init__(
        self,
        settings: Settings,
        task: Task,
        models: list[HookedModel],
        planner: Planner,
        writer: PartWriter,
    ) -> None:
        self._settings = settings
        self._task = task
        self._models = models
        self._planner = planner
        self._writer = writer
        self._digest = schema_digest(writer.schema)
        self._state = self._known_state()
        self._progress = ProgressFile(
            settings.path, task, writer.rows, self._digest, writer.cursor, self._state
        )
        self._most_rows = task.share(settings.harvest.rows)
        self._total = count_documents(settings.corpus)
        self._documents, self._excluded = 0, Counter[str]()

    def write(self) -> float | None:
        """Reads and writes to the end of the corpus or of the rows wanted; rows per second."""
        try:
            with stop_signal() as stop, progress_bar("rows") as bar, Background(self._append) as to:
                self._show = partial(_show, bar, bar.add_task("harvest", total=None, note=""))
                self._progress.update(self._writer.rows, None, self._writer.cursor)
                for run in self._runs(stop):
                    to.put(run)
                stop.raise_if_set()  # what ended may be a pipe that the same Ctrl-C has cut
        except Stopped:
            self._writer.pause()
            self._progress.stopped(self._writer.cursor, self._state)
            raise
        self._refuse_nothing()
        self._writer.finish()
        self._progress.finished(self._writer.rows)
        return self._progress.rows_per_second

    def _refuse_nothing(self) -> None:
        """Raises CorpusError if no document gave a row; a task of several may have none."""
        if self._writer.rows_appended or self._task.of > 1:
            return
        if not self._documents:
            raise no_documents(self._settings.corpus)
        why = left_out(self._excluded) if self._excluded else "the models share no token end"
        raise CorpusError(
            f"corpus: its {self._documents:,} documents gave no row ({why}); see `harvest align`, "
            "and the keys of harvest that leave rows out"
        )

    def _runs(self, stop: StopSignal) -> Iterator[RunBlock]:
        """Every block behind the writer's cursor, until there are rows enough."""
        blocks = self._document_blocks(stop.raise_if_set)
        config = self._settings.harvest
        planned = self._writer.rows
        for run in produce(self._models, self._planner, blocks, config, stop.raise_if_set):
            yield run
            planned += run.plan.rows if config.outlier_norm is None else 0
            rows = max(planned, self._writer.rows_appended)
            if self._most_rows is not None and rows >= self._most_rows:
                return

    def _known_state(self) -> dict[str, Any] | None:
        """Where the corpus' reader was at the writer's cursor, if the last run said so."""
        said = read_progress(self._settings.path, self._task.index)
        known = said and (said.schema_digest, said.cursor) == (self._digest, self._writer.cursor)
        return said.state if said and known else None

    def _document_blocks(self, check: Callable[[], None]) -> Iterator[DocumentBlock]:
        writer, config = self._writer, self._settings.harvest
        if self._most_rows is not None and writer.rows >= self._most_rows:
            return iter(())
        return read_blocks(
            self._settings.corpus,
            cursor=writer.cursor,
            state=self._state,
            task=self._task.index,
            of=self._task.of,
            seen=writer.document_hashes() if self._settings.corpus.deduplicate else (),
            max_documents=config.block_documents,
            max_characters=config.block_characters,
            check=check,
        )

    def _append(self, run: RunBlock) -> None:
        """In the writing thread."""
        writer = self._writer
        room = None if self._most_rows is None else self._most_rows - writer.rows_appended
        if room == 0:
            return
        block = run.block(room)
        committed = writer.cursor
        try:
            writer.append(block, run.documents.end)
        except NonFinite:
            refuse_non_finite(block, run)
            raise
        self._documents += len(block.texts)
        self._excluded.update(block.excluded)
        self._state = run.documents.state
        if writer.cursor != committed:
            self._progress.committed(writer.cursor, self._state)
        expected = self._expected(run.documents.end)
        self._progress.update(writer.rows_appended, expected, run.documents.end)
        self._show(writer.rows_appended, expected, _note(run.documents.end, self._total))

    def _expected(self, done: int) -> int | None:
        """Rows of this task when it is finished, from those of the documents read so far."""
        found = None
        if self._total is not None:
            found = round(self._writer.rows_appended * self._total / done)
        limits = [rows for rows in (found, self._most_rows) if rows is not None]
        return min(limits, default=None)


def _note(done: int, total: int | None) -> str:
    return f"document {done:,}" + (f" of {total:,}" if total else "")


def _show(bar: Progress, task: TaskID, rows: int, expected: int | None, note: str) -> None:
    # Not through update(): a changed total would make it forget the speed so far.
    bar.tasks[0].total = expected
    bar.update(task, completed=rows, note=note)


def _make_parent(store: Path) -> None:
    """Creates the folder of the store, before minutes are spent on loading weights."""
    try:
        make_folder(store.parent)
    except OSError as error:
        raise StoreError(
            f"{store.parent}: cannot be created ({error.strerror}); choose another run_dir"
        ) from None
