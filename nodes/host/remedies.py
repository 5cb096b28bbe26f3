"""What a user can do when memory is exhausted."""

from __future__ import annotations

from .branches import Gradients


def memory_remedies(gradients: Gradients, rows: int, recomputable: bool) -> str:
    """The settings that lower the memory of a run.

    Args:
        gradients: networks that the run differentiates through.
        rows: samples computed together.
        recomputable: whether activations are kept that could be recomputed.
    """
    remedies = ["set batch_size to 1"] if rows > 1 else []
    if gradients:
        remedies += ["set checkpointing to on"] if recomputable else []
        remedies.append(
            "use a method without gradients (preset fast, guidance ding, or the samplers DInG, DDNM and LanPaint)"
        )
    else:
        remedies.append("load the model in a smaller form, such as fp8 or GGUF")
    return "; ".join([*remedies, "crop the image or make it smaller"])
