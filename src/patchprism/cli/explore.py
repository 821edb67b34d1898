"""``patchprism explore``: the page that shows why a patch has its colour."""

from __future__ import annotations

from typing import Annotated

import typer

from patchprism.cli import EXIT_SOME_PHOTOS_FAILED, lens, options
from patchprism.cli.console import human_bytes, print_line, progress, say_notes
from patchprism.cli.many import note_unasked, warn_if_inside, warn_of_failures
from patchprism.support.words import counted

_PAGE = "The page"
# Beyond, the page is tens of megabytes, and nobody looks at so many side by side.
MAX_SHOWN = 200

HtmlFile = Annotated[
    str | None,
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
    str,
    typer.Option(
        "--out", "-o", metavar="DIR", help="Where the page's save button writes.", rich_help_panel=_PAGE
    ),
]


Sample = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help=f"Fit on, and show, a random sample of so many photos; a page shows {MAX_SHOWN} at most.",
        rich_help_panel=_PAGE,
    ),
]


def explore(
    photos: options.PhotosOrStore,
    html: HtmlFile = None,
    title: Title = None,
    host: Host = "127.0.0.1",
    port: Port = 0,
    no_open: NoOpen = False,
    out: SaveTo = "explored",
    sample: Sample = None,
    seed: options.Seed = 0,
    fetch_from: options.FetchFrom = None,
    preset: options.Preset = None,
    size: options.Size = None,
    range: options.Range = None,
    mean: options.Mean = None,
    std: options.Std = None,
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
    foreground_component: options.ForegroundComponent = None,
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

    Serves the page on this machine until Ctrl-C; with [bold]--html[/bold] writes it as one file. Photos may be
    given as a feature store of [bold]patchprism features[/bold]; no network is needed then.
    """
    given = locals()  # the options, before anything else is
    from patchprism.explorer.build import build_message
    from patchprism.explorer.html import ExplorerPage
    from patchprism.jobs.engines import open_engine
    from patchprism.jobs.inputs import list_photos, store_among
    from patchprism.jobs.network import load_network
    from patchprism.jobs.render import Coloring
    from patchprism.jobs.run import Run, Sample
    from patchprism.jobs.viewing import make_view
    from patchprism.jobs.writers import check_folder
    from patchprism.photos.sources import elsewhere, places_for
    from patchprism.prism.estimator import Prism
    from patchprism.support.files import check_target, check_writable, refuse_what_is_read
    from patchprism.support.folders import is_remote

    bound = None
    if html is None:
        from patchprism.explorer import serve

        # Refused before the network runs.
        serve.check_extra()
        if is_remote(out):
            check_writable(out)
        check_folder(out)
        refuse_what_is_read(out, [store_among(photos), model])
        warn_if_inside(out, photos)
        bound = serve.listen(host, port)
    fitted = Prism.load(prism) if prism else None
    settings = options.settings_of(given)
    store = store_among(photos)
    if html is not None:
        check_target(html, read=[store, prism, weights, model])
    coloring = Coloring(
        prism=fitted, force=force, sample=Sample(sample, seed), fetch_from=tuple(fetch_from or ())
    )
    backbone = None
    with progress(quiet=quiet) as tell, open_engine() as engine:
        if store is None:
            if html is not None:
                check_target(html, list_photos(photos))
            # The page goes on working with it.
            backbone = load_network(settings.resolved(fitted), tell)
        run = Run(engine=engine, backbone=backbone, tell=tell)
        view = make_view(photos, settings, run, coloring, most=MAX_SHOWN)
        message = build_message(view, title=title, prism_path=prism, progress=tell)
    say_notes(view.all_notes(), quiet=True)
    warn_of_failures(view.failures)
    if view.gone:
        text = f"note: {counted(len(view.gone), 'photo')} gone or replaced since: shown as plain grey"
        typer.echo(text, err=True)
        note_unasked(elsewhere(view.gone, places_for(str(store), fetch_from or ())))
    if html is not None:
        page = ExplorerPage(message)
        page.save(html)
        size_text = human_bytes(len(page.html.encode()))
        print(html) if quiet else print_line("wrote", f"{html}, {size_text}: open it in a browser")
        if view.failures:
            raise typer.Exit(EXIT_SOME_PHOTOS_FAILED)
        return
    assert bound is not None

    def ready(address: str) -> None:
        print(address if quiet else f"explore {address}", flush=True)
        if not quiet:
            print("        Ctrl-C stops; save writes to " + out, flush=True)
        if not no_open:
            import threading
            import webbrowser

            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    serve.serve(
        view, message.to_bytes(), backbone, device=device, bound=bound, host=host, out=out, ready=ready
    )
