"""Whole numbers in few bytes: prediction from neighbours, and an entropy coder (rANS) that the page decodes.

Huffman codes, which deflate has, spend at least one bit a number; half of the tokens' numbers are 0 and worth
less. The coder is Duda's rANS (arXiv:1311.2540), interleaved over many lanes so that NumPy can encode it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

BITS = 12  # frequencies sum to 2**BITS
SYMBOLS = 64  # 0, -1, 1, ..., -31, 31, and the escape
ESCAPE = SYMBOLS - 1
MAX_LANES = 1024
WEIGHT_BITS = 12
_HEAD = "<IIIIHH"


def encode(values: NDArray[np.integer[Any]], classes: NDArray[np.integer[Any]], n_classes: int) -> bytes:
    """Whole numbers as bytes, given what kind of number each is.

    Numbers of one class share a table of frequencies. Where they are large, each is split: the high part is
    coded, the low ``shift`` bits are stored as they are.

    Parameters
    ----------
    values : ndarray, shape (n,), between -2**30 and 2**30
    classes : ndarray, shape (n,), in 0 .. n_classes - 1
    n_classes : int
        At most 256.

    Returns
    -------
    bytes
        Little-endian: uint32 n, number of 16-bit words, of escapes and of bytes of low bits; uint16 lanes and
        classes; a uint8 shift and 64 uint16 frequencies a class; an uint32 state a lane; words; escapes,
        int32; low bits.
    """
    values = np.ascontiguousarray(values, np.int64)
    classes = np.ascontiguousarray(classes, np.uint8)
    sums = np.bincount(classes, np.abs(values), n_classes)
    counts = np.bincount(classes, minlength=n_classes)
    shifts = _shifts(sums / np.maximum(counts, 1))
    shift = shifts[classes]
    high = values >> shift
    zigzag = (high << 1) ^ (high >> 63)
    symbols = np.minimum(zigzag, ESCAPE)
    table = np.bincount(classes * np.int64(SYMBOLS) + symbols, minlength=n_classes * SYMBOLS)
    frequencies = np.stack([_normalised(row) for row in table.reshape(n_classes, SYMBOLS)])
    lanes = int(np.clip(len(values) // 2048, 1, MAX_LANES))
    states, words = _rans(symbols, classes, frequencies, lanes)
    escapes = high[symbols == ESCAPE].astype("<i4")
    low = _pack_bits(values & ((1 << shift) - 1), shift)
    head = struct.pack(_HEAD, len(values), len(words), len(escapes), len(low), lanes, n_classes)
    parts = [
        shifts.astype("u1"),
        frequencies.astype("<u2"),
        states.astype("<u4"),
        words.astype("<u2"),
        escapes,
    ]
    return b"".join([head, *(part.tobytes() for part in parts), low])


def decode(content: bytes, classes: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """What :func:`encode` was given."""
    n, n_words, n_escapes, n_low, lanes, n_classes = struct.unpack_from(_HEAD, content)
    at = struct.calcsize(_HEAD)

    def take(dtype: str, count: int) -> NDArray[Any]:
        nonlocal at
        part = np.frombuffer(content, dtype, count, at)
        at += part.nbytes
        return part

    shifts = take("u1", n_classes).astype(np.int64)
    frequencies = take("<u2", n_classes * SYMBOLS).astype(np.int64).reshape(n_classes, SYMBOLS)
    states = take("<u4", lanes).astype(np.int64)
    words = take("<u2", n_words).astype(np.int64)
    escapes = take("<i4", n_escapes).astype(np.int64)
    classes = np.asarray(classes, np.int64)
    starts = np.cumsum(frequencies, axis=1) - frequencies
    slots = np.stack([np.repeat(np.arange(SYMBOLS), row) for row in frequencies])
    symbols = np.empty(n, np.int64)
    for first in range(0, n, lanes):
        part = classes[first : first + lanes]
        state = states[: len(part)]
        slot = state & ((1 << BITS) - 1)
        symbol = slots[part, slot]
        state = frequencies[part, symbol] * (state >> BITS) + slot - starts[part, symbol]
        small = state < 1 << 16
        count = int(small.sum())
        state[small] = (state[small] << 16) | words[:count]
        words = words[count:]
        states[: len(part)] = state
        symbols[first : first + lanes] = symbol
    high = (symbols >> 1) ^ -(symbols & 1)
    high[symbols == ESCAPE] = escapes
    shift = shifts[classes]
    values: NDArray[np.int64] = (high << shift) | _unpack_bits(take("u1", n_low), shift)
    return values


def bits_of(values: NDArray[np.integer[Any]], classes: NDArray[np.integer[Any]], n_classes: int) -> float:
    """About how many bits :func:`encode` takes, in a tenth of its time."""
    sums = np.bincount(classes, np.abs(values), n_classes)
    counts = np.bincount(classes, minlength=n_classes)
    shifts = _shifts(sums / np.maximum(counts, 1))
    high = np.minimum(np.abs(values >> shifts[classes].astype(values.dtype)), SYMBOLS // 2)
    table = np.bincount(classes * np.int64(SYMBOLS) + high, minlength=n_classes * SYMBOLS).reshape(
        n_classes, -1
    )
    total = np.maximum(table.sum(axis=1, keepdims=True), 1)
    entropy = -(table * np.log2(np.maximum(table, 1) / total)).sum()
    return float(entropy + (counts - table[:, 0]).sum() + (counts * shifts).sum())


def _shifts(means: NDArray[np.float64]) -> NDArray[np.int64]:
    """Low bits to leave alone, for numbers of such mean magnitudes: the rest then averages 2 to 4."""
    return np.maximum(np.ceil(np.log2(np.maximum(means, 1.0))).astype(np.int64) - 2, 0)


def _normalised(counts: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Frequencies that sum to 2**BITS, at least 1 where there is something."""
    total = int(counts.sum())
    if not total:
        return np.bincount([0], [1 << BITS], SYMBOLS).astype(np.int64)
    scaled = np.maximum((counts * (1 << BITS)) // total, counts > 0)
    excess = int(scaled.sum()) - (1 << BITS)
    while excess > 0:  # many rare symbols: the frequent ones pay
        largest = int(scaled.argmax())
        paid = min(excess, int(scaled[largest]) // 2)
        scaled[largest] -= paid
        excess -= paid
    scaled[int(scaled.argmax())] -= excess
    result: NDArray[np.int64] = scaled.astype(np.int64)
    return result


def _rans(
    symbols: NDArray[np.int64], classes: NDArray[np.integer[Any]], frequencies: NDArray[np.int64], lanes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """States and words; number i belongs to lane i modulo ``lanes``. Coded from the last to the first."""
    starts = np.cumsum(frequencies, axis=1) - frequencies
    at = classes * np.int64(SYMBOLS) + symbols
    frequency, start = frequencies.ravel()[at], starts.ravel()[at]
    states = np.full(lanes, 1 << 16, np.int64)
    words = []
    for first in range((len(symbols) - 1) // lanes * lanes, -1, -lanes):
        f, c = frequency[first : first + lanes], start[first : first + lanes]
        state = states[: len(f)]
        full = state >= f << (32 - BITS)
        words.append((state & 0xFFFF)[full])
        state = np.where(full, state >> 16, state)
        quotient, rest = np.divmod(state, f)
        states[: len(f)] = (quotient << BITS) + rest + c
    return states, np.concatenate(words[::-1]) if words else np.zeros(0, np.int64)


def _pack_bits(values: NDArray[np.int64], widths: NDArray[np.int64]) -> bytes:
    """Numbers of so many bits each, one after another, the lowest bit first."""
    kept = widths > 0
    values, widths = values[kept], widths[kept]
    ends = np.cumsum(widths)
    owner = np.repeat(np.arange(len(values)), widths)
    position = np.arange(len(owner)) - (ends - widths)[owner]
    return np.packbits(((values[owner] >> position) & 1).astype(np.uint8), bitorder="little").tobytes()


def _unpack_bits(content: NDArray[np.uint8], widths: NDArray[np.int64]) -> NDArray[np.int64]:
    bits = np.unpackbits(content, bitorder="little").astype(np.int64)
    owner = np.repeat(np.arange(len(widths)), widths)
    position = np.arange(len(owner)) - (np.cumsum(widths) - widths)[owner]
    return np.bincount(owner, bits[: len(owner)] << position, len(widths)).astype(np.int64)


# ---------------------------------------------------------------- rows of numbers on grids


def encode_rows(rows: NDArray[np.integer[Any]], grids: Sequence[tuple[int, int]]) -> bytes:
    """Rows of whole numbers over the patches of all photos, each predicted from what is known before it.

    A row's number at a patch is predicted, linearly, from the row's own numbers at the patches to the left,
    above, above left and above right, and from the rows before it there and at the patch itself. Weights
    are whole 4096ths, so that the page predicts the very same. What prediction misses is coded.

    Parameters
    ----------
    rows : ndarray, shape (k, N), between -2**30 and 2**30
    grids : sequence of (h, w)
        Of the photos, one after another; their patches are the N.

    Returns
    -------
    bytes
        uint32, how many weights; the weights, int16, a row after another; the numbers as :func:`encode` writes them.
    """
    rows = np.asarray(rows, np.int64)
    # A row and its four neighbours, one row after another; a row is predicted from the columns before its own,
    # and from its neighbours.
    features = np.stack([each for row in rows for each in (row, *_around(row, grids))], axis=1).astype(
        np.float64
    )
    scale = np.sqrt((features**2).mean(axis=0))
    scaled = features / np.where(scale > 0, scale, 1.0)
    gram = scaled.T @ scaled
    # A little ridge: rows without variance, and pages of a few patches, have no unique answer.
    gram += 1e-6 * max(len(features), 1) * np.eye(len(gram))
    weights, residuals = [], []
    for k, row in enumerate(rows):
        own = 5 * k
        columns = [*range(own + 1, own + 5), *range(own)]
        answer = np.linalg.solve(gram[np.ix_(columns, columns)], gram[columns, own]) * scale[own]
        chosen = np.rint(answer / np.where(scale > 0, scale, np.inf)[columns] * (1 << WEIGHT_BITS))
        chosen = np.clip(chosen, -32767, 32767)
        # Whole numbers all the way: products and sums below 2**53 are exact in float64, in any order.
        predicted = np.floor(features[:, columns] @ chosen / (1 << WEIGHT_BITS) + 0.5)
        weights.append(chosen)
        residuals.append(row - predicted.astype(np.int64))
    flat = np.concatenate([*weights, np.zeros(0)]).astype("<i2")
    # An even number of int16, so that what follows lies on a multiple of four.
    flat = np.append(flat, np.zeros(len(flat) % 2, "<i2"))
    classes = np.repeat(np.arange(len(rows)), rows.shape[1])
    coded = encode(np.concatenate([*residuals, np.zeros(0, np.int64)]), classes, len(rows))
    return struct.pack("<I", len(flat)) + flat.tobytes() + coded


def decode_rows(content: bytes, count: int, grids: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """What :func:`encode_rows` was given, (count, N)."""
    (n_weights,) = struct.unpack_from("<I", content)
    weights = np.frombuffer(content, "<i2", n_weights, 4).astype(np.int64)
    size = sum(h * w for h, w in grids)
    residuals = decode(content[4 + 2 * n_weights :], np.repeat(np.arange(count), size)).reshape(count, size)
    rows = np.zeros((count, size), np.int64)
    known: list[NDArray[np.float64]] = []
    at = 0
    for row, residual in zip(rows, residuals, strict=True):
        chosen = weights[at : at + 4 + len(known)]
        at += len(chosen)
        fixed = sum((each * weight for each, weight in zip(known, chosen[4:], strict=True)), np.zeros(size))
        start = 0
        for h, w in grids:
            for y in range(h):
                for x in range(w):
                    i = start + y * w + x
                    near = sum(
                        row[j] * weight
                        for j, weight in zip(_near(start, y, x, w), chosen, strict=False)
                        if j >= 0
                    )
                    row[i] = residual[i] + int(np.floor((fixed[i] + near) / (1 << WEIGHT_BITS) + 0.5))
            start += h * w
        known += [row.astype(np.float64), *_around(row, grids)]
    return rows


def _near(start: int, y: int, x: int, w: int) -> tuple[int, int, int, int]:
    """Patches left, above, above left and above right; at a border the nearest of them, or -1."""
    i = start + y * w + x
    if y == 0:
        return (i - 1,) * 4 if x else (-1,) * 4
    above = i - w
    if x == 0:
        return above, above, above, above + (w > 1)
    return i - 1, above, above - 1, above + (x + 1 < w)


def _around(row: NDArray[np.integer[Any]], grids: Sequence[tuple[int, int]]) -> list[NDArray[np.float64]]:
    """A row's four neighbours of every patch, 0 where there are none; (N,) each."""
    parts = []
    start = 0
    for h, w in grids:
        image = row[start : start + h * w].reshape(h, w).astype(np.float64)
        left, above = np.zeros_like(image), np.zeros_like(image)
        left[:, 1:], above[1:] = image[:, :-1], image[:-1]
        left[1:, 0] = above[1:, 0]
        corner, right = above.copy(), above.copy()
        corner[:, 1:], right[:, :-1] = above[:, :-1], above[:, 1:]
        above[0] = corner[0] = right[0] = left[0]
        parts.append(np.stack([left, above, corner, right]).reshape(4, -1))
        start += h * w
    return list(np.concatenate(parts, axis=1))
