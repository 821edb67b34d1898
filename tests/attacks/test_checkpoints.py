"""Files given as weights that are something else, or contain more: errors name what they are, and no code runs."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from patchprism.backbones import find_record, load_backbone
from patchprism.backbones.checkpoint import read_checkpoint
from patchprism.backbones.weights import obtain_weights
from patchprism.errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 88283115\n"


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch hacked",)


def _loop(path: Path) -> None:
    inner: dict[str, Any] = {}
    inner["model"] = inner
    torch.save(inner, path)


def _many(path: Path) -> None:
    """Each dictionary contains the one below a hundred times: 10^16 tensors, if all were counted."""
    inner: dict[str, Any] = {"x": 1}
    for _ in range(8):
        inner = {f"k{i}": inner for i in range(100)}
    torch.save(inner, path)


def _deep(path: Path) -> None:
    inner: dict[str, Any] = {"cls_token": torch.zeros(1)}
    for _ in range(200):
        inner = {"model": inner}
    torch.save(inner, path)


def _cut(path: Path) -> None:
    torch.save({"cls_token": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-500])


def _plain_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.pth", b"x")


def _scripted(path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p.write_bytes(LFS), "a pointer of Git LFS.*git lfs pull"),
        (
            lambda p: p.write_bytes(b"/annex/objects/SHA256E-s1--0.pth\n"),
            "a pointer of git-annex.*git annex get",
        ),
        (lambda p: p.write_bytes(b"\xef\xbb\xbf\n<!DOCTYPE html><p>Log in"), "a web page, not weights"),
        (lambda p: p.write_bytes(b"\x1f\x8b\x08\x00"), "a gzip archive; unpack it"),
        (
            lambda p: p.write_bytes(pickle.dumps({"a": 1}, protocol=4)),
            "a pickle that torch.save did not write",
        ),
        (_cut, "the file ends after .* bytes, before it is complete; download or copy"),
        (_plain_zip, "a zip archive that was not written by torch.save"),
        (_scripted, "a TorchScript archive contains code"),
        (
            lambda p: torch.save({"model": {"x": torch.zeros(1)}, "args": argparse.Namespace(lr=1)}, p),
            r"objects of argparse\.Namespace.*save its weights alone",
        ),
        (
            lambda p: torch.save({"x": torch.zeros(1), "best": np.float64(3)}, p),
            r"objects of numpy\..*weights alone",
        ),
        (lambda p: torch.save({"x": _Evil()}, p), "(posix|nt).system.*holds code besides tensors"),
        (
            lambda p: torch.save({"model": {"_fsdp_wrapped_module._flat_param": torch.zeros(9)}}, p),
            "one process's share",
        ),
        (
            lambda p: torch.save({"epoch": 3, "lr": 0.1}, p),
            "must hold tensors by name, got none in epoch, lr",
        ),
        (
            lambda p: torch.save({"a.b": torch.zeros(1), "a": {"b": torch.zeros(1)}}, p),
            "two tensors named a.b",
        ),
        (_loop, "must hold tensors"),
        (_many, "must hold tensors"),
        (_deep, "must hold tensors"),
        (
            lambda p: save_file({"scene_components": torch.zeros(1), "object_components": torch.zeros(1)}, p),
            "a prism, not weights; pass it as prism='FILE'",
        ),
    ],
)
def test_files_that_are_not_weights_are_named(
    make: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    make(path)
    with pytest.raises(WeightsError, match=words) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "hacked").exists()


def test_the_advice_for_a_namespace_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"x": torch.ones(1)}, "args": argparse.Namespace(lr=1)}, "FILE")
    with pytest.raises(WeightsError) as caught:
        read_checkpoint(tmp_path / "FILE")
    exec(str(caught.value).split("weights alone: ")[1].replace("(FILE", "('FILE'"), {"torch": torch})
    assert torch.equal(read_checkpoint(tmp_path / "weights.pth")["model.x"], torch.ones(1))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ((".metadata", "__0_0.distcp"), "distributed .* dcp_to_torch"),
        (("config.json", "model.safetensors"), "as the model hf:"),
        (("w.pth", "notes.txt"), "give the file inside, .*w.pth"),
        (("a.pth", "b.ckpt"), "give the file inside, one of a.pth, b.ckpt"),
        ((), "is a folder; give the file inside"),
    ],
)
def test_folders_instead_of_weights(files: tuple[str, ...], words: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in files:
        (folder / name).write_bytes(b"PK\x03\x04")
    with pytest.raises(WeightsError, match=words):
        obtain_weights(find_record("dinov2_vits14"), folder)


def test_one_part_of_a_distributed_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "__0_0.distcp").write_bytes(b"PK\x03\x04")
    with pytest.raises(WeightsError, match="one process's share"):
        read_checkpoint(tmp_path / "__0_0.distcp")


def test_a_repository_instead_of_a_file() -> None:
    with pytest.raises(WeightsError, match="hf:facebook/dinov2-small"):
        load_backbone("dinov2_vits14", weights="facebook/dinov2-small", device="cpu")
