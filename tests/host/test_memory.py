"""Batches, recomputed blocks and tiles by the free memory of the host."""

from __future__ import annotations

import pytest

from tests.host.comfy_client import Graph
from tests.host.graphs import guider, tiny

PLENTY = 1 << 30
"""KiB."""


def run(client, **settings) -> dict:
    """The report of :class:`TestPackMemory` for the tiny KL autoencoder."""
    graph = Graph()
    model, vae = tiny(graph, "sd15"), graph.add("TestTinyVAE", seed=0)
    inputs = {"height": 64, "width": 64, "rows": 4, "gradients": "ALL"} | settings
    node = graph.add("TestPackMemory", guider=guider(graph, model), vae=vae[0], **inputs)
    return client.report(client.run(graph), node)


def test_with_plenty_all_rows_are_decoded_together(client):
    report = run(client, free=PLENTY)
    assert report["decoded"] == [[4, 4, 8, 8]]
    assert report["rows"] == 4
    assert report["picture error"] == report["gradient error"] == 0


def test_with_little_memory_rows_are_decoded_one_by_one_with_the_same_gradient(client):
    report = run(client, free=1024)
    assert report["decoded"] == [[1, 4, 8, 8]] * 4
    assert report["rows"] == 1
    assert report["picture error"] < 1e-5
    assert report["gradient error"] < 1e-4


def test_a_large_latent_is_tiled_where_a_row_does_not_fit(client):
    report = run(client, free=1024, height=512, width=512, rows=1)
    assert report["decoded"] == [[1, 4, 36, 36]] * 4
    assert report["picture error"] < 0.5


@pytest.mark.parametrize(("gradients", "denoiser"), [("MODEL", True), ("NONE", False)])
def test_a_decoder_without_gradients_runs_without_a_graph(client, gradients, denoiser):
    report = run(client, free=PLENTY, gradients=gradients)
    assert (report["decoder"], report["denoiser"]) == (False, denoiser)
    assert report["decoded"] == [[4, 4, 8, 8]]
