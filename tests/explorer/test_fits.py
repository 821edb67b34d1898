"""The fits of a tab on the server: which settings also hold for another fit, and undo."""

from __future__ import annotations

import time

import numpy as np
import pytest
import toys

import patchprism
from patchprism.errors import OptionError
from patchprism.explorer.build import build_message
from patchprism.explorer.fit_requests import (
    FitRequest,
    check_request,
    models_here,
    over_all_patches,
    reshown,
    without,
)
from patchprism.explorer.message import Message
from patchprism.explorer.work import MAX_FITS, NoSessionError, Workshop


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = toys.make_photos(tmp_path_factory.mktemp("photos"), 4)
    return patchprism.visualize(folder, backbone=toys.Toy(), size=48)


@pytest.fixture
def workshop(seen):
    made = Workshop(seen, build_message(seen).to_bytes(), toys.Toy())
    yield made
    made.close()


def fitted(workshop, session, **wish):
    job = workshop.start(session, FitRequest(**wish))
    end = time.monotonic() + 60
    while not job.over and time.monotonic() < end:
        time.sleep(0.01)
    assert job.state == "done", job.error
    return session.view


def new_photo():
    return np.random.default_rng(5).integers(0, 255, (48, 64, 3), np.uint8)


def test_no_threshold_of_one_fit_is_applied_to_another(workshop, seen):
    session = workshop.session(workshop.open())
    view = fitted(workshop, session, threshold=0.9, foreground="above")
    assert view.prism.threshold_ == 0.9
    session.staged.append(("new.png", new_photo()))
    view = fitted(workshop, session)  # photos were added, so scores differ
    assert len(view) == 5
    assert (view.prism.threshold, view.prism.foreground) == (seen.prism.threshold, seen.prism.foreground)
    # A chosen method stays, because it means the same for other photos.
    fitted(workshop, session, threshold="auto", foreground="pca")
    fitted(workshop, session, threshold=0.8, foreground="above")
    view = fitted(workshop, session, without=(4,))
    assert (view.prism.threshold, view.prism.foreground) == ("auto", "pca")
    assert view.names == seen.names
    fitted(workshop, session, threshold="auto", foreground="auto")
    np.testing.assert_array_equal(session.view.parts[0].rgb, seen.parts[0].rgb)


def test_a_threshold_from_the_command_line_stays(tmp_path):
    folder = toys.make_photos(tmp_path / "p", 3)
    view = patchprism.visualize(folder, backbone=toys.Toy(), size=48, threshold=0.6, foreground="above")
    workshop = Workshop(view, build_message(view).to_bytes(), toys.Toy())
    try:
        session = workshop.session(workshop.open())
        fitted(workshop, session, threshold=0.3)
        session.staged.append(("new.png", new_photo()))
        assert fitted(workshop, session).prism.threshold_ == 0.6
    finally:
        workshop.close()


def test_undo_goes_back_over_fits_and_forward_again(workshop, seen):
    session = workshop.session(workshop.open())
    messages = [session.message]
    for threshold in (0.2, 0.4, 0.6):
        fitted(workshop, session, threshold=threshold, foreground="above")
        messages.append(session.message)
    assert session.fit == 3
    session.back(0)
    assert (session.message, session.view) == (messages[0], seen)
    session.back(3)
    assert session.message == messages[3]
    session.back(2)
    assert Message.from_bytes(session.message).header["fit"]["threshold"] == 0.4
    # A new fit gets a new number, and the oldest fits are removed.
    for i in range(MAX_FITS):
        fitted(workshop, session, threshold=0.5 + i / 100, foreground="above")
    assert session.fit == 3 + MAX_FITS
    assert len(session.fits) == MAX_FITS
    with pytest.raises(NoSessionError, match="undo goes back at most 4 fits"):
        session.back(0)


def test_a_link_opens_another_tabs_fit_without_changing_that_tab(workshop):
    name = workshop.open()
    session = workshop.session(name)
    fitted(workshop, session, threshold=0.3, foreground="above")
    other = workshop.session(workshop.open(name))
    assert other.message == session.message
    fitted(workshop, other, threshold=0.7, foreground="above")
    assert session.view.prism.threshold_ == 0.3
    with pytest.raises(NoSessionError):
        workshop.open("gone")


def test_the_first_model_can_always_be_chosen(workshop, seen):
    assert models_here("toy")[0] == "toy"
    # There are no weights for either on this machine, but the model that the page opened with is loaded.
    workshop._backbones["tiny"] = toys.tiny_transformer()
    session = workshop.session(workshop.open())
    seen.settings["layer"] = None
    view = fitted(workshop, session, model="tiny")
    assert view.record.name == "tiny"
    view = fitted(workshop, session, model="toy")
    assert view.record.name == "toy"
    np.testing.assert_array_equal(view.parts[1].rgb, seen.parts[1].rgb)
    with pytest.raises(OptionError):
        check_request(seen, FitRequest(model="dinov2_vitg14"))


def test_all_photos_except_the_last_can_be_removed(workshop, seen):
    session = workshop.session(workshop.open())
    view = fitted(workshop, session, without=(1, 3))
    again = patchprism.visualize(
        [seen.photos.sources[0], seen.photos.sources[2]], backbone=toys.Toy(), size=48
    )
    assert view.names == [seen.names[0], seen.names[2]]
    for one, other in zip(view.parts, again.parts, strict=True):
        np.testing.assert_array_equal(one.rgb, other.rgb)
    assert len(Message.from_bytes(session.message).header["photos"]) == 2
    with pytest.raises(OptionError, match="the last photo cannot be removed"):
        without(seen, (0, 1, 2, 3))
    for rows in ((4,), (-1,)):
        with pytest.raises(OptionError, match="does not exist"):
            check_request(seen, FitRequest(without=rows))


def test_colours_of_all_patches_are_saved_as_shown(seen):
    shown = {"mask_threshold": 0.5, "mask_side": "none", "opening": 0, "closing": 0}
    shown |= {"scaling": "minmax", "components": [2, -1, 3], "space": "rgb"}
    saved = reshown(seen, shown, basis="all")
    whole = patchprism.visualize(
        [*seen.photos.sources], backbone=toys.Toy(), size=48, foreground="none", components=(2, -1, 3)
    )
    for one, other in zip(saved.parts, whole.parts, strict=True):
        np.testing.assert_array_equal(one.rgb_all, other.rgb_all)
    before = seen.prism.all_range_.copy()
    over_all_patches(seen.prism, seen)
    np.testing.assert_array_equal(seen.prism.all_range_, before)
