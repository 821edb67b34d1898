"""``patchprism explore``: the web page for exploring photos."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import typer

from patchprism.cli import options  # noqa: TC001 - Typer evaluates the annotations
from patchprism.cli.console import human_bytes, print_line, print_notes, progress, warner
from patchprism.cli.exits import EXIT_SOME_PHOTOS_FAILED
from patchprism.cli.many import note_not_fetched, warn_if_inside, warn_of_failures
from patchprism.cli.options import ColoringOptions, Running
from patchprism.cli.takes import only, takes
from patchprism.jobs.settings import Settings
from patchprism.support import checks
from patchprism.support.checks import optional
from patchprism.support.options import Checked, numbers, option
from patchprism.support.words import counted

if TYPE_CHECKING:
    from socket import socket

    from patchprism.backbones import Backbone
    from patchprism.explorer.message import Message
    from patchprism.jobs.coloring import Coloring
    from patchprism.jobs.run import Tell
    from patchprism.jobs.view import View

_PAGE = "Page"
# With more photos, the page would have tens of megabytes.
MAX_SHOWN = 200


@dataclass(frozen=True, kw_only=True)
class PageOptions(Checked):
    """Whether the page is written to a file or served to a browser, and what it contains."""

    html: str | None = option(
        None,
        check=optional(checks.path),
        metavar="FILE",
        help="Write the page to one file, which needs neither a server nor a network, instead of serving it.",
        panel=_PAGE,
    )
    title: str | None = option(
        None, check=optional(checks.text), metavar="TEXT", help="Title of the page.", panel=_PAGE
    )
    carry_layers: int | tuple[int, ...] | None = option(
        None,
        check=optional(checks.layers),
        flag="--layers",
        metavar="N[,N...]",
        help="Additional layers for the slider of the file that --html writes, besides that of --layer. "
        "A served page has all layers.",
        panel=_PAGE,
        parse=numbers("a number or several like 2,5,8,11", int),
    )
    checkpoint: str | None = option(
        None,
        check=optional(checks.path),
        metavar="FILE|URL|hf:REPO",
        help="Other weights of the same model, which the served page shows beside the first.",
        panel=_PAGE,
    )
    host: str = option(
        "127.0.0.1",
        check=checks.text,
        metavar="ADDRESS",
        help="Address to listen on. With any address other than the default, other machines can open the page.",
        panel=_PAGE,
    )
    port: int = option(
        0,
        check=partial(checks.integer, low=0, high=65535),
        metavar="N",
        help="Port to listen on; 0 chooses a free one.",
        panel=_PAGE,
    )
    no_open: bool = option(False, check=checks.flag, help="Do not open the page in a browser.", panel=_PAGE)
    out: str = option(
        "explored",
        check=checks.path,
        flag="--out -o",
        metavar="DIR",
        help="Folder that the page's save button writes to.",
        panel=_PAGE,
    )

    @property
    def carried(self) -> tuple[int, ...]:
        """The additional layers as a tuple, which may be empty."""
        return (
            ()
            if self.carry_layers is None
            else (self.carry_layers,)
            if isinstance(self.carry_layers, int)
            else self.carry_layers
        )


@dataclass(frozen=True, kw_only=True)
class ShownOptions(ColoringOptions):
    """The options of :class:`ColoringOptions`, with a sample that is also what the page shows."""

    sample: int | None = option(
        None,
        check=optional(partial(checks.integer, low=1)),
        metavar="N",
        help=f"Fit on, and show, a random sample of N photos. A page shows at most {MAX_SHOWN} photos. Of a larger "
        f"feature store, it shows a sample of {MAX_SHOWN} by default.",
        panel=_PAGE,
    )


@takes(page=PageOptions, coloring=ShownOptions, settings=Settings, running=only(Running, "quiet"))
def explore(
    photos: options.PhotosOrStore,
    page: PageOptions,
    coloring: ShownOptions,
    settings: Settings,
    running: Running,
) -> None:
    """Explore photos in a web page: move the threshold, change components, find similar patches.

    Serves the page on this machine until you press Ctrl-C. With --html, it writes the page to one file instead.

    Instead of photos, you can give a feature store from `patchprism features`. The model then does not run again.
    """
    from patchprism.explorer import serve
    from patchprism.explorer.work import Workshop
    from patchprism.jobs.inputs import store_among
    from patchprism.photos.sources import elsewhere, places_for
    from patchprism.support.files import check_target

    # Invalid input is refused before the network runs.
    _check_page(photos, page, settings)
    bound = None if page.html is not None else _listen(photos, page, settings)
    chosen, store = coloring.coloring(), store_among(photos)
    if page.html is not None:
        check_target(page.html, read=[store, coloring.prism, settings.weights, settings.model])
    view, message, backbone, checkpoints = _made(
        photos, page, chosen, settings, prism=coloring.prism, quiet=running.quiet
    )
    print_notes(view.all_notes(), quiet=True)
    warn_of_failures(view.failures)
    if view.gone:
        text = (
            f"note: {counted(len(view.gone), 'photo')} missing or replaced since the features were "
            "extracted: shown in plain grey"
        )
        typer.echo(text, err=True)
        note_not_fetched(elsewhere(view.gone, places_for(str(store), coloring.fetch_from)))
    if page.html is not None:
        _save(message, page.html, quiet=running.quiet)
        if view.failures:
            raise typer.Exit(EXIT_SOME_PHOTOS_FAILED)
        return
    assert bound is not None

    def ready(address: str) -> None:
        print(address if running.quiet else f"explore {address}", flush=True)
        if not running.quiet:
            print(f"        press Ctrl-C to stop; Save writes to {page.out}", flush=True)
        if not page.no_open:
            import threading
            import webbrowser

            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    workshop = Workshop(
        view,
        message.to_bytes(),
        backbone,
        device=settings.device,
        checkpoints=checkpoints,
    )
    serve.serve(
        workshop,
        bound=bound,
        host=page.host,
        out=page.out,
        ready=ready,
    )


def _check_page(photos: list[str], page: PageOptions, settings: Settings) -> None:
    from patchprism.errors import OptionError
    from patchprism.jobs.inputs import store_among

    if page.checkpoint is not None and (page.html is not None or store_among(photos) is not None):
        raise OptionError("checkpoint needs photos and a served page")
    if page.carry_layers is None:
        return
    if page.html is None:
        raise OptionError("carry_layers needs --html; the slider of a served page has all layers")
    if store_among(photos) is not None:
        raise OptionError("carry_layers needs the photos: a feature store contains only its own layer")
    if settings.layer is not None and not isinstance(settings.layer, int):
        raise OptionError("carry_layers needs exactly one layer in --layer, for example --layer 8")


def _listen(photos: list[str], page: PageOptions, settings: Settings) -> socket:
    from patchprism.explorer import serve
    from patchprism.jobs.inputs import store_among
    from patchprism.jobs.writers import check_folder
    from patchprism.support.files import check_writable, refuse_what_is_read
    from patchprism.support.folders import is_remote

    serve.check_extra()
    if is_remote(page.out):
        check_writable(page.out)
    check_folder(page.out)
    refuse_what_is_read(page.out, [store_among(photos), settings.model])
    warn_if_inside(page.out, photos)
    return serve.listen(page.host, page.port)


def _made(
    photos: list[str],
    page: PageOptions,
    coloring: Coloring,
    settings: Settings,
    *,
    prism: str | None,
    quiet: bool,
) -> tuple[View, Message, Backbone | None, dict[str, tuple[Backbone, str]]]:
    """The view, its message for the page, the network for later fits, and other checkpoints of the network."""
    from patchprism.explorer.build import build_message
    from patchprism.explorer.carried import carry_layers
    from patchprism.explorer.layers import LayerBank
    from patchprism.explorer.modes import can_attend, carry_modes
    from patchprism.jobs.engines import open_engine
    from patchprism.jobs.inputs import list_photos, store_among
    from patchprism.jobs.network import load_network, with_model
    from patchprism.jobs.run import Run
    from patchprism.jobs.viewing import make_view
    from patchprism.support.files import check_target

    backbone, bank, checkpoints = None, None, {}
    with progress(quiet=quiet) as tell, open_engine() as engine:
        run = Run(engine=engine, tell=tell, warn=warner(quiet=quiet))
        if store_among(photos) is None:
            if page.html is not None:
                check_target(page.html, list_photos(photos))
            settings = with_model(settings, run, coloring)
            backbone = load_network(coloring.resolved(settings), tell)
            bank = LayerBank(wanted=[backbone.layer_index(layer) for layer in page.carried])
            checkpoints = _checkpoints(page, settings, backbone, tell)
            run = replace(run, backbone=backbone)
            if page.carried:
                run = replace(run, extract=bank.extract)
        view = make_view(photos, settings, run, coloring, most=MAX_SHOWN)
        message = build_message(view, title=page.title, prism_path=prism, progress=tell)
        if page.html is not None:
            attends = backbone is not None and can_attend(view, backbone)
            carry_modes(message, view, backbone if attends else None, tell=tell)
        if page.carried:
            assert backbone is not None
            message = carry_layers(message, view, backbone, page.carried, tell, bank=bank)
        return view, message, backbone, checkpoints


def _checkpoints(
    page: PageOptions, settings: Settings, backbone: Backbone, tell: Tell
) -> dict[str, tuple[Backbone, str]]:
    """The second checkpoint, loaded, by its name for the page; empty if none is given."""
    from pathlib import Path

    from patchprism.backbones import load_backbone

    if page.checkpoint is None:
        return {}
    name = backbone.record.name
    loaded = load_backbone(
        name,
        weights=page.checkpoint,
        device=settings.device,
        dtype=settings.dtype or "auto",
        progress=tell,
    )
    return {f"{name} ({Path(page.checkpoint).name})": (loaded, page.checkpoint)}


def _save(message: Message, html: str, *, quiet: bool) -> None:
    from patchprism.explorer.html import ExplorerPage

    page = ExplorerPage(message)
    page.save(html)
    size = human_bytes(len(page.html.encode()))
    print(html) if quiet else print_line("wrote", f"{html}, {size}: open it in a browser")
