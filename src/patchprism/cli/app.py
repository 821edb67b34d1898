"""The commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

import patchprism
from patchprism.cli import compare, evaluate, explore, features, fit, models, render, teach, video

app = typer.Typer(
    name="patchprism",
    help="Split the patch features of DINOv2 and its kin into colour.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
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
    """Split the patch features of DINOv2 and its kin into colour.

    Start with [bold]patchprism render PHOTO... --out DIR[/bold]; with
    [bold]--model focus_vits14[/bold] it needs no download.
    """


app.command("render")(render.render)
app.command("explore")(explore.explore)
app.command("fit")(fit.fit)
app.command("teach")(teach.teach)
app.command("features")(features.features)
app.command("compare")(compare.compare)
app.command("evaluate")(evaluate.evaluate)
app.command("video")(video.video)
app.command("models")(models.models)
app.command("download")(models.download)
