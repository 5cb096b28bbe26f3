"""The prediction of the positive conditions alone, for products with the covariance, in the host."""

from __future__ import annotations

import pytest

from tests.host.comfy_client import Graph
from tests.host.graphs import conditioning, tiny
from tests.host.test_gradients import vae_for


def predictions(client, rescaled: bool = False, **settings):
    """Predictions and their rows, by a guider with these settings."""
    graph = Graph()
    model = tiny(graph, "sd15")
    positive, negative = (conditioning(graph, model, seed) for seed in (0, 1))
    patched = graph.add("RescaleCFG", model=model.model, multiplier=0.7)[0] if rescaled else model.model
    guided = graph.add("CFGGuider", model=patched, positive=positive, negative=negative, **settings)[0]
    node = graph.add("TestPackCondition", guider=guided, vae=vae_for(graph, 4))
    return client.report(client.run(graph), node)


@pytest.mark.parametrize("rescaled", [False, True])
def test_the_condition_alone_is_the_prediction_without_guidance_at_half_the_rows(client, rescaled):
    found, alone = predictions(client, rescaled, cfg=3.0), predictions(client, cfg=1.0)
    assert found["both"]["guided"] == pytest.approx(found["guided"]["guided"], abs=1e-5)
    assert found["guided"]["guided"] != pytest.approx(alone["guided"]["guided"], abs=1e-2)
    for name in ("both", "condition", "moved", "moved both"):
        assert found[name]["conditional"] == pytest.approx(alone[name]["conditional"], abs=1e-5)
    assert alone["both"]["conditional"] == alone["guided"]["guided"]
    assert {name: report["rows"] for name, report in found.items()} == {
        "guided": 4,
        "both": 4,
        "condition": 2,
        "moved": 2,
        "moved both": 4,
    }


def test_a_guider_of_another_kind_has_its_guided_prediction(client):
    graph = Graph()
    model = tiny(graph, "sd15")
    conditions = [conditioning(graph, model, seed) for seed in (0, 1, 2)]
    names = ("cond1", "cond2", "negative")
    scales = {"cfg_conds": 3.0, "cfg_cond2_negative": 2.0, "style": "regular"}
    guided = graph.add("DualCFGGuider", model=model.model, **dict(zip(names, conditions, strict=True)), **scales)
    node = graph.add("TestPackCondition", guider=guided[0], vae=vae_for(graph, 4))
    found = client.report(client.run(graph), node)
    assert found["both"]["conditional"] == found["condition"]["conditional"] == found["guided"]["guided"]
