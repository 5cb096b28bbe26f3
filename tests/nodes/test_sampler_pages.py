"""The help pages of the sampling methods."""

import json
from pathlib import Path

import pytest

from tools.schema_snapshot import SNAPSHOT

PAGES = Path(__file__).parents[2] / "web" / "docs"
SAMPLERS = [name for name, node in json.loads(SNAPSHOT.read_text()).items() if node["category"] == "VIPaint/samplers"]
SHARED = "## Which method when"


def shared(name):
    """From the heading of the shared part to the end of a page."""
    return (PAGES / f"{name}.md").read_text().partition(SHARED)[2]


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_page_has_the_same_list_of_methods(name):
    assert shared(name)
    assert shared(name) == shared(SAMPLERS[0])


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name.endswith("Sampler")])
def test_the_list_names_every_method(name):
    title = (PAGES / f"{name}.md").read_text().splitlines()[0].removeprefix("# ").removesuffix(" Sampler")
    assert f"\n- **{title}**: " in shared(name)
