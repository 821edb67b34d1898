"""Prisms and stores from strangers: whatever a field contains, they open or are refused with a clear message."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from roads import render_photos

import patchprism
from patchprism.errors import PatchPrismError, PrismError, StoreError
from patchprism.explorer.message import Message, MessageError
from patchprism.features.store import StoredFeatures
from patchprism.features.store.layout import encode_names
from patchprism.jobs.engines import open_engine
from patchprism.jobs.settings import Settings
from patchprism.prism.estimator import Prism
from patchprism.support.json_values import from_json, to_json

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
FEW = settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
MOST_BYTES = 64 << 20  # maximum memory for opening a file of a few kilobytes

# Values as JSON text that readers often forget.
ODD = [
    *(
        "null",
        "true",
        "false",
        "0",
        "-1",
        "1",
        "2",
        "3",
        "0.5",
        "-0.5",
        "1.0",
        "1e308",
        "-1e308",
        "5e-324",
        "1e999",
    ),
    *(
        "NaN",
        "Infinity",
        "-Infinity",
        str(2**31),
        str(2**53 + 1),
        str(2**64),
        str(-(10**18)),
        "9" * 400,
        "9" * 5000,
    ),
    *(
        '""',
        '"x"',
        '"0.5"',
        '"none"',
        '"otsu"',
        '"minmax"',
        '"hf:evil/repo"',
        '"\\u0000"',
        '"\\ud800"',
        '"\\u001b[2J"',
    ),
    *(
        "[]",
        "[1]",
        "[[1],[2],[3]]",
        "[1,2,3]",
        "[0,0,0]",
        "[9,9,9]",
        "[true,1,2]",
        "[1.0,2.0,3.0]",
        "[1e300,1,1]",
    ),
    *(
        "{}",
        '{"a":1}',
        '{"above":1,"below":"x"}',
        '{"a":1,"a":2}',
        "[" * 500 + "]" * 500,
        "[" * 90_000 + "]" * 90_000,
    ),
    json.dumps("x" * 100_000),
]
odd = st.one_of(
    st.sampled_from(ODD),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ).map(json.dumps),
)


def places(value, path=()):
    """The paths of all values inside a JSON value."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from places(inner, (*path, i))


def changed(value, path, text):
    """JSON text of a value, with the part at a path replaced by a text, or removed if the text is "DROP"."""
    mark = "<here>"
    copied = json.loads(json.dumps(value))
    if not path:
        return text
    at = copied
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = mark
    if text == "DROP":
        del at[path[-1]]
        return json.dumps(copied)
    return json.dumps(copied).replace(json.dumps(mark), text)


@pytest.fixture(scope="module")
def version_1(tmp_path_factory):
    folder = tmp_path_factory.mktemp("version-1")
    with zipfile.ZipFile(FIXTURES / "version-1.zip") as file:
        file.extractall(folder)
    return folder


@pytest.fixture
def nobody_is_asked(monkeypatch):
    """Connections and name lookups fail."""

    def refused(*args, **options):
        raise AssertionError(f"asked {args}")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


def opens_or_is_refused(use):
    """Whether something opens; otherwise it must raise a PatchPrismError of one line, without using much memory."""
    tracemalloc.start()
    told = ""
    try:
        use()
    except PatchPrismError as error:
        told = str(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < MOST_BYTES
    assert "\n" not in told
    assert len(told) < 2000
    return not told


# -- prisms ---------------------------------------------------------------------------------------------------


def parts_of(path):
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def write_prism(path, header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def use_prism(path):
    """Load it, colour tokens with it, and write its part of a report."""
    prism = Prism.load(path)
    tokens = np.random.default_rng(0).normal(size=(2, 3, len(prism.scene_mean_))).astype(np.float32)
    part = prism.split(tokens)
    for values in (part.rgb, part.rgb_all, part.score):
        assert np.isfinite(values).all()
        assert values.min() >= 0
        assert values.max() <= 1
    from_json(to_json(prism.summary()))
    prism.save(path.with_name("again"))
    Settings().resolved(prism)


@pytest.mark.parametrize("kind", ["minmax", "masked"])
def test_every_field_of_a_prisms_record(version_1, tmp_path, kind):
    header, data = parts_of(version_1 / f"{kind}.safetensors")
    record = json.loads(header["__metadata__"]["patchprism"])
    tried = tmp_path / "tried.safetensors"

    @FEW
    @given(st.sampled_from(list(places(record))), odd | st.just("DROP"))
    def play(path, text):
        header["__metadata__"]["patchprism"] = changed(record, path, text)
        write_prism(tried, header, data)
        opens_or_is_refused(lambda: use_prism(tried))

    play()


def test_odd_values_in_every_field_of_a_prisms_record(version_1, tmp_path):
    header, data = parts_of(version_1 / "masked.safetensors")
    record = json.loads(header["__metadata__"]["patchprism"])
    tried = tmp_path / "tried.safetensors"
    for i, path in enumerate(places(record)):
        for text in (*ODD[i % 5 : -3 : 5], "DROP"):
            header["__metadata__"]["patchprism"] = changed(record, path, text)
            write_prism(tried, header, data)
            try:
                prism = Prism.load(tried)
            except PrismError:
                continue
            assert np.isnan(prism.threshold_) or 0 <= prism.threshold_ <= 1
            assert prism.n_photos_ >= 1


def test_every_field_of_a_prisms_tensors(version_1, tmp_path):
    header, data = parts_of(version_1 / "minmax.safetensors")
    tried = tmp_path / "tried.safetensors"

    @FEW
    @given(st.sampled_from(list(places(header))[1:]), odd | st.just("DROP"))
    def play(path, text):
        write_prism(tried, changed(header, path, text).encode(errors="replace"), data)
        opens_or_is_refused(lambda: use_prism(tried))

    play()


NUMBERS = [float("nan"), float("inf"), -float("inf"), 1e308, -1e308, 1e62, 5e-324, -1.0, 0.0, 1.5]


def test_every_number_of_a_prism(version_1, tmp_path):
    header, data = parts_of(version_1 / "minmax.safetensors")
    names = sorted(set(header) - {"__metadata__"})
    tried = tmp_path / "tried.safetensors"

    @FEW
    @given(st.sampled_from(names), st.integers(0), st.sampled_from(NUMBERS) | st.floats())
    def play(name, at, value):
        start, stop = header[name]["data_offsets"]
        at = start + 8 * (at % ((stop - start) // 8))
        write_prism(tried, header, data[:at] + struct.pack("<d", value) + data[at + 8 :])
        opens_or_is_refused(lambda: use_prism(tried))

    play()


@pytest.mark.parametrize("value", NUMBERS[:6])
@pytest.mark.parametrize(
    "name", ["scene_mean", "object_components", "score_range", "all_range", "object_variance"]
)
def test_numbers_that_no_fit_gives_are_refused(version_1, tmp_path, name, value):
    header, data = parts_of(version_1 / "minmax.safetensors")
    at = header[name]["data_offsets"][0]
    write_prism(tmp_path / "tried", header, data[:at] + struct.pack("<d", value) + data[at + 8 :])
    with pytest.raises(PrismError, match=name):
        Prism.load(tmp_path / "tried")


def test_a_small_file_that_claims_to_be_a_large_prism(version_1, tmp_path):
    """A sparse file: less than a kilobyte on disk, 16 GB in memory."""
    header, data = parts_of(version_1 / "minmax.safetensors")
    width = 1 << 31
    start = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    header["zz"] = {"dtype": "F64", "shape": [width], "data_offsets": [start, start + 8 * width]}
    header["scene_mean"], header["zz"] = header["zz"], header["scene_mean"]
    write_prism(tmp_path / "tried", header, data)
    with open(tmp_path / "tried", "r+b") as file:
        file.truncate((tmp_path / "tried").stat().st_size + 8 * width)
    assert not opens_or_is_refused(lambda: Prism.load(tmp_path / "tried"))


@pytest.mark.parametrize(
    "origin", [{"layer": "last"}, {"note": object()}, {"framing": []}, {"a": {1: set()}}]
)
def test_a_prism_whose_origin_could_not_be_read_is_not_written(version_1, tmp_path, origin):
    prism = Prism.load(version_1 / "minmax.safetensors")
    prism.origin = origin
    with pytest.raises(PrismError, match="origin"):
        prism.save(tmp_path / "tried")
    assert not (tmp_path / "tried").exists()


def test_a_prism_with_a_custom_origin(version_1, tmp_path):
    prism = Prism.load(version_1 / "minmax.safetensors")
    prism.origin = {"model": "mine", "scale": np.float32(0.5), "lost": float("inf"), "folder": Path("a")}
    prism.save(tmp_path / "tried")
    found = Prism.load(tmp_path / "tried").origin
    assert found == {"model": "mine", "scale": 0.5, "lost": None, "folder": "a"}


# -- stores ---------------------------------------------------------------------------------------------------


@pytest.fixture
def store(version_1, tmp_path):
    return Path(shutil.copytree(version_1 / "toy.zarr", tmp_path / "toy.zarr"))


def use_store(path):
    """Open it, view it, and write its part of a report."""
    view = patchprism.visualize([path])
    assert all(np.isfinite(colors).all() for colors in view.colors)
    from_json(to_json(view.report()))


ARRAYS = ["tokens", "offsets", "grids", "sizes", "crops", "names"]


@pytest.mark.parametrize("name", ["zarr.json", *(f"{array}/zarr.json" for array in ARRAYS)])
def test_every_field_of_a_stores_records(store, name, nobody_is_asked):
    record = json.loads((store / name).read_text())

    @settings(FEW, max_examples=30 if name == "zarr.json" else 8)
    @given(st.sampled_from(list(places(record))), odd | st.just("DROP"))
    def play(path, text):
        (store / name).write_text(changed(record, path, text), errors="replace")
        opens_or_is_refused(lambda: use_store(store))

    play()


def test_odd_values_in_every_field_of_a_stores_record(store):
    record = json.loads((store / "zarr.json").read_text())
    for i, path in enumerate(places(record)):
        for text in (*ODD[i % 5 : -3 : 5], "DROP"):
            (store / "zarr.json").write_text(changed(record, path, text))
            try:
                found = StoredFeatures(store)
            except StoreError:
                continue
            assert isinstance(found.key, str)
            assert all(isinstance(value, str) for each in found.failures for value in each.values())


@pytest.mark.parametrize("array", ["offsets", "grids", "sizes", "crops"])
def test_every_number_of_a_stores_tables(store, array):
    (file,) = (each for each in (store / array / "c").rglob("*") if each.is_file())
    content = file.read_bytes()
    dtype = {"offsets": "<i8", "crops": "<f8"}.get(array, "<i4")
    high = np.iinfo(dtype).max if dtype != "<f8" else 1e300
    numbers = st.sampled_from([0, 1, -1, 7, 2**24, 20_000, high, -high])
    if dtype == "<f8":
        numbers |= st.floats()

    @settings(FEW, max_examples=25)
    @given(st.lists(st.tuples(st.integers(0, 5), numbers), min_size=1, max_size=3))
    def play(changes):
        values = np.frombuffer(content, dtype).copy()
        for at, value in changes:
            values[at % len(values)] = value
        file.write_bytes(values.tobytes())
        opens_or_is_refused(lambda: use_store(store))

    play()


def spoil(store, array, values, at=0):
    (file,) = (each for each in (store / array / "c").rglob("*") if each.is_file())
    held = np.frombuffer(file.read_bytes(), {"crops": "<f8"}.get(array, "<i4")).copy()
    held[at : at + len(values)] = values
    file.write_bytes(held.tobytes())


@pytest.mark.parametrize(
    ("array", "values"),
    [
        ("sizes", [20_000, 20_000]),
        ("sizes", [1, 1 << 24, 1 << 24, 1 << 24]),
        ("grids", [20_000, 20_000]),
        ("grids", [1 << 24, 1 << 24]),
        ("crops", [-1e300, -1e300, 1e300, 1e300]),
        ("crops", [1e6, 1e6, 2e6, 2e6]),
    ],
)
def test_a_photo_that_cannot_have_been_read(store, array, values):
    spoil(store, array, values)
    with pytest.raises(StoreError, match="do not fit together"):
        StoredFeatures(store).rows(0, 3)


@pytest.mark.parametrize("rows", [1 << 17, 1 << 25, 1 << 27, 1 << 30])
def test_a_sparse_chunk_of_names(store, rows):
    record = json.loads((store / "names/zarr.json").read_text())
    record["chunk_grid"]["configuration"]["chunk_shape"] = [rows]
    (store / "names/zarr.json").write_text(json.dumps(record))
    chunk = store / "names/c/0"
    chunk.write_bytes(rows.to_bytes(4, "little"))
    with open(chunk, "r+b") as file:
        file.truncate(4 + 4 * rows)
    assert not opens_or_is_refused(lambda: StoredFeatures(store))


def test_names_that_are_too_long(store):
    with open(store / "names/c/0", "ab") as file:
        file.write(b"\0" * 8)
    with pytest.raises(StoreError, match="has data after the last name"):
        StoredFeatures(store)


@pytest.mark.parametrize("name", ["", ".", "..", "p/", "p/.", "/", "s3://bucket/"])
@pytest.mark.parametrize("at", [0, 1])
def test_names_that_name_no_photo(store, name, at):
    names = StoredFeatures(store).names
    names[at] = name
    rows = json.loads((store / "names/zarr.json").read_text())["chunk_grid"]["configuration"]["chunk_shape"]
    (store / "names/c/0").write_bytes(encode_names(names, *rows))
    with pytest.raises(StoreError) as refused:
        patchprism.visualize([store]).explore()
    assert str(refused.value) == (
        f"{store}: damaged feature store, the name of photo {at + 1} is {name!r}, "
        "which cannot be the name of a file; write the "
        "store again with `patchprism features`"
    )


def test_tokens_that_fit_on_no_machine(store, monkeypatch):
    from patchprism.features.store import reader
    from patchprism.jobs import viewing

    monkeypatch.setattr(reader, "LARGE", 0)
    monkeypatch.setattr(reader, "free_memory", lambda: 1000)
    with pytest.raises(StoreError, match="more memory than this machine has free"):
        StoredFeatures(store)[0]
    monkeypatch.setattr(viewing, "LARGE", 0)
    monkeypatch.setattr(viewing, "free_memory", lambda: 1000)
    with pytest.raises(StoreError, match="`patchprism render`, which reads a store photo by photo"):
        patchprism.visualize([store])


# -- the model of a store ---------------------------------------------------------------------------------------


def renamed(store, name):
    record = json.loads((store / "zarr.json").read_text())
    ours = record["attributes"]["patchprism"]
    ours["origin"]["model"] = ours["model"]["name"] = name
    (store / "zarr.json").write_text(json.dumps(record))
    return store


NAMES = [
    "hf:facebook/dinov2-small",
    "hf:evil/repo",
    "hf:/etc",
    "timm:vit_small",
    "dinov2_vits14",
    "mine",
    "hub:x",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_stores_record_is_enough(store, version_1, tmp_path, name, nobody_is_asked, monkeypatch):
    """Opening, viewing, writing and exploring use only the store, not a registry, a cache or the hub."""

    def asked(*args, **options):
        raise AssertionError("a record was looked up")

    for module in ("registry", "official", "huggingface", "timm_models"):
        monkeypatch.setattr(f"patchprism.backbones.{module}.find_record", asked)
    renamed(store, name)
    view = patchprism.visualize([store])
    assert (view.record.name, view.record.width) == (name, 24)
    if name == NAMES[0]:  # these draw, which is slow
        assert view.explore().message.header["model"]["name"] == name
        with open_engine() as engine:
            render_photos([store], tmp_path / "out", settings=Settings(), engine=engine)
        report = json.loads((tmp_path / "out" / "report.json").read_text())
        assert report["model"]["name"] == name
    prism = Prism.load(version_1 / "minmax.safetensors")
    prism.origin["model"] = name
    assert len(patchprism.visualize([store], prism=prism)) == 3


def test_the_page_makes_no_requests(store, nobody_is_asked):
    """Neither for the store's model nor for one in a request; the user's new photos give a clear error."""
    from patchprism.explorer.work import FitRequest, Job, Workshop, check_request

    view = patchprism.visualize([renamed(store, "hf:evil/repo")])
    workshop = Workshop(view, b"", None)
    try:
        check_request(view, FitRequest(threshold=0.5))
        for name in ("hf:evil/other", "timm:evil", "hub:x"):
            with pytest.raises(PatchPrismError):
                check_request(view, FitRequest(model=name))
        made = workshop._made(view, [], Job(), FitRequest(threshold=0.5))
        assert made.prism.threshold_ == 0.5
        photo = np.zeros((48, 64, 3), np.uint8)
        with pytest.raises(PatchPrismError):
            workshop._made(view, [("new", photo)], Job(), FitRequest())
    finally:
        workshop.close()


# -- JSON -----------------------------------------------------------------------------------------------------


@FEW
@given(
    st.recursive(
        st.floats() | st.integers() | st.text(), lambda i: st.lists(i) | st.dictionaries(st.text(), i)
    )
)
def test_written_reports_are_json(value):
    def refused(name):
        raise AssertionError(name)

    json.loads(to_json(value), parse_constant=refused)


def test_a_report_with_infinities_is_json(version_1, tmp_path):
    view = patchprism.visualize([version_1 / "toy.zarr"])
    view.settings["extra"] = {
        "a": float("inf"),
        "b": [float("nan")],
        "c": np.float32("inf"),
        "d": np.zeros(2),
    }
    view.save(tmp_path)
    text = (tmp_path / "report.json").read_text()
    assert from_json(text)["settings"]["extra"] == {"a": None, "b": [None], "c": None, "d": [0, 0]}


def test_every_field_of_a_message(version_1):
    content = patchprism.visualize([version_1 / "toy.zarr"]).explore().message.to_bytes()
    (length,) = struct.unpack_from("<I", content, 8)
    header = json.loads(content[12 : 12 + length])
    paths = [path for path in places(header) if path[:1] == ("buffers",) or len(path) < 2]

    @FEW
    @given(st.sampled_from(paths), odd | st.just("DROP"))
    def play(path, text):
        written = changed(header, path, text).encode(errors="replace")
        with contextlib.suppress(MessageError):
            Message.from_bytes(
                content[:8] + struct.pack("<I", len(written)) + written + content[12 + length :]
            )

    play()


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "{nope",
            "NaN",
            '{"a": Infinity}',
            "[-Infinity]",
            "1e999",
            "9" * 400,
            "9" * 5000,
            '{"a": 1, "a": 1}',
        ),
        *("[" * 40 + "]" * 40, "[" * 100_000, '{"a":' * 50_000, b"\xff"),
    ],
)
def test_other_json_is_refused(text):
    with pytest.raises(ValueError, match=r".") as caught:
        from_json(text)
    assert len(str(caught.value)) < 300
