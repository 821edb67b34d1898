"""``patchprism models`` and ``patchprism download``."""

from __future__ import annotations

from typing import Annotated

import typer

from patchprism.cli.console import human_bytes, print_line, print_table, progress, stdout


def models() -> None:
    """List the models that you can name, and whether their weights are on this machine."""
    from patchprism.backbones import locate_weights, records

    rows = []
    for record in records():
        here = locate_weights(record) is not None
        rows.append(
            (
                record.name,
                str(record.width),
                str(record.depth),
                str(record.patch_size),
                f"{record.n_parameters / 1e6:,.1f} M",
                record.licence,
                "here" if here else "to download" if record.download_bytes else "package not installed",
                human_bytes(record.download_bytes) if record.download_bytes else "none",
            )
        )
    columns = [
        ("model", "left"),
        ("width", "right"),
        ("depth", "right"),
        ("patch", "right"),
        ("parameters", "right"),
        ("licence", "left"),
        ("weights", "left"),
        ("download", "right"),
    ]
    print_table("", columns, rows, console=stdout())
    for record in records():
        if record.about:
            print_line("", f"{record.name}: {record.about}", 0)


def download(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Model: a name from `patchprism models`, hf:REPO or timm:NAME."),
    ],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the path of the weights.")] = False,
) -> None:
    """Download the weights of a model ahead of time."""
    from patchprism.backbones import download_weights

    with progress(quiet=quiet) as tell:
        origin = download_weights(model, progress=tell)
    if quiet:
        print(origin.path)
        return
    print_line("", f"{model}: {origin.source}", 0)
    print_line("  file", origin.path, 10)
    print_line("  SHA-256", origin.sha256, 10)
    if origin.notice:
        print_line("  licence", origin.notice, 10)
