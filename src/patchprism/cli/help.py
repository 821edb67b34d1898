"""Help texts. ``--help`` shows a summary, examples and common options; ``--help-all`` shows all options in groups."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from typer.core import TyperCommand, TyperGroup

HELP_NAMES = ["-h", "--help", "--help-all"]
# Width of the column of options. The help of a longer option begins on the next line.
_COLUMN = 24


@dataclass(frozen=True)
class Page:
    """The first screen of a command's help.

    Attributes
    ----------
    examples : tuple of str
        Command lines without ``patchprism`` and the command's name.
    common : tuple of str
        Parameters of the options to show, in this order. Required options always come first.
    """

    examples: tuple[str, ...]
    common: tuple[str, ...] = ()


PAGES = {
    "render": Page(
        (
            "photos/",
            "photos/*.jpg --out colours --model focus_vits14",
            "photos/ --overlay 0.6 --masks png",
        ),
        (
            "out",
            "model",
            "size",
            "overlay_alpha",
            "masks",
            "threshold",
            "prism",
            "lenses",
            "quiet",
        ),
    ),
    "explore": Page(
        ("photos/", "photos/ --html page.html", "feats.zarr --prism dogs.prism"),
        ("html", "no_open", "out", "model", "size", "prism", "sample", "threshold", "quiet"),
    ),
    "fit": Page(
        ("photos/ --out dogs.prism", "photos/ --sample 1000 --out dogs.prism"),
        ("model", "size", "sample", "threshold", "foreground", "mask", "scaling", "quiet"),
    ),
    "teach": Page(
        (
            "photos/ --masks masks/ --out dogs.head.safetensors",
            "photos/ --masks alpha --out dogs.head.safetensors",
        ),
        ("classes", "model", "size", "layer", "quiet"),
    ),
    "features": Page(
        ("photos/ --out feats.zarr", "photos/ --out feats.zarr --flat feats.parquet"),
        ("flat", "tokens", "overwrite", "model", "size", "layer", "device", "batch_size", "quiet"),
    ),
    "compare": Page(
        (
            "photos/ --layer 4,8,-1",
            "photos/ --model focus_vits14 --model dinov2_vits14",
            "feats-a.zarr feats-b.zarr",
        ),
        ("out", "model", "weights", "layer", "size", "threshold", "arrays", "quiet"),
    ),
    "evaluate": Page(
        ("photos/ --masks truth/", "photos/ --masks truth/ --json result.json"),
        ("json", "model", "size", "prism", "head", "threshold", "foreground", "quiet"),
    ),
    "video": Page(
        ("clip.mp4 --out colours.mp4", "clip.mp4 --layout overlay --out frames/%04d.png"),
        ("start", "end", "every", "layout", "overlay", "prism", "model", "size", "quiet"),
    ),
    "models": Page(("",)),
    "download": Page(("dinov2_vits14",), ("quiet",)),
}


class Command(TyperCommand):
    """A command whose help starts with examples and the common options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Record which help was requested; add advice to the error about an unexpected argument."""
        ctx.meta["help_all"] = "--help-all" in args
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            message = getattr(error, "message", "")
            if "unexpected extra argument" in message:
                error.message = f"{message}; paths with spaces need quotes"  # type: ignore[attr-defined]
            raise

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Required arguments, then the options."""
        required = [f"{max(each.opts, key=len)} {each.metavar}" for each in options(self) if each.required]
        return [*map(argument_name, arguments(self)), *required, "[OPTIONS]"]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        everything, every = ctx.meta.get("help_all"), options(self)
        paragraphs = (self.help or "").split("\n\n")
        self.format_usage(ctx, formatter)
        with formatter.indentation():
            for paragraph in paragraphs if everything else paragraphs[:2]:
                formatter.write_paragraph()
                formatter.write_text(paragraph)
        with formatter.section("Examples"):
            for line in examples(self):
                formatter.write(f"  {line}\n")
        if given := [(argument_name(each), each.help or "") for each in arguments(self)]:
            with formatter.section("Arguments"):
                formatter.write_dl(given, _COLUMN)
        common = common_options(self)
        last = [("-h, --help", "Show this help.")]
        if len(common) < len(every):
            last.append(("--help-all", f"Show all {len(every)} options, in groups."))
        if not everything:
            with formatter.section("Common options" if len(last) > 1 else "Options"):
                formatter.write_dl([*((names_of(each), first_of(each)) for each in common), *last], _COLUMN)
            return
        for title, group in groups(self).items():
            rows = [(names_of(each), text_of(each)) for each in group]
            with formatter.section(title):
                formatter.write_dl(rows if title != "Options" else [*rows, *last], _COLUMN)


class Root(TyperGroup):
    """The whole program, whose help lists the commands."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """A command and its arguments."""
        return ["COMMAND ..."]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        self.format_usage(ctx, formatter)
        with formatter.indentation():
            for paragraph in (self.help or "").split("\n\n"):
                formatter.write_paragraph()
                formatter.write_text(paragraph)
        with formatter.section("Examples"):
            for name in ("render", "explore"):
                formatter.write(f"  {examples(self.commands[name])[0]}\n")
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary_of(each)) for name, each in self.commands.items()], _COLUMN)
        with formatter.section("Options"):
            rows = [(names_of(each), text_of(each)) for each in options(self)]
            formatter.write_dl([*rows, ("-h, --help", "Show this help.")], _COLUMN)


def options(command: Any) -> list[Any]:
    """The options of a command, without --help."""
    return [each for each in command.params if each.param_type_name == "option"]


def arguments(command: Any) -> list[Any]:
    """The arguments of a command."""
    return [each for each in command.params if each.param_type_name == "argument"]


def common_options(command: Any) -> list[Any]:
    """The options on the first screen of a command's help."""
    every = options(command)
    by_name = {each.name: each for each in every}
    return [
        *(each for each in every if each.required),
        *(by_name[name] for name in PAGES[command.name].common),
    ]


def groups(command: Any) -> dict[str, list[Any]]:
    """All options of a command by the titles of their groups; options without a group come last."""
    found: dict[str, list[Any]] = {}
    for each in options(command):
        found.setdefault(each.rich_help_panel or "Options", []).append(each)
    found["Options"] = found.pop("Options", [])
    return found


def examples(command: Any) -> list[str]:
    """The example command lines of a command."""
    return [f"patchprism {command.name} {each}".rstrip() for each in PAGES[command.name].examples]


def summary_of(command: Any) -> str:
    """The summary of a command, which is the first paragraph of its help."""
    return " ".join((command.help or "").split("\n\n")[0].split())


def argument_name(argument: Any) -> str:
    """An argument as in the usage line."""
    return f"{argument.metavar or argument.name.upper()}{'...' if argument.nargs == -1 else ''}"


def names_of(option: Any) -> str:
    """An option as it is typed, with its metavar.

    If a flag has a second form that switches it off, both are shown.
    """
    typed = ", ".join(sorted(option.opts, key=len))
    if option.secondary_opts:
        typed = f"{typed}/{option.secondary_opts[0]}"
    return typed if option.is_flag else f"{typed} {option.metavar or 'VALUE'}"


def text_of(option: Any) -> str:
    """The full help of an option, with its default."""
    text = " ".join((option.help or "").split())
    plain = option.is_flag or option.required or option.default in (None, (), "")
    return text if plain or "Default: " in text else f"{text} Default: {option.default}."


def first_of(option: Any) -> str:
    """The first sentence of an option's help, and its default."""
    first, *rest = re.split(r"(?<=\.) (?=[A-Z-])", text_of(option))
    return " ".join([first, *(each for each in rest if each.startswith("Default: "))])
