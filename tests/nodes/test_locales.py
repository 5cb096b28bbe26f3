"""The base of translations, ``locales/en``; tests/host/test_schema.py compares it with the nodes' own texts."""

import json

import pytest

from tools.make_locales import LOCALES, MAIN, NODES
from tools.schema_snapshot import SNAPSHOT

RECORDED = json.loads(SNAPSHOT.read_text())
LANGUAGES = sorted(path.name for path in LOCALES.iterdir())


def texts(entry):
    """All texts of a translation."""
    return [text for value in entry.values() for text in (texts(value) if isinstance(value, dict) else [value])]


@pytest.mark.parametrize("language", LANGUAGES)
def test_nodes_and_slots_are_the_recorded_ones(language):
    nodes = json.loads((LOCALES / language / NODES).read_text(encoding="utf-8"))
    assert list(nodes) == list(RECORDED)
    for name, node in nodes.items():
        assert set(node["inputs"]) == {slot["name"] for slot in RECORDED[name]["inputs"]}
        assert set(node["outputs"]) == {str(place) for place in range(len(RECORDED[name]["outputs"]))}


def test_english_names_are_those_of_the_nodes():
    nodes = json.loads((LOCALES / "en" / NODES).read_text(encoding="utf-8"))
    assert all(nodes[name]["display_name"] == node["display_name"] for name, node in RECORDED.items())


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_is_empty_or_has_signs_that_the_browser_reads_as_syntax(language):
    for file in (NODES, MAIN):
        for text in texts(json.loads((LOCALES / language / file).read_text(encoding="utf-8"))):
            assert text
            assert not set(text) & set("{}|@")


def test_every_socket_of_the_pack_has_a_name():
    types = {slot["type"] for node in RECORDED.values() for slot in node["inputs"] + node["outputs"]}
    named = json.loads((LOCALES / "en" / MAIN).read_text(encoding="utf-8"))["dataTypes"]
    assert set(named) == {type for type in types if type.startswith("VIPAINT_")}
