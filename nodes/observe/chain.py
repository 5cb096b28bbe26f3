"""The node that joins two degradations."""

from __future__ import annotations

import torch
from comfy_api.v0_0_2 import io

from ...vipaint_ops.errors import InputError
from ...vipaint_ops.measurement.observation import Observation
from ...vipaint_ops.operators import Compose
from ..sockets import ObservationSocket
from .inpaint import observation_output


class ObserveChain(io.ComfyNode):
    """One degradation after another."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VIPaintObserveChain",
            display_name="Observe: Chain",
            category="VIPaint/observe",
            description="Says that a picture went through one degradation and then another, for example blurred, then "
            "scratched. More than two: chain a chain.",
            inputs=[
                ObservationSocket.Input(
                    "first",
                    tooltip="What happened first. Only its degradation is used: its picture may be any of a size that "
                    "fits.",
                ),
                ObservationSocket.Input(
                    "then", tooltip="What happened then. Its picture is the one to restore, its noise level counts."
                ),
            ],
            outputs=[observation_output()],
        )

    @classmethod
    def execute(cls, first, then) -> io.NodeOutput:
        height, width = then.operator.picture_size(tuple(then.y.shape[2:]))
        with torch.inference_mode(False):
            try:
                # An operator knows which pictures it takes only when it sees one.
                first.operator(torch.zeros(1, 3, *first.operator.picture_size((height, width))))
            except (InputError, RuntimeError) as error:
                raise InputError(
                    f"first and then do not follow each other: then takes pictures of {height}x{width} (height x "
                    f"width), which first does not make ({error})"
                ) from error
            operator = Compose(first.operator, then.operator)
            return io.NodeOutput(Observation(then.y, operator, then.noise_std, then.likelihood))
