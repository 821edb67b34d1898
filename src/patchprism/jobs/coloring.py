"""Which prism colours the photos of a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from patchprism.errors import OptionError
from patchprism.jobs.run import ALL, Sample
from patchprism.jobs.settings import check_origin, with_mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchprism.jobs.settings import Settings
    from patchprism.prism.estimator import Prism


@dataclass(frozen=True, kw_only=True)
class Coloring:
    """Which prism colours the photos.

    Attributes
    ----------
    prism : Prism, optional
        A fitted one; by default one is fitted to the photos, or to a sample of them.
    force : bool
        Use the prism even where model, weights, framing or dtype differ from those it was fitted on.
    fetch_from : sequence of str
        As in :func:`~patchprism.visualize`.
    """

    prism: Prism | None = None
    force: bool = False
    sample: Sample = ALL
    fetch_from: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot go together."""
        if self.prism is not None and self.sample.count is not None:
            raise OptionError("sample is for fitting; the prism is fitted already")

    def unfitted(self, settings: Settings) -> Prism:
        """The prism that is to be fitted; or the one that is given, with the settings' mask."""
        return settings.prism() if self.prism is None else with_mask(self.prism, settings.mask_options())

    def check(self, origin: dict[str, Any]) -> None:
        """Refuse tokens that are not those the prism was fitted on."""
        if self.prism is not None and not self.force:
            check_origin(self.prism, origin)


NEW = Coloring()
