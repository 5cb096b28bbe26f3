"""Subgraph blueprints, from the node search to a result."""

import pytest

from tests.frontend.browser import EMPTY
from tools.make_subgraphs import ALL

_WIRE = """() => {
    const [subgraph] = app.graph.nodes
    const add = (type, place) => {
        const node = LiteGraph.createNode(type)
        app.graph.add(node)
        node.pos = [subgraph.pos[0] + 500 * place[0], subgraph.pos[1] + 300 * place[1]]
        return node
    }
    const model = add('VIPaintLoadLDMCheckpoint', [-1, 0])
    const label = add('VIPaintLDMClassLabel', [-1, 1])
    const scene = add('VIPaintDemoScene', [-1, 2])
    const input = name => subgraph.inputs.findIndex(slot => slot.name === name)
    model.connect(0, label, 0)
    model.connect(0, subgraph, input('model'))
    model.connect(1, subgraph, input('vae'))
    label.connect(0, subgraph, input('positive'))
    scene.connect(0, subgraph, input('image'))
    if (input('mask') >= 0) scene.connect(1, subgraph, input('mask'))
    subgraph.connect(0, add('PreviewImage', [1, 0]), 0)
    const values = {num_samples: 1, preset: 'fast', cfg: 1}
    for (const widget of subgraph.widgets) if (widget.name in values) widget.value = values[widget.name]
}"""


@pytest.mark.usefixtures("newest")
@pytest.mark.parametrize("blueprint", ALL, ids=lambda blueprint: blueprint.build.__name__)
def test_a_blueprint_is_found_added_and_run(frontend, blueprint):
    frontend.open(EMPTY)
    frontend.add(blueprint.name)
    assert frontend.page.evaluate("app.graph.nodes.map(node => node.title)") == [blueprint.name]
    frontend.page.evaluate(_WIRE)
    frontend.run()
    assert frontend.page.evaluate("Object.values(app.nodeOutputs).filter(output => output.images).length") >= 1
    assert frontend.errors == []
