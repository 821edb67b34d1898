"""Progress and tables on a terminal, and plain lines without one."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console
    from rich.progress import Progress

    from patchprism.support.reading import Note


def stdout() -> Console:
    """The console that results are printed to."""
    from rich.console import Console

    # Names can contain any text, so [red] must not become a colour and :dog: not an emoji.
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=not sys.stdout.isatty())


def shown(text: str) -> str:
    r"""Text that is safe on a terminal, on one line.

    A file name may contain control characters, which move the cursor, for example, or may not be valid text.

    Examples
    --------
    >>> shown("dog\x1b[2J\n.png")
    'dog?[2J?.png'
    """
    return "".join("?" if unicodedata.category(sign) in _NOT_SHOWN else sign for sign in text)


# Unicode categories: control characters, lone surrogates, and separators of lines and paragraphs.
_NOT_SHOWN = ("Cc", "Cs", "Zl", "Zp")


def print_line(label: str, text: str, width: int = 8) -> None:
    """Print a labelled line of a summary."""
    stdout().print(f"{label:{width}}{shown(text)}")


def note(text: str) -> None:
    """Print a line on standard error."""
    print(shown(text), file=sys.stderr)


def print_table(
    title: str, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]], *, console: Console
) -> None:
    """Print a table, with Rich on a terminal, otherwise as aligned plain text.

    Parameters
    ----------
    title : str
        Empty for no title.
    columns : sequence of (heading, "left" or "right")
    """
    rows = [[shown(cell) for cell in row] for row in rows]
    if console.is_terminal:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
        for heading, justify in columns:
            table.add_column(heading, justify="right" if justify == "right" else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)
        return
    cells = [[heading for heading, _ in columns], *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    if title:
        print(title)
    for row in cells:
        padded = (
            cell.rjust(width) if justify == "right" else cell.ljust(width)
            for cell, width, (_, justify) in zip(row, widths, columns, strict=True)
        )
        print("  ".join(padded).rstrip())


@contextmanager
def progress(*, quiet: bool) -> Iterator[Callable[[str, int, int | None], None]]:
    """A function ``tell(stage, done, total)`` that draws progress bars on standard error while the block runs.

    It draws nothing if standard error is not a terminal.
    """
    if quiet or not sys.stderr.isatty():
        # Without this, the client of the Hugging Face Hub draws its own bars to any kind of output.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        yield lambda stage, done, total: None
        return
    from rich.console import Console

    with bars(Console(stderr=True)) as shown_bars:
        tasks: dict[str, Any] = {}

        def tell(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = shown_bars.add_task(stage, total=total)
            shown_bars.update(tasks[stage], completed=done, total=total)

        yield tell


# Units of the stages. A pass of a fit is counted in shards, and a download in bytes.
_UNITS = {
    "photos": "photos",
    "pictures": "pictures",
    "masks": "photos",
    "measure": "photos",
    "page": "photos",
    "table": "photos",
    "fit": "frames",
    "frames": "frames",
}


def bars(console: Console, *, get_time: Callable[[], float] | None = None) -> Progress:
    """Progress bars that show, for each stage, how much is done, with its unit, and the remaining time.

    Parameters
    ----------
    console : Console
        The console that the bars are drawn on.
    get_time : callable, optional
        Returns the current time in seconds.
    """
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Amount(ProgressColumn):
        """How much is done, with its unit."""

        def render(self, task: Any) -> Text:
            if task.total is None and not task.completed:
                return Text("")
            if task.description.startswith(("downloading ", "fetching ")):
                return DownloadColumn().render(task)
            unit = "shards" if task.description.startswith("fit, pass") else _UNITS.get(task.description, "")
            speed = f", {task.speed:.1f} frames/s" if unit == "frames" and task.speed else ""
            total = "" if task.total is None else f"/{task.total:.0f}"
            return Text(f"{task.completed:.0f}{total} {unit}{speed}".rstrip() if unit else "")

    class Left(TimeRemainingColumn):
        """The remaining time, or the total time after the stage has finished."""

        def render(self, task: Any) -> Text:
            known = task.finished or task.time_remaining is not None
            return Text(f"{super().render(task)}{'' if task.finished else ' left'}" if known else "")

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        Amount(),
        Left(compact=True, elapsed_when_finished=True),
        console=console,
        transient=True,
        # A shard may take minutes, and the speed is estimated from at least two of them.
        speed_estimate_period=600,
        get_time=get_time,
    )


MAX_NOTES = 20

# name='value' or name=(value, value), but not in paths and URLs.
_ADVICE = re.compile(r"(?<![\w/.?&=\\-])([a-z]+(?:_[a-z]+)*)=('[^']*'|\([^()]*\)|\d+(?![\w.]))")


def advised_by_flags(text: str) -> str:
    """A hint or a note with flags instead of ``name='value'``. Nothing else is changed, because it may name photos.

    Examples
    --------
    >>> advised_by_flags("a.png: try foreground='pca', or say with range=(0, 4095) what is white")
    'a.png: try --foreground pca, or say with --range 0,4095 what is white'
    >>> advised_by_flags("refine=8 instead of stride=1 for size=5.png")
    '--refine 8 instead of --stride 1 for size=5.png'
    """
    return _ADVICE.sub(lambda found: f"--{found[1].replace('_', '-')} {as_typed(found[2])}", text)


def as_typed(value: str) -> str:
    """A Python value as it is typed on the command line: without quotes, parentheses and spaces."""
    return value.strip("'") if value.startswith("'") else value.strip("()").replace(" ", "")


def print_notes(notes: Sequence[Note], *, quiet: bool) -> None:
    """Print notes at the end of a summary, equal ones merged; with ``quiet``, on standard error."""
    merged: dict[str, list[str]] = {}
    for each in notes:
        merged.setdefault(advised_by_flags(each.text), []).append(each.name)
    lines = [
        text
        if not names[0]
        else f"{names[0]}: {text}"
        if len(names) == 1
        else f"{len(names):,} photos ({names[0]} first): {text}"
        for text, names in merged.items()
    ]
    if len(lines) > MAX_NOTES:
        lines[MAX_NOTES:] = [f"... and {len(lines) - MAX_NOTES:,} more, all in the report"]
    for line in lines:
        if quiet:
            print(f"note: {shown(line)}", file=sys.stderr)
        else:
            stdout().print(f"{'note':8}{shown(line)}", markup=False)


def warner(*, quiet: bool) -> Callable[[str], None]:
    """A function that writes each note to standard error at once, and equal notes once."""
    told: set[str] = set()

    def warn(text: str) -> None:
        if text not in told and not quiet:
            note(f"note: {advised_by_flags(text)}")
        told.add(text)

    return warn


def human_bytes(count: int) -> str:
    """A number of bytes with a readable unit.

    Examples
    --------
    >>> human_bytes(88_300_000), human_bytes(512)
    ('88 MB', '512 B')
    """
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
