"""Every lens gives the same pictures, arrays, tables and reports for every kind of source, in bounded memory."""

from __future__ import annotations

import pickle
import weakref

import numpy as np
import pytest
from roads import extract_features
from toys import FakeEngine, make_photos, tiny_transformer

import patchprism
from patchprism.errors import OptionError, PhotoError
from patchprism.features.store import PhotoRow, StoredFeatures
from patchprism.jobs.engines import open_engine
from patchprism.jobs.fitting import walk_over
from patchprism.jobs.settings import Settings
from patchprism.jobs.shards import Shards, Table
from patchprism.jobs.source import StoreSource
from patchprism.lenses.looking import LENSES, fit_lenses, look_through, scene_of
from patchprism.lenses.options import LensOptions
from patchprism.lenses.passes import Sample
from patchprism.lenses.scene import Scene
from patchprism.photos.sources import read_source
from patchprism.support.folders import LocalFolder

OPTIONS = LensOptions(at=("2:20,30", "p0003:10,12"), clusters=3, upsample="guided", match_lines=5)


class Again:
    """A source whose photos are read again by their names."""

    def __init__(self, source, lost=()):
        self.source, self.n_shards, self.lost = source, source.n_shards, lost

    def rows(self, shard):
        return self.source.rows(shard)

    def read(self, shard):
        return self.source.read(shard)

    def photo(self, row):
        return (None, "it is gone") if row.name in self.lost else (read_source(row.name), None)

    def shown(self, row, framing):
        photo, reason = self.photo(row)
        return (None if photo is None else framing.show(photo, name=row.name)), reason


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("photos") / "p", 4)


@pytest.fixture(scope="module")
def view(folder, transformer):
    return patchprism.visualize([folder], backbone=transformer, size=56)


@pytest.fixture(scope="module")
def sources(view, folder, transformer, tmp_path_factory):
    """The photos of the view: in memory, in a store, and in two shards without some of their photos."""
    settings = Settings(size=56)
    store = tmp_path_factory.mktemp("store") / "f.zarr"
    with open_engine() as engine:
        extract_features(
            [folder], store, settings=settings, engine=engine, tokens="float32", backbone=transformer
        )
    shards = Shards(LocalFolder(tmp_path_factory.mktemp("work")), 3, "float32")
    memory = scene_of(view, OPTIONS).source
    rows, tokens = memory.rows(0), list(view.features)
    for shard, span in enumerate((slice(0, 1), slice(1, 1), slice(1, 4))):
        shards.write(shard, Table(str(shard), rows[span], width=24), tokens[span])
    return {"memory": memory, "store": Again(StoreSource(StoredFeatures(store))), "shards": Again(shards)}


def scene_over(source, view, **changed):
    given = {"options": OPTIONS, "load": tiny_transformer} | changed
    return Scene(source=source, prism=view.prism, framing=view.framing, record=view.record, **given)


def seen_in(scene, engine, names=LENSES):
    """All results of lenses: a worker's copy looks at each photo, and the pictures are drawn."""
    found, walk = {}, walk_over(scene.source, engine)
    for lens in fit_lenses(names, scene, lambda make: walk(pickle.loads(pickle.dumps(make)))):
        worker, entries = pickle.loads(pickle.dumps(lens)), []
        for number, (index, row, tokens) in enumerate(scene.read()):
            look = worker.look(row, tokens, scene.part(index, row, tokens), index)
            entries.append(look.entry)
            found |= {(lens.name, number, name): draw() for name, draw in look.pictures.items()}
            found |= {(lens.name, number, "npz", name): array for name, array in look.arrays.items()}
        found |= given_by(lens.result(entries))
    return found


def given_by(result):
    figures = {(result.name, "figure", name): draw() for name, draw in result.figures.items()}
    arrays = {(result.name, "npz", name): array for name, array in result.shared_arrays.items()}
    return figures | arrays | {(result.name, "report"): result.report, (result.name, "tables"): result.tables}


@pytest.fixture(scope="module")
def expected(view, transformer):
    """The results of ``look_through`` for the view."""
    found = {}
    for result in look_through(view, LENSES, OPTIONS, backbone=transformer):
        found |= given_by(result)
        for number, (pictures, arrays) in enumerate(zip(result.pictures, result.arrays, strict=True)):
            found |= {(result.name, number, name): draw() for name, draw in pictures.items()}
            found |= {(result.name, number, "npz", name): array for name, array in arrays.items()}
    return found


@pytest.mark.parametrize("engine", [open_engine(), FakeEngine(3)], ids=["local", "workers"])
@pytest.mark.parametrize("kind", ["memory", "store", "shards"])
def test_every_lens_over_every_source(sources, view, expected, kind, engine):
    found = seen_in(scene_over(sources[kind], view), engine)
    assert set(found) == set(expected)
    assert {key[0] for key in found} == set(LENSES) - {"pca"}
    for key, value in expected.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(found[key], value, err_msg=str(key))
        else:
            assert found[key] == value, key


def test_numbers_of_photos_skip_those_that_failed(sources, view):
    scene = scene_over(sources["shards"], view)
    assert len(scene) == 4
    assert [scene.index(number) for number in range(4)] == [0, 128, 129, 130]
    assert [scene.number(scene.index(number)) for number in range(4)] == [0, 1, 2, 3]
    assert [scene.row(number).name for number in range(4)] == view.names
    assert [index for index, _, _ in scene.read([3, 1])] == [128, 130]


# -- missing photos and networks -------------------------------------------------------------------------------


def test_lenses_work_without_missing_photos(sources, view, expected):
    source = Again(sources["store"].source, lost=view.names[:1])
    scene = scene_over(source, view)
    found = seen_in(scene, open_engine(), [name for name in LENSES if name != "pca"])
    assert scene.lost == {view.names[0]: "it is gone"}
    assert ("attention", 0, "attention") not in found
    np.testing.assert_array_equal(
        found["attention", 1, "npz", "cls_heads"], expected["attention", 1, "npz", "cls_heads"]
    )
    assert len(found["attention", "report"]["class_token"]) == 3
    bilinear = scene_over(sources["memory"], view, options=LensOptions(upsample="bilinear"))
    np.testing.assert_array_equal(
        found["norm", 0, "norm"], seen_in(bilinear, open_engine(), ["norm"])["norm", 0, "norm"]
    )


def test_attention_is_refused_without_a_network(sources, view):
    with pytest.raises(OptionError, match="must run the model again, which needs photos and a backbone"):
        seen_in(scene_over(sources["store"], view, load=None), open_engine(), ["attention"])
    gone = Again(sources["store"].source, lost=view.names)
    with pytest.raises(PhotoError, match="could not be read again, nor could any other photo"):
        seen_in(scene_over(gone, view, options=LensOptions()), open_engine(), ["attention"])


def test_matches_of_some_photos(sources, view, expected):
    options = LensOptions(match_photos=("p0003", "1"), match_lines=5)
    found = seen_in(scene_over(sources["shards"], view, options=options), open_engine(), ["matches"])
    assert [key[2] for key in found if key[1] == "figure"] == ["matches-1-4"]
    for key in (("matches", "figure", "matches-1-4"), ("matches", "npz", "pair_1_4")):
        np.testing.assert_array_equal(found[key], expected[key])


# -- memory ------------------------------------------------------------------------------------------------------


class Counting:
    """A source that makes tokens on demand, and counts the photos whose tokens are in memory."""

    def __init__(self, n_photos, shard=5):
        self.n_shards, self.shard, self.alive, self.most = n_photos // shard, shard, 0, 0

    def rows(self, shard):
        names = range(shard * self.shard, (shard + 1) * self.shard)
        return [PhotoRow(f"p{n}", (6, 7), (48, 56), (0, 0, 56, 48)) for n in names]

    def read(self, shard):
        for place, row in enumerate(self.rows(shard)):
            yield row, self._tokens(shard * self.shard + place)

    def _tokens(self, number):
        tokens = np.random.default_rng(number).normal(size=(6, 7, 24)).astype(np.float32)
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(tokens, self._gone)
        return tokens

    def _gone(self):
        self.alive -= 1


@pytest.mark.parametrize("name", ["score", "norm", "similarity", "clusters", "matches"])
@pytest.mark.parametrize("all_fit", [False, True])
def test_memory_is_flat(name, all_fit, view, monkeypatch):
    if not all_fit:
        monkeypatch.setattr("patchprism.lenses.clusters.FITTED_VALUES", 20 * 42 * 24)
        monkeypatch.setattr("patchprism.lenses.norm.SAMPLE", 20 * 42)
    options = LensOptions(
        clusters=3,
        at=("7:3,4",) if name == "similarity" else (),
        match_photos=("1", "3", "5", "17", "18", "19", "39", "40") if name == "matches" else (),
    )
    most = []
    for n_photos in (40, 80):
        source = Counting(n_photos)
        scene = scene_over(source, view, options=options)
        (lens,) = fit_lenses([name], scene, walk_over(source, open_engine()))
        entries = [
            lens.look(row, tokens, scene.part(index, row, tokens), index).entry
            for index, row, tokens in scene.read()
        ]
        assert len(entries) == n_photos
        lens.result(entries)
        most.append(source.most)
    # One or two photos that are compared, the one that is being read, and the last one of a loop variable.
    assert most[0] == most[1] <= 4


def test_a_sample_of_patches_does_not_depend_on_the_pieces():
    rng = np.random.default_rng(0)
    photos = [rng.normal(size=(100, 3)).astype(np.float32) for _ in range(6)]
    whole, joined = Sample(np.asarray, 0.3, 5), Sample(np.asarray, 0.3, 5)
    for index, tokens in enumerate(photos):
        whole.update(tokens, index)
    for span in (range(4, 6), range(3), range(3, 4)):
        piece = Sample(np.asarray, 0.3, 5)
        for index in span:
            piece.update(photos[index], index)
        joined.merge(pickle.loads(pickle.dumps(piece)))
    np.testing.assert_array_equal(joined.extent.low, np.min(photos, axis=(0, 1)))
    np.testing.assert_array_equal(joined.extent.high, np.max(photos, axis=(0, 1)))
    drawn = joined.rows()
    assert 120 < len(drawn) < 240
    assert len(np.unique(drawn, axis=0)) == len(drawn)
    np.testing.assert_array_equal(drawn, whole.rows())


def test_a_sample_of_patches_does_not_depend_on_the_workers(view, monkeypatch):
    monkeypatch.setattr("patchprism.lenses.clusters.FITTED_VALUES", 10 * 42 * 24)
    found = []
    for engine in (open_engine(), FakeEngine(1), FakeEngine(2)):
        scene = scene_over(Counting(40), view, options=LensOptions(clusters=4))
        found += fit_lenses(["clusters"], scene, walk_over(scene.source, engine))
    assert 300 < found[0].n_fitted_ < 540 < found[0].n_patches_
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].found_.centers, other.found_.centers)
        np.testing.assert_array_equal(found[0].found_.rank, other.found_.rank)
        assert found[0].key == other.key
