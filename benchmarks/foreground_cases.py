"""Photos composed from photos with masks: objects on other backgrounds, at borders, several, filling the frame, none.

Used by ``benchmarks/foreground.py --tables cases``. An object is cut out with its mask and pasted on a part of another
photo without objects, so the true mask is known exactly.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter

SIDE = 448
# Position of the object's box: its centre (x, y) and its longer side, as shares of the frame.
PLACES = {
    "inside": (0.5, 0.5, 0.6),
    "small": (0.5, 0.55, 0.25),
    "left border": (0.12, 0.5, 0.7),
    "right border": (0.88, 0.5, 0.7),
    "upper border": (0.5, 0.12, 0.7),
    "lower border": (0.5, 0.88, 0.7),
    "corner": (0.12, 0.88, 0.7),
}


def cut_out(photo, mask):
    """The part of a photo with its object, as RGBA; None if the object is too small."""
    inside = mask == 255
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows) or min(np.ptp(rows), np.ptp(columns)) < 40:
        return None
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    alpha = Image.fromarray(inside.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(1))
    whole = Image.fromarray(photo)
    whole.putalpha(alpha)
    return whole.crop(box)


def empty_piece(photo, mask):
    """The largest square of a photo without objects, resized to SIDE x SIDE; None if it is too small."""
    shares = np.asarray(Image.fromarray((mask > 0).astype(np.float32)).resize((24, 24), Image.Resampling.BOX))
    free = shares == 0
    best = (0, 0, 0)
    reach = np.zeros((25, 25), int)  # side of the largest empty square whose lower right corner this is
    for y in range(24):
        for x in range(24):
            if free[y, x]:
                reach[y + 1, x + 1] = 1 + min(reach[y, x], reach[y, x + 1], reach[y + 1, x])
                best = max(best, (reach[y + 1, x + 1], y + 1, x + 1))
    side, bottom, right = best
    if side < 8:
        return None
    height, width = photo.shape[0] / 24, photo.shape[1] / 24
    box = tuple(
        round(v) for v in ((right - side) * width, (bottom - side) * height, right * width, bottom * height)
    )
    return Image.fromarray(photo).crop(box).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def laid(ground, objects, places):
    """Paste objects on a background: photo (SIDE, SIDE, 3), and mask (SIDE, SIDE) of 0, 255, and 128 along edges."""
    photo, mask = ground.convert("RGB"), Image.new("L", (SIDE, SIDE))
    for piece, (across, down, size) in zip(objects, places, strict=True):
        factor = size * SIDE / max(piece.size)
        small = piece.resize([max(8, round(edge * factor)) for edge in piece.size], Image.Resampling.LANCZOS)
        corner = round(across * SIDE - small.width / 2), round(down * SIDE - small.height / 2)
        alpha = small.getchannel("A")
        photo.paste(small.convert("RGB"), corner, alpha)
        mask.paste(alpha, corner, alpha)
    values = np.asarray(mask)
    return np.asarray(photo), np.where(values > 200, 255, np.where(values < 55, 0, 128)).astype(np.uint8)


def cases(photos, masks):
    """Composed photos with their masks, by name of the case: dict of lists of (photo, mask)."""
    pieces = [cut_out(photo, mask) for photo, mask in zip(photos, masks, strict=True)]
    grounds = [empty_piece(photo, mask) for photo, mask in zip(photos, masks, strict=True)]
    has_ground = [i for i, ground in enumerate(grounds) if ground is not None]
    objects = [i for i, piece in enumerate(pieces) if piece is not None]

    def ground_for(place):
        others = [i for i in has_ground if i != objects[place]]
        return grounds[others[int(np.random.default_rng(place).integers(len(others)))]]

    made = {
        case: [laid(ground_for(n), [pieces[i]], [where]) for n, i in enumerate(objects)]
        for case, where in PLACES.items()
    }
    three = [(0.25, 0.3, 0.42), (0.75, 0.35, 0.42), (0.45, 0.78, 0.38)]
    made["several"] = [
        laid(ground_for(n), [pieces[objects[(n + k) % len(objects)]] for k in (0, 5, 11)], three)
        for n in range(len(objects))
    ]
    made["sky and land"] = [
        laid(two_grounds(grounds, i, n), [pieces[i]], [(0.5, 0.65, 0.5)]) for n, i in enumerate(objects)
    ]
    made["filling"] = [filling(photos[i], masks[i]) for i in objects]
    made["crop"] = [
        crop(photo, mask, seed) for seed, (photo, mask) in enumerate(zip(photos, masks, strict=True))
    ]
    made["none"] = [(np.asarray(grounds[i]), np.zeros((SIDE, SIDE), np.uint8)) for i in has_ground]
    return made


def two_grounds(grounds, besides, seed):
    """A light background above a dark one, from other photos than ``besides``."""
    random = np.random.default_rng(seed)
    others = [each for i, each in enumerate(grounds) if each is not None and i != besides]
    pair = [np.asarray(others[i]) for i in random.choice(len(others), 2, replace=False)]
    light, dark = sorted(pair, key=np.mean, reverse=True)
    horizon = int(SIDE * random.uniform(0.3, 0.55))
    return Image.fromarray(np.concatenate([light[:horizon], dark[horizon:]]))


def filling(photo, mask):
    """The object's box, with 8 % of each edge cut off."""
    inside = mask == 255
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    down, across = int(np.ptp(rows) * 0.08), int(np.ptp(columns) * 0.08)
    box = np.s_[rows[0] + down : rows[-1] - down, columns[0] + across : columns[-1] - across]
    return photo[box], mask[box]


def crop(photo, mask, seed):
    """A crop of 70 % of each edge that keeps at least half of the object."""
    random = np.random.default_rng(seed)
    height, width = (int(0.7 * edge) for edge in mask.shape)
    best = None
    for _ in range(20):
        top, left = (
            int(random.integers(0, whole - part))
            for whole, part in zip(mask.shape, (height, width), strict=True)
        )
        box = np.s_[top : top + height, left : left + width]
        kept = (mask[box] == 255).sum() / max((mask == 255).sum(), 1)
        if best is None or kept > best[0]:
            best = kept, box
        if kept >= 0.5:
            break
    return photo[best[1]], mask[best[1]]


# ---------------------------------------------------------------- changes that should change nothing


def noisy(photo, index=0):
    """Gaussian noise of 5/255."""
    noise = np.random.default_rng(index).normal(0, 5, photo.shape)
    return np.clip(photo + noise, 0, 255).round().astype(np.uint8)


def compressed(photo):
    """JPEG of quality 50."""
    data = io.BytesIO()
    Image.fromarray(photo).save(data, "JPEG", quality=50)
    return np.asarray(Image.open(data).convert("RGB"))


def mirrored(photo):
    """Left and right exchanged."""
    return np.ascontiguousarray(photo[:, ::-1])
