"""The model of a job that names none: DINOv2 where its weights are here or can be fetched. Loads no torch."""

from __future__ import annotations

import functools
import threading
import time

from patchprism.backbones.catalog import DEFAULT_MODEL, EMBEDDED_MODEL, RECORDS
from patchprism.backbones.weights import locate_weights, official_url

# A DNS resolver may take half a minute to give up; the timeout of the request does not limit it.
_PATIENCE_S = 1.5
_ANSWER_HOLDS_S = 60


def choose_model() -> str:
    """Name of the model of a job that names none.

    DINOv2's ViT-S/14 if its weights are on this machine, or if its server offers them now; otherwise the embedded
    ViT, where its package is installed. The server is asked for at most 1.5 s, and once per minute.
    """
    record, embedded = RECORDS[DEFAULT_MODEL], RECORDS[EMBEDDED_MODEL]
    if locate_weights(record) is not None or locate_weights(embedded) is None:
        return DEFAULT_MODEL
    offered = _is_offered(official_url(record), int(time.monotonic()) // _ANSWER_HOLDS_S)
    return DEFAULT_MODEL if offered else EMBEDDED_MODEL


def explain_choice(model: str) -> str:
    """The note on a job that named no model and runs with this one; empty if it is DINOv2."""
    if model != EMBEDDED_MODEL:
        return ""
    return (
        f"no model was named, so {EMBEDDED_MODEL} was used; to get DINOv2 instead, run "
        f"`patchprism download {DEFAULT_MODEL}`"
    )


@functools.lru_cache(maxsize=1)
def _is_offered(url: str, period: int) -> bool:
    """Whether a file can be fetched now."""
    found: list[bool] = []
    asking = threading.Thread(target=lambda: found.append(_ask(url)), daemon=True)
    asking.start()
    asking.join(_PATIENCE_S)
    return found == [True]


def _ask(url: str) -> bool:
    import urllib.request

    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "patchprism"})
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE_S):
            return True
    # Any error, such as an HTTP status, a proxy or a certificate, means that the file cannot be downloaded.
    except Exception as error:
        getattr(error, "close", bool)()
        return False
