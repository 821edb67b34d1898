"""Message -> one HTML file: the page's modules put together, the message inside."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from patchprism import checks
from patchprism.files import atomic_write
from patchprism.words import counted

if TYPE_CHECKING:
    import os

    from patchprism.explorer.message import Message

# In the order of their needs: each imports only from those before it.
MODULES = (
    "oklab",
    "math",
    "coding",
    "message",
    "prism",
    "png",
    "state",
    "similarity",
    "model",
    "view",
    "panel",
    "server",
    "main",
)
_IMPORT = re.compile(r"^import\s[^;]*?from\s+\"\./\w+\.js\";\n", re.MULTILINE)
_EXPORT = re.compile(r"^export\s+", re.MULTILINE)
NOTEBOOK_HEIGHT = 760
SPOILT = (0, 13, 60)


def page_html(message: Message | None = None, *, printable: bool = False) -> str:
    """The page as one HTML document.

    Parameters
    ----------
    message : Message, optional
        What the page shows. Without one the page asks the server that it came from.
    printable : bool, default False
        Whether the message is written in printable characters, which take 25 % more room than bytes, or in all
        that HTML leaves alone, which take 14 % more. Where control characters are spelt out, as in a
        notebook's JSON, the first are shorter.

    Returns
    -------
    str
        Scripts, styles and message are inside; its content security policy allows nothing else.
    """
    script, style = _script(), _asset("style.css")
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
    data = ""
    if message:
        data = (encode85 if printable else encode128)(message.to_bytes())
    parts = {
        "{{policy}}": policy,
        "{{title}}": html.escape(title),
        "{{style}}": style,
        "{{script}}": script,
        "{{code}}": "85" if printable else "128",
        "{{message}}": data,
    }
    # In one pass: a title may look like a place.
    return re.sub(r"\{\{\w+\}\}", lambda place: parts[place[0]], _asset("page.html"))


def encode85(content: bytes) -> str:
    """Bytes as printable text inside a script element: base 85, four bytes in five characters.

    ``<`` becomes ``.``, so that no tag and no comment can begin inside.
    """
    return base64.b85encode(content).decode("ascii").replace("<", ".")


def encode128(content: bytes) -> str:
    """Bytes as text inside a script element: seven bits a character, which is one byte of UTF-8.

    Three characters do not survive HTML: NUL, the carriage return, and ``<``, with which a tag could begin. They
    and the seven bits that follow share one character from U+0080 to U+01FF, two bytes of UTF-8. So the
    file is valid UTF-8, whatever charset a server declares for it, and holds exactly seven bits a byte (after
    Kevin Albertson's base-122).

    Returns
    -------
    str
        Its bytes are a seventh more than the content's, at most three more.
    """
    bits = np.unpackbits(np.frombuffer(content, np.uint8))
    sevens = np.append(bits, np.zeros(-len(bits) % 7, np.uint8)).reshape(-1, 7)
    # One group more, which the last may need to share a character with; as a whole byte of zeros it is dropped.
    groups = np.append(sevens @ (1 << np.arange(6, -1, -1)), 0).astype(np.uint16)
    spoilt = np.isin(groups[:-1], SPOILT)
    # In a run of spoilt groups every other one, from the first, takes the next along.
    place = np.arange(len(spoilt))
    begins = np.maximum.accumulate(np.where(spoilt, -1, place)) + 1
    leads = np.append(spoilt & ((place - begins) % 2 == 0), False)
    which = np.searchsorted(SPOILT, groups)
    joined = np.where(leads, 128 + (which << 7) + np.roll(groups, -1), groups)
    taken = np.append(False, leads[:-1])
    taken[-1] |= not leads[-2:-1].any()  # nobody needed it
    written: bytes = joined[~taken].astype("<u2").tobytes()
    return written.decode("utf-16-le")


class ExplorerPage:
    """The explorer's page with a visualization inside: one HTML file, shown in place by a notebook.

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

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page as one file that needs neither a server nor a network.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        path = checks.path("path", path)
        with atomic_write(path) as part:
            part.write_text(self.html, "utf-8", newline="\n")
        return Path(path)

    def _repr_html_(self) -> str:
        """What a notebook shows: the page in a frame of its own, cut off from the notebook's."""
        page = html.escape(page_html(self.message, printable=True))
        return (
            f'<iframe srcdoc="{page}" sandbox="allow-scripts allow-downloads" '
            f'allow="clipboard-write" title="{html.escape(self.message.header["title"])}" '
            f'style="width:100%;height:{NOTEBOOK_HEIGHT}px;border:0;border-radius:8px"></iframe>'
        )

    def __repr__(self) -> str:
        return f"ExplorerPage({counted(len(self.message.header['photos']), 'photo')}, {len(self.html) / 1e6:.2f} MB)"


@lru_cache(maxsize=1)
def _script() -> str:
    """The modules as one script: imports of each other dropped, exports made plain.

    Module scope is shared then, so names at the top must differ between modules; a test sees to it.
    """
    parts = (_EXPORT.sub("", _IMPORT.sub("", _asset(f"{name}.js"))) for name in MODULES)
    return "\n" + "".join(parts)


def _asset(name: str) -> str:
    return (resources.files("patchprism.explorer") / "page" / name).read_text("utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
