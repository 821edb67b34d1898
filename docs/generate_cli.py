"""Write docs/cli.md from the commands' own help; ``make docs`` runs it, and a test holds both together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

HEAD = """# The command line

Made from the commands' own help by `make docs`. Exit codes: 0 all done; 1 failed, one line says why; 2 wrong usage;
3 some photos failed, each named, the others are done; 130 interrupted.
"""


def plain(text: str | None) -> str:
    """Help text without Rich's marks, fit for a table's cell."""
    return " ".join(re.sub(r"\[/?(bold|italic|code)\]", "", text or "").split()).replace("|", "\\|")


def names(option: Any) -> str:
    """An option as it is typed."""
    spelled = ", ".join(
        f"`{name}`" for name in sorted([*option.opts, *option.secondary_opts], key=len, reverse=True)
    )
    value = "" if option.is_flag else option.metavar or "VALUE"
    return spelled + (f" {value}".replace("|", "\\|") if value else "")


def page() -> str:
    """The whole page."""
    import typer.main

    from patchprism.cli.app import app

    root = typer.main.get_command(app)
    parts = [HEAD]
    for name, command in sorted(root.commands.items()):  # type: ignore[attr-defined]
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        typed = "".join(f" {p.metavar or p.name.upper()}{'...' if p.nargs == -1 else ''}" for p in arguments)
        summary, *rest = (command.help or "").strip().split("\n\n")
        parts.append(f"## patchprism {name}\n\n`patchprism {name}{typed}`: {plain(summary)}\n")
        parts += [plain(paragraph) + "\n" for paragraph in rest]
        rows = [f"| {a.metavar or a.name.upper()} | {plain(a.help)} |" for a in arguments]
        for option in command.params:
            if option.param_type_name == "option" and option.name != "help" and not option.hidden:
                default = (
                    ""
                    if option.default in (None, False, ()) or option.required
                    else f" Default: {option.default}."
                )
                rows.append(f"| {names(option)} | {plain(option.help)}{default} |")
        if rows:
            parts.append("\n".join(["| | |", "|---|---|", *rows]) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    Path(__file__).with_name("cli.md").write_text(page(), encoding="utf-8")
