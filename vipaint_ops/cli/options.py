"""The options of ``vipaint`` in groups, and the types of their values."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from typing import Any

WHITE = ("fill", "known")
"""What white marks in a mask: the pixels to paint, as in ComfyUI, or those that are known."""

BLURS = ("gaussian", "motion")


def add_picture(parser: argparse.ArgumentParser, *, truth: bool = False) -> None:
    group = parser.add_argument_group("picture")
    group.add_argument("--image", required=True, metavar="FILE", help="the picture; hidden pixels are not read")
    if truth:
        group.add_argument("--truth", metavar="FILE", help="the complete picture, for comparison")


def add_mask(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    group = parser.add_argument_group("mask")
    group.add_argument(
        "--mask", required=required, metavar="FILE", help="white (or transparent): to paint, black (or opaque): known"
    )
    add_white(group)


def add_white(group: Any) -> None:
    group.add_argument(
        "--white",
        choices=WHITE,
        help="what white marks in the mask: fill, as in ComfyUI (the default), or known, as in earlier versions",
    )
    group.add_argument("--invert-mask", action="store_true", help=argparse.SUPPRESS)


def add_blur(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("blur")
    group.add_argument("--blur", choices=BLURS, help="gaussian: out of focus (--std); motion: along a line (--angle)")
    group.add_argument("--kernel", metavar="FILE", help="a blur by the kernel in a picture, in place of --blur")
    group.add_argument(
        "--kernel-size", type=integer(1, 9999), metavar="PIXELS", help="side of the kernel, odd (default: 61)"
    )
    group.add_argument(
        "--std", type=positive_number, metavar="PIXELS", help="gaussian: standard deviation (default: 3)"
    )
    group.add_argument("--angle", type=number, metavar="DEGREES", help="motion: counter-clockwise (default: 0)")


def add_scale(parser: argparse.ArgumentParser, factor: int | None = None) -> None:
    group = parser.add_argument_group("scale")
    group.add_argument("--factor", type=integer(2, 16), default=factor, help="how many times smaller the picture is")
    group.add_argument(
        "--kind",
        choices=("bicubic", "average"),
        default="bicubic",
        help="bicubic: antialiased, as in image editors; average: mean of blocks, as in sensors",
    )


def add_noise(parser: argparse.ArgumentParser, default: float | None, *, auto: bool = True) -> None:
    group = parser.add_argument_group("noise")
    group.add_argument(
        "--noise-std",
        type=noise if auto else positive_number,
        default=default,
        metavar="STD|auto" if auto else "STD",
        help="noise of the known pixels (black -1, white 1), including the error of the autoencoder"
        + ("; auto: estimated from the picture with the model" if auto else "")
        + ("" if default else " (default: that of the fit)"),
    )
    group.add_argument(
        "--likelihood",
        choices=("gaussian", "student-t"),
        default="gaussian",
        help="law of the noise; student-t: some known pixels are outliers (dust, scratches without a mask)",
    )
    group.add_argument(
        "--degrees", type=positive_number, metavar="NUMBER", help="student-t: fewer for more outliers (default: 2)"
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument(
        "--prior", metavar="PATH", help="a diffusers folder or a .safetensors or .ckpt file (default: embedded model)"
    )
    group.add_argument(
        "--prior-config", metavar="FOLDER", help="for a single-file checkpoint: a diffusers folder of its model family"
    )
    group.add_argument("--prompt", type=text, default="", help="content of the picture")
    group.add_argument("--negative-prompt", type=text, default="", help="content to avoid; used if cfg is not 1")
    group.add_argument(
        "--cfg",
        type=number,
        default=1.0,
        help="classifier-free guidance; above 1: closer to the prompt, at double cost",
    )


def add_preset(parser: argparse.ArgumentParser) -> None:
    from ..presets import PRESETS

    parser.add_argument(
        "--preset",
        choices=[name.replace(" ", "-") for name in PRESETS],
        default="balanced",
        help="settings of VIPaint by cost (docs/results.md), or those of a version of the paper; other options change "
        "single settings",
    )


def add_fit(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("fit")
    group.add_argument("--iterations", type=integer(0), help="gradient steps (default: the preset's)")
    group.add_argument(
        "--keypoints",
        type=times,
        metavar="T,...",
        help="decreasing times in (0, 1], such as 0.55,0.4 (default: the preset's)",
    )
    group.add_argument("--checkpointing", action="store_true", help="less memory, more time")


def add_sampling(parser: argparse.ArgumentParser) -> None:
    from ..inference.corrections import CORRECTIONS

    group = parser.add_argument_group("sampling")
    group.add_argument("--samples", type=integer(1, 10_000), default=8, help="number of pictures")
    group.add_argument(
        "--first",
        type=integer(0, 10**9),
        default=0,
        help="number of the first one: a seed's samples can be drawn in several runs",
    )
    group.add_argument("--steps", type=integer(1), help="steps of a sample (default: the preset's or method's)")
    group.add_argument(
        "--guidance", choices=list(CORRECTIONS), help="VIPaint: correction at every step (default: the preset's)"
    )
    group.add_argument(
        "--batch-size",
        type=integer(1),
        default=8,
        help="pictures computed together: more memory, same samples up to rounding (one pixel in 500 by a level)",
    )
    group.add_argument(
        "--particles",
        type=integer(1, 1024),
        help="VIPaint: size of the populations of sequential Monte Carlo, for few measurements (default: 1, none)",
    )


def add_method(parser: argparse.ArgumentParser) -> None:
    from ..restoration import METHODS, VIPAINT

    group = parser.add_argument_group("method")
    group.add_argument(
        "--method", choices=[VIPAINT, *METHODS], default=VIPAINT, help="VIPaint or the method of another paper"
    )
    group.add_argument(
        "--set",
        action="append",
        type=setting,
        metavar="NAME=VALUE",
        help="one more setting of the samples by its name in Python; can be given several times",
    )


def add_output(
    parser: argparse.ArgumentParser, default: str | None, *, required: bool = True, plots: bool = False
) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--out", default=default, required=required and default is None, metavar="DIR", help="folder for the results"
    )
    add_overwrite(group)
    if plots:
        group.add_argument(
            "--no-plots", action="store_true", help="write samples, fit and metrics.json alone, which takes less time"
        )


def add_overwrite(group: Any) -> None:
    group.add_argument(
        "--overwrite", action="store_true", help="replace the unchanged files of an earlier run; nothing else"
    )


def add_composite(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("known pixels")
    group.add_argument("--no-composite", action="store_true", help="do not restore the known pixels of the samples")
    group.add_argument(
        "--feather",
        type=integer(0, 256),
        default=0,
        metavar="PIXELS",
        help="width, into the hole, over which a difference of colour at its edge fades out",
    )
    group.add_argument(
        "--colour-match",
        action="store_true",
        help="match mean and contrast of each colour channel to the known pixels, not the mean alone",
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=integer(0, 2**62 - 1), default=0, help="same seed, same pictures")


def add_machine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("machine")
    add_seed(parser)
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    group.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="precision of the networks"
    )


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        nargs="?",
        metavar="CHECKPOINT",
        help="a diffusers folder or a .safetensors or .ckpt file (default: embedded model)",
    )
    parser.add_argument(
        "--prior-config", metavar="FOLDER", help="for a single-file checkpoint: a diffusers folder of its model family"
    )
    parser.add_argument(
        "--check-gradients",
        action="store_true",
        help="load the model in float32, and compare its gradients with a finite difference",
    )
    parser.add_argument("--device", default="auto", help="for --check-gradients: auto, cpu, cuda, cuda:1, mps")


def add_run(parser: argparse.ArgumentParser) -> None:
    """The run whose cost is computed."""
    from ..presets import PRESETS
    from ..restoration import METHODS

    group = parser.add_argument_group("run")
    group.add_argument(
        "--size", type=size, metavar="HEIGHTxWIDTH", help="of the picture in pixels (default: that of the model)"
    )
    group.add_argument("--samples", type=integer(1, 10_000), default=4, help="number of pictures")
    group.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="precision of the networks (default: that of the file)",
    )
    one = group.add_mutually_exclusive_group()
    one.add_argument("--preset", choices=[name.replace(" ", "-") for name in PRESETS], help="this preset alone")
    one.add_argument("--method", choices=list(METHODS), help="this method alone")


def size(words: str) -> tuple[int, int]:
    height, cross, width = words.partition("x")
    if not (cross and height.isdecimal() and width.isdecimal() and 0 < int(height) < 10**5 > int(width) > 0):
        raise argparse.ArgumentTypeError(f"{words!r} is not HEIGHTxWIDTH in pixels, such as 512x768")
    return int(height), int(width)


def integer(low: int, high: int = 10**6) -> Callable[[str], int]:
    """The type of whole numbers from ``low`` to ``high``."""

    def integer(text: str) -> int:
        if not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low} and {high}")
        return int(text)

    return integer


def number(text: str) -> float:
    if not math.isfinite(float(text)):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return float(text)


def positive_number(text: str) -> float:
    if number(text) <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not positive; 0.02 suits the noise of a clean picture")
    return float(text)


def noise(text: str) -> float | str:
    return text if text == "auto" else positive_number(text)


def times(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def text(words: str) -> str:
    words.encode()  # fails for bytes that are no UTF-8, which no file of the results could hold
    return words


def setting(words: str) -> tuple[str, Any]:
    """NAME=VALUE; the value is a number, true, false, a list of numbers as [0.9, 0.5], or else a text."""
    name, equals, value = words.partition("=")
    if not name.isidentifier() or not equals:
        raise argparse.ArgumentTypeError(f"{words!r} is not NAME=VALUE, such as steps=100")
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = text(value)
    return name, tuple(found) if isinstance(found, list) else found
