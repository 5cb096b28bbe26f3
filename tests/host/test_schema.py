"""What a running ComfyUI says of the pack, against what is recorded and shipped."""

from __future__ import annotations

import json
from urllib.request import urlopen

import pytest

from tests.host.comfy_server import ROOT
from tools.make_locales import LOCALES, MAIN, NODES, english
from tools.schema_snapshot import CORE_SNAPSHOT, SNAPSHOT, breaking_changes, read_schemas

RECORDED = json.loads(SNAPSHOT.read_text())
PACK = "vipaint"


def served(server, path: str) -> bytes:
    with urlopen(f"{server.url}/{path}") as answer:
        return answer.read()


def test_saved_workflows_still_fit_the_nodes(server):
    assert breaking_changes(RECORDED, read_schemas(server.url)) == []


def test_the_recorded_schemas_are_complete(server):
    assert read_schemas(server.url) == RECORDED, "record them again: python -m tools.schema_snapshot"


def test_core_nodes_are_as_the_workflows_expect_them(server):
    assert breaking_changes(json.loads(CORE_SNAPSHOT.read_text()), read_schemas(server.url, core=True)) == []


@pytest.mark.parametrize("node", RECORDED)
def test_help_pages_are_served(server, node):
    page = ROOT / "web" / "docs" / f"{node}.md"
    assert served(server, f"extensions/{PACK}/docs/{node}.md") == page.read_bytes()


def test_workflows_are_in_the_template_browser(server):
    files = sorted((ROOT / "workflows").iterdir())
    listed = json.loads(served(server, "workflow_templates"))[PACK]
    assert sorted(listed) == [path.stem for path in files if path.suffix == ".json"]
    for path in files:
        assert served(server, f"api/workflow_templates/{PACK}/{path.name}") == path.read_bytes()


def test_english_texts_are_current_and_served(server):
    files = english(server.url)
    for name, content in files.items():
        written = json.loads((LOCALES / "en" / name).read_text(encoding="utf-8"))
        assert written == content, "write them again: python -m tools.make_locales"
    told = json.loads(served(server, "i18n"))["en"]
    assert told["nodeDefs"].items() >= files[NODES].items()
    assert told["dataTypes"].items() >= files[MAIN]["dataTypes"].items()


def test_blueprints_are_in_the_node_library_where_the_host_has_one(server, client):
    if client.version() < (0, 33):
        pytest.skip("this ComfyUI lists no blueprints")
    listed = json.loads(served(server, "global_subgraphs"))
    own = {key: entry for key, entry in listed.items() if entry["info"]["node_pack"].endswith(PACK)}
    assert {entry["name"] for entry in own.values()} == {path.stem for path in (ROOT / "subgraphs").iterdir()}
    for key, entry in own.items():
        content = json.loads(served(server, f"global_subgraphs/{key}"))["data"]
        assert content == (ROOT / "subgraphs" / f"{entry['name']}.json").read_text()
