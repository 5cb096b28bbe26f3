"""The table of presets and methods: its costs are those of the benchmark, its claims are those of the code."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import full_size, systems
from benchmarks.architectures import ARCHITECTURES
from benchmarks.counts import gradients
from benchmarks.full_size import CARD, SETTINGS, Cache, costs, fitting
from tests.ops.conftest import scene
from vipaint_ops import METHODS, PRESETS, InputError, Observation, load_embedded_prior, operators
from vipaint_ops.evaluation.cost import PLAIN, tflop
from vipaint_ops.measurement.likelihood import StudentT
from vipaint_ops.presets import ALL, GAUSSIAN, MASKS

FIGURES = Path(full_size.__file__).parent / "results" / "full_size.json"
ENTRIES = json.loads(FIGURES.read_text())
COSTS = {f"VIPaint {name}": preset for name, preset in PRESETS.items()} | {m.title: m for m in METHODS.values()}
COUNTED = {**full_size.ON_EMBEDDED, **full_size.ON_NORMAL}


@pytest.mark.parametrize("name", COSTS)
def test_rows_are_those_that_the_benchmark_counted(name):
    counted = ENTRIES[name]["figures"]
    rows = [list(vars(part).values()) for part in COSTS[name].rows]
    assert rows == [part + [0] * (7 - len(part)) for part in counted]


@pytest.mark.parametrize("name", METHODS)
def test_rows_are_those_of_the_default_settings(name):
    config = METHODS[name].config()
    if name == "resample":  # counted with fewer iterations at most; all optimisations stop before either limit
        config = config.inpainting()
    assert repr(config) == ENTRIES[METHODS[name].title]["settings"]


@pytest.mark.parametrize("name", PRESETS)
def test_rows_are_those_of_the_preset(name):
    assert repr(systems.preset(name)) == ENTRIES[f"VIPaint {name}"]["settings"]


@pytest.mark.parametrize("name", COSTS)
def test_costs_are_those_of_the_benchmark(name, monkeypatch):
    def refuse(*_):
        raise AssertionError("the figures were made with other settings: run python -m benchmarks.full_size")

    monkeypatch.setattr(full_size, "row", refuse)
    cache, (sd15, sdxl) = Cache(FIGURES), ARCHITECTURES[:2]
    taken = gradients(COUNTED[name])
    found = []
    for architecture, setting in (
        (sd15, SETTINGS["everything fits"]),
        (sdxl, fitting(sdxl, taken, CARD, cache)),
    ):
        row = costs(architecture, setting, cache)
        found.append(tflop(COSTS[name].rows.total, row, True) / tflop(PLAIN.total, row, True))
    assert COSTS[name].cost == tuple(round(value, 1) for value in found)


@pytest.mark.parametrize("name", PRESETS)
def test_gradients_are_those_that_the_settings_take(name):
    assert PRESETS[name].rows.gradients == gradients(COUNTED[f"VIPaint {name}"]) - {"chain"}


@pytest.fixture(scope="module")
def prior(embedded_file):
    return load_embedded_prior(embedded_file)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_refuses_what_it_is_not_defined_for(name, prior):
    blur, mask = operators.GaussianBlur(5, 1.0), torch.ones(1, 1, 64, 64)
    mask[..., 32:] = 0
    observations = {
        "blur": Observation(blur(scene()), blur, 0.1),
        "robust": Observation(mask * scene(), operators.Inpainting(mask), 0.1, likelihood=StudentT()),
    }
    refused = set()
    for kind, observation in observations.items():

        def stop(_):
            raise KeyboardInterrupt

        try:
            METHODS[name].sample(prior, observation, 1, generator=torch.Generator().manual_seed(0), callback=stop)
        except InputError:
            refused.add(kind)
        except KeyboardInterrupt:
            pass
    assert refused == {ALL: set(), GAUSSIAN: {"robust"}, MASKS: {"blur", "robust"}}[METHODS[name].observations]
