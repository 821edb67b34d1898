"""Weights: locations, downloads, and refusals."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from standin import filled_state

from patchprism.backbones import download_weights, find_record, load_backbone
from patchprism.backbones.checkpoint import read_checkpoint
from patchprism.backbones.dinov2 import build
from patchprism.backbones.layouts import official_names
from patchprism.backbones.weights import obtain_weights
from patchprism.errors import ModelError, WeightsError

if TYPE_CHECKING:
    from conftest import Site

RECORD = find_record("dinov2_vits14")
FILE = "dinov2_vits14_pretrain.pth"
PATH = f"/dinov2_vits14/{FILE}"


# --- downloads ---


def test_download_is_recorded_and_not_repeated(site: Site, caches: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    origin = download_weights(RECORD.name, progress=lambda *args: told.append(args))
    path = caches / "patchprism" / "weights" / FILE
    assert (origin.source, origin.path, origin.sha256) == (site.url + PATH, str(path), site.sha256)
    assert path.read_bytes() == site.content
    assert (path.parent / f"{FILE}.sha256").read_text() == f"{site.sha256}  {FILE}\n"
    assert told[-1] == (f"downloading {FILE}", len(site.content), len(site.content))
    assert [done for _, done, _ in told] == sorted({done for _, done, _ in told})
    assert obtain_weights(RECORD) == origin
    assert [request["path"] for request in site.requests] == [PATH]
    assert sorted(p.suffix for p in path.parent.iterdir()) == [".lock", ".pth", ".sha256"]


def test_a_break_is_resumed_within_one_call(site: Site) -> None:
    site.cut = [1_000_000, 500_000]
    assert obtain_weights(RECORD).sha256 == site.sha256
    assert [request.get("range") for request in site.requests] == [None, "bytes=1000000-", "bytes=1500000-"]
    assert site.requests[1]["if-range"] == site.etag


def test_a_break_is_resumed_by_a_later_call(site: Site, caches: Path) -> None:
    site.cut = [1_000_000, 10, 10, 10]
    with pytest.raises(WeightsError, match="broke off after 1000030 of 3200004 bytes"):
        obtain_weights(RECORD)
    assert not (caches / "patchprism" / "weights" / FILE).exists()
    assert obtain_weights(RECORD).sha256 == site.sha256
    assert site.requests[-1]["range"] == "bytes=1000030-"


def test_a_file_that_changed_meanwhile_is_downloaded_again(site: Site) -> None:
    site.cut = [1_000_000, 0, 0, 0]
    with pytest.raises(WeightsError):
        obtain_weights(RECORD)
    site.content, site.etag = site.content[::1].replace(b"\x00", b"\x01"), '"two"'
    assert obtain_weights(RECORD).sha256 == site.sha256
    assert site.requests[-1]["if-range"] == '"one"'


def test_a_server_without_ranges_starts_over(site: Site) -> None:
    site.ranges, site.cut = False, [1_000_000]
    assert obtain_weights(RECORD).sha256 == site.sha256
    assert site.requests[-1]["range"] == "bytes=1000000-"


def test_without_a_strong_validator_nothing_is_resumed(site: Site) -> None:
    site.etag, site.cut = 'W/"weak"', [1_000_000]
    assert obtain_weights(RECORD).sha256 == site.sha256
    assert "range" not in site.requests[-1]


def test_a_download_without_length_is_accepted(site: Site) -> None:
    site.chunked = True
    assert obtain_weights(RECORD).sha256 == site.sha256


def test_a_body_shorter_than_its_length_is_never_kept(site: Site, caches: Path) -> None:
    site.claimed, site.ranges = len(site.content) + 5, False
    with pytest.raises(WeightsError, match="broke off after 3200004 of 3200009 bytes"):
        obtain_weights(RECORD)
    assert not (caches / "patchprism" / "weights" / FILE).exists()


@pytest.mark.parametrize(
    ("status", "words", "attempts"),
    [(404, "the server answers HTTP 404 Not Found", 1), (403, "HTTP 403", 1), (503, "HTTP 503", 4)],
)
def test_refusals(status: int, words: str, attempts: int, site: Site) -> None:
    site.status = status
    with pytest.raises(WeightsError, match=words) as caught:
        obtain_weights(RECORD)
    assert site.url + PATH in str(caught.value)
    assert len(site.requests) == attempts


def test_a_web_page_instead_of_weights_is_not_kept(site: Site, caches: Path) -> None:
    site.content = b"<!doctype html><title>Please log in</title>"
    with pytest.raises(WeightsError, match=f"{site.url}.*a web page, not weights"):
        obtain_weights(RECORD)
    assert [p.suffix for p in (caches / "patchprism" / "weights").iterdir()] == [".lock"]


def test_an_old_partial_file_of_another_address_is_not_continued(site: Site) -> None:
    site.cut = [1_000_000, 0, 0, 0]
    with pytest.raises(WeightsError):
        obtain_weights(RECORD)
    os.environ["PATCHPRISM_DINOV2_URL"] = site.url + "/mirror/"  # the fixture's monkeypatch restores it
    assert obtain_weights(RECORD).sha256 == site.sha256
    assert site.requests[-1]["path"] == "/mirror" + PATH
    assert "range" not in site.requests[-1]


def test_two_processes_download_once(site: Site) -> None:
    site.delay = 1.5  # long enough for the second process to come while the first one downloads
    code = (
        "from patchprism.backbones import download_weights; print(download_weights('dinov2_vits14').sha256)"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [process.communicate(timeout=30)[0].strip() for process in both] == [site.sha256] * 2
    assert len(site.requests) == 1


def test_without_a_network_three_solutions_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHPRISM_DINOV2_URL", "http://127.0.0.1:9")
    for options in ({}, {"download": False}):
        with pytest.raises(WeightsError) as caught:
            obtain_weights(RECORD, **options)
        message = str(caught.value)
        assert "\n" not in message
        for way in (
            "weights='FILE'",
            "`patchprism download dinov2_vits14`",
            "model='efficientnet_lite2'",
            PATH,
        ):
            assert way in message


def test_an_address_is_downloaded_to_a_separate_file_name(site: Site) -> None:
    one = obtain_weights(RECORD, f"{site.url}/a/model.pth?token=1")
    two = obtain_weights(RECORD, f"{site.url}/b/model.pth")
    assert one.path != two.path
    assert one.path.endswith("-model.pth")
    assert one.sha256 == two.sha256 == site.sha256


# --- SHA-256 at every later load ---


def test_a_download_that_changes_later_is_refused(site: Site) -> None:
    path = Path(obtain_weights(RECORD).path)
    path.write_bytes(site.content[:-1] + b"?")
    with pytest.raises(WeightsError, match=r"was recorded for it. If it is damaged, delete it") as caught:
        obtain_weights(RECORD)
    path.unlink()
    assert obtain_weights(RECORD).sha256 == site.sha256
    assert str(path) in str(caught.value)


def test_torch_hubs_file_comes_first_and_is_pinned(site: Site, caches: Path) -> None:
    obtain_weights(RECORD)
    path = caches / "torch" / "hub" / "checkpoints" / FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK\x03\x04 from the official code")
    assert obtain_weights(RECORD).path == str(path)
    path.write_bytes(b"PK\x03\x04 replaced")
    with pytest.raises(WeightsError, match="was recorded") as caught:
        obtain_weights(RECORD)
    pin = Path(str(caught.value).rsplit("delete ", 1)[1])
    pin.unlink()  # as the message advises if the file was replaced on purpose
    assert obtain_weights(RECORD).sha256 == hashlib.sha256(b"PK\x03\x04 replaced").hexdigest()


def test_a_cache_that_cannot_be_written_is_no_error(caches: Path) -> None:
    path = caches / "torch" / "hub" / "checkpoints" / FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK\x03\x04")
    (caches / "patchprism").write_text("a file where the folder should be")
    assert obtain_weights(RECORD).path == str(path)
    with pytest.raises(WeightsError, match="cannot be written"):
        download_weights("dinov2_vitb14")


def test_download_of_an_unknown_model() -> None:
    with pytest.raises(ModelError, match="unknown model"):
        download_weights("dinov3")


# --- contents of the file ---


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch hacked",)


def _pickled_code(path: Path) -> None:
    torch.save({"cls_token": _Evil()}, path)


def _bare_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(_Evil(), protocol=2))


def _truncated(path: Path) -> None:
    torch.save({"cls_token": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-500])


def _huge_header(path: Path) -> None:
    path.write_bytes((1 << 60).to_bytes(8, "little") + b"{}")


def _broken_header(path: Path) -> None:
    path.write_bytes((10).to_bytes(8, "little") + b"{not json!")


def _offsets_outside(path: Path) -> None:
    header = b'{"cls_token":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\x00" * 8)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_pickled_code, "holds code besides tensors"),
        (_bare_pickle, "holds code besides tensors|damaged"),
        (_truncated, "damaged"),
        (_huge_header, "damaged, cannot be read as safetensors"),
        (_broken_header, "damaged, cannot be read as safetensors"),
        (_offsets_outside, "damaged, cannot be read as safetensors"),
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_bytes(b"  \n<html>404</html>"), "a web page, not weights"),
        (lambda path: path.write_bytes(b"hello"), "neither a PyTorch checkpoint"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: None, "no such file"),
        (lambda path: torch.save([torch.zeros(1)], path), "must hold tensors by name, got list"),
        (lambda path: torch.save({}, path), "must hold tensors by name"),
        (
            lambda path: torch.save({"model": {"x": torch.zeros(1)}}, path),
            "missing: cls_token, .* and .* more; unknown: x; is this file for this model",
        ),
        (lambda path: torch.save({"x": torch.zeros(3).to_sparse()}, path), "'x' must be a dense tensor"),
    ],
)
def test_hostile_and_broken_files(
    make: object, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    make(path)  # type: ignore[operator]
    with pytest.raises(WeightsError, match=words) as caught:
        load_backbone(RECORD.name, weights=str(path), device="cpu")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "hacked").exists()


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return filled_state(build(RECORD))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"norm.bias": None}, "missing: norm.bias;"),
        ({f"blocks.{i}.ls1.gamma": None for i in range(5)}, "missing: .* and 2 more"),
        ({"blocks.0.attn.qkv.lora_A.weight": torch.zeros(2)}, "unknown: blocks.0.attn.qkv.lora_A.weight"),
        ({"register_tokens": torch.zeros(1, 4, 384)}, "unknown: register_tokens"),
        (
            {"pos_embed": torch.zeros(1, 1 + 16 * 24, 384)},
            r"pos_embed must have shape \(1, 1370, 384\), got \(1, 385, 384\)",
        ),
        (
            {"blocks.7.mlp.fc1.bias": torch.full((1536,), torch.inf)},
            "blocks.7.mlp.fc1.bias holds values that are",
        ),
        ({"mask_token": torch.full((1, 384), torch.nan)}, "mask_token holds values that are not finite"),
        (
            {"cls_token": torch.zeros(1, 1, 384, dtype=torch.int32)},
            "cls_token must be floating point, got torch.int32",
        ),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_tensor_that_does_not_fit_is_named(
    changes: dict[str, torch.Tensor | None],
    words: str,
    suffix: str,
    state: dict[str, torch.Tensor],
    tmp_path: Path,
) -> None:
    changed = {**state, **changes}
    changed = {name: tensor for name, tensor in changed.items() if tensor is not None}
    path = tmp_path / f"weights{suffix}"
    torch.save(changed, path) if suffix == ".pth" else save_file(changed, path)
    with pytest.raises(WeightsError, match=words):
        load_backbone(RECORD.name, weights=path, device="cpu")


def test_large_finite_float16_values_are_not_treated_as_infinite(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    half = {name: tensor.half() for name, tensor in state.items()}
    half["mask_token"] = torch.full((1, 384), 60000.0, dtype=torch.float16)
    save_file(half, tmp_path / "half.safetensors")
    backbone = load_backbone(RECORD.name, weights=tmp_path / "half.safetensors", device="cpu")
    assert backbone.patch_tokens(torch.zeros(1, 3, 14, 14)).isfinite().all()


def test_a_missing_key_of_the_hubs_layout_is_named() -> None:
    state = {"encoder.layer.0.attention.attention.query.weight": torch.zeros(2, 2)}
    with pytest.raises(WeightsError, match=r"missing: encoder.layer.0.attention.attention.key.weight"):
        official_names(state)


# --- the Hugging Face hub, from its cache on disk ---


def _hub_cache(caches: Path, content: bytes, *, name: str | None = None) -> None:
    """Store a file like the hub's client: blobs named by their SHA-256, and snapshots that link to them."""
    root = caches / "hub" / "models--someone--dino"
    blob = root / "blobs" / (name or hashlib.sha256(content).hexdigest())
    commit = "0123456789abcdef0123456789abcdef01234567"
    for folder in (blob.parent, root / "refs", root / "snapshots" / commit):
        folder.mkdir(parents=True)
    blob.write_bytes(content)
    (root / "refs" / "main").write_text(commit)
    (root / "snapshots" / commit / "model.safetensors").symlink_to(blob)


HUB_CODE = """
from patchprism.backbones import load_backbone
try:
    origin = load_backbone("dinov2_vits14", weights={weights!r}, device="cpu").weights
    print(origin.source, origin.sha256)
except Exception as error:
    print(type(error).__name__, error)
"""


def _in_another_process(weights: str) -> str:
    # The hub's client reads HF_HUB_CACHE and HF_HUB_OFFLINE when it is imported.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", HUB_CODE.format(weights=weights)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_the_hubs_file_is_used_offline(caches: Path, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "x")
    content = (tmp_path / "x").read_bytes()
    _hub_cache(caches, content)
    commit = "0123456789abcdef0123456789abcdef01234567"
    expected = f"hf:someone/dino@{commit} {hashlib.sha256(content).hexdigest()}"
    assert _in_another_process("hf:someone/dino") == expected
    assert _in_another_process(f"hf:someone/dino@{commit}") == expected


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("hf:someone/other", "could not be fetched from the Hugging Face hub"),
        ("hf:someone/dino", "damaged"),
        ("hf:", "must be hf:OWNER/NAME"),
        ("hf:a/b/c", "must be hf:OWNER/NAME"),
    ],
)
def test_the_hubs_failures(weights: str, words: str, caches: Path) -> None:
    _hub_cache(caches, b"damaged", name="0" * 64)
    answer = _in_another_process(weights)
    assert answer.startswith("WeightsError")
    assert words in answer


def test_reading_keeps_the_bits(tmp_path: Path) -> None:
    state = {"a": torch.randn(3, 4), "b": torch.randn(2).to(torch.bfloat16)}
    torch.save(state, tmp_path / "a.pth")
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for file in ("a.pth", "a.safetensors", "old.pth"):
        read = read_checkpoint(tmp_path / file)
        assert all(torch.equal(read[name], state[name]) for name in state)
