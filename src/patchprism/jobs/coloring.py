"""Which prism colours the photos of a job."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from patchprism.errors import OptionError
from patchprism.jobs.run import ALL, Sample
from patchprism.jobs.settings import check_head, check_origin, with_mask
from patchprism.prism.options import check_taught

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchprism.backbones import BackboneRecord
    from patchprism.jobs.given import GivenMasks
    from patchprism.jobs.settings import Settings
    from patchprism.prism.estimator import Prism
    from patchprism.prism.head import Head


@dataclass(frozen=True, kw_only=True)
class Coloring:
    """Which prism colours the photos.

    Attributes
    ----------
    prism : Prism, optional
        A fitted prism; by default one is fitted to the photos, or to a sample of them.
    force : bool
        Use the prism even if model, weights, framing or dtype differ from those of its fit.
    fetch_from : sequence of str
        As in :func:`~patchprism.visualize`.
    masks : GivenMasks, optional
        Masks of some of the photos, from which the foreground of the others is learned.
    head : Head, optional
        A head that was taught before.
    """

    prism: Prism | None = None
    masks: GivenMasks | None = None
    head: Head | None = None
    force: bool = False
    sample: Sample = ALL
    fetch_from: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse attributes that exclude each other."""
        if self.prism is not None and self.sample.count is not None:
            raise OptionError("sample is for fitting, but the prism is already fitted; give only one of them")
        if self.prism is not None and (self.masks is not None or self.head is not None):
            what = "the masks are" if self.masks is not None else "the head is"
            raise OptionError(f"{what} for fitting, but the prism is already fitted; give only one of them")
        if self.masks is not None and self.head is not None:
            raise OptionError("the masks and the head both define the foreground; give only one of them")

    @property
    def model(self) -> str | None:
        """Name of the model that the prism or the head belongs to, if they record it."""
        taught = self.prism or self.head
        return taught.origin.get("model") if taught else None

    def resolved(self, settings: Settings, record: BackboneRecord | None = None) -> Settings:
        """Settings with every choice made; masks and a head determine how the foreground is found.

        Raises
        ------
        OptionError
            If a setting does not go with the prism, the masks or the head.
        """
        if self.masks is not None or self.head is not None:
            check_taught(settings.foreground or "auto")
            threshold = "auto" if settings.threshold is None else settings.threshold
            settings = replace(settings, foreground="mask", threshold=threshold)
        elif self.prism is None and settings.foreground == "mask":
            raise OptionError("foreground 'mask' needs masks, or a head that was taught from masks")
        return settings.resolved(self.prism, head=self.head, record=record)

    def report_entries(self) -> dict[str, str]:
        """The entries of a report about given masks and heads."""
        given = {
            "mask": "" if self.masks is None else self.masks.name,
            "head": "" if self.head is None else self.head.loaded_from or repr(self.head),
        }
        return {name: text for name, text in given.items() if text}

    def unfitted(self, settings: Settings) -> Prism:
        """The prism to fit; or the given prism, with the mask options of the settings."""
        if self.prism is not None:
            return with_mask(self.prism, settings.mask_options())
        prism = settings.prism()
        prism.head = self.head
        return prism

    def check(self, origin: dict[str, Any]) -> None:
        """Refuse tokens that are not those the prism was fitted on."""
        if self.prism is not None and not self.force:
            check_origin(self.prism, origin)
        if self.head is not None and not self.force:
            check_head(self.head, origin)


NEW = Coloring()
