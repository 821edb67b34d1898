"""What a person sees of progress on a terminal."""

from __future__ import annotations

import io
from collections import defaultdict

import pytest
from rich.console import Console
from rich.progress import Progress
from toys import Toy, make_photos

from patchprism.cli.console import _amount_column
from patchprism.jobs.engines import open_engine
from patchprism.jobs.settings import Settings
from patchprism.jobs.streaming import render_photos


@pytest.mark.parametrize(
    ("stage", "done", "total", "shown"),
    [
        ("photos", 3, 5, "3/5"),
        ("pictures", 3, 5, "3/5"),
        ("similarity", 0, None, ""),
        ("load model", 1, 1, "1/1"),
        ("downloading dinov2_vits14", 44_000_000, 88_000_000, "44.0/88.0 MB"),
    ],
)
def test_amounts(stage, done, total, shown):
    from rich.progress import MofNCompleteColumn

    bars = Progress(console=Console(file=io.StringIO()))
    bars.add_task(stage, total=total, completed=done)
    assert str(_amount_column(MofNCompleteColumn).render(bars.tasks[0])) == shown


def test_every_photo_moves_the_bar(tmp_path):
    """A shard is 64 photos, which with a large network are minutes."""
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
