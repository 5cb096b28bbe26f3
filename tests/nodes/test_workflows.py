"""Every workflow file against the schemas of the nodes that it uses."""

from __future__ import annotations

import copy
import json
import re
from itertools import combinations, pairwise
from typing import Any

import pytest
from PIL import Image

from tools.make_workflows import ALL, WORKFLOWS
from tools.schema_snapshot import CORE_SNAPSHOT, FILES, SNAPSHOT, WIDGET_TYPES
from tools.workflow_graph import WIDTH, Workflow
from tools.workflow_prompt import MUTED, NOTE, OPTIONAL, as_prompt

OWN = json.loads(SNAPSHOT.read_text())
SCHEMAS = OWN | json.loads(CORE_SNAPSHOT.read_text())
NAMES = [build.__name__ for build in ALL]
EMBEDDED = "embedded prior (64x64 scenes)"
ON_EMBEDDED = [name for name in NAMES if EMBEDDED in (WORKFLOWS / f"{name}.json").read_text()]
OF_PHOTOGRAPHS = [name for name in NAMES if name not in ON_EMBEDDED]
FIRST_SLOT, SLOT, TITLE = 14, 20, 30

Flow = dict[str, Any]


def load(name: str) -> Flow:
    return json.loads((WORKFLOWS / f"{name}.json").read_text())


def problems(flow: Flow) -> list[str]:
    """What is wrong with a workflow, a sentence each."""
    nodes = {node["id"]: node for node in flow["nodes"]}
    found = []
    if len(nodes) != len(flow["nodes"]):
        found.append(f"{len(flow['nodes'])} nodes share {len(nodes)} ids")
    for node in flow["nodes"]:
        if node["type"] != NOTE:
            of_node = _node_problems(node) if node["type"] in SCHEMAS else ["is unknown"]
            found += [f"{node['type']} {node['id']} {problem}" for problem in of_node]
    links = {link[0]: link for link in flow["links"]}
    used = [slot["link"] for node in flow["nodes"] for slot in node["inputs"] if slot["link"] is not None]
    if sorted(used) != sorted(links):
        found.append(f"links are {sorted(links)} and inputs use {sorted(used)}")
    for link in flow["links"]:
        found += [f"link {link[0]} {problem}" for problem in _link_problems(link, nodes)]
    return found


def _node_problems(node: Flow) -> list[str]:
    schema = SCHEMAS[node["type"]]
    sockets = [slot for slot in schema["inputs"] if slot["type"] not in WIDGET_TYPES]
    widgets = [slot for slot in schema["inputs"] if slot["type"] in WIDGET_TYPES]
    found = []
    for kind, slots in (("inputs", sockets + widgets), ("outputs", schema["outputs"])):
        wanted, given = ([(slot["name"], slot["type"]) for slot in some] for some in (slots, node[kind]))
        if given != wanted:
            found.append(f"has {kind} {given}, not {wanted}")
    for slot, entry in zip(sockets, node["inputs"], strict=False):
        if entry["link"] is None and not slot["optional"]:
            found.append(f"lacks {slot['name']}")
    return found + _value_problems(widgets, node["widgets_values"])


def _value_problems(widgets: list[Flow], values: list[Any]) -> list[str]:
    rules: list[tuple[str, Any]] = []
    for widget in widgets:
        rules.append((widget["name"], lambda value, widget=widget: _fits(widget, value)))
        if widget.get("control_after_generate"):
            rules.append(("its companion", lambda value: value == "fixed"))
        if widget.get("image_upload"):
            rules.append(("its companion", lambda value: value == "image"))
    if len(rules) != len(values):
        return [f"has {len(values)} values for {[name for name, _ in rules]}"]
    return [f"has {value!r} for {name}" for (name, fits), value in zip(rules, values, strict=True) if not fits(value)]


def _fits(widget: Flow, value: Any) -> bool:
    match widget["type"]:
        case "BOOLEAN":
            return isinstance(value, bool)
        case "INT" | "FLOAT":
            numbers = (int,) if widget["type"] == "INT" else (int, float)
            return type(value) in numbers and widget.get("min", value) <= value <= widget.get("max", value)
        case "COMBO":
            options = widget.get("options", FILES)
            return options == FILES or value in options
    return isinstance(value, str)


def _link_problems(link: list[Any], nodes: dict[int, Flow]) -> list[str]:
    number, source, out, target, into, kind = link
    try:
        output, socket = nodes[source]["outputs"][out], nodes[target]["inputs"][into]
    except LookupError:
        return ["ends at a slot that does not exist"]
    found = []
    if len({kind, output["type"], socket["type"]}) > 1:
        found.append(f"joins {output['type']} and {socket['type']} as {kind}")
    if number not in output["links"] or number != socket["link"]:
        found.append("is not known to both of its ends")
    if nodes[source]["mode"] == MUTED != nodes[target]["mode"] and socket.get("shape") != OPTIONAL:
        found.append("leads from a muted node to one that needs it")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_workflow_fits_the_nodes(name):
    assert problems(load(name)) == []


@pytest.mark.parametrize("build", ALL, ids=NAMES)
def test_files_are_what_the_script_makes(build):
    flow = Workflow(SCHEMAS)
    build(flow)
    assert load(build.__name__) == flow.as_json()


def test_there_are_no_other_workflows_and_each_has_a_thumbnail():
    assert sorted(path.name for path in WORKFLOWS.iterdir()) == sorted(
        f"{name}.{kind}" for name in NAMES for kind in ("jpg", "json")
    )


def test_no_other_folder_is_taken_for_one_of_workflows():
    others = ("example", "examples", "example_workflows", "workflow")
    assert not any((WORKFLOWS.parent / other).exists() for other in others)


def test_every_node_of_the_pack_is_in_some_workflow():
    used = {node["type"] for name in NAMES for node in load(name)["nodes"]}
    internal = {name for name, schema in OWN.items() if schema["category"] == "VIPaint/internal"}
    assert set(OWN) - internal <= used


@pytest.mark.parametrize("name", NAMES)
def test_nodes_do_not_overlap_and_a_note_comes_first(name):
    nodes = load(name)["nodes"]
    assert nodes[0]["type"] == NOTE
    assert min(nodes, key=lambda node: node["pos"]) == nodes[0]
    for a, b in combinations(nodes, 2):
        assert any(
            one["pos"][axis] + one["size"][axis] < other["pos"][axis]
            for one, other in ((a, b), (b, a))
            for axis in (0, 1)
        ), (a["type"], b["type"])


@pytest.mark.parametrize("name", ["embedded_inpaint", "fit_once_sample_many"])
def test_what_runs_on_any_install_names_no_file_of_the_user(name):
    for node in load(name)["nodes"]:
        widgets = SCHEMAS.get(node["type"], {"inputs": []})["inputs"]
        if node["mode"] != MUTED and any(slot.get("options") == FILES for slot in widgets):
            assert node["widgets_values"] == [EMBEDDED]


@pytest.mark.parametrize("name", NAMES)
def test_a_note_says_what_a_run_costs(name):
    note = load(name)["nodes"][0]["widgets_values"][0]
    cost = note.partition("**Cost**: ")[2]
    assert re.search(r"\d", cost)
    assert ("measured" if name in ON_EMBEDDED else "ounted") in cost


@pytest.mark.parametrize("name", NAMES)
def test_thumbnails_are_square_and_small(name):
    path = WORKFLOWS / f"{name}.jpg"
    with Image.open(path) as thumbnail:
        assert thumbnail.width == thumbnail.height >= 400
    assert path.stat().st_size < 40_000


@pytest.mark.parametrize("name", OF_PHOTOGRAPHS)
def test_a_first_run_has_an_example_photograph_and_needs_no_file_of_the_user(name):
    prompt = as_prompt(load(name), SCHEMAS)
    kinds = [node["class_type"] for node in prompt.values()]
    assert kinds.count("VIPaintExamplePhotograph") == 1
    assert "LoadImage" not in kinds


@pytest.mark.parametrize("name", OF_PHOTOGRAPHS)
def test_a_first_run_of_inpainting_has_a_mask(name):
    prompt = as_prompt(load(name), SCHEMAS)
    for node in prompt.values():
        if node["class_type"] in ("VIPaintInpaint", "VIPaintObserveInpaint"):
            sources = {prompt[node["inputs"][link][0]]["class_type"] for link in ("image", "mask")}
            assert len(sources) == 1
            assert sources <= {"VIPaintExamplePhotograph", "ImagePadForOutpaint", "VIPaintCropForInpaint"}


@pytest.mark.parametrize("name", OF_PHOTOGRAPHS)
def test_the_users_photograph_takes_the_place_of_the_example_when_unmuted(name):
    flow = load(name)
    (own,) = (node for node in flow["nodes"] if node.get("title") == "Your photograph (muted)")
    own["mode"] = 0
    (example,) = (
        node for node in as_prompt(flow, SCHEMAS).values() if node["class_type"] == "VIPaintExamplePhotograph"
    )
    assert example["inputs"]["own_image"] == [str(own["id"]), 0]
    assert example["inputs"]["own_mask"] == [str(own["id"]), 1]


@pytest.mark.parametrize("name", OF_PHOTOGRAPHS)
def test_every_model_file_has_an_address_and_a_folder(name):
    for node in load(name)["nodes"]:
        if node["type"].endswith(("Loader", "LoaderSimple")):
            widgets = [slot for slot in SCHEMAS[node["type"]]["inputs"] if slot["type"] in WIDGET_TYPES]
            files = [
                value
                for slot, value in zip(widgets, node["widgets_values"], strict=True)
                if slot["name"].removesuffix("1").removesuffix("2").endswith("_name")
            ]
            models = node["properties"]["models"]
            assert [model["name"] for model in models] == files
            for model in models:
                assert model["directory"]
                assert model["url"].endswith(f"/{model['name']}") or model["url"].startswith("https://civitai.com/api/")


def _lines(flow: Flow) -> list[tuple[int, int, list[tuple[float, float]]]]:
    """Of each link, the ends' ids and the corners of its line."""
    nodes = {node["id"]: node for node in flow["nodes"]}
    reroutes = {reroute["id"]: reroute for reroute in flow["extra"].get("reroutes", ())}
    last = {end["id"]: end["parentId"] for end in flow["extra"].get("linkExtensions", ())}
    lines = []
    for number, source, out, target, into, _ in flow["links"]:
        points, reroute = [], last.get(number)
        while reroute is not None:
            assert number in reroutes[reroute]["linkIds"]
            points.insert(0, tuple(reroutes[reroute]["pos"]))
            reroute = reroutes[reroute].get("parentId")
        (x, y), (to_x, to_y) = nodes[source]["pos"], nodes[target]["pos"]
        start = (x + WIDTH, y + FIRST_SLOT + SLOT * out)
        lines.append((source, target, [start, *points, (to_x, to_y + FIRST_SLOT + SLOT * into)]))
    return lines


def _crosses(a: tuple[float, float], b: tuple[float, float], node: Flow) -> bool:
    """Whether the straight line from a to b meets a node or its title."""
    (left, top), (width, height) = node["pos"], node["size"]
    steps = [(a[0] + (b[0] - a[0]) * step / 200, a[1] + (b[1] - a[1]) * step / 200) for step in range(201)]
    return any(left < x < left + width and top - TITLE < y < top + height for x, y in steps)


def test_lines_of_the_comparison_of_methods_cross_no_node():
    flow = load("embedded_methods")
    for source, target, line in _lines(flow):
        for node in flow["nodes"]:
            if node["id"] not in (source, target):
                assert not any(_crosses(a, b, node) for a, b in pairwise(line)), (source, target, node["type"])


def test_the_comparison_of_methods_has_a_row_for_each():
    flow = load("embedded_methods")
    rows = [
        group for group in flow["groups"] if group["bounding"][0] > max(g["bounding"][0] for g in flow["groups"][:3])
    ]
    samplers = [node for node in flow["nodes"] if node["type"].endswith("Sampler")]
    tops = [group["bounding"][1] for group in rows]
    assert tops == sorted(tops)
    assert len(rows) == len(samplers) == 13
    for group, sampler in zip(rows, samplers, strict=True):
        _, top, _, height = group["bounding"]
        assert top < sampler["pos"][1] < sampler["pos"][1] + sampler["size"][1] <= top + height


def _node(flow: Flow, type: str) -> Flow:
    return next(node for node in flow["nodes"] if node["type"] == type)


def _wrong_link_type(flow: Flow) -> None:
    flow["links"][0][5] = "IMAGE"


def _wrong_slot(flow: Flow) -> None:
    flow["links"][0][4] += 1


def _missing_slot(flow: Flow) -> None:
    flow["links"][0][2] = 9


def _unknown_node(flow: Flow) -> None:
    _node(flow, "VIPaintFitPosterior")["type"] = "VIPaintFit"


def _one_value_short(flow: Flow) -> None:
    _node(flow, "VIPaintSamplePosterior")["widgets_values"].pop()


def _two_values_exchanged(flow: Flow) -> None:
    values = _node(flow, "VIPaintFitPosterior")["widgets_values"]
    values[0], values[1] = values[1], values[0]


def _value_out_of_range(flow: Flow) -> None:
    _node(flow, "VIPaintSamplePosterior")["widgets_values"][0] = 0


def _unknown_choice(flow: Flow) -> None:
    _node(flow, "VIPaintDemoScene")["widgets_values"][0] = "ring"


def _unconnected(flow: Flow) -> None:
    socket = _node(flow, "VIPaintFitPosterior")["inputs"][0]
    flow["links"] = [link for link in flow["links"] if link[0] != socket["link"]]
    socket["link"] = None


def _inputs_exchanged(flow: Flow) -> None:
    _node(flow, "VIPaintFitPosterior")["inputs"][:2] = _node(flow, "VIPaintFitPosterior")["inputs"][1::-1]


def _muted_source(flow: Flow) -> None:
    _node(flow, "VIPaintDemoScene")["mode"] = MUTED


def _same_id(flow: Flow) -> None:
    flow["nodes"].append(copy.deepcopy(flow["nodes"][0]))


MISTAKES = (
    _wrong_link_type,
    _wrong_slot,
    _missing_slot,
    _unknown_node,
    _one_value_short,
    _two_values_exchanged,
    _value_out_of_range,
    _unknown_choice,
    _unconnected,
    _inputs_exchanged,
    _muted_source,
    _same_id,
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.__name__[1:] for mistake in MISTAKES])
def test_mistakes_are_found(mistake):
    flow = load("embedded_inpaint")
    mistake(flow)
    assert problems(flow)
