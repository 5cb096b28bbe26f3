"""Memory that a run keeps free of weights."""

from __future__ import annotations

from typing import Any

import comfy.model_management

from .branches import Gradients
from .memory import BRANCHES, DECODER_GRAPH, MARGIN, MODEL_GRAPH, Ratios, usual_cost
from .settings import RunSettings
from .vae import HostVAE


def reservation(patcher: Any, vae: HostVAE, row: tuple[int, ...], settings: RunSettings) -> float:
    """Bytes to keep free of weights: for all that is alive together in a run.

    These are the graphs of model and decoder, for all rows if the device has room beside the weights. The least is one
    row in the cheapest form. Without a gradient through both, they are not alive together.
    """
    gradients, checkpointing = settings.gradients, settings.checkpointing
    forward = {
        Gradients.MODEL: (patcher.memory_required((BRANCHES, *row[1:])), MODEL_GRAPH),
        Gradients.VAE: (vae.forward_memory(row), DECODER_GRAPH),
    }
    costs = [
        usual_cost(size, ratios if network in gradients else Ratios(1, 1))
        for network, (size, ratios) in forward.items()
    ]
    together = sum if Gradients.CHAIN in gradients else max
    most = together(cost.total(settings.rows, checkpointing == "on") for cost in costs)
    least = together(cost.total(1, checkpointing != "off") for cost in costs)
    management = comfy.model_management
    weights = patcher.model_size() + vae.patcher.model_size() + management.extra_reserved_memory()
    room = MARGIN * management.get_total_memory(patcher.load_device) - weights
    return max(least, min(most, room))
