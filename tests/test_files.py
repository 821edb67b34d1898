"""Files are written completely or stay as they were."""

from __future__ import annotations

import errno
import os
import pickle
import stat
from typing import TYPE_CHECKING

import pytest

from patchprism.errors import OutputError
from patchprism.support.files import atomic_write, check_target

if TYPE_CHECKING:
    from pathlib import Path


def fail_while_writing(path: Path, error: BaseException) -> None:
    with atomic_write(path) as part:
        part.write_text("half")
        raise error


def test_written_completely_with_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    with atomic_write(tmp_path / "out.npz") as part:
        assert part.parent == tmp_path
        assert part.suffix == ".npz"
        part.write_text("new")
        assert not (tmp_path / "out.npz").exists()
    assert (tmp_path / "out.npz").read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["out.npz", "plain"]
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("out.npz", "plain")}
    assert len(modes) == 1


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyboardInterrupt()], ids=["ValueError", "KeyboardInterrupt"]
)
def test_a_failure_leaves_the_old_file(tmp_path, error):
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(type(error)):
        fail_while_writing(target, error)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.txt"]


def test_a_full_disk_is_named(tmp_path):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OutputError, match=r"cannot write .*out.txt: no space left") as caught:
        fail_while_writing(tmp_path / "out.txt", full)
    assert os.listdir(tmp_path) == []
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.name, again.reason) == (
        str(caught.value),
        caught.value.name,
        caught.value.reason,
    )


def test_a_missing_folder_and_a_folder_in_the_way_are_named(tmp_path):
    with (
        pytest.raises(OutputError, match="its folder does not exist"),
        atomic_write(tmp_path / "no" / "x") as part,
    ):
        part.write_text("x")
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match="it is a folder"), atomic_write(tmp_path / "taken") as part:
        part.write_text("x")
    assert os.listdir(tmp_path) == ["taken"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="not a directory"), atomic_write(tmp_path / "file" / "x") as part:
        part.write_text("x")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a pipe takes the place of a device here")
@pytest.mark.parametrize("linked", [False, True], ids=["pipe", "link to it"])
def test_a_device_or_a_pipe_is_not_replaced(tmp_path, linked):
    # As root, a rename would replace /dev/null itself.
    target = tmp_path / "pipe"
    os.mkfifo(target)
    if linked:
        (tmp_path / "link").symlink_to("pipe")
        target = tmp_path / "link"
    before = os.lstat(target)
    with pytest.raises(OutputError, match="device"):
        check_target(target)
    with pytest.raises(OutputError, match="device"), atomic_write(target) as part:
        part.write_text("x")
    assert os.path.samestat(os.lstat(target), before)
    assert sorted(os.listdir(tmp_path)) == sorted({"pipe", target.name})


@pytest.mark.parametrize("name", ["/dev/null", "/dev/stdout"])
def test_targets_in_dev_are_refused_before_the_job(name):
    if not os.path.exists(name):
        pytest.skip("this system does not have it")
    with pytest.raises(OutputError, match="device"):  # so that nothing is written if it fails
        check_target(name)
