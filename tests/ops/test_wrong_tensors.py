"""Tensors of no size, of another rank or type, and numbers that are none, at the public functions of the library."""

import math
import warnings
from functools import partial

import pytest
import torch

from vipaint_ops import InputError, NoiseSchedule, Observation, operators
from vipaint_ops.evaluation import metrics
from vipaint_ops.evaluation.degrade import degrade
from vipaint_ops.images import masks, windows
from vipaint_ops.measurement.likelihood import StudentT
from vipaint_ops.measurement.noise_level import noise_level

PICTURE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
MASK = torch.cat([torch.zeros(1, 1, 16, 8), torch.ones(1, 1, 16, 8)], 3)
WINDOW = windows.whole_window(MASK)
OPERATORS = {
    "inpainting": operators.Inpainting(MASK),
    "gaussian": operators.GaussianBlur(3, 1.0),
    "motion": operators.MotionBlur(3, 0.0),
    "bicubic": operators.SuperResolution(2),
    "average": operators.SuperResolution(2, "average"),
    "composed": operators.Compose(operators.GaussianBlur(3, 1.0), operators.SuperResolution(2)),
}
OBSERVATION = Observation(PICTURE * MASK, OPERATORS["inpainting"], 0.1)
TENSORS = {
    **{str(shape): torch.ones(shape) for shape in [(), (4,), (4, 4), (0, 3, 16, 16), (1, 3, 0, 16), (1, 0, 16, 16)]},
    **{str(shape): torch.ones(shape) for shape in [(1, 1, 3, 16, 16), (1, 2, 16, 16), (1, 3, 1, 1), (2, 3, 5, 7)]},
    **{str(kind): torch.ones(1, 1, 16, 16).to(kind) for kind in (torch.int64, torch.bool, torch.complex64)},
    **{f"{kind} picture": torch.rand(1, 3, 16, 16).to(kind) for kind in (torch.float16, torch.float64)},
    "NaN": torch.full((1, 1, 16, 16), math.nan),
    "infinite": torch.full((1, 1, 16, 16), math.inf),
    "far": torch.full((1, 1, 16, 16), -7.0),
}
_PASTE = (masks.composite, masks.without_shift, masks.match_colours)
VERBS = ("__call__", "adjoint", "pinv", "squared")
FUNCTIONS = {
    "Inpainting": operators.Inpainting,
    "Blur": operators.Blur,
    **{
        f"{name} {verb}": getattr(one, verb)
        for name, one in OPERATORS.items()
        for verb in ("__call__", "adjoint", "pinv")
    },
    **{f"{name} observed": partial(lambda one, y: Observation(y, one, 0.1), one) for name, one in OPERATORS.items()},
    **{f"{f.__name__} images": partial(lambda f, x: f(x, PICTURE, MASK), f) for f in _PASTE},
    **{f"{f.__name__} picture": partial(lambda f, x: f(PICTURE, x, MASK), f) for f in _PASTE},
    **{f"{f.__name__} mask": partial(lambda f, x: f(PICTURE, PICTURE, x), f) for f in _PASTE},
    "residual": OBSERVATION.residual,
    "log-likelihood": OBSERVATION.log_likelihood,
    "fit_mask": lambda x: masks.fit_mask(x, 16, 16),
    "fit_greys": lambda x: masks.fit_greys(x, 16, 16),
    "latent_grid": lambda x: masks.latent_grid(x, 4),
    "find_windows": windows.find_windows,
    "whole_window": windows.whole_window,
    "crop": lambda x: windows.crop(x, MASK, WINDOW),
    "psnr": lambda x: metrics.psnr(x, PICTURE),
    "ssim": lambda x: metrics.ssim(PICTURE, x),
    "consistency": lambda x: metrics.consistency(x, OBSERVATION),
    "degrade": lambda x: degrade(x, OPERATORS["gaussian"], 0.1, generator=torch.Generator()),
    "noise_level": noise_level,
    "noise_level mask": lambda x: noise_level(PICTURE, x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_tensor_is_taken_or_refused_as_an_input(name):
    for tensor in TENSORS.values():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                FUNCTIONS[name](tensor)
            except InputError as error:
                assert len(str(error)) > 20


@pytest.mark.parametrize(
    "name", ["fit_mask", "latent_grid", "find_windows", "whole_window", "Inpainting", "noise_level mask"]
)
def test_a_mask_of_nan_is_refused(name):
    with pytest.raises(InputError, match="mask"):
        FUNCTIONS[name](TENSORS["NaN"])


GENERATOR = torch.Generator()
NUMBERS = {
    "std": lambda v: operators.GaussianBlur(3, v),
    "angle": lambda v: operators.MotionBlur(3, v),
    "intensity": lambda v: operators.MotionBlur.shake(3, v, GENERATOR),
    "noise_std": lambda v: Observation(PICTURE, OPERATORS["inpainting"], v),
    "degrees": StudentT,
    "shift": NoiseSchedule.rectified_flow,
    "betas": lambda v: NoiseSchedule.vp([0.1, v]),
    "angle ": lambda v: masks.half_plane(16, 16, v),
    "keep": lambda v: masks.random_pixels(16, 16, v, generator=GENERATOR),
    "share": lambda v: masks.brush_strokes(16, 16, v, generator=GENERATOR),
    "hole": lambda v: masks.random_boxes(16, 16, (v, 0.5), generator=GENERATOR),
    "hole ": lambda v: masks.random_boxes(16, 16, (0.2, v), generator=GENERATOR),
    "context": lambda v: windows.WindowConfig(context=v),
    "height": lambda v: masks.half_plane(v, 16),
    "width": lambda v: masks.box(16, v, 4),
}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_is_none_is_refused_by_name(name, value):
    with pytest.raises(InputError, match=name.strip()):
        NUMBERS[name](value)


@pytest.mark.parametrize("side", [0, -1, 2**40, 0.5, True])
def test_a_side_is_a_number_of_pixels(side):
    for make in (masks.half_plane, partial(masks.box, size=1), partial(masks.outpaint_border, border=1)):
        with pytest.raises(InputError, match=r"^(height|width) is"):
            make(side, 16)
        with pytest.raises(InputError, match=r"^(height|width) is"):
            make(16, side)
