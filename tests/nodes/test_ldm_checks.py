"""Checkpoints of the loader for early latent diffusion models: what would make NaN pictures is refused."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from tests.nodes.pack import load
from tests.ops.conftest import save_embedded

layout, embedded, file = (
    load(name) for name in ("nodes.ldm.layout", "nodes.ldm.embedded", "vipaint_ops.priors.embedded_file")
)
InputError = load("vipaint_ops.errors").InputError
GOOD = layout.Checkpoint(unet={"a": torch.ones(2)}, first_stage={"b": torch.ones(2)}, betas=(0.0015, 0.0195))


def test_a_usual_checkpoint_is_taken():
    layout.check_checkpoint(GOOD)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unet": {"a": torch.tensor([1.0, math.nan])}}, "'a' contains NaN"),
        ({"first_stage": {"b": torch.tensor([math.inf])}}, "'b' contains NaN"),
        ({"unet": {"a": torch.tensor([1e30])}}, "'a' has values above 65504"),
        ({"classes": torch.full((2, 3), math.nan)}, "contains NaN"),
        ({"betas": (math.nan, 0.02)}, "betas go from nan"),
        ({"betas": (0.02, 0.001)}, "betas go from"),
        ({"betas": (0.0, 0.02)}, "betas go from"),
        ({"betas": (0.001, 1.0)}, "betas go from"),
        ({"steps": 1}, "steps is 1"),
        ({"steps": 10**13}, "steps is 10000000000000"),
        ({"scale_factor": math.nan}, "scale is nan"),
        ({"scale_factor": 0.0}, "scale is 0"),
    ],
)
def test_what_would_make_nan_pictures_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        layout.check_checkpoint(dataclasses.replace(GOOD, **change))


def test_the_node_reads_a_file_by_the_reader_of_the_library(tmp_path):
    good = file.read_embedded(save_embedded(tmp_path / "good.safetensors"))
    checkpoint = embedded.from_embedded(good)
    assert checkpoint.digest == good.digest
    spoilt = torch.full((8,), math.nan)
    with pytest.raises(InputError, match="NaN"):
        file.read_embedded(save_embedded(tmp_path / "bad.safetensors", **{"denoiser.conv_norm_out.weight": spoilt}))
