"""The application with all its commands."""

from __future__ import annotations

from typing import Annotated

import typer

import patchprism
from patchprism.cli import compare, evaluate, explore, features, fit, models, render, teach, video
from patchprism.cli.help import HELP_NAMES, Command, Root

app = typer.Typer(
    name="patchprism",
    cls=Root,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": HELP_NAMES},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"patchprism {patchprism.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Show what a vision transformer sees: colour the parts of objects alike in all photos.

    The model focus_vits14 works without a download. `patchprism COMMAND --help` explains a command.
    """


for command in (
    render.render,
    explore.explore,
    fit.fit,
    teach.teach,
    features.features,
    compare.compare,
    evaluate.evaluate,
    video.video,
    models.models,
    models.download,
):
    app.command(command.__name__, cls=Command)(command)
