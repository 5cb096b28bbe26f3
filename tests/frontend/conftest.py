"""A browser on one ComfyUI for all tests of this folder; they are skipped without ComfyUI, playwright or a browser."""

import pytest

from tests.host.comfy_server import HOW_TO_ENABLE, ComfyServer, find_comfyui

sync_api = pytest.importorskip("playwright.sync_api", reason="make test-frontend installs it")


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A running ComfyUI with the pack."""
    comfyui = find_comfyui()
    if comfyui is None:
        pytest.skip(HOW_TO_ENABLE)
    server = ComfyServer(comfyui, tmp_path_factory.mktemp("comfyui"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def frontend(server):
    """The frontend of that ComfyUI, in one page."""
    from tests.frontend.browser import CHROMIUM, Frontend

    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"no Chromium: run playwright install chromium, or set CHROMIUM_PATH ({error})")
        yield Frontend(browser.new_page(viewport={"width": 1600, "height": 1000}), server.url)
        browser.close()


@pytest.fixture
def newest(frontend):
    """Only with a frontend that has the newer rendering, the new search and blueprints of packs."""
    if frontend.version < (1, 49):
        pytest.skip(f"frontend {frontend.version} is older")


@pytest.fixture(params=["classic", "newer"])
def rendering(request, frontend):
    """Both ways to draw nodes; older frontends have one that counts."""
    if request.param == "newer":
        request.getfixturevalue("newest")
    frontend.render(newer=request.param == "newer")
    return request.param
