"""The jobs with the parts of a run as keywords, for tests."""

from __future__ import annotations

from dataclasses import fields

from patchprism.jobs import prisms, render, stores
from patchprism.jobs.coloring import Coloring
from patchprism.jobs.engines import open_engine
from patchprism.jobs.run import Run, Sample
from patchprism.jobs.viewing import make_view
from patchprism.pictures.options import PictureOptions

_RUN = ("backbone", "reader", "tell")
_PICTURES = tuple(each.name for each in fields(PictureOptions))


def _take(options, names):
    return {name: options.pop(name) for name in names if name in options}


def _coloring(options):
    sample = Sample(options.pop("sample", None), options.pop("seed", 0))
    given = options.pop("given", None)  # input masks; "masks" are output masks
    return Coloring(sample=sample, masks=given, **_take(options, ("prism", "force", "fetch_from", "head")))


def render_photos(photos, out, *, engine, **options):
    run, coloring = Run(engine=engine, **_take(options, _RUN)), _coloring(options)
    pictures = PictureOptions(**_take(options, _PICTURES))
    return render.render_photos(photos, out, pictures=pictures, run=run, coloring=coloring, **options)


def extract_features(photos, out, *, engine, **options):
    run = Run(engine=engine, **_take(options, _RUN))
    return stores.extract_features(photos, out, run=run, **options)


def fit_prism(photos, out, *, engine, sample=None, seed=0, **options):
    run = Run(engine=engine, **_take(options, _RUN))
    options |= {"sample": sample, "seed": seed}
    coloring = _coloring(options)
    return prisms.fit_prism(photos, out, run=run, coloring=coloring, **options)


def view_store(store, *, settings, **options):
    with open_engine() as engine:
        run, coloring = Run(engine=engine, **_take(options, _RUN)), _coloring(options)
        return make_view(getattr(store, "path", store), settings, run, coloring)
