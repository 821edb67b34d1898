"""The default model: DINOv2 if its weights are on this machine or can be downloaded. Loads no torch."""

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
    """Name of the default model: DINOv2 if its weights are here or can be fetched, otherwise an embedded one.

    The embedded ViT is chosen if its package is installed, DINOv2's weights are not on this machine, and their
    server does not offer them now. Otherwise DINOv2's ViT-S/14 is chosen. The server is asked at most once per
    minute, and gets 1.5 s to answer.
    """
    record, embedded = RECORDS[DEFAULT_MODEL], RECORDS[EMBEDDED_MODEL]
    if locate_weights(record) is not None or locate_weights(embedded) is None:
        return DEFAULT_MODEL
    offered = _is_offered(official_url(record), int(time.monotonic()) // _ANSWER_HOLDS_S)
    return DEFAULT_MODEL if offered else EMBEDDED_MODEL


def explain_choice(model: str) -> str:
    """The note of a job that names no model and uses this one; empty if it is DINOv2."""
    if model != EMBEDDED_MODEL:
        return ""
    return (
        f"no model was named, so {EMBEDDED_MODEL} was used; to get DINOv2 instead, run "
        f"`patchprism download {DEFAULT_MODEL}`"
    )


@functools.lru_cache(maxsize=1)
def _is_offered(url: str, period: int) -> bool:
    """Whether a file can be fetched now. The answer is cached for one ``period``."""
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
