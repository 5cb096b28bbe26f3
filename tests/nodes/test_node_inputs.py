"""Inputs of every node, generated from the schemas: what is no such value is refused by name before the node works."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from tests.nodes.stub_host import library, nodes
from tools.schema_snapshot import SNAPSHOT

NODES = nodes()
InputError = library("vipaint_ops.errors").InputError
RECORDED = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
CASES = [(name, one) for name, node in NODES.items() for one in node.define_schema().inputs]


def inputs(*kinds: str, opened: bool = False) -> Any:
    """A parametrisation over all inputs of these types: the node's id and the input."""
    found = [
        (name, one)
        for name, one in CASES
        if (one.get_io_type() in kinds or (not kinds and one.get_io_type() not in ("*", *WIDGETS)))
        and (opened or one.id not in getattr(NODES[name], "open_inputs", ()))
    ]
    return pytest.mark.parametrize(("name", "one"), found, ids=[f"{name}.{one.id}" for name, one in found])


WIDGETS = ("FLOAT", "INT", "COMBO", "STRING", "BOOLEAN")


def refused(name: str, one: Any, value: Any) -> str:
    """The message with which a node refuses a value of one of its inputs."""
    listed = NODES[name].define_schema().is_input_list
    with pytest.raises(InputError, match=rf"^{one.id} (is|has|contains) ") as caught:
        NODES[name].execute(**{one.id: [value] if listed else value})
    return str(caught.value)


def test_the_schemas_are_those_that_the_host_shows():
    assert NODES.keys() == RECORDED.keys()
    for name, recorded in RECORDED.items():
        found = NODES[name].define_schema().inputs
        assert {one.id: (one.get_io_type(), one.optional, one.min, one.max) for one in found} == {
            slot["name"]: (slot["type"], slot["optional"], slot.get("min"), slot.get("max"))
            for slot in recorded["inputs"]
        }


@inputs("FLOAT", "INT")
def test_a_number_is_finite_and_in_its_range(name, one):
    for value in (math.nan, math.inf, -math.inf, one.min - 1, one.max + 1, 10**400, -(10**400), np.float32("nan")):
        assert "must be" in refused(name, one, value)
    for value in ("nan", "0.5", None, True, [0.5], torch.tensor(0.5)):
        assert "must be" in refused(name, one, value)


@inputs("INT", opened=True)
def test_an_integer_is_no_fraction_and_no_text(name, one):
    for value in (0.5, "1", None, math.nan, True):
        assert "integer" in refused(name, one, value)


@inputs("COMBO", opened=True)
def test_a_choice_is_a_text_and_one_of_its_options(name, one):
    for value in (None, 0, math.nan, ["a"], torch.zeros(2)):
        refused(name, one, value)
    if one.id not in getattr(NODES[name], "open_inputs", ()):
        for value in ("", "no such choice", one.options[0] + " ", one.options[0].swapcase()):
            assert one.options[0] in refused(name, one, value)


@inputs("STRING", "BOOLEAN")
def test_a_text_is_a_text_and_a_switch_is_a_switch(name, one):
    for value in (None, 2, 0.5, ["a"], torch.zeros(2)):
        assert "must be" in refused(name, one, value)


@inputs()
def test_a_socket_refuses_other_values(name, one):
    for value in ("nan", 0.5, object(), [1], {"samples": 0}, *([] if one.optional else [None])):
        refused(name, one, value)


SHAPES = {
    "IMAGE": [(), (3,), (4, 3), (8, 8, 3), (1, 1, 8, 8, 3), (0, 8, 8, 3), (1, 0, 8, 3), (1, 8, 0, 3), (1, 8, 8, 2)],
    "MASK": [(), (8,), (1, 3, 8, 8), (1, 1, 1, 8, 8), (0, 8, 8), (1, 0, 8), (1, 8, 0), (0, 0), (1, 0, 8, 8)],
}


@inputs("IMAGE", "MASK")
def test_a_tensor_of_another_shape_type_or_range_is_refused(name, one):
    for shape in SHAPES[one.get_io_type()]:
        message = refused(name, one, torch.zeros(shape))
        assert str(shape) in message or "empty batch" in message or "channels" in message
    good = torch.zeros(1, 8, 8, *[3][: one.get_io_type() == "IMAGE"])
    for value in (math.nan, math.inf, -math.inf, -1.0, 2.0, 255.0):
        refused(name, one, good + value)
        refused(name, one, (good + value).double())
    refused(name, one, good.to(torch.complex64))
    if one.get_io_type() == "IMAGE":
        for kind in (torch.uint8, torch.int64, torch.bool):
            refused(name, one, good.to(kind))


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, int, float])
def test_numbers_of_numpy_are_taken_as_numbers(kind):
    output = NODES["VIPaintMakeMask"].execute(
        width=16, height=16, kind="half plane", share=0.25, angle=kind(90), border=1, step=2, seed=np.int64(0)
    )
    assert output.args[0].mean() == 0.5


PURE = sorted(
    name
    for name, node in NODES.items()
    if name != "VIPaintGatherList"
    and not node.define_schema().enable_expand
    and not {one.get_io_type() for one in node.define_schema().inputs if not one.optional}
    & {"MODEL", "VAE", "GUIDER", "VIPAINT_POSTERIOR"}
    and not getattr(node, "open_inputs", set()) & {"file", "ckpt_name"}
)
"""Nodes that run without a network and without a file."""
_SIDES = (1, 2, 3, 8, 17, 64)
_TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_LARGEST = 96
_OBSERVERS = [name for name in PURE if name.startswith("VIPaintObserve") and name != "VIPaintObserveChain"]


@st.composite
def value_of(draw, one, size):
    """A value that the schema of an input allows."""
    match one.get_io_type():
        case "INT" | "FLOAT":
            return draw(st.sampled_from([one.min, one.default, min(one.max, _LARGEST)]))
        case "COMBO":
            return draw(st.sampled_from(one.options))
        case "BOOLEAN":
            return draw(st.booleans())
        case "STRING":
            return draw(st.sampled_from(["", "a", "a\nb\nc"]))
        case "IMAGE" | "MASK" as kind:
            sides = size if draw(st.booleans()) else (draw(st.sampled_from(_SIDES)), draw(st.sampled_from(_SIDES)))
            ends = [draw(st.sampled_from([1, 3, 4]))] if kind == "IMAGE" else []
            noise = torch.rand(draw(st.integers(1, 2)), *sides, *ends, generator=torch.Generator().manual_seed(0))
            made = draw(st.sampled_from([noise, noise * 0, noise * 0 + 1, noise.round()]))
            return made.to(draw(st.sampled_from(_TYPES)))
        case "VIPAINT_OBSERVATION":
            return draw(output_of(draw(st.sampled_from(_OBSERVERS)), size))[0]
        case "VIPAINT_STITCH":
            return draw(output_of("VIPaintCropForInpaint", size))[2]
        case _:
            return None


@st.composite
def output_of(draw, name, size):
    """The first item of each output of a node that ran on values of its schema; a case where it refuses is left out."""
    try:
        made = run(name, draw(arguments_of(name, size)))
    except InputError:
        reject()
    return [part[0] if isinstance(part, list) and part else part for part in made.args]


@st.composite
def arguments_of(draw, name, size):
    declared = [one for one in NODES[name].define_schema().inputs if not one.optional or draw(st.booleans())]
    drawn = {one.id: draw(value_of(one, size)) for one in declared}
    return {name: value for name, value in drawn.items() if value is not None}


def run(name, arguments):
    listed = NODES[name].define_schema().is_input_list
    return NODES[name].execute(**{key: [value] if listed else value for key, value in arguments.items()})


def finite(value):
    """Whether the tensors of an output are finite."""
    if isinstance(value, (list, tuple)):
        return all(map(finite, value))
    return not isinstance(value, torch.Tensor) or bool(value.isfinite().all())


@pytest.mark.parametrize("name", PURE)
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_node_makes_finite_outputs_or_refuses_what_its_schema_allows(name, data):
    size = data.draw(st.sampled_from(_SIDES)), data.draw(st.sampled_from(_SIDES))
    arguments = data.draw(arguments_of(name, size))
    with torch.inference_mode():
        try:
            made = run(name, arguments)
        except InputError:
            return
    assert finite(made.args)
