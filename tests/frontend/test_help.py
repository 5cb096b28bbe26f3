"""Help pages in the side panel, at its first width."""

import pytest

from tests.frontend.browser import EMPTY
from tests.nodes.test_schema_snapshot import RECORDED

_SELECT = """type => {
    app.graph.clear()
    const node = LiteGraph.createNode(type)
    app.graph.add(node)
    Object.assign(app.canvas.ds, {scale: 1, offset: [400, 300]})
    app.canvas.selectItems([node])
}"""
_CUT_OFF = """() => {
    const page = document.querySelector('.markdown-content')
    const {right} = page.getBoundingClientRect()
    const isWide = part => part.getBoundingClientRect().right > right + 1
    const wide = [...page.querySelectorAll(':not(pre *)')].filter(isWide)
    return [page.querySelector('h1').innerText, wide.map(part => part.innerText)]
}"""


@pytest.mark.usefixtures("newest")
def test_nothing_on_a_help_page_is_cut_off(frontend):
    frontend.open(EMPTY)
    frontend.page.evaluate(_SELECT, "VIPaintInpaint")
    frontend.page.locator("[data-testid=info-button]").click()
    cut_off = {}
    for type in RECORDED:
        frontend.page.evaluate(_SELECT, type)
        frontend.page.wait_for_timeout(400)
        title, parts = frontend.page.evaluate(_CUT_OFF)
        cut_off[title] = parts
    assert len(cut_off) == len(RECORDED)
    assert not any(cut_off.values()), cut_off
