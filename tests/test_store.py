"""Feature stores: reading them with other libraries, using them like features in memory, and refusals."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest
from roads import extract_features
from toys import WIDTH, Toy, make_photos, tree

from patchprism.errors import FeaturesError, OptionError, OutputError, PhotoError, StoreError
from patchprism.features.extraction import Batches, Photos, extract
from patchprism.features.store import PhotoRow, StoredFeatures, layout
from patchprism.jobs.engines import open_engine
from patchprism.jobs.settings import Settings
from patchprism.jobs.shards import Shards, Table
from patchprism.jobs.stores import write_table
from patchprism.photos.framing import Framing
from patchprism.prism.estimator import Prism
from patchprism.support.folders import WORK, open_folder

SETTINGS = Settings(model="toy", size=48, batch_size=4)


def make(photos, out, **options):
    with open_engine() as engine:
        return extract_features(
            [photos], out, **{"settings": SETTINGS, "engine": engine, "backbone": Toy(), **options}
        )


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("photos") / "p", 70)


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """A store of 70 photos; not to be changed."""
    out = tmp_path_factory.mktemp("store") / "feats.zarr"
    make(photos, out, tokens="float32")
    return out


@pytest.fixture
def store(whole, tmp_path):
    """A copy of the store, which tests may damage."""
    return shutil.copytree(whole, tmp_path / "feats.zarr")


@pytest.fixture(scope="module")
def expected(photos):
    """The tokens, directly from the network."""
    paths = sorted(photos.iterdir())
    framing = SETTINGS.resolved().framing(Toy().record)
    found = extract(Photos(paths, list(map(str, paths))), Toy(), framing, batches=Batches(size=1))
    return sorted(found, key=lambda each: each.index)


def test_plain_zarr_reads_it(whole, expected, photos):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(whole, mode="r")
    offsets, grids, names = group["offsets"][:], group["grids"][:], group["names"][:]
    assert [str(name) for name in names] == [str(path) for path in sorted(photos.iterdir())]
    for i, each in enumerate(expected):
        tokens = group["tokens"][offsets[i] : offsets[i + 1]].reshape(*grids[i], -1)
        np.testing.assert_allclose(tokens, each.tokens, atol=1e-6)
        np.testing.assert_array_equal(group["crops"][i], each.crop)
        assert tuple(group["sizes"][i]) == each.size
    assert group["tokens"].dtype == np.float32
    ours = group.attrs["patchprism"]
    assert ours["version"] == 1
    assert ours["model"]["name"] == "toy"
    assert Framing.from_dict(ours["origin"]["framing"]).size == 48


def test_xarray_reads_it(whole):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("zarr")
    data = xarray.open_zarr(whole, consolidated=False)
    assert data["tokens"].dims == ("patch", "feature")
    assert data["grids"].sizes["photo"] == 70
    assert data["names"].dims == ("photo",)
    assert np.isfinite(data["tokens"][:100].values).all()


def test_float16_is_the_default_and_halves_the_tokens(photos, whole, tmp_path):
    make(photos, tmp_path / "half.zarr")
    half, full = StoredFeatures(tmp_path / "half.zarr"), StoredFeatures(whole)
    assert half.dtype == "float16"
    for a, b in zip(half, full, strict=True):
        np.testing.assert_array_equal(a, b.astype(np.float16))


def test_it_can_be_used_like_features_in_memory(whole, expected):
    stored = StoredFeatures(whole)
    assert len(stored) == 70
    assert stored.width == WIDTH
    assert stored.grids == [each.tokens.shape[:2] for each in expected]
    assert stored.n_patches == sum(h * w for h, w in stored.grids)
    np.testing.assert_allclose(stored[-1], expected[-1].tokens, atol=1e-6)
    part = stored[3:9]
    assert part.names == stored.names[3:9]
    assert part.n_patches == sum(h * w for h, w in stored.grids[3:9])
    np.testing.assert_array_equal(part[0], stored[3])
    np.testing.assert_array_equal(stored[::-1][0], stored[69])
    assert stored[::-1].grids == stored.grids[::-1]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(part))[5], stored[8])
    with pytest.raises(IndexError):
        stored[70]
    from_memory = Prism().fit([each.tokens for each in expected])
    from_disk = Prism().fit(stored)
    np.testing.assert_allclose(from_disk.object_components_, from_memory.object_components_, atol=1e-5)
    assert len(from_disk.transform(part)) == 6


def test_many_chunks(photos, tmp_path, monkeypatch, whole):
    """Photos whose tokens or table entries span several chunks are read as they were written."""
    monkeypatch.setattr(layout, "CHUNK_BYTES", 16 * WIDTH * 4)
    monkeypatch.setattr(layout, "TABLE_ROWS", 8)
    make(photos, tmp_path / "small.zarr", tokens="float32")
    small, large = StoredFeatures(tmp_path / "small.zarr"), StoredFeatures(whole)
    assert len(list((tmp_path / "small.zarr/tokens/c").iterdir())) > 100
    assert small.names == large.names
    for a, b in zip(small, large, strict=True):
        np.testing.assert_array_equal(a, b)
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(tmp_path / "small.zarr", mode="r")
    np.testing.assert_array_equal(group["tokens"][:], np.concatenate([t.reshape(-1, WIDTH) for t in large]))
    assert [str(name) for name in group["names"][:]] == large.names


def test_same_photos_same_bytes(photos, whole, tmp_path):
    make(photos, tmp_path / "again.zarr", tokens="float32")
    assert tree(tmp_path / "again.zarr") == tree(whole)


def test_an_existing_store(photos, store, tmp_path):
    before = tree(store)
    assert make(photos, store, tokens="float32").already
    assert tree(store) == before
    with pytest.raises(OutputError, match="overwrite=True replaces it"):
        make(photos, store, tokens="float16")
    assert tree(store) == before
    make(photos, store, tokens="float16", overwrite=True)
    assert StoredFeatures(store).dtype == "float16"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="holds other files"):
        make(photos, tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"
    with pytest.raises(OptionError, match="already a feature store"):
        make(store, tmp_path / "other.zarr")


def test_one_bad_photo_in_ten(tmp_path):
    folder = make_photos(tmp_path / "p", 40)
    for i in range(0, 40, 10):
        (folder / f"p{i:04d}.png").write_bytes(b"no photo")
    outcome = make(folder, tmp_path / "f.zarr")
    assert outcome.n_photos == 36
    assert [failure.photo[-9:] for failure in outcome.failures] == [f"p{i:04d}.png" for i in range(0, 40, 10)]
    stored = StoredFeatures(tmp_path / "f.zarr")
    assert len(stored) == 36
    assert [each["photo"][-9:] for each in stored.failures] == [
        "p0000.png",
        "p0010.png",
        "p0020.png",
        "p0030.png",
    ]


def test_all_photos_bad_leaves_nothing(tmp_path):
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"no photo")
    with pytest.raises(PhotoError, match=r"\(nothing was done\)"):
        make(folder, tmp_path / "f.zarr")
    assert not (tmp_path / "f.zarr").exists()


def test_tokens_beyond_float16_are_refused(tmp_path):
    shards = Shards(open_folder(tmp_path), 1, "float16")
    table = Table("k", [PhotoRow("a.png", (1, 1), (8, 8), (0.0, 0.0, 8.0, 8.0))], [], 2)
    with pytest.raises(FeaturesError, match=r"a.png: .* in float16; keep the tokens in float32"):
        shards.write(0, table, [np.full((1, 1, 2), 1e6, np.float32)])
    with pytest.raises(FeaturesError, match=r"NaN or infinity$"):
        shards.write(0, table, [np.full((1, 1, 2), np.nan, np.float32)])


def test_parquet(whole, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    write_table(StoredFeatures(whole), tmp_path / "f.parquet")
    table = pq.read_table(tmp_path / "f.parquet")
    stored = StoredFeatures(whole)
    assert table.num_rows == stored.n_patches
    assert table.column_names == ["photo", "row", "column", "vector"]
    name = stored.names[66]
    mine = [row for row in table.to_pylist() if row["photo"] == name]
    h, w = stored.grids[66]
    assert [(row["row"], row["column"]) for row in mine] == [(y, x) for y in range(h) for x in range(w)]
    np.testing.assert_array_equal(
        np.array([row["vector"] for row in mine], np.float32).reshape(h, w, -1), stored[66]
    )


# ---------------------------------------------------------------- refusals


def edit(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def attributes(value):
    return value["attributes"]["patchprism"]


def cut(path, count=1):
    path.write_bytes(path.read_bytes()[:-count])


def first_chunk(store, name):
    path = store / name / "c" / "0"
    return path / "0" if path.is_dir() else path


def overwrite(store, name, dtype, index, value):
    path = first_chunk(store, name)
    values = np.frombuffer(path.read_bytes(), dtype).copy()
    values[index] = value
    path.write_bytes(values.tobytes())


BOMB = {"name": "numcodecs.pickle", "configuration": {}}
DAMAGE = {
    "newer": (
        lambda s: edit(s / "zarr.json", lambda v: attributes(v).update(version=2)),
        "feature store of version 2, this PatchPrism reads version 1: upgrade it",
    ),
    "no version": (
        lambda s: edit(s / "zarr.json", lambda v: attributes(v).pop("version")),
        "of version None",
    ),
    "empty folder": (lambda s: [shutil.rmtree(s), s.mkdir()], "not a feature store"),
    "another's zarr": (
        lambda s: edit(s / "zarr.json", lambda v: v["attributes"].clear()),
        "not a feature store of PatchPrism",
    ),
    "unfinished": (
        lambda s: [(s / "zarr.json").unlink(), (s / WORK).mkdir(), (s / WORK / "job.json").write_text("{}")],
        "unfinished feature store; to finish it, repeat the command that started it",
    ),
    "not json": (lambda s: (s / "zarr.json").write_text("{"), "not JSON"),
    "deep json": (lambda s: (s / "zarr.json").write_text("[" * 100_000), "not JSON"),
    "json list": (lambda s: (s / "zarr.json").write_text("[]"), "not a JSON object"),
    "huge json": (lambda s: (s / "zarr.json").write_bytes(b" " * (17 << 20)), "more than the maximum of"),
    "array missing": (lambda s: shutil.rmtree(s / "offsets"), "offsets/zarr.json: missing"),
    "chunk missing": (lambda s: (s / "tokens/c/0/0").unlink(), "tokens/c/0/0: .* this chunk is missing"),
    "chunk cut short": (lambda s: cut(s / "tokens/c/0/0"), "tokens/c/0/0: .* this chunk is of"),
    "table cut short": (lambda s: cut(s / "grids/c/0/0", 8), "grids/c/0/0: .* this chunk is of"),
    "names cut short": (lambda s: cut(s / "names/c/0", 5), "names/c/0: .*cut short"),
    "names gone": (lambda s: (s / "names/c/0").write_bytes(b""), "names/c/0: .*this chunk is of"),
    "pickle codec": (
        lambda s: edit(s / "names/zarr.json", lambda v: v.update(codecs=[BOMB])),
        r'array names has codecs \[\{"name": "numcodecs.pickle"',
    ),
    "object type": (
        lambda s: edit(s / "names/zarr.json", lambda v: v.update(data_type="object")),
        'array names has data type "object", allowed: string',
    ),
    "compressed": (
        lambda s: edit(s / "tokens/zarr.json", lambda v: v["codecs"].append({"name": "zstd"})),
        "array tokens has codecs",
    ),
    "big endian": (
        lambda s: edit(
            s / "tokens/zarr.json", lambda v: v["codecs"][0]["configuration"].update(endian="big")
        ),
        "array tokens has codecs",
    ),
    "transformer": (
        lambda s: edit(s / "tokens/zarr.json", lambda v: v.update(storage_transformers=[{"name": "x"}])),
        "storage transformers",
    ),
    "path in separator": (
        lambda s: edit(
            s / "tokens/zarr.json",
            lambda v: v["chunk_key_encoding"]["configuration"].update(separator="/../../"),
        ),
        "chunk_key_encoding",
    ),
    "huge rows": (
        lambda s: edit(s / "tokens/zarr.json", lambda v: v.update(shape=[2**60, WIDTH])),
        "array tokens has shape",
    ),
    "lying rows": (
        lambda s: edit(s / "tokens/zarr.json", lambda v: v.update(shape=[10**6, WIDTH])),
        "damaged feature store",
    ),
    "negative rows": (
        lambda s: edit(s / "tokens/zarr.json", lambda v: v.update(shape=[-1, WIDTH])),
        "array tokens has shape",
    ),
    "rows as text": (
        lambda s: edit(s / "tokens/zarr.json", lambda v: v.update(shape=["9", WIDTH])),
        "array tokens has shape",
    ),
    "huge width": (
        lambda s: edit(
            s / "tokens/zarr.json",
            lambda v: [
                v.update(shape=[5, 2**40]),
                v["chunk_grid"]["configuration"].update(chunk_shape=[1, 2**40]),
            ],
        ),
        "array tokens has shape",
    ),
    "huge chunk": (
        lambda s: edit(
            s / "tokens/zarr.json",
            lambda v: v["chunk_grid"]["configuration"].update(chunk_shape=[2**40, WIDTH]),
        ),
        "too large to read",
    ),
    "empty chunk": (
        lambda s: edit(
            s / "tokens/zarr.json", lambda v: v["chunk_grid"]["configuration"].update(chunk_shape=[0, WIDTH])
        ),
        "empty, or too large",
    ),
    "no photos": (
        lambda s: edit(s / "names/zarr.json", lambda v: v.update(shape=[0])),
        "a feature store without photos",
    ),
    "fewer names": (
        lambda s: edit(s / "names/zarr.json", lambda v: v.update(shape=[69])),
        "has 70 rows, not 69|has 71 rows, not 70",
    ),
    "another width": (
        lambda s: edit(s / "zarr.json", lambda v: attributes(v)["model"].update(name="other")),
        "model record does not fit",
    ),
    "no origin": (
        lambda s: edit(s / "zarr.json", lambda v: attributes(v).pop("origin")),
        "does not say its origin",
    ),
    "no framing": (
        lambda s: edit(s / "zarr.json", lambda v: attributes(v)["origin"].update(framing={"size": "x"})),
        "its framing is not valid",
    ),
    "zero grid": (lambda s: overwrite(s, "grids", np.int32, 0, 0), "do not fit together"),
    "negative grid": (lambda s: overwrite(s, "grids", np.int32, slice(0, 2), -6), "do not fit together"),
    "grid and offsets": (lambda s: overwrite(s, "grids", np.int32, 1, 7), "do not fit together"),
    "last offset": (lambda s: overwrite(s, "offsets", np.int64, 70, 7), "offsets do not end"),
    "first offset": (lambda s: overwrite(s, "offsets", np.int64, 0, 7), "offsets do not end"),
    "zero size": (lambda s: overwrite(s, "sizes", np.int32, 0, 0), "do not fit together"),
    "NaN crop": (lambda s: overwrite(s, "crops", np.float64, 0, np.nan), "do not fit together"),
    "turned crop": (lambda s: overwrite(s, "crops", np.float64, 2, -9.0), "do not fit together"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_refused_by_name(store, kind):
    spoil, message = DAMAGE[kind]
    assert len(StoredFeatures(store)) == 70
    spoil(store)
    with pytest.raises(StoreError, match=message) as raised:
        StoredFeatures(store)
    assert str(store) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_names_are_checked_as_they_are_read(store):
    path = store / "names/c/0"
    raw = path.read_bytes()
    path.write_bytes(raw[:4] + (2**31).to_bytes(4, "little") + raw[8:])
    with pytest.raises(StoreError, match="cut short or too long"):
        StoredFeatures(store)
    path.write_bytes(raw[:8] + b"\xff" + raw[9:])
    with pytest.raises(StoreError, match="not UTF-8"):
        StoredFeatures(store)
    path.write_bytes(raw[:8] + b"\0" + raw[9:])
    with pytest.raises(StoreError, match="NUL"):
        StoredFeatures(store)


def test_damage_further_in_is_found_as_it_is_read(store):
    overwrite(store, "offsets", np.int64, 30, 7)
    stored = StoredFeatures(store)
    assert stored[3].shape[2] == WIDTH
    with pytest.raises(StoreError, match="photos 30 to 30 do not fit together"):
        stored[29]
    with pytest.raises(StoreError, match="do not fit together"):
        Prism().fit(stored)


def test_missing(tmp_path):
    with pytest.raises(StoreError, match="not a feature store"):
        StoredFeatures(tmp_path / "none.zarr")
