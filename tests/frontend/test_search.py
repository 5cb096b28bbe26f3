"""The node search: which nodes and blueprints the words of an artist lead to."""

import json

import pytest

from tests.frontend.browser import EMPTY
from tools.make_subgraphs import ALL
from tools.schema_snapshot import SNAPSHOT

OWN = [node["display_name"] for node in json.loads(SNAPSHOT.read_text()).values()]
OWN += [blueprint.name for blueprint in ALL]
WANTED = {
    "remove object": ["Remove an Object (VIPaint)", "VIPaint Inpaint"],
    "object removal": ["VIPaint Inpaint"],
    "fill": ["VIPaint Inpaint"],
    "outpaint": ["VIPaint Inpaint"],
    "deblur": ["Deblur a Photograph (VIPaint)", "VIPaint Deblur"],
    "unblur": ["VIPaint Deblur"],
    "sharpen": ["VIPaint Deblur"],
    "enlarge": ["VIPaint Super-Resolve"],
    "upscale": ["VIPaint Super-Resolve"],
    "restore": ["VIPaint Deblur", "VIPaint Inpaint", "VIPaint Super-Resolve"],
    "old photo": ["VIPaint Deblur", "VIPaint Inpaint", "VIPaint Super-Resolve"],
}


@pytest.mark.usefixtures("newest")
@pytest.mark.parametrize("words", WANTED)
def test_words_of_an_artist_lead_to_the_all_in_one_nodes(frontend, words):
    frontend.open(EMPTY)
    found = [name for name in frontend.search(words) if name in OWN]
    assert set(WANTED[words]) <= set(found[:6]), found
