"""What all commands print with: tables, progress bars, and the package's log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

# A pipe has no width: tables are written in full.
console = Console(width=None if sys.stdout.isatty() else 160)


class _RateColumn(ProgressColumn):
    """Frames per second so far."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:5.1f} Hz", style="cyan")


@contextmanager
def progress_bar(title: str) -> Iterator[Any]:
    """Show a bar with count, rate and time left; yields ``on_progress(done, total)``."""
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def print_table(header: list[str], rows: Sequence[tuple[str, ...]], title: str) -> None:
    """Write a table; the first column is flush left, the others hold numbers."""
    table = Table(title=title, show_header=any(header))
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def show_log() -> None:
    """Print from now on what the package logs beside its results, such as the licence of weights."""
    logger = logging.getLogger("feature_matcher_ros")
    if not any(isinstance(handler, _ConsoleHandler) for handler in logger.handlers):
        logger.addHandler(_ConsoleHandler())
    logger.setLevel(logging.INFO)


class _ConsoleHandler(logging.Handler):
    """Prints above a progress bar without disturbing it."""

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else None
        console.print(record.getMessage(), style=style, markup=False, highlight=False)
