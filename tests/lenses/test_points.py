"""Points: how they are written, which patch they mean, and refusals."""

from __future__ import annotations

import pytest

from patchprism.errors import OptionError
from patchprism.lenses.looking import scene_of
from patchprism.lenses.options import LensOptions
from patchprism.lenses.points import find_photo, parse_point, patch_center

NAMES = ["a/dog.jpg", "b/dog.jpg", "a/cat.png", "7.jpg", "c:1,2.jpg"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("dog.jpg:3,4", ("dog.jpg", 3.0, 4.0)),
        ("c:1,2.jpg:5,6.5", ("c:1,2.jpg", 5.0, 6.5)),
        ("1:0,0", ("1", 0.0, 0.0)),
    ],
)
def test_parse(text, found):
    assert parse_point(text) == found


@pytest.mark.parametrize("text", ["", "dog.jpg", "dog.jpg:3", "dog.jpg:3,4,x", "dog.jpg:x,4", ":3,4", "3,4"])
def test_other_forms_are_refused(text):
    with pytest.raises(OptionError, match="at must be PHOTO:x,y"):
        parse_point(text)


@pytest.mark.parametrize(
    ("wanted", "index"),
    [("a/dog.jpg", 0), ("cat.png", 2), ("cat", 2), ("7", 3), ("1", 0), ("4", 3), ("c:1,2.jpg", 4)],
)
def test_find_photo(wanted, index):
    assert find_photo(wanted, NAMES) == index


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("dog.jpg", "2 photos are called 'dog.jpg'; use a number: 1 is a/dog.jpg, 2 is b/dog.jpg"),
        ("bird", "no photo is called 'bird'"),
        ("0", "or a number from 1 to 5"),
        ("6", "or a number from 1 to 5"),
    ],
)
def test_unknown_photos_are_refused(wanted, message):
    with pytest.raises(OptionError, match=message):
        find_photo(wanted, NAMES)


def test_every_patch_is_found_at_its_centre(view):
    scene = scene_of(view, LensOptions())
    for photo, (h, w) in enumerate(view.features.grids):
        for row in range(h):
            for column in range(w):
                x, y = patch_center(scene.row(photo), row, column)
                point = scene.locate(f"{photo + 1}:{x},{y}")
                assert (point.photo, point.row, point.column) == (photo, row, column)


@pytest.mark.parametrize(
    ("at", "patch"), [("0,0", (0, 0)), ("63.99,47.99", (5, 7)), ("8,0", (0, 1)), ("7.9,8", (1, 0))]
)
def test_corners(view, at, patch):
    point = scene_of(view, LensOptions()).locate(f"1:{at}")
    assert (point.row, point.column) == patch


@pytest.mark.parametrize("at", ["64,0", "0,48", "-1,5", "1e9,0", "nan,3"])
def test_outside_the_photo(view, at):
    with pytest.raises(OptionError, match="is outside photo-1, which has 64 x 48 pixels"):
        scene_of(view, LensOptions()).locate(f"1:{at}")


def test_outside_the_crop(photos):
    import patchprism

    wide = patchprism.visualize(photos, model="efficientnet_lite2", preset="seed", size=64)
    with pytest.raises(OptionError, match="outside the part of photo-1 that the network saw"):
        scene_of(wide, LensOptions()).locate("1:1,20")
