"""Changes to what mkdocstrings renders: roles such as :class:`~patchprism.Prism` become links, options their defaults.

A name that the page of the reference shows is a link; any other is code.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import griffe

if TYPE_CHECKING:
    from pathlib import Path

ROLE = re.compile(r":(attr|class|exc|func|meth|mod):`([^`]+)`")


class Roles(griffe.Extension):
    """Replace the roles in every docstring of the package."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: set[str] = set()

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Once all is read: note what is public, then rewrite."""
        names = [str(name).strip("'\"") for name in pkg.exports or ()]
        self.shown = {name for name in names if name in pkg.members}
        self.rewrite(pkg, set())

    def rewrite(self, thing: griffe.Object | griffe.Alias, seen: set[Path | str]) -> None:
        """Rewrite the docstrings of an object and of its members."""
        if thing.is_alias or thing.path in seen:
            return
        seen.add(thing.path)
        value = getattr(thing, "value", None)
        if isinstance(value, griffe.ExprCall) and str(value.function) == "option":
            thing.value = value.arguments[0]  # a signature shows the default, not the whole declaration
        if thing.docstring:
            owner = thing.name if thing.is_class else thing.parent.name if thing.parent else ""
            thing.docstring.value = ROLE.sub(lambda m: self.link(m[2], m[1], owner), thing.docstring.value)
        for member in thing.members.values():
            self.rewrite(member, seen)

    def link(self, text: str, role: str, owner: str) -> str:
        """Markdown for one role: ``~a.b.C`` is shown as C, ``words <a.b.C>`` as words."""
        text = " ".join(text.split())
        said, _, target = text.partition(" <")
        target = target.rstrip(">") or text.lstrip("~")
        if text.startswith("~"):
            said = target.rpartition(".")[2]
        if "." not in target and owner in self.shown:
            target = f"patchprism.{owner}.{target}"
        if target.split(".")[0] == "patchprism" and target.split(".")[-1] in self.shown:
            target = (
                f"patchprism.{target.rpartition('.')[2]}"  # wherever it is defined, it is shown by this name
            )
        parts = target.split(".")
        linked = parts[0] == "patchprism" and len(parts) in (2, 3) and parts[1] in self.shown
        linked = (
            linked and role != "attr"
        )  # attributes are told of in their class's docstring, and have no place of their own
        return f"[`{said}`][{target}]" if linked else f"`{said}`"
