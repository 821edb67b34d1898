"""``patchprism explore``: the page that shows why a patch has its colour."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchprism.cli import EXIT_SOME_PHOTOS_FAILED, lens, options
from patchprism.cli.console import human_bytes, progress, stdout
from patchprism.cli.render import warn_of_failures

_PAGE = "The page"

HtmlFile = Annotated[
    Path | None,
    typer.Option(
        "--html",
        metavar="FILE",
        help="Write the page as one file that needs no server and no network, instead of serving it.",
        rich_help_panel=_PAGE,
    ),
]
Title = Annotated[str | None, typer.Option(help="The page's title.", rich_help_panel=_PAGE)]
Host = Annotated[
    str,
    typer.Option(
        help="Address to listen on. Any other than the default lets other machines in.", rich_help_panel=_PAGE
    ),
]
Port = Annotated[
    int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.", rich_help_panel=_PAGE)
]
NoOpen = Annotated[
    bool, typer.Option("--no-open", help="Do not open the page in a browser.", rich_help_panel=_PAGE)
]
SaveTo = Annotated[
    Path,
    typer.Option(
        "--out", "-o", metavar="DIR", help="Where the page's save button writes.", rich_help_panel=_PAGE
    ),
]


def explore(
    photos: options.Photos,
    html: HtmlFile = None,
    title: Title = None,
    host: Host = "127.0.0.1",
    port: Port = 0,
    no_open: NoOpen = False,
    out: SaveTo = Path("explored"),
    preset: options.Preset = None,
    size: options.Size = None,
    model: options.Model = None,
    weights: options.Weights = None,
    layer: options.Layer = None,
    facet: options.Facet = None,
    final_norm: options.FinalNorm = None,
    token_norm: options.TokenNorm = None,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    batch_size: options.BatchSize = None,
    threshold: options.Threshold = None,
    foreground: options.Foreground = None,
    scaling: options.Scaling = None,
    components: options.Components = None,
    space: lens.Space = None,
    mask_threshold: options.MaskThreshold = None,
    mask_side: options.MaskSide = None,
    opening: options.Opening = 0,
    closing: options.Closing = 0,
    prism: options.PrismFile = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Explore photos in a page: drag the threshold, change components, find similar patches.

    Serves the page on this machine until Ctrl-C; with [bold]--html[/bold] writes it as one file.
    """
    from patchprism.explorer.build import build_message
    from patchprism.explorer.html import ExplorerPage
    from patchprism.pipeline import Settings, visualize
    from patchprism.prism import Prism

    bound = None
    if html is None:
        from patchprism.explorer import serve

        # Refused before the network runs.
        serve.check_extra()
        bound = serve.listen(host, port)
    fitted = Prism.load(prism) if prism else None
    chosen = Settings(model=model, weights=weights, device=device, dtype=dtype).resolved(
        None if fitted is None else fitted
    )
    with progress(quiet=quiet) as tell:
        from patchprism.backbones import load_backbone

        backbone = load_backbone(
            str(chosen.model), weights=weights, device=device, dtype=chosen.dtype or "auto", progress=tell
        )
        view = visualize(
            photos,
            weights=weights,
            layer=options.parse_layers(layer),
            facet=facet,
            final_norm=final_norm,
            token_norm=token_norm,
            preset=preset,
            size=size,
            threshold=options.parse_threshold(threshold),
            foreground=foreground,
            scaling=scaling,
            components=options.parse_components(components),
            space=space,
            mask_threshold=mask_threshold,
            mask_side=mask_side,
            opening=opening,
            closing=closing,
            batch_size=batch_size,
            prism=fitted,
            force=force,
            backbone=backbone,
            errors="report",
            progress=tell,
        )
        message = build_message(view, title=title, prism_path=str(prism) if prism else None, progress=tell)
    warn_of_failures(view.failures)
    if html is not None:
        page = ExplorerPage(message)
        page.save(html)
        size_text = human_bytes(len(page.html.encode()))
        print(html) if quiet else stdout().print(
            f"wrote   {html}, {size_text}: open it in a browser", markup=False
        )
        if view.failures:
            raise typer.Exit(EXIT_SOME_PHOTOS_FAILED)
        return
    assert bound is not None

    def ready(address: str) -> None:
        print(address if quiet else f"explore {address}", flush=True)
        if not quiet:
            print("        Ctrl-C stops; save writes to " + str(out), flush=True)
        if not no_open:
            import threading
            import webbrowser

            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    serve.serve(view, message.to_bytes(), backbone, bound=bound, host=host, out=out, ready=ready)
