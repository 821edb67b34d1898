"""Which files are photos, and names of their outputs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchprism.errors import OptionError, PhotoError
from patchprism.photos.paths import find_photos, photo_name, unique_stems


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name in (
        "dogs/dog10.jpg",
        "dogs/dog2.JPG",
        "dogs/Dog1.png",
        "dogs/notes.txt",
        "dogs/.hidden.jpg",
        "dogs/.cache/thumb.jpg",
        "dogs/puppies/p.webp",
        "cats/cat.tif",
        "odd.dat",
        "[1].jpg",
        "empty/notes.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["dogs"], ["dogs/Dog1.png", "dogs/dog2.JPG", "dogs/dog10.jpg", "dogs/puppies/p.webp"]),
        (["dogs/*.jpg"], ["dogs/dog10.jpg"]),
        (["dogs/*"], ["dogs/Dog1.png", "dogs/dog2.JPG", "dogs/dog10.jpg"]),
        (["**/*.webp", "cats"], ["dogs/puppies/p.webp", "cats/cat.tif"]),
        (["**/p*"], ["dogs/puppies/p.webp"]),
        # A file that exists is used, whatever its suffix and even if its name looks like a pattern.
        (["odd.dat", "[1].jpg", "dogs/.hidden.jpg"], ["odd.dat", "[1].jpg", "dogs/.hidden.jpg"]),
        (["dogs/dog10.jpg", "./dogs/../dogs/dog10.jpg", "dogs/d*0.jpg"], ["dogs/dog10.jpg"]),
        (["cats", "dogs/puppies", "cats/cat.tif"], ["cats/cat.tif", "dogs/puppies/p.webp"]),
        ([Path("cats")], ["cats/cat.tif"]),
    ],
)
def test_find_photos(tree, inputs, expected):
    assert find_photos(inputs) == [Path(name) for name in expected]


@pytest.mark.parametrize(
    ("inputs", "name", "reason"),
    [
        (["dogs", "gone.jpg"], "gone.jpg", "no such file or folder"),
        (["gone/*.jpg"], "gone/*.jpg", "matches no photo"),
        (["dogs/*.txt"], "dogs/*.txt", "matches no photo"),
        (["empty"], "empty", "no photo in this folder"),
        (["a\0b"], "a\0b", ""),
        (["x" * 5000], "x" * 5000, ""),
        ([""], "", ""),
    ],
)
def test_names_without_photos(tree, inputs, name, reason):
    with pytest.raises(PhotoError) as caught:
        find_photos(inputs)
    assert caught.value.name == name
    assert caught.value.reason.startswith(reason)


@pytest.mark.parametrize("inputs", [[], "dogs", Path("dogs"), None])
def test_inputs_that_are_not_a_list(inputs):
    with pytest.raises(OptionError, match="photos must be a list"):
        find_photos(inputs)


def test_links_are_followed_without_cycles(tree):
    (tree / "linked").mkdir()
    os.symlink(tree / "dogs" / "puppies", tree / "linked" / "young")
    os.symlink(tree / "linked", tree / "linked" / "circle")
    assert find_photos(["linked"]) == [Path("linked/young/p.webp")]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a.jpg", "b.jpg"], ["a", "b"]),
        (["x/a.jpg", "y/a.jpg", "z/a.png"], ["a", "a-2", "a-3"]),
        (["a.jpg", "A.jpg"], ["a", "A-2"]),
        (["a.jpg", "a.png", "a-2.jpg"], ["a", "a-3", "a-2"]),
        (["a-2.jpg", "a.png", "a.jpg"], ["a-2", "a", "a-3"]),
        (["a.jpg", "a.png", "A-2.jpg", "b/A-2.jpg"], ["a", "a-3", "A-2", "A-2-2"]),
        (["caf\u00e9.jpg", "cafe\u0301.jpg"], ["caf\u00e9", "cafe\u0301-2"]),
        (["stra\u00dfe.jpg", "STRASSE.jpg"], ["stra\u00dfe", "STRASSE-2"]),
        (["v1.2.jpg", "v1.3.jpg"], ["v1.2", "v1.3"]),
        ([".jpg", "photo"], [".jpg", "photo"]),
        ([], []),
    ],
)
def test_unique_stems(paths, expected):
    assert unique_stems(paths) == expected


@given(
    st.lists(st.sampled_from(["a", "A", "a-2", "A-3", "a-2-2", "b", "a-3", "\u00e9", "e\u0301"]), max_size=12)
)
def test_stems_are_unique_and_the_first_ones_are_kept(names):
    stems = unique_stems([f"{index}/{name}.jpg" for index, name in enumerate(names)])
    assert len({stem.casefold() for stem in stems}) == len(names)
    for name, stem in zip(names, stems, strict=True):
        assert stem.startswith(name)
    # Without equal names nothing is renamed.
    distinct = list(dict.fromkeys(name.casefold() for name in names if name.isascii()))
    assert unique_stems(distinct) == distinct


def test_long_stems_leave_room_for_suffixes():
    long = ["\u00e9" * 120 + f"{index}.jpg" for index in range(3)]
    stems = unique_stems(long)
    assert len(set(stems)) == 3
    assert all(len(os.fsencode(stem)) < 220 for stem in stems)


def test_photo_name_can_be_printed_whatever_the_file_is_called():
    assert photo_name(os.fsdecode(b"dog\xff.jpg")) == "dog?.jpg"
    assert photo_name(Path("a/b.jpg")) == "a/b.jpg"
    assert photo_name(object()) == "photo"
