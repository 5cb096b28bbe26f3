"""One ComfyUI for all tests of this folder; without one they are skipped. Its log is shown when a test fails."""

import numpy as np
import pytest
from PIL import Image

from tests.host import quantised_checkpoints, tiny_checkpoints
from tests.host.comfy_client import ComfyClient
from tests.host.comfy_server import GGUF_PACK, HOW_TO_ENABLE, ROOT, ComfyServer, find_comfyui

_LOG_START, _LOG_SHOWN = pytest.StashKey(), 8000


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A running ComfyUI with the pack, the test nodes, the tiny checkpoints, and the GGUF loader if it is installed."""
    comfyui = find_comfyui()
    if comfyui is None:
        pytest.skip(HOW_TO_ENABLE)
    server = ComfyServer(comfyui, tmp_path_factory.mktemp("comfyui"))
    loader = comfyui / "custom_nodes" / GGUF_PACK
    if loader.is_dir():
        (server.base / "custom_nodes" / GGUF_PACK).symlink_to(loader)
    tiny_checkpoints.write_all(server.base / "models")
    quantised_checkpoints.write_all(server.base / "models")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def client(server):
    """A user of that ComfyUI."""
    client = ComfyClient(server.url, server.base)
    yield client
    client.close()


@pytest.fixture(autouse=True)
def _log_of_this_test(request, server):
    request.node.stash[_LOG_START] = (server, server.log_size())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.failed and _LOG_START in item.stash:
        server, start = item.stash[_LOG_START]
        report.sections.append(("ComfyUI's log", server.log_since(start)[-_LOG_SHOWN:]))
    return report


@pytest.fixture(scope="session")
def scene():
    """The demo picture, 64x64, 8-bit."""
    return np.asarray(Image.open(ROOT / "vipaint_ops/assets/demo_scene.png").convert("RGB"))
