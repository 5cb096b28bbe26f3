"""The node that chains two degradations."""

from __future__ import annotations

import torch
from comfy_api.v0_0_2 import io

from ...vipaint_ops.errors import InputError
from ...vipaint_ops.measurement.observation import Observation
from ...vipaint_ops.operators import Compose
from ..search import schema
from ..sockets import ObservationSocket, output


class ObserveChain(io.ComfyNode):
    """Two degradations in sequence."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="VIPaintObserveChain",
            display_name="Observe: Chain",
            category="VIPaint/observe",
            description="Chains two degradations, for example blur, then scratches. Chain again for more than two.",
            inputs=[
                ObservationSocket.Input(
                    "first",
                    tooltip="First degradation. Its image and noise level are not used.",
                ),
                ObservationSocket.Input(
                    "then", tooltip="Second degradation. Its image is restored, and its noise level applies."
                ),
            ],
            outputs=[output(ObservationSocket, "observation", "For Fit Posterior, Sample Posterior or a sampler.")],
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
                    f"first and then do not fit: then takes images of {height}x{width} (height x width), which first "
                    f"cannot make ({error})"
                ) from error
            operator = Compose(first.operator, then.operator)
            return io.NodeOutput(Observation(then.y, operator, then.noise_std, then.likelihood))
