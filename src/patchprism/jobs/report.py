"""``report.json``: everything about a job, with the same fields for every kind of job.

``report.schema.json`` beside this file is its JSON Schema; docs/report.md explains the fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.jobs.hints import hints_about
from patchprism.support.json_values import to_json
from patchprism.support.version import __version__
from patchprism.support.written import Stamp, as_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from patchprism.features.store.reader import PhotoRow
    from patchprism.jobs.opened import Opened
    from patchprism.jobs.source import Failure
    from patchprism.prism.colors import PhotoColors
    from patchprism.prism.estimator import Prism

REPORT_VERSION = 2
# If the prism was not fitted on these photos, this many of them are labelled, to tell which to check. They are the
# first ones, so that the result does not depend on those that follow.
MOST_CHECKED = 64


@dataclass(frozen=True, kw_only=True)
class Colored:
    """A source and the prism that colours it, from which pictures and reports are made.

    Attributes
    ----------
    fitted_here : bool
        Whether the prism was fitted on these photos.
    parts : sequence of PhotoColors, optional
        Each photo's colours, if they are already known.
    """

    opened: Opened
    prism: Prism
    fitted_here: bool
    parts: Sequence[PhotoColors] | None = None

    def agreements(self) -> tuple[Mapping[int, float], int]:
        """Agreements from the fit on these photos, by place; and, if there are none, the number of photos to label."""
        known = self.prism.agreements if self.fitted_here else {}
        return known, 0 if known or self.prism.method_ != "object" else MOST_CHECKED

    def hints(self, photos: Iterable[Mapping[str, Any]]) -> list[str]:
        """Hints about what to know before you rely on the pictures.

        Parameters
        ----------
        photos : iterable of mapping
            The photos as :func:`photo_entry` gives them.
        """
        photos = list(photos)
        return hints_about(
            np.array([photo["foreground"] for photo in photos]),
            self.prism,
            fitted_here=self.fitted_here,
            plain=[photo["photo"] for photo in photos if photo.get("plain")],
            photos=photos,
        )


def photo_entry(
    row: PhotoRow,
    part: PhotoColors,
    doubts: Mapping[str, float],
    *,
    files: Sequence[str] = (),
    gone: bool = False,
    masked: bool = False,
) -> dict[str, Any]:
    """A photo's entry in the report.

    Parameters
    ----------
    doubts : mapping
        As :meth:`Prism.doubts <patchprism.Prism.doubts>` gives them, and ``agreement`` if it is known.
    files : sequence of str
        Names of the files that were written for the photo.
    gone : bool
        Whether the photo was missing or had changed when its pictures were drawn.
    masked : bool
        Whether a mask was given for it.
    """
    return {
        "photo": row.name,
        "size": list(row.size),
        "grid": list(row.grid),
        "crop": [round(edge, 3) for edge in row.crop],
        "foreground": round(float(part.foreground.mean()), 6),
        "files": list(files),
        **({"photo_missing": True} if gone else {}),
        **({"plain": True} if row.plain else {}),
        **({"mask_given": True} if masked else {}),
        **doubts,
    }


def report_head(colored: Colored, seconds: Mapping[str, float]) -> dict[str, Any]:
    """A report up to its lists of files and photos, as JSON values."""
    opened, prism = colored.opened, colored.prism
    sample = prism.origin.get("sample")
    return {
        "version": REPORT_VERSION,
        "patchprism": __version__,
        "model": {
            "name": opened.record.name,
            **({"about": opened.record.about} if opened.record.about else {}),
            "patch_size": opened.record.patch_size,
            "width": int(prism.scene_mean_.shape[0]),
            "weights": opened.weights.report(),
        },
        "settings": opened.settings,
        "framing": opened.framing.to_dict(),
        "prism": {
            "fitted_here": colored.fitted_here,
            **({"sample": sample} if sample else {}),
            **prism.summary(),
        },
        "seconds": {stage: round(each, 4) for stage, each in seconds.items()},
    }


def with_notes(photos: Iterable[dict[str, Any]], opened: Opened) -> Iterator[dict[str, Any]]:
    """The entries of the photos, each with its notes."""
    said: dict[str, list[str]] = {}
    for note in opened.notes:
        said.setdefault(note.name, []).append(note.text)
    for photo in photos:
        yield photo | ({"notes": said[photo["photo"]]} if photo["photo"] in said else {})


def report_tail(
    opened: Opened, hints: Sequence[str], failures: Sequence[Failure], lenses: Mapping[str, Any]
) -> dict[str, Any]:
    """The entries after the photos in a report, as JSON values."""
    return {
        **({"lenses": dict(lenses)} if lenses else {}),
        "hints": list(hints),
        "notes": [note.text for note in opened.notes if not note.name],
        "failures": [{"photo": each.photo, "reason": each.reason} for each in failures],
    }


def write_report(
    path: Path,
    head: Mapping[str, Any],
    files: Mapping[str, Stamp],
    photos: Iterable[Mapping[str, Any]],
    tail: Mapping[str, Any],
) -> None:
    """Write a report photo by photo, so that a long report needs no more memory."""
    # Bytes in a file name that are not text are escaped.
    with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write("{\n")
        for key, value in (head | {"files": as_json(files)}).items():  # type: ignore[operator]
            file.write(f"  {to_json(key)}: {_indented(value, 2).lstrip()},\n")
        file.write('  "photos": [')
        comma = "\n"
        for photo in photos:
            file.write(comma + _indented(photo, 4))
            comma = ",\n"
        file.write("\n  ]")
        for key, value in tail.items():
            file.write(f",\n  {to_json(key)}: {_indented(value, 2).lstrip()}")
        file.write("\n}\n")


def _indented(value: Any, spaces: int) -> str:
    # Not textwrap.indent, which treats U+2028 and similar characters in names as ends of lines.
    margin = " " * spaces
    return margin + to_json(value, indent=2, ensure_ascii=False).replace("\n", f"\n{margin}")
