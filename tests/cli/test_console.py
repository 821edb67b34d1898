"""Progress bars on a terminal."""

from __future__ import annotations

import io
from collections import defaultdict

import pytest
from rich.console import Console
from roads import render_photos
from toys import Toy, make_photos

from patchprism.cli.console import bars, progress
from patchprism.jobs.engines import open_engine
from patchprism.jobs.settings import Settings


@pytest.mark.parametrize(
    ("stage", "done", "total", "shown"),
    [
        ("photos", 3, 5, "3/5 photos"),
        ("pictures", 3, 5, "3/5 pictures"),
        ("masks", 3, 5, "3/5 photos"),
        ("measure", 3, 5, "3/5 photos"),
        ("page", 3, 5, "3/5 photos"),
        ("table", 3, 5, "3/5 photos"),
        ("fit, pass 2", 1, 3, "1/3 shards"),
        ("fit", 1, 3, "1/3 frames"),
        ("frames", 12, None, "12 frames"),
        ("similarity", 0, None, ""),
        ("load model", 1, 1, ""),
        ("downloading dinov2_vits14", 44_000_000, 88_000_000, "44.0/88.0 MB"),
        ("fetching hf:a/b", 0, None, ""),
    ],
)
def test_amounts_have_units(stage, done, total, shown):
    drawn = bars(Console(file=io.StringIO(), width=100))
    drawn.add_task(stage, total=total, completed=done)
    amount, left = (drawn.columns[at].render(drawn.tasks[0]).plain for at in (2, 3))
    assert (amount, left) == (shown, "")


@pytest.mark.parametrize(("stage", "extra"), [("photos", ""), ("frames", ", 0.2 frames/s")])
def test_bars_show_the_remaining_time_on_one_line(stage, extra):
    now, out = [0.0], io.StringIO()
    drawn = bars(Console(file=out, width=80), get_time=lambda: now[0])
    task = drawn.add_task(stage, total=1000)
    # So slow that Rich's estimate, which uses the last half minute, would have no data.
    for done in range(0, 501, 20):
        now[0] = done * 5.0
        drawn.update(task, completed=done)
    assert drawn.columns[3].render(drawn.tasks[0]).plain == "41:40 left"
    drawn.console.print(drawn.get_renderable())
    lines = [line for line in out.getvalue().splitlines() if line.strip()]
    assert len(lines) == 1
    assert lines[0].split()[0] == stage
    assert f"500/1000 {stage}{extra} 41:40 left" in lines[0]
    drawn.update(task, completed=1000)
    assert drawn.columns[3].render(drawn.tasks[0]).plain == "41:40"  # the elapsed time


def test_a_long_name_leaves_room_for_the_remaining_time():
    now, out = [0.0], io.StringIO()
    drawn = bars(Console(file=out, width=80), get_time=lambda: now[0])
    task = drawn.add_task("downloading dinov2_vits14_pretrain.pth", total=88_000_000)
    for second in range(1, 5):
        now[0] = float(second)
        drawn.update(task, completed=second * 8_000_000)
    drawn.console.print(drawn.get_renderable())
    assert "32.0/88.0 MB 00:07 left" in out.getvalue()


def test_a_file_gets_no_bar(capsys):
    with progress(quiet=False) as tell:
        tell("photos", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_every_photo_moves_the_bar(tmp_path):
    """A shard of 64 photos takes minutes with a large network."""
    photos = make_photos(tmp_path / "p", 70)
    (photos / "p0003.png").write_text("no photo")
    told = defaultdict(list)
    with open_engine() as engine:
        render_photos(
            [photos],
            tmp_path / "out",
            settings=Settings(size=32),
            engine=engine,
            backbone=Toy(),
            tell=lambda stage, done, total: told[stage].append((done, total)),
        )
    for stage, total in (("photos", 70), ("pictures", 69)):
        counts = [done for done, _ in told[stage]]
        assert sorted(set(counts)) == list(range(total + 1))
        assert counts == sorted(counts)
        assert {all_of_them for _, all_of_them in told[stage]} == {total}
    # The passes of the fit, over two shards each.
    assert {stage for stage in told if stage.startswith("fit")} == {f"fit, pass {i}" for i in range(1, 6)}
    for i in range(1, 6):
        assert told[f"fit, pass {i}"] == [(0, 2), (1, 2), (2, 2)]
