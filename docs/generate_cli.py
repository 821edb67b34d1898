"""Write docs/cli.md from the commands' own help; ``make docs`` runs it, and a test holds both together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

HEAD = """# The command line

This page lists all commands and options. It contains the texts of `patchprism COMMAND --help-all`. Every command ends
with one of these exit codes:

| exit code | meaning |
|---|---|
| 0 | everything was done |
| 1 | the command failed; one line says why |
| 2 | the command line is wrong |
| 3 | some photos failed, and are named; all others were done |
| 130 | the command was interrupted |
"""


def cell(text: str) -> str:
    """A text as a table's cell holds it."""
    return text.replace("|", "\\|")


def row(option: Any) -> str:
    """A table's row of an option, with what help says of it."""
    from patchprism.cli.help import names_of, text_of

    typed, _, value = names_of(option).rpartition(" ") if not option.is_flag else (names_of(option), "", "")
    spelled = ", ".join(f"`{name}`" for name in typed.split(", "))
    return f"| {cell(f'{spelled} {value}'.strip())} | {cell(text_of(option))} |"


def page() -> str:
    """The whole page."""
    import typer.main

    from patchprism.cli.app import app
    from patchprism.cli.help import argument_name, arguments, examples, groups

    root = typer.main.get_command(app)
    parts = [HEAD]
    for name, command in sorted(root.commands.items()):  # type: ignore[attr-defined]
        paragraphs = [" ".join(each.split()) for each in (command.help or "").split("\n\n")]
        parts.append(f"## patchprism {name}\n\n" + "\n\n".join(paragraphs) + "\n")
        parts.append("\n".join(["```console", *(f"$ {line}" for line in examples(command)), "```\n"]))
        rows = [f"| {cell(argument_name(each))} | {cell(each.help)} |" for each in arguments(command)]
        for title, options in groups(command).items():
            if options:
                rows += [f"| **{title}** | |", *map(row, options)]
        if rows:
            parts.append("\n".join(["| | |", "|---|---|", *rows]) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    Path(__file__).with_name("cli.md").write_text(page(), encoding="utf-8")
