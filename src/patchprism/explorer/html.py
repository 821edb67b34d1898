"""Builds the page as one HTML file, with its modules and the message inside."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

from patchprism.support import checks
from patchprism.support.files import atomic_write
from patchprism.support.folders import address_text, is_remote, local_path
from patchprism.support.words import counted

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from patchprism.explorer.message import Message

# Ordered so that each module imports only from those before it.
MODULES = (
    "dom",
    "words",
    "oklab",
    "math",
    "message",
    "prism",
    "png",
    "linear",
    "headfit",
    "head",
    "state",
    "similarity",
    "agree",
    "model",
    "history",
    "app",
    "arrange",
    "tile",
    "view",
    "links",
    "readout",
    "inspect",
    "sections",
    "panel",
    "navigate",
    "finer",
    "crisp",
    "take",
    "keys",
    "points",
    "scatter",
    "marks",
    "teach",
    "zip",
    "masks",
    "figure",
    "figure_files",
    "export",
    "tools",
    "server",
    "served",
    "modes",
    "stored",
    "second",
    "file_layers",
    "layers",
    "main",
)
STYLES = ("style", "gallery", "tools")
_IMPORT = re.compile(r"^import\s[^;]*?from\s+\"\./\w+\.js\";\n", re.MULTILINE)
_EXPORT = re.compile(r"^export\s+", re.MULTILINE)
NOTEBOOK_HEIGHT = 760


def page_html(message: Message | None = None) -> str:
    """The page as one HTML document.

    Parameters
    ----------
    message : Message, optional
        Contents of the page. Without a message, the page requests it from its server.

    Returns
    -------
    str
        The page with scripts, styles and message. Its content security policy allows nothing else.
    """
    script, style = _script(), "".join(_asset(f"{name}.css") for name in STYLES)
    connect = "'none'" if message else "'self'"
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src 'sha256-{_digest(script)}'",
            f"style-src 'sha256-{_digest(style)}'",
            "img-src blob: data:",
            f"connect-src {connect}",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    title = message.header["title"] if message else "PatchPrism explorer"
    data = base64.b64encode(message.to_bytes()).decode("ascii") if message else ""
    parts = {
        "{{policy}}": policy,
        "{{title}}": html.escape(title),
        "{{style}}": style,
        "{{script}}": script,
        "{{message}}": data,
    }
    # In one pass, because a title may look like a placeholder.
    return re.sub(r"\{\{\w+\}\}", lambda place: parts[place[0]], _asset("page.html"))


class ExplorerPage:
    """The explorer's page for a visualization: one HTML file, which a notebook shows.

    Parameters
    ----------
    message : Message
    """

    def __init__(self, message: Message) -> None:
        self.message = message
        self._html: str | None = None

    @property
    def html(self) -> str:
        """The page as one HTML document."""
        if self._html is None:
            self._html = page_html(self.message)
        return self._html

    def save(self, path: str | os.PathLike[str]) -> Path | str:
        """Write the page as one file that needs neither a server nor a network.

        Parameters
        ----------
        path : path
            Path of the file, or an address that fsspec opens.

        Returns
        -------
        Path, or str for an address
            The path or address of the file.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        path = checks.path("path", path)
        with atomic_write(path) as part:
            part.write_text(self.html, "utf-8", newline="\n")
        return address_text(path) if is_remote(path) else local_path(path)

    def _repr_html_(self) -> str:
        """HTML for notebooks: the page in a sandboxed frame."""
        page = html.escape(self.html)
        return (
            f'<iframe srcdoc="{page}" sandbox="allow-scripts allow-downloads" '
            f'allow="clipboard-write" title="{html.escape(self.message.header["title"])}" '
            f'style="width:100%;height:{NOTEBOOK_HEIGHT}px;border:0;border-radius:8px"></iframe>'
        )

    def __repr__(self) -> str:
        return f"ExplorerPage({counted(len(self.message.header['photos']), 'photo')}, {len(self.html) / 1e6:.2f} MB)"


@lru_cache(maxsize=1)
def _script() -> str:
    """The modules as one script, without their imports and the keyword ``export``.

    The modules then share one scope, so their top-level names must differ; a test checks this.
    """
    parts = (_EXPORT.sub("", _IMPORT.sub("", _asset(f"{name}.js"))) for name in MODULES)
    return "\n" + "".join(parts)


def _asset(name: str) -> str:
    return (resources.files("patchprism.explorer") / "page" / name).read_text("utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
