"""Every template as the frontend draws it, in both renderings of nodes, before and after a run."""

import json

import pytest

from tools.make_workflows import ALL, WORKFLOWS

NAMES = [build.__name__ for build in ALL]


def template(name):
    return json.loads((WORKFLOWS / f"{name}.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_templates_open_without_overlap_missing_node_or_error(frontend, rendering, name):
    frontend.open(template(name))
    assert frontend.faults() + frontend.cut_off() + frontend.errors == []


def test_texts_and_previews_of_a_run_have_room(frontend, rendering):
    flow = template("embedded_inpaint")
    (fit,) = (node for node in flow["nodes"] if node["type"] == "VIPaintFitPosterior")
    (sampling,) = (node for node in flow["nodes"] if node["type"] == "VIPaintSamplePosterior")
    fit["widgets_values"][0] = len(rendering)
    sampling["widgets_values"][0] = 1
    frontend.open(flow)
    frontend.run()
    assert list(frontend.texts()) == ["VIPaintFitPosterior", "VIPaintSamplePosterior"]
    assert frontend.faults() == []
