"""Functions that several commands share: running jobs of any size, and printing their results."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from patchprism.cli.console import (
    advised_by_flags,
    note,
    print_line,
    print_notes,
    print_table,
    progress,
    stdout,
    warner,
)
from patchprism.cli.exits import EXIT_SOME_PHOTOS_FAILED
from patchprism.support.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from patchprism.jobs.run import Outcome, Run
    from patchprism.jobs.source import Failure

# Up to this many photos, a job works in memory. It is so short that it need not be resumed.
IN_MEMORY = 64
SHOWN_ROWS = 20
SHOWN_FAILURES = 50


def is_large(photos: Sequence[str], out: str, engine: str, workers: int | None, *, asked: bool) -> bool:
    """Whether ``render`` works shard by shard rather than in memory.

    Parameters
    ----------
    photos, out, engine, workers
        The values of the options.
    asked : bool
        Whether another option requires it.
    """
    from patchprism.jobs.inputs import store_among
    from patchprism.support.folders import is_remote

    asked = asked or engine != "local" or workers is not None or any(map(is_remote, (*photos, out)))
    asked = asked or store_among(photos) is not None
    if asked:
        return True
    if len(photos) <= IN_MEMORY and all(Path(photo).is_file() for photo in photos):
        return False
    from patchprism.jobs.inputs import list_photos

    return len(list_photos(photos)) > IN_MEMORY


@contextmanager
def running(engine: str, workers: int | None, *, quiet: bool, keeps: bool = True) -> Iterator[Run]:
    """Open an engine and show progress while the block runs.

    With ``keeps``, the job keeps its work, so if it is interrupted, a message says how to resume it.
    """
    from patchprism.jobs.engines import open_engine
    from patchprism.jobs.run import Run

    with open_engine(engine, workers=workers) as opened, progress(quiet=quiet) as tell:
        try:
            yield Run(engine=opened, tell=tell, warn=warner(quiet=quiet))
        except KeyboardInterrupt:
            if keeps:
                typer.echo("finished work is kept; to resume, repeat the command", err=True)
            raise


def finish(outcome: Outcome, *, quiet: bool) -> None:
    """Print notes and failures; if photos failed, exit with the code for this."""
    print_notes(outcome.notes, quiet=quiet)
    if outcome.missing:
        typer.echo(
            f"note: {counted(outcome.missing, 'photo')} missing or replaced since the features were "
            "extracted: drawn without the photo itself",
            err=True,
        )
    note_not_fetched(outcome.unasked)
    warn_of_failures(outcome.failures)
    if outcome.failures:
        raise typer.Exit(EXIT_SOME_PHOTOS_FAILED)


def warn_of_failures(failures: Sequence[Failure]) -> None:
    """Print the photos that failed on standard error."""
    for failure in failures[:SHOWN_FAILURES]:
        note(f"failed: {failure.photo}: {advised_by_flags(failure.reason)}")
    if len(failures) > SHOWN_FAILURES:
        typer.echo(f"... and {len(failures) - SHOWN_FAILURES:,} more, all in the report", err=True)
    if failures:
        typer.echo(f"{len(failures):,} of the photos failed; the others are done", err=True)


def note_not_fetched(places: Sequence[str]) -> None:
    """Say how to fetch photos of a store from other buckets or hosts."""
    if places:
        more = f", and {len(places) - 1} other buckets or hosts" if len(places) > 1 else ""
        note(
            f"note: photos of the store that are at {places[0]}{more} were not fetched; to fetch them, "
            f"add --fetch-from {places[0]}"
        )


def print_lines(lines: Sequence[tuple[str, str]]) -> None:
    """Print labelled lines of a summary."""
    for label, text in lines:
        print_line(label, text)


def lines_of(outcome: Outcome) -> list[tuple[str, str]]:
    """Summary lines that every job has."""
    total = sum(outcome.seconds.values())
    stages = ", ".join(f"{stage} {s:.1f} s" for stage, s in outcome.seconds.items() if s >= 0.05)
    lines = [
        ("photos", f"{outcome.n_photos:,} with {outcome.n_patches:,} patches"),
        ("model", f"{outcome.model}, weights from {outcome.weights_source}"),
    ]
    if total:
        lines.append(("time", f"{total:.1f} s ({stages})"))
    return lines


def lines_of_fit(outcome: Outcome) -> list[tuple[str, str]]:
    """Summary lines of a prism."""
    prism = outcome.prism
    assert prism is not None
    summary = prism.summary()
    how = {"otsu": "Otsu's", "labels": "fitted", "head": "even odds", "given": "as given"}.get(
        summary["threshold_from"], ""
    )
    split = f"foreground: score {prism.side_} {prism.threshold_:.3g} ({how}); {summary['side_reason']}"
    shares = summary["explained_variance_ratio"]["object"]
    chosen = " + ".join(f"{shares[abs(c) - 1]:.0%}" for c in prism.components)
    lines = [
        ("split", "all patches kept" if prism.side_ == "none" else split),
        ("colours", f"red + green + blue explain {chosen} of the foreground's variance"),
    ]
    sample = prism.origin.get("sample")
    if sample:
        text = f"fitted on {sample['photos']:,} of {sample['of']:,} photos, seed {sample['seed']}"
        lines.insert(0, ("sample", text))
    return lines


def summarise(outcome: Outcome, wrote: str) -> None:
    """Print the summary of a job that draws photos."""
    rows = [
        (
            Path(row["photo"]).name,
            f"{row['size'][1]} × {row['size'][0]}",
            f"{row['grid'][0]} × {row['grid'][1]}",
            f"{row['foreground']:.0%}",
        )
        for row in outcome.rows[:SHOWN_ROWS]
    ]
    columns = [("photo", "left"), ("pixels", "right"), ("patches", "right"), ("foreground", "right")]
    print_table("", columns, rows, console=stdout())
    if outcome.n_photos > len(rows):
        stdout().print(f"... and {outcome.n_photos - len(rows):,} more, all in report.json")
    print_lines([*lines_of(outcome), *lines_of_fit(outcome), *hints_of(outcome), ("wrote", wrote)])


def hints_of(outcome: Outcome) -> list[tuple[str, str]]:
    """Hints for the user, who should know them before relying on the pictures."""
    return [("hint", advised_by_flags(hint)) for hint in outcome.hints]


def warn_if_inside(out: str | None, photos: Sequence[str]) -> None:
    """Warn if the output folder is inside a folder of photos, because the next job will also search the output."""
    import os

    from patchprism.support.folders import is_remote, local_path

    if out is None or is_remote(out):
        return
    target = os.path.realpath(local_path(out))
    for photo in photos:
        if is_remote(photo) or not local_path(photo).is_dir():
            continue
        folder = os.path.realpath(local_path(photo))
        if target == folder or target.startswith(os.path.join(folder, "")):
            note(
                f"warning: {out} is inside {photo}, where the photos are; do not delete the hidden record beside the "
                "new pictures, without which they would be read as photos, or write to another folder"
            )
            return
