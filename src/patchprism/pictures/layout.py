"""Layout of figures: rows that fill the width, labels, colour bars and a key.

Photos are divided into rows of nearly equal height, as in photo galleries. This is the linear partition problem
(Skiena, "The Algorithm Design Manual", 2008, section 8.5). All lengths are in points, independent of pixels and
formats.
"""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.pictures.captions import caption, fit_lines
from patchprism.pictures.page import INK, MUTED, ON_ANY, SCREEN, Box, Page, Picture, Strokes, Text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from patchprism.pictures.figure_options import FigureOptions
    from patchprism.pictures.sheet import Bar, Draw, Group, Key, Panel, Sheet

    Measure = Callable[[str, float], float]

# Heights of panels in pixels at 144 per inch, each with the maximum number of pairs of panels that it is used for.
HEIGHTS = ((4, 608), (6, 512), (12, 416), (27, 352), (60, 288), (100, 240), (math.inf, 200))
_MARGIN = 18.0
_LINE = 1.35  # height of a line of text
# A panorama counts as at most _WIDEST wide, or all other rows would be too tall. A row of very tall photos is at most
# _TALLEST times as high as the lowest row.
_WIDEST, _TALLEST = 2.0, 2.25
_LEAST_TEXT, _MOST_TEXT = 7.0, 14.0
_MOST_LINES = 2  # maximum number of lines of a photo's name
_MOST_OF_OURS = 5  # maximum number of lines of a figure's own texts


def panel_height(pairs: float) -> int:
    """Height of panels, in pixels at 144 per inch, for a number of pairs."""
    return next(height for most, height in HEIGHTS if pairs <= most)


def lay_out(sheet: Sheet, options: FigureOptions, measure: Measure, *, clear: bool = False) -> Page:
    """Lay out a sheet on a page.

    Parameters
    ----------
    sheet : Sheet
    options : FigureOptions
    measure : callable
        ``measure(text, size)`` gives the width of a line of text, in points.
    clear : bool
        Whether the background is transparent, so that text must be readable on any colour.
    """
    return _Layout(sheet, options, measure, clear=clear).page()


class _Layout:
    def __init__(self, sheet: Sheet, options: FigureOptions, measure: Measure, *, clear: bool) -> None:
        self.sheet, self.options, self.measure = sheet, options, measure
        self.ink, self.muted = (ON_ANY, ON_ANY) if clear else (INK, MUTED)
        self.beside = options.arrange == "beside"
        self.labelled = options.labels != ("none",)
        self.shapes = [[self._aspect(panel) for panel in group.panels] for group in sheet.groups]
        self.regular = True  # whether all rows except the last have the same number of groups
        self.rows = self._rows()
        pairs = len(sheet.groups) * max(len(group.panels) for group in sheet.groups) / 2
        if max(len(group.panels) for group in sheet.groups) == 1:
            pairs = len(sheet.groups)
        target = panel_height(pairs) / SCREEN
        self.margin = _MARGIN if options.width is None else 0.0
        self.gap = min(16.0, target * 0.06)
        if options.width is None:
            self.inside = self._natural(target)
        else:
            self.inside = float(options.width) * 72
            self.gap = min(self.gap, self.inside / 40)
        self.inner = self.gap / 3
        self.heights = self._heights(self.inside)
        share = median(self.heights) / 8
        self.size = min(max(min(self.inside / 70, share), _LEAST_TEXT), _MOST_TEXT)
        self.small = max(self.size * 0.86, min(self.size, _LEAST_TEXT))

    # ------------------------------------------------------------ rows

    def _aspect(self, panel: Panel) -> float:
        square = self.options.panels == "square" and panel.square
        return 1.0 if square else panel.shape[1] / panel.shape[0]

    def _wide(self, group: int, most: float = math.inf) -> float:
        """Width of a group at height 1, without gaps."""
        shapes = [min(shape, most) for shape in self.shapes[group]]
        return sum(shapes) if self.beside else max(shapes)

    def _rows(self) -> list[list[int]]:
        count, columns = len(self.shapes), self.options.columns or self.sheet.columns
        several = max(map(len, self.shapes)) > 1
        if columns is None and self.beside and several and count <= (6 if self.sheet.heads else 3):
            columns = 1
        wide = [self._wide(i, _WIDEST) for i in range(count)]
        if columns is None:
            stacked = 1 if self.beside else max(map(len, self.shapes))
            cuts = partition(wide, stacked)
            if max(wide) > 1.02 * min(wide):
                self.regular = False
                return [list(range(a, b)) for a, b in zip([0, *cuts], cuts, strict=False)]
            columns = -(-count // len(cuts))
        return [list(range(i, min(i + columns, count))) for i in range(0, count, columns)]

    def _gaps(self, row: Sequence[int]) -> float:
        inner = sum(len(self.shapes[i]) - 1 for i in row) if self.beside else 0
        return self.gap * (len(row) - 1) + self.gap / 3 * inner

    def _heights(self, inside: float) -> list[float]:
        """Height of the panels of each row, so that rows fill the width unless they would be too tall."""
        found = [
            max(inside - self._gaps(row), inside / 4) / sum(self._wide(i) for i in row) for row in self.rows
        ]
        least = min(inside / (sum(self._wide(i, _WIDEST) for i in row)) for row in self.rows)
        found = [min(high, _TALLEST * least) for high in found]
        if self.regular and len(self.rows[-1]) < len(self.rows[0]):
            # A last row with fewer photos does not fill the width: its panels are as high as the others.
            found[-1] = min(found[-1], max(found[:-1]))
        return found

    def _natural(self, target: float) -> float:
        """Width at which rows have the target height, adjusted by up to 6% so that patches have whole pixels."""
        needed = max(target * sum(self._wide(i, _WIDEST) for i in row) + self._gaps(row) for row in self.rows)
        widths = np.arange(math.ceil(needed * SCREEN), math.ceil(needed * SCREEN * 1.06) + 1)
        misfit = np.zeros(len(widths))
        for row in self.rows:
            high = (widths - SCREEN * self._gaps(row)) / sum(self._wide(i) for i in row)
            for panel in (panel for i in row for panel in self.sheet.groups[i].panels):
                pixels = high * self._aspect(panel)
                misfit += np.abs(pixels - np.rint(pixels))
                per_patch = np.rint(pixels) / panel.shape[1]
                misfit += np.abs(per_patch - np.rint(per_patch))
        return float(widths[misfit.argmin()]) / SCREEN

    # ------------------------------------------------------------ the page

    def page(self) -> Page:
        page = Page(self.inside + 2 * self.margin)
        y = self._heads(page, self.margin)
        for number, (row, high) in enumerate(zip(self.rows, self.heights, strict=True)):
            y = self._row(page, row, high, y) + (self.gap if number < len(self.rows) - 1 else 0)
        if self.sheet.lines:
            page.items.append(self._strokes(page))
        y = self._keys(page, self.sheet.keys, y)
        for bar in self.sheet.bars:
            y = self._bar(page, bar, y)
        if self.sheet.remark and self.labelled:
            y += self.gap / 2 + self.size
            page.items.append(
                Text(page.width - self.margin, y, self.sheet.remark, self.small, self.muted, "r")
            )
            y += self.size * 0.3
        page.height = y + self.margin
        return page

    def _strokes(self, page: Page) -> Strokes:
        one, two = [item for item in page.items if isinstance(item, Picture)][:2]
        lines = [
            (
                one.x + line.start[0] * one.width,
                one.y + line.start[1] * one.height,
                two.x + line.end[0] * two.width,
                two.y + line.end[1] * two.height,
            )
            for line in self.sheet.lines
        ]
        width = min(max(self.inside / 600, 0.5), 1.5)
        return Strokes(lines, [line.color for line in self.sheet.lines], width, 2.4 * width)

    @property
    def _has_heads(self) -> bool:
        one_a_row = all(len(row) == 1 for row in self.rows)
        return bool(self.sheet.heads) and self.labelled and self.beside and one_a_row

    def _heads(self, page: Page, y: float) -> float:
        if not self._has_heads:
            return y
        places = self._places(self.rows[0][0], self.heights[0], self.margin)
        blocks = [
            (
                x,
                [
                    line
                    for part in head.split("\n")
                    for line in self._lines(part, self._room(width), self.size, _MOST_OF_OURS)
                ],
            )
            for head, (x, width) in zip(self.sheet.heads, places, strict=False)
        ]
        deepest = max(len(lines) for _, lines in blocks)
        for x, lines in blocks:
            top = y + (deepest - len(lines)) * self.size * _LINE
            self._write(page, lines, x, top, self.size, self.ink)
        return y + deepest * self.size * _LINE + self.size * 0.2

    def _places(self, group: int, high: float, x: float) -> list[tuple[float, float]]:
        """Left edge and width of each panel of a group; with one group per row, panels are aligned in columns."""
        shapes = self.shapes[group]
        if not self.beside:
            return [(x, high * shape) for shape in shapes]
        free = self.inside - sum(high * s for s in shapes) - self.inner * (len(shapes) - 1)
        spread = free / len(shapes) if free > 1 and all(len(row) == 1 for row in self.rows) else 0.0
        places = []
        for shape in shapes:
            places.append((x + spread / 2, high * shape))
            x += high * shape + self.inner + spread
        return places

    def _row(self, page: Page, row: Sequence[int], high: float, y: float) -> float:
        """Add a row of groups to the page; returns its lower edge."""
        x, end = self.margin, y
        for i in row:
            group, at = self.sheet.groups[i], y
            places = self._places(i, high, x)
            width = places[-1][0] + places[-1][1] - places[0][0]
            texts = self._texts(group)
            for n, (panel, (left, wide)) in enumerate(zip(group.panels, places, strict=True)):
                page.items.append(Picture(left, at, wide, high, self._drawer(panel)))
                room = width if not any(texts[1:]) else self._room(wide)
                bottom = self._caption(page, texts[n], left, at + high, room) if texts[n] else at + high
                end = max(end, bottom)
                if not self.beside:
                    at = bottom + (self.inner if not texts[n] else self.gap / 2)
            x += (width if self.beside else max(wide for _, wide in places)) + self.gap
        return end

    def _texts(self, group: Group) -> list[list[str]]:
        """The captions below the panels of a group; the label of the photo comes first."""
        texts: list[list[str]] = [[] for _ in group.panels]
        if not self.labelled:
            return texts
        name = group.name if group.number is None else self.options.label(group.number, group.name)
        name = caption(name, 0 if group.number is None else group.number + 1)
        heads = () if self._has_heads else self.sheet.heads
        for n, panel in enumerate(group.panels):
            head = [part for each in heads[n : n + 1] for part in each.split("\n")]
            texts[n] = [text for text in (*head, *panel.captions) if text]
        # The name is below the last of stacked panels, unless panels have their own texts.
        first = 0 if self.beside or any(texts) else len(texts) - 1
        texts[first] = [text for text in (name, *texts[first], *group.captions) if text]
        return texts

    def _caption(self, page: Page, texts: Sequence[str], x: float, y: float, width: float) -> float:
        y += self.size * 0.2
        for n, text in enumerate(texts):
            size = self.small if n else self.size
            lines = self._lines(text, width, size, _MOST_OF_OURS if n else _MOST_LINES)
            y = self._write(page, lines, x, y, size, self.muted if n else self.ink)
        return y + self.size * 0.15

    def _room(self, width: float) -> float:
        """Maximum width of texts below a panel, so that texts of two panels do not read as one line."""
        return width + min(0.0, self.inner - 0.6 * self.size) if self.beside else width

    def _lines(self, text: str, width: float, size: float, most: int = _MOST_LINES) -> list[str]:
        return fit_lines(text, lambda line: self.measure(line, size), width, most=most)

    def _write(
        self, page: Page, lines: Sequence[str], x: float, y: float, size: float, color: Any, anchor: str = "l"
    ) -> float:
        for line in lines:
            page.items.append(Text(x, y + size, line, size, color, anchor))
            y += size * _LINE
        return y

    def _drawer(self, panel: Panel) -> Draw:
        if self.options.panels != "square" or not panel.square:
            return panel.draw
        rows, columns = panel.shape[:2]

        def draw(size: tuple[int, int]) -> Any:
            side = size[0]
            whole = panel.draw(
                (max(side, round(side * columns / rows)), max(side, round(side * rows / columns)))
            )
            left, top = (whole.width - side) // 2, (whole.height - side) // 2
            return whole.crop((left, top, left + side, top + side))

        return draw

    # ------------------------------------------------------------ scales

    def _bar(self, page: Page, bar: Bar, y: float) -> float:
        """Add a colour bar below the rows, in one line with its name and its ends if there is room."""
        y += self.gap * 0.8
        size, space = self.size, self.size * 0.6
        two_rows = bar.colors is not None and bar.colors.ndim == 3
        thick = size * (1.7 if two_rows else 1.0)
        low, high = self.measure(bar.low, size), self.measure(bar.high, size)
        name = f"{bar.name}  " if bar.name else ""
        beside = self.measure(name, size) + low + high + 2 * space
        length = min(max(self.inside * 0.25, 8 * size), self.inside - beside)
        if length >= 8 * size:
            x = self.margin + (self.inside - beside - length) / 2
            base = y + max(thick, size) / 2 + size * 0.36
            page.items.append(Text(x, base, name.rstrip(), size, self.ink))
            x += self.measure(name, size)
            page.items.append(Text(x, base, bar.low, size, self.muted))
            x += low + space
            page.items.append(Picture(x, y + (max(thick, size) - thick) / 2, length, thick, _colors(bar)))
            page.items.append(Text(x + length + space, base, bar.high, size, self.muted))
            return y + max(thick, size) + size * 0.3
        middle = self.margin + self.inside / 2
        if bar.name:
            lines = self._lines(bar.name, self.inside, size, most=3)
            y = self._write(page, lines, middle, y, size, self.ink, "m") + size * 0.2
        length = min(self.inside, max(16 * size, low + high + 2 * size))
        left = self.margin + (self.inside - length) / 2
        page.items.append(Picture(left, y, length, thick, _colors(bar)))
        y += thick + size * 0.1
        together = low + high + space <= length
        rooms = (low + 1, high + 1) if together else (length / 2 - space / 2,) * 2
        ends = [
            self._lines(text, room, size, most=3)
            for text, room in zip((bar.low, bar.high), rooms, strict=True)
        ]
        bottom = self._write(page, ends[0], left, y, size, self.muted)
        return max(bottom, self._write(page, ends[1], left + length, y, size, self.muted, "r"))

    def _keys(self, page: Page, keys: Sequence[Key], y: float) -> float:
        """Add the key, colours with their meaning, in as many lines as needed."""
        if not keys:
            return y
        size, lines, x = self.size, [[]], 0.0  # type: ignore[var-annotated]
        for key in keys:
            width = size * 1.5 + self.measure(key.text, size)
            if lines[-1] and x + width > self.inside:
                lines.append([])
                x = 0.0
            lines[-1].append((x, key))
            x += width + size * 1.4
        y += self.gap * 0.8
        for line in lines:
            last, key = line[-1]
            wide = last + size * 1.5 + self.measure(key.text, size)
            left = self.margin + max(0.0, (self.inside - wide) / 2)
            for at, key in line:
                page.items.append(Box(left + at, y + size * 0.05, size, size, key.color))
                text = Text(left + at + size * 1.5, y + size * 0.9, key.text, size, self.ink)
                page.items.append(text)
            y += size * 1.6
        return y - size * 0.3


def _colors(bar: Bar) -> Draw:
    from patchprism.pictures.sheet import VIRIDIS_256, map_panel

    colors = VIRIDIS_256 if bar.colors is None else bar.colors
    rows: NDArray[np.uint8] = colors if colors.ndim == 3 else colors[None]
    return lambda size: map_panel(rows, size)


def partition(wide: Sequence[float], stacked: int = 1, shape: float = 1.5) -> list[int]:
    """Divide groups into rows of nearly equal width, so that the page is about ``shape`` times as wide as high.

    Parameters
    ----------
    wide : sequence of float
        Width of each group, all at the same height.
    stacked : int
        Number of panels above each other in a row.
    shape : float
        Wanted ratio of the page's width to its height.

    Returns
    -------
    list of int
        The number of groups up to the end of each row.

    Examples
    --------
    >>> partition([2.0, 3.0, 3.0, 2.0])
    [2, 4]
    """
    sums = np.concatenate([[0.0], np.cumsum(wide)])
    count = len(wide)
    squares = np.square(sums[None, :] - sums[:, None])
    squares[np.tril_indices(count + 1)] = np.inf  # a row has at least one group
    cost, back = squares[0], [np.zeros(count + 1, np.intp)]
    best, chosen = math.inf, [count]
    for rows in range(1, min(count, 40) + 1):
        if rows > 1:
            through = cost[:, None] + squares
            back.append(through.argmin(axis=0))
            cost = through.min(axis=0)
        ends = [count]
        for before in reversed(back[1:]):
            ends.append(int(before[ends[-1]]))
        cuts = ends[::-1]
        heights = 1 / np.diff(sums[[0, *cuts]])
        misfit = abs(math.log(1 / (stacked * heights.sum()) / shape)) + 3 * float(np.log(heights).std())
        if misfit < best:
            best, chosen = misfit, cuts
    return chosen
