"""Both engines with S3 and GCS: buckets on local servers, read and written through s3fs and gcsfs.

Not in the default suite, because nothing else here needs these packages, and the pins conflict with those of s3fs:

    pip install s3fs 'moto[server]' gcsfs gcp-storage-emulator && pytest -m slow tests/engines/test_buckets.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import partial
from http.server import HTTPServer

import numpy as np
import pytest
from toys import make_photos

from patchprism import Prism

pytestmark = pytest.mark.slow
COUNT = 70
MODEL = ["--model", "efficientnet_lite2", "--size", "64"]


@contextmanager
def s3_server():
    """Moto: its file system, and the environment with which other processes find it."""
    server = pytest.importorskip("moto.server", reason="moto is the server")
    s3fs = pytest.importorskip("s3fs", reason="s3fs opens s3:// addresses")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    address = f"http://127.0.0.1:{running.get_host_and_port()[1]}"
    environment = {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address,
    }
    yield s3fs.S3FileSystem(key="x", secret="x", endpoint_url=address), environment
    running.stop()


@contextmanager
def gs_server():
    """Like :func:`s3_server`, with gcp-storage-emulator."""
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="gcp-storage-emulator is the server")
    storage = pytest.importorskip("gcp_storage_emulator.storage")
    gcsfs = pytest.importorskip("gcsfs.core", reason="gcsfs opens gs:// addresses")
    # Its server does not report the port that it chose.
    handler = partial(emulator.RequestHandler, storage.Storage(use_memory_fs=True))
    running = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{running.server_port}"
    # By default, gcsfs asks for the kind of a bucket over gRPC, which would wait for minutes for an answer.
    environment = {"STORAGE_EMULATOR_HOST": address, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
    yield gcsfs.GCSFileSystem(project="x", token="anon", endpoint_url=address), environment
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture(scope="module", params=[("s3", s3_server), ("gs", gs_server)], ids=["s3", "gs"])
def bucket(request, tmp_path_factory):
    """Photos in a bucket, one of them bad: protocol, file system, and the environment for other processes."""
    protocol, serve = request.param
    pytest.importorskip("efficientnet_lite_pytorch", reason="the embedded model is an extra")
    folder = make_photos(tmp_path_factory.mktemp(protocol) / "p", COUNT)
    (folder / "zbad.png").write_text("no photo")
    with serve() as (files, environment):
        files.mkdir("photos")
        files.mkdir("out")
        files.put(f"{folder}/", "photos/p/", recursive=True)
        yield protocol, files, environment | {"PYTHONPATH": os.pathsep.join(sys.path)}


def run(environment, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "patchprism", *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 3, done.stderr
    assert "zbad.png: not a readable image" in done.stderr
    return done


@pytest.mark.parametrize(
    "engine", [["--engine", "local"], ["--engine", "ray", "--workers", "2"]], ids=["local", "ray"]
)
def test_photos_stores_and_pictures_in_a_bucket(bucket, engine, tmp_path):
    if "ray" in engine:
        pytest.importorskip("ray", reason="Ray is an extra")
    protocol, files, environment = bucket
    name = engine[1]
    photos, out = f"{protocol}://photos/p", f"{protocol}://out/{name}"
    run(environment, "features", photos, "-o", f"{out}.zarr", *MODEL, *engine)
    run(environment, "fit", f"{out}.zarr", "-o", tmp_path / "store.prism", *engine)
    run(environment, "render", photos, "-o", out, "--overlay", "0.5", *MODEL, *engine)
    written = {path.rsplit("/", 1)[1] for path in files.ls(f"out/{name}")}
    assert sum(each.endswith(".pca.png") for each in written) == COUNT
    assert sum(each.endswith(".overlay.png") for each in written) == COUNT
    assert {"report.json", "prism.safetensors", "results.png"} <= written
    assert not any(each.startswith(".") for each in written)
    files.get(f"out/{name}/prism.safetensors", str(tmp_path / "pictures.prism"))
    stored, drawn = (Prism.load(tmp_path / f"{each}.prism") for each in ("store", "pictures"))
    # The store has float16, and pictures are made from float32.
    np.testing.assert_allclose(stored.scene_components_[:2], drawn.scene_components_[:2], atol=2e-3)
