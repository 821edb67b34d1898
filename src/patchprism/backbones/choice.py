"""The default model: DINOv2 if its weights are on this machine or can be downloaded. Loads no torch."""

from __future__ import annotations

import functools
import threading
import time
from urllib.parse import urlsplit

from patchprism.backbones.catalog import DEFAULT_MODEL, EMBEDDED_MODEL, RECORDS
from patchprism.backbones.weights import locate_weights, official_url

# A DNS resolver may take half a minute to give up; the timeout of the request does not limit it.
_PATIENCE_S = 1.5
_ANSWER_HOLDS_S = 60


def choose_model() -> tuple[str, str]:
    """Name of the default model, and the reason why it is not DINOv2 (empty if it is).

    The embedded ViT is chosen if its package is installed, DINOv2's weights are not on this machine, and their
    server does not offer them now. Otherwise DINOv2's ViT-S/14 is chosen. The server is asked at most once per
    minute, and gets 1.5 s to answer.
    """
    record, embedded = RECORDS[DEFAULT_MODEL], RECORDS[EMBEDDED_MODEL]
    if locate_weights(record) is not None or locate_weights(embedded) is None:
        return DEFAULT_MODEL, ""
    url = official_url(record)
    trouble = _trouble(url, int(time.monotonic()) // _ANSWER_HOLDS_S)
    if not trouble:
        return DEFAULT_MODEL, ""
    return (
        EMBEDDED_MODEL,
        f"DINOv2's weights are not on this machine, and {urlsplit(url).netloc or url} {trouble}",
    )


def explain_choice(why: str) -> str:
    """The note of a job that uses the embedded ViT because no model was named and DINOv2 is not available."""
    return (
        f"no model was named, so {RECORDS[EMBEDDED_MODEL].title} was used: {why}; to fetch DINOv2, "
        f"run `patchprism download {DEFAULT_MODEL}` when there is a network"
    )


@functools.lru_cache(maxsize=1)
def _trouble(url: str, period: int) -> str:
    """Why a file cannot be fetched now; empty if it can. The answer is cached for one ``period``."""
    found: list[str] = []
    asking = threading.Thread(target=lambda: found.append(_ask(url)), daemon=True)
    asking.start()
    asking.join(_PATIENCE_S)
    return found[0] if found else "does not answer"


def _ask(url: str) -> str:
    import urllib.error
    import urllib.request

    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "patchprism"})
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE_S):
            return ""
    except urllib.error.HTTPError as error:
        error.close()
        return f"answers HTTP {error.code} {error.reason}"
    # Any other error, such as a proxy or a certificate, also means that the file cannot be downloaded.
    except Exception as error:
        reason = getattr(error, "reason", None) or error
        return f"cannot be reached ({str(reason).strip() or type(error).__name__})"
