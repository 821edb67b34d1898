"""The size that a photo is resized to, and the box that is cut out of it."""

from __future__ import annotations

import math
from typing import NamedTuple

# The most pixels that a photo may have, as read and as resized: Pillow's limit, above which it calls a picture a
# decompression bomb.
MAX_PIXELS = 178_956_970
# A photo whose longer side exceeds its shorter side by more than this factor gets no more patches than one with
# exactly this factor.
MAX_ELONGATION = 16


class Plan(NamedTuple):
    """Sizes in pixels of the resized photo and of the box that is cut out of it."""

    height: int
    width: int
    top: int
    left: int
    box_height: int
    box_width: int


def plan_cover(height: int, width: int, size: int, patch: int) -> Plan:
    """Cover the photo with patches, cutting off less than half a patch; the shorter edge has about `size` pixels."""
    rows, columns, squeezed = _cover_grid(height, width, max(1, _divide(size, patch)))
    box_height, box_width = rows * patch, columns * patch
    # Both directions are scaled by the same factor, until the photo covers the box. One side then fits exactly. The
    # other is rounded down, because rounding up could cut off half a patch. Integers avoid rounding errors.
    if squeezed:
        tall, wide = box_height, box_width
    elif box_height * width >= box_width * height:
        tall, wide = box_height, max(box_width, width * box_height // height)
    else:
        tall, wide = max(box_height, height * box_width // width), box_width
    return Plan(tall, wide, (tall - box_height) // 2, (wide - box_width) // 2, box_height, box_width)


def _cover_grid(height: int, width: int, short: int) -> tuple[int, int, bool]:
    """Rows, columns, and whether the photo's shape is not kept; at most ``short`` patches on the shorter edge."""
    shorter, longer = min(height, width), max(height, width)
    budget = MAX_ELONGATION * short * short
    fewer = max(1, min(short, math.isqrt(budget * shorter // longer) + 1))
    while fewer > 1 and fewer * _divide(longer * fewer, shorter) > budget:
        fewer -= 1
    more = _divide(longer * fewer, shorter)
    # If even one row has too many patches, the shape is not kept: the whole photo is squeezed into the budget.
    squeezed = more > budget
    more = min(more, budget)
    return (fewer, more, squeezed) if height <= width else (more, fewer, squeezed)


def plan_center(height: int, width: int, size: int) -> Plan:
    """The square of the preset "seed", cut out of a slightly larger photo."""
    edge = size + int(size * 0.01) * 10
    if height <= width:
        tall, wide = edge, int(edge * width / height)
    else:
        tall, wide = int(edge * height / width), edge
    return Plan(tall, wide, round((tall - size) / 2.0), round((wide - size) / 2.0), size, size)


def _divide(numerator: int, denominator: int) -> int:
    """The quotient rounded to the nearest integer, halves up, so that a photo loses less than half a patch."""
    return (2 * numerator + denominator) // (2 * denominator)
