"""The comparison of schemas, and what the recorded schemas promise."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tools.schema_snapshot import CORE_SNAPSHOT, SNAPSHOT, WIDGET_TYPES, breaking_changes, saved_values

RECORDED = json.loads(SNAPSHOT.read_text())
CORE = json.loads(CORE_SNAPSHOT.read_text())
PAGES = Path(__file__).parent.parent.parent / "web" / "docs"

KINDS = st.sampled_from(["inputs", "outputs"])
NAMES = st.text("abcdefg_", min_size=1, max_size=4)
SLOTS = st.fixed_dictionaries(
    {"name": NAMES, "type": st.sampled_from(["MODEL", "IMAGE", *WIDGET_TYPES]), "optional": st.booleans()}
)
SLOT_LISTS = st.lists(SLOTS, min_size=1, max_size=4, unique_by=lambda slot: slot["name"])
SCHEMAS = st.dictionaries(
    NAMES, st.fixed_dictionaries({"inputs": SLOT_LISTS, "outputs": SLOT_LISTS}), min_size=1, max_size=2
)


def pick(data: st.DataObject, schemas: dict, kind: str) -> tuple[dict, list[dict], int]:
    """A copy of the schemas, with the inputs or outputs of one node in it, and the number of one of these."""
    changed = copy.deepcopy(schemas)
    slots = changed[data.draw(st.sampled_from(sorted(changed)))][kind]
    return changed, slots, data.draw(st.integers(0, len(slots) - 1))


@given(SCHEMAS)
def test_the_same_schemas_break_nothing(schemas):
    assert breaking_changes(schemas, copy.deepcopy(schemas)) == []


@given(SCHEMAS, SCHEMAS)
def test_new_nodes_break_nothing(schemas, others):
    assert breaking_changes(schemas, others | schemas) == []


@given(SCHEMAS, KINDS, SLOTS, st.data())
def test_appending_what_needs_no_link_breaks_nothing(schemas, kind, slot, data):
    changed, slots, _ = pick(data, schemas, kind)
    assume(slot["optional"] or slot["type"] in WIDGET_TYPES)
    slots.append(slot)
    assert breaking_changes(schemas, changed) == []


@given(SCHEMAS, st.data())
def test_appending_an_input_that_needs_a_link_is_reported(schemas, data):
    changed, slots, _ = pick(data, schemas, "inputs")
    slots.append({"name": "new", "type": "MODEL", "optional": False})
    assert breaking_changes(schemas, changed)


@given(SCHEMAS, KINDS, st.data())
def test_every_other_order_is_reported(schemas, kind, data):
    changed, slots, _ = pick(data, schemas, kind)
    order = data.draw(st.permutations(slots))
    assume(order != slots)
    slots[:] = order
    assert breaking_changes(schemas, changed)


@given(SCHEMAS, KINDS, SLOTS, st.data())
def test_inserting_is_reported(schemas, kind, slot, data):
    changed, slots, number = pick(data, schemas, kind)
    assume(slot["name"] not in [other["name"] for other in slots])
    slots.insert(number, slot)
    assert breaking_changes(schemas, changed)


@given(SCHEMAS, KINDS, st.data())
def test_removal_is_reported(schemas, kind, data):
    changed, slots, number = pick(data, schemas, kind)
    del slots[number]
    assert breaking_changes(schemas, changed)


@given(SCHEMAS, KINDS, st.sampled_from(["name", "type"]), st.data())
def test_another_name_or_type_is_reported(schemas, kind, fact, data):
    changed, slots, number = pick(data, schemas, kind)
    slots[number][fact] += "X"
    assert breaking_changes(schemas, changed)


@given(SCHEMAS, st.data())
def test_a_removed_node_is_reported(schemas, data):
    gone = data.draw(st.sampled_from(sorted(schemas)))
    others = {name: schema for name, schema in schemas.items() if name != gone}
    assert breaking_changes(schemas, others) == [f"{gone} is gone"]


WIDGETS = {
    "lost option": ({"type": "COMBO", "options": ["a", "b"]}, {"type": "COMBO", "options": ["b", "c"]}),
    "higher minimum": ({"type": "INT", "min": 0, "max": 9}, {"type": "INT", "min": 1, "max": 9}),
    "lower maximum": ({"type": "INT", "min": 0, "max": 9}, {"type": "INT", "min": 0, "max": 8}),
    "first minimum": ({"type": "INT"}, {"type": "INT", "min": 0}),
    "second saved value": ({"type": "INT"}, {"type": "INT", "control_after_generate": True}),
}


@pytest.mark.parametrize("old, new", WIDGETS.values(), ids=WIDGETS)
def test_saved_values_that_no_longer_fit_are_reported(old, new):
    def schemas(slot: dict) -> dict:
        return {"Node": {"inputs": [{"name": "n", "optional": False} | slot], "outputs": []}}

    assert breaking_changes(schemas(old), schemas(new))


def test_more_options_and_a_wider_range_break_nothing():
    old = [{"name": "a", "type": "COMBO", "options": ["x"]}, {"name": "b", "type": "INT", "min": 0, "max": 9}]
    new = [{"name": "a", "type": "COMBO", "options": ["y", "x"]}, {"name": "b", "type": "INT", "min": -1, "max": 10}]
    assert breaking_changes({"N": {"inputs": old, "outputs": []}}, {"N": {"inputs": new, "outputs": []}}) == []


def test_an_optional_link_that_becomes_required_is_reported():
    old, new = ({"name": "a", "type": "MODEL", "optional": optional} for optional in (True, False))
    assert breaking_changes({"N": {"inputs": [old], "outputs": []}}, {"N": {"inputs": [new], "outputs": []}})


@pytest.mark.parametrize("node", RECORDED)
def test_every_input_explains_itself_and_has_sane_limits(node):
    for slot in RECORDED[node]["inputs"]:
        assert slot["tooltip"], slot["name"]
        if slot["type"] in ("INT", "FLOAT"):
            assert slot["min"] <= slot["default"] <= slot["max"], slot["name"]
        elif slot["type"] == "COMBO" and "default" in slot:
            assert slot["default"] in slot["options"], slot["name"]


@pytest.mark.parametrize("node", RECORDED)
def test_every_node_has_a_help_page_that_names_all_inputs_and_outputs(node):
    page = (PAGES / f"{node}.md").read_text()
    slots = RECORDED[node]["inputs"] + RECORDED[node]["outputs"]
    assert [slot["name"] for slot in slots if slot["name"] not in page] == []


def facts(node: str, name: str) -> str:
    """What the help page of a node says of a slot in brackets: its type, then its default."""
    return (PAGES / f"{node}.md").read_text().partition(f"\n- `{name}` (")[2].partition("): ")[0]


@pytest.mark.parametrize("node", RECORDED)
def test_a_help_page_has_the_type_of_every_slot(node):
    for slot in RECORDED[node]["inputs"] + RECORDED[node]["outputs"]:
        assert facts(node, slot["name"]).partition(",")[0] == slot["type"], slot["name"]


@pytest.mark.parametrize("node", RECORDED)
def test_a_help_page_has_the_default_of_every_number_and_choice(node):
    for slot in RECORDED[node]["inputs"]:
        if slot["type"] in ("INT", "FLOAT", "COMBO") and "default" in slot:
            default = facts(node, slot["name"]).partition(", default ")[2]
            assert default == slot["default"] if slot["type"] == "COMBO" else float(default) == slot["default"]


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_no_table_of_a_help_page_is_too_wide_for_the_side_panel(page):
    """The panel is 280 pixels wide at first: two columns of text fit in, and lines of code of 30 letters."""
    text = page.read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert [row for row in rows if row.count("|") > 3] == []
    assert [word for word in re.findall(r"`([^`]+)`", text) if max(map(len, word.split())) > 34] == []


def test_core_nodes_are_recorded_by_facts_alone():
    for schema in CORE.values():
        assert set(schema) == {"inputs", "outputs"}
        assert not any("tooltip" in slot or "options" in slot for slot in schema["inputs"])


def test_seeds_and_uploads_take_two_values_in_a_workflow_file():
    (seed,) = (slot for slot in RECORDED["VIPaintFitPosterior"]["inputs"] if slot["name"] == "seed")
    (image,) = CORE["LoadImage"]["inputs"]
    (text, clip) = CORE["CLIPTextEncode"]["inputs"]
    assert [saved_values(slot) for slot in (seed, image, text, clip)] == [2, 2, 1, 0]
