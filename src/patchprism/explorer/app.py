"""The server's routes. Imports FastAPI: only :mod:`patchprism.explorer.serve` imports it."""

from __future__ import annotations

import asyncio
import io
import os
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import unquote

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from patchprism.errors import OutputError, PatchPrismError, PhotoError
from patchprism.explorer.fit_requests import FitRequest, models_here
from patchprism.explorer.html import page_html
from patchprism.explorer.modes import find_clusters, packed
from patchprism.explorer.stored import MAX_SHOWN
from patchprism.explorer.tasks import attention_task, has_attention, search_task, shown_task
from patchprism.explorer.teach import head_answer, head_from, teach_head
from patchprism.explorer.uploads import MAX_UPLOAD_BYTES
from patchprism.explorer.work import MAX_PHOTOS, BusyError, NoSessionError, Workshop
from patchprism.lenses.clusters import AUTO_COUNTS
from patchprism.prism.options import FOREGROUNDS
from patchprism.support.folders import reason_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# HTTP status codes of errors; all others are 422.
STATUS: dict[type[PatchPrismError], int] = {
    NoSessionError: 404,
    BusyError: 429,
    OutputError: 409,  # the folder is in a state that does not allow it
    PhotoError: 410,  # only photos that the page opened with; errors of uploads are reported when they are added
}
MAX_MARKS = 20_000
DECODERS = 2  # photos decoded at once; a photo of 60 megapixels takes 180 MB

Share = Annotated[float, Field(ge=0, le=1)]
Component = Annotated[int, Field(ge=-8, le=8)]
Components = tuple[Component, Component, Component]
Count = Annotated[int, Field(ge=0, le=16)]
Row = Annotated[int, Field(ge=0, lt=2**53)]
Clusters = Annotated[int, Field(ge=AUTO_COUNTS[0], le=AUTO_COUNTS[-1])] | Literal["auto"]


class FitBody(BaseModel):
    """A fit that the page requests; values that are left out do not change."""

    model_config = ConfigDict(extra="forbid")
    model: Annotated[str, Field(max_length=100)] | None = None
    layer: Annotated[int, Field(ge=0, le=1000, strict=True)] | None = None
    threshold: Share | Literal["auto", "otsu"] | None = None
    foreground: Annotated[str, Field(min_length=1, max_length=20)] | None = None
    scaling: Literal["minmax", "percentile", "sigmoid"] | None = None
    components: Components | None = None
    space: Literal["rgb", "oklab"] | None = None
    without: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=MAX_PHOTOS)] = ()
    head: bool | None = None
    aside: bool = False


class SaveBody(BaseModel):
    """The view to save."""

    model_config = ConfigDict(extra="forbid")
    mask_threshold: Share
    mask_side: Literal["above", "below", "none"]
    opening: Count
    closing: Count
    scaling: Literal["minmax", "percentile", "sigmoid"]
    components: Components
    space: Literal["rgb", "oklab"] = "rgb"
    background: Literal["black", "grey", "photo"] = "black"
    basis: Literal["object", "all"] = "object"
    overlay: Share | None = None


class TeachBody(BaseModel):
    """Marked patches to fit a head to."""

    model_config = ConfigDict(extra="forbid")
    classes: Annotated[list[Annotated[str, Field(max_length=100)]], Field(min_length=2, max_length=255)]
    marks: Annotated[list[tuple[int, int]], Field(min_length=2, max_length=MAX_MARKS)]
    C: Annotated[float, Field(ge=1e-6, le=1e6)] = 10.0


class ShownBody(BaseModel):
    """Photos to show: some of those that are shown already, and others of the store."""

    model_config = ConfigDict(extra="forbid")
    keep: Annotated[tuple[Row, ...], Field(max_length=MAX_SHOWN)] = ()
    add: Annotated[tuple[Row, ...], Field(max_length=MAX_SHOWN)] = ()
    find: Annotated[str, Field(max_length=200)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class SearchBody(BaseModel):
    """A patch to search for in the store, and the foreground that is shown."""

    model_config = ConfigDict(extra="forbid")
    photo: Row
    patch: Row
    mask_threshold: Share
    mask_side: Literal["above", "below", "none"]
    opening: Count
    closing: Count
    everywhere: bool = False


def make_app(workshop: Workshop, *, out: str | os.PathLike[str]) -> FastAPI:
    """The application, which gets paths without the token.

    Parameters
    ----------
    workshop : Workshop
    out : path
        Folder that *Save* writes to; no request can name another one.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(workshop.close)

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    decoding = asyncio.Semaphore(DECODERS)
    saving = asyncio.Lock()
    teaching = asyncio.Lock()  # one fit of a head or of clusters at a time
    page = page_html()
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert found is not None
    policy = f"{found[1]}; frame-ancestors 'none'"

    @app.exception_handler(PatchPrismError)
    async def refuse(_: Request, error: PatchPrismError) -> JSONResponse:
        status = next((status for kind, status in STATUS.items() if isinstance(error, kind)), 422)
        return JSONResponse({"error": str(error)}, status)

    @app.exception_handler(OSError)
    async def unreadable(_: Request, error: OSError) -> JSONResponse:
        name = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
        return JSONResponse({"error": name + reason_of(error).lower()}, 409)

    @app.exception_handler(MemoryError)
    async def out_of_memory(_: Request, error: MemoryError) -> JSONResponse:
        return JSONResponse({"error": "out of memory; close other tabs, or show fewer photos"}, 503)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:] if not isinstance(part, int))
        broken = first["type"] == "json_invalid"
        text = "the request is not JSON" if broken else f"{where or 'the request'}: {first['msg']}"
        return JSONResponse({"error": text}, 400 if broken else 422)

    @app.exception_handler(HTTPException)
    async def failed(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail).lower()}, error.status_code)

    @app.get("/")
    async def index() -> HTMLResponse:
        return HTMLResponse(page, headers={"content-security-policy": policy})

    @app.get("/api/limits")
    async def limits() -> dict[str, Any]:
        return {
            "bytes": MAX_UPLOAD_BYTES,
            "photos": MAX_PHOTOS,
            "shown": MAX_SHOWN,  # of a feature store
            "save": str(out),
            "foregrounds": [name for name in FOREGROUNDS if name != "mask"],
        }

    @app.get("/api/models")
    async def models() -> dict[str, list[str]]:
        here = await run_in_threadpool(models_here, workshop.first[0].label)
        return {"models": [here[0], *workshop.checkpoints, *here[1:]]}

    @app.post("/api/sessions")
    async def open_session(like: str | None = None) -> dict[str, str]:
        return {"session": workshop.open(like)}

    @app.get("/api/sessions/{name}")
    async def session(name: str) -> dict[str, Any]:
        view = workshop.session(name).view
        return {"photos": len(view), "attention": has_attention(workshop, view)}

    @app.post("/api/sessions/{name}/fits/{number}")
    async def go_back(name: str, number: int) -> dict[str, int]:
        wanted = workshop.session(name)
        with wanted.lock:
            if wanted.job and not wanted.job.over:
                raise BusyError("a fit is already running in this tab; stop it or wait for it")
            wanted.back(number)
        return {"fit": number}

    @app.get("/api/sessions/{name}/message")
    async def message(name: str, fit: int | None = None) -> Response:
        wanted = workshop.session(name)
        with wanted.lock:
            number = wanted.fit if fit is None else fit
            content = wanted.kept(number)[1]
            headers = {"x-fit": str(number), "x-root": str(wanted.roots[number])}
        return Response(content, media_type="application/octet-stream", headers=headers)

    @app.get("/api/sessions/{name}/turns/{fit}/{other}")
    async def turn(name: str, fit: int, other: int) -> JSONResponse:
        return JSONResponse(await run_in_threadpool(workshop.turn, workshop.session(name), fit, other))

    @app.get("/api/sessions/{name}/photos/{index}")
    async def photo(name: str, index: int) -> Response:
        view = workshop.session(name).view
        if not 0 <= index < len(view):
            raise HTTPException(404, "there is no such photo")

        def encode() -> bytes:
            from PIL import Image

            buffer = io.BytesIO()
            Image.fromarray(view.photos.read(index)).save(buffer, "PNG", compress_level=1)
            return buffer.getvalue()

        async with decoding:
            return Response(await run_in_threadpool(encode), media_type="image/png")

    @app.post("/api/sessions/{name}/photos")
    async def add_photo(name: str, request: Request) -> dict[str, str]:
        wanted = workshop.session(name)
        # Read before a decoder is reserved, because a body may arrive slowly. The guard limits the number in memory.
        content = await request.body()
        given = unquote(request.headers.get("x-photo-name", "photo"))
        async with decoding:
            try:
                return {"photo": await run_in_threadpool(workshop.add_photo, wanted, content, given)}
            except PhotoError as error:
                # The request is valid although the photo is not. The status is 200, because browsers log an error
                # otherwise.
                return {"refused": str(error)}

    @app.post("/api/sessions/{name}/fit", status_code=202)
    async def fit(name: str, body: FitBody) -> dict[str, Any]:
        job = await run_in_threadpool(workshop.start, workshop.session(name), FitRequest(**body.model_dump()))
        return job.public()

    @app.post("/api/sessions/{name}/head")
    async def teach(name: str, body: TeachBody) -> Response:
        session = workshop.session(name)

        def answer() -> bytes:
            head = teach_head(session.view, body.marks, body.classes, body.C)
            content = head_answer(session.view, head)
            session.head = head
            return content

        async with teaching:
            return Response(await run_in_threadpool(answer), media_type="application/octet-stream")

    @app.post("/api/sessions/{name}/head/apply")
    async def apply_head(name: str, request: Request) -> Response:
        session, given = workshop.session(name), await request.body()

        def answer() -> bytes:
            head = head_from(given)
            content = head_answer(session.view, head)
            session.head = head
            return content

        async with teaching:
            return Response(await run_in_threadpool(answer), media_type="application/octet-stream")

    @app.get("/api/sessions/{name}/clusters")
    async def clusters(name: str, count: Clusters) -> Response:
        view = workshop.session(name).view

        def answer() -> bytes:
            ((labels, info),) = find_clusters(view, [count])
            return packed(info, labels)

        async with teaching:
            return Response(await run_in_threadpool(answer), media_type="application/octet-stream")

    @app.post("/api/sessions/{name}/attention", status_code=202)
    async def attend(name: str) -> dict[str, Any]:
        return workshop.queue(workshop.session(name), attention_task(workshop)).public()

    @app.get("/api/sessions/{name}/attention")
    async def attention(name: str) -> Response:
        found = workshop.session(name).attention
        if found is None:
            raise HTTPException(404, "no attention was asked for")
        return Response(packed(found[1], found[0]), media_type="application/octet-stream")

    @app.post("/api/sessions/{name}/shown", status_code=202)
    async def show(name: str, body: ShownBody) -> dict[str, Any]:
        draw = None if body.find is None else (body.find, body.seed)
        task = shown_task(workshop.stored, body.keep, body.add, draw)
        return workshop.queue(workshop.session(name), task).public()

    @app.post("/api/sessions/{name}/search", status_code=202)
    async def search(name: str, body: SearchBody) -> dict[str, Any]:
        options = body.model_dump()
        photo, patch, everywhere = (options.pop(key) for key in ("photo", "patch", "everywhere"))
        task = search_task(workshop.stored, photo, patch, options, everywhere=everywhere)
        return workshop.queue(workshop.session(name), task).public()

    @app.get("/api/sessions/{name}/search")
    async def matches(name: str) -> list[dict[str, Any]]:
        found = workshop.session(name).matches
        if found is None:
            raise HTTPException(404, "no search was asked for")
        return found

    @app.get("/api/sessions/{name}/job")
    async def job(name: str) -> dict[str, Any]:
        current = workshop.session(name).job
        if current is None:
            raise HTTPException(404, "no fit was asked for")
        return current.public()

    @app.delete("/api/sessions/{name}/job")
    async def stop(name: str) -> dict[str, Any]:
        current = workshop.session(name).job
        if current is None:
            raise HTTPException(404, "no fit was asked for")
        current.stop.set()
        return current.public()

    @app.post("/api/sessions/{name}/save")
    async def save(name: str, body: SaveBody) -> dict[str, Any]:
        options = body.model_dump()
        output = {key: options.pop(key) for key in ("background", "basis")}
        overlay = options.pop("overlay")
        async with saving:  # all tabs save to the same folder
            written = await run_in_threadpool(
                workshop.save, workshop.session(name), out, options, overlay_alpha=overlay, **output
            )
        return {"folder": str(out), "files": len(written)}

    return app
