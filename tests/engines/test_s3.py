"""Both engines over S3's protocol: a bucket on this machine (moto), read and written through s3fs.

Not in the default suite, since nothing else here needs these packages:

    pip install s3fs 'moto[server]' && pytest -m slow tests/engines/test_s3.py
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from toys import make_photos

from patchprism import Prism

pytestmark = pytest.mark.slow
COUNT = 70
MODEL = ["--model", "efficientnet_lite2", "--size", "64"]


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """Photos in a bucket, one of them bad; what runs in a process of its own finds the server by its environment."""
    server = pytest.importorskip("moto.server", reason="moto is the server")
    s3fs = pytest.importorskip("s3fs", reason="s3fs opens s3:// addresses")
    pytest.importorskip("efficientnet_lite_pytorch", reason="the embedded model is an extra")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    address = f"http://127.0.0.1:{running.get_host_and_port()[1]}"
    environment = {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    folder = make_photos(tmp_path_factory.mktemp("s3") / "p", COUNT)
    (folder / "zbad.png").write_text("no photo")
    files = s3fs.S3FileSystem(key="x", secret="x", endpoint_url=address)
    files.mkdir("photos")
    files.mkdir("out")
    files.put(f"{folder}/", "photos/p/", recursive=True)
    yield files, environment
    running.stop()


def run(environment, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "patchprism", *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 3, done.stderr
    assert "zbad.png: is no photo" in done.stderr
    return done


@pytest.mark.parametrize("engine", [["--engine", "local"], ["--engine", "ray", "--workers", "2"]])
def test_photos_stores_and_pictures_in_a_bucket(bucket, engine, tmp_path):
    if "ray" in engine:
        pytest.importorskip("ray", reason="Ray is an extra")
    files, environment = bucket
    name = engine[1]
    run(environment, "features", "s3://photos/p", "-o", f"s3://out/{name}.zarr", *MODEL, *engine)
    run(environment, "fit", f"s3://out/{name}.zarr", "-o", tmp_path / "store.prism", *engine)
    run(environment, "render", "s3://photos/p", "-o", f"s3://out/{name}", "--overlay", "0.5", *MODEL, *engine)
    written = {path.rsplit("/", 1)[1] for path in files.ls(f"out/{name}")}
    assert sum(each.endswith(".pca.png") for each in written) == COUNT
    assert sum(each.endswith(".overlay.png") for each in written) == COUNT
    assert {"report.json", "prism.safetensors", "results.png"} <= written
    assert not any(each.startswith(".") for each in written)
    files.get(f"out/{name}/prism.safetensors", str(tmp_path / "pictures.prism"))
    stored, drawn = (Prism.load(tmp_path / f"{each}.prism") for each in ("store", "pictures"))
    # float16 in the store, float32 on the way to pictures.
    np.testing.assert_allclose(stored.scene_components_[:2], drawn.scene_components_[:2], atol=2e-3)
