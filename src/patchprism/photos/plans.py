"""The part that is cut out of a photo, and the size that it is resized to."""

from __future__ import annotations

import math
from typing import NamedTuple

# A photo longer than this many times its width gets no more patches than one of just this shape.
MAX_ELONGATION = 16


class Plan(NamedTuple):
    """Sizes in pixels: the photo resized, and the box cut out of it."""

    height: int
    width: int
    top: int
    left: int
    box_height: int
    box_width: int


def plan_cover(height: int, width: int, size: int, patch: int) -> Plan:
    """The whole photo in patches, less than half a patch cut off; the shorter edge about `size` pixels."""
    rows, columns, squeezed = _cover_grid(height, width, max(1, _divide(size, patch)))
    box_height, box_width = rows * patch, columns * patch
    # Scaled alike in both directions until the box is covered. The tighter side fits exactly; the other
    # is rounded down, or rounding could cut off half a patch. Integers, so that no rounding error can.
    if squeezed:
        tall, wide = box_height, box_width
    elif box_height * width >= box_width * height:
        tall, wide = box_height, max(box_width, width * box_height // height)
    else:
        tall, wide = max(box_height, height * box_width // width), box_width
    return Plan(tall, wide, (tall - box_height) // 2, (wide - box_width) // 2, box_height, box_width)


def _cover_grid(height: int, width: int, short: int) -> tuple[int, int, bool]:
    """Rows, columns, and whether the shape was given up; at most ``short`` patches on the shorter edge."""
    shorter, longer = min(height, width), max(height, width)
    budget = MAX_ELONGATION * short * short
    fewer = max(1, min(short, math.isqrt(budget * shorter // longer) + 1))
    while fewer > 1 and fewer * _divide(longer * fewer, shorter) > budget:
        fewer -= 1
    more = _divide(longer * fewer, shorter)
    # Even one row of patches is too many: the shape is given up, and the whole squeezed into the budget.
    squeezed = more > budget
    more = min(more, budget)
    return (fewer, more, squeezed) if height <= width else (more, fewer, squeezed)


def plan_center(height: int, width: int, size: int) -> Plan:
    """The seed's square out of a slightly larger photo."""
    edge = size + int(size * 0.01) * 10
    if height <= width:
        tall, wide = edge, int(edge * width / height)
    else:
        tall, wide = int(edge * height / width), edge
    return Plan(tall, wide, round((tall - size) / 2.0), round((wide - size) / 2.0), size, size)


def _divide(numerator: int, denominator: int) -> int:
    """The nearest integer, halves rounded up: a photo between two grids loses less than half a patch."""
    return (2 * numerator + denominator) // (2 * denominator)
