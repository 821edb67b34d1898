"""The explorer: a page that shows why a patch has its colour. Importing it loads neither torch nor FastAPI."""

from patchprism.explorer.build import build_message
from patchprism.explorer.html import ExplorerPage, page_html
from patchprism.explorer.message import Message

__all__ = ["ExplorerPage", "Message", "build_message", "page_html"]
