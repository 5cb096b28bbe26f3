"""The console command ``vipaint``: its arguments, its help, and how it fails."""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn

from ..errors import InputError
from ..inference.corrections import CORRECTIONS

_DESCRIPTION = """\
Fill the hidden part of a picture in several different plausible ways.

A diffusion model knows what pictures look like; the mask says which pixels of this one are known. vipaint fits a
distribution over everything that agrees with both (the posterior, over two noise levels of the model), then draws
as many samples from it as you like. Nothing is trained and nothing is downloaded: the embedded model paints 64-pixel
houses, and --prior takes any latent diffusion model you have on disk.

  vipaint demo        half of a scene hidden, eight completions: start here
  vipaint inpaint     fit and sample in one go
  vipaint fit         the fit alone, saved to a file
  vipaint sample      more samples from a saved fit
"""
_EXAMPLES = {
    "": """\
examples:
  vipaint demo --out demo
  vipaint inpaint --image photo.png --mask mask.png --out result --prior ~/models/stable-diffusion-v1-5
  vipaint inpaint --help
""",
    "demo": """\
examples:
  vipaint demo                               hide the right half, look at vipaint-demo/sheet.png
  vipaint demo --mask box --seed 7 --out box
  vipaint demo --mask my_mask.png            white is kept, black is painted
""",
    "inpaint": """\
The mask is white where the picture is known and black where it is to be painted (--invert-mask for the opposite).
Look at sheet.png first. Where samples disagree with the known part (consistency in metrics.json far above 1), raise
--steps; where the model cannot paint the known part at all, raise --noise-std.

examples:
  vipaint inpaint --image scene.png --mask mask.png --samples 8 --out result
  vipaint inpaint --image photo.jpg --mask hole.png --invert-mask --out result \\
      --prior ~/models/sd15 --prompt "a garden" --cfg 3 --dtype bfloat16 --device cuda
  vipaint inpaint --image scene.png --mask mask.png --out paper --preset published-v1
""",
    "fit": """\
examples:
  vipaint fit --image scene.png --mask mask.png --posterior scene.safetensors
  vipaint sample --image scene.png --mask mask.png --posterior scene.safetensors --samples 32 --out more
""",
    "sample": """\
Picture, mask, model and prompt must be those of the fit; sampling with other ones is refused.

examples:
  vipaint sample --image scene.png --mask mask.png --posterior scene.safetensors --samples 32 --seed 5 --out more
""",
}
_MEMORY = (
    "out of memory: lower --batch-size, add --checkpointing (fit), use --dtype bfloat16, "
    "a smaller picture, or --device cpu"
)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of descriptions and shows the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str:
        silent = action.default is False or action.default in (None, "", argparse.SUPPRESS)
        return (action.help or "") + ("" if silent else " (default: %(default)s)")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"vipaint: error: {message} (help: {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command; every subcommand leaves its name in ``command``."""
    parser = _Parser("vipaint", description=_DESCRIPTION, epilog=_EXAMPLES[""], formatter_class=_Formatter)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")

    def command(name: str, summary: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=summary, description=summary, epilog=_EXAMPLES[name], formatter_class=_Formatter
        )

    demo = command("demo", "Complete the packaged scene with the embedded model, and compare with the truth.")
    demo.add_argument("--mask", default="half", metavar="NAME|FILE", help="half, box, random, pixels, or a mask file")
    _add_noise(demo, 0.02)
    demo.set_defaults(prior=None, prompt="", negative_prompt="", cfg=1.0)
    inpaint = command("inpaint", "Fit the posterior of a masked picture and draw samples from it.")
    fit = command("fit", "Fit the posterior of a masked picture and save it.")
    fit.add_argument("--posterior", required=True, metavar="FILE", help="where to save the fit (.safetensors)")
    fit.set_defaults(truth=None)
    sample = command("sample", "Draw samples from a saved fit.")
    sample.add_argument("--posterior", required=True, metavar="FILE", help="a fit saved by fit or inpaint")
    for subparser in (inpaint, fit, sample):
        _add_picture(subparser)
        _add_noise(subparser, None if subparser is sample else 0.02)
        _add_model(subparser)
    for subparser in (demo, inpaint, fit):
        _add_fit(subparser)
    for subparser in (demo, inpaint, sample):
        _add_sampling(subparser)
        _add_output(subparser, default="vipaint-demo" if subparser is demo else None)
    for subparser in (demo, inpaint, fit, sample):
        subparser.add_argument(
            "--preset", choices=("default", "published-v1", "published-v2"), default="default",
            help="settings to start from: the best measured, or either paper version's",
        )  # fmt: skip
        machine = subparser.add_argument_group("machine")
        machine.add_argument("--seed", type=_integer(0, 2**62 - 1), default=0, help="same seed, same pictures")
        machine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
        machine.add_argument(
            "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="precision of the networks"
        )
        machine.add_argument("--overwrite", action="store_true", help="replace what an earlier run wrote")
    return parser


def _add_picture(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("picture")
    group.add_argument("--image", required=True, metavar="FILE", help="the picture; what the mask hides is not read")
    group.add_argument("--mask", required=True, metavar="FILE", help="white: known, black: to be painted")
    group.add_argument("--invert-mask", action="store_true", help="the mask is black where the picture is known")


def _add_noise(parser: argparse.ArgumentParser, default: float | None) -> None:
    parser.add_argument(
        "--noise-std", type=positive_number, default=default, metavar="STD",
        help="noise of the known pixels, in a range of 2 (black -1, white 1); it covers what the autoencoder cannot "
        "reproduce too" + ("" if default else " (default: that of the fit)"),
    )  # fmt: skip


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument(
        "--prior", metavar="PATH", help="a diffusers folder or a .safetensors or .ckpt file (default: embedded model)"
    )
    group.add_argument(
        "--prior-config", metavar="FOLDER", help="diffusers folder of the same family as a single-file checkpoint"
    )
    group.add_argument("--prompt", default="", help="what the picture shows")
    group.add_argument("--negative-prompt", default="", help="what it does not show; used where cfg is not 1")
    group.add_argument(
        "--cfg", type=number, default=1.0,
        help="classifier-free guidance; above 1 it follows the prompt more, at double cost",
    )  # fmt: skip


def _add_fit(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("fit")
    group.add_argument("--iterations", type=_integer(0), help="gradient steps (default: the preset's)")
    group.add_argument(
        "--keypoints", type=times, metavar="T,...",
        help="decreasing times in (0, 1], such as 0.55,0.4 (default: the preset's)",
    )  # fmt: skip
    group.add_argument("--checkpointing", action="store_true", help="less memory, more time")


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sampling")
    group.add_argument("--samples", type=_integer(1, 10_000), default=8, help="how many pictures to draw")
    group.add_argument("--steps", type=_integer(2), help="refinement steps (default: the best measured)")
    group.add_argument("--guidance", choices=list(CORRECTIONS), help="correction at every step (default: kalman)")
    group.add_argument("--batch-size", type=_integer(1), default=8, help="pictures at a time; memory, not results")
    group.add_argument(
        "--particles", type=_integer(1, 1024), default=1,
        help="samples that compete in groups of this size: for a handful of measurements (default: 1, none compete)",
    )  # fmt: skip


def _add_output(parser: argparse.ArgumentParser, default: str | None) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("--out", default=default, required=default is None, metavar="DIR", help="folder to write to")
    if default is None:
        group.add_argument("--truth", metavar="FILE", help="the whole picture, to compare with")
    group.add_argument("--no-composite", action="store_true", help="leave the known pixels as the model painted them")


def _integer(low: int, high: int = 10**6) -> Callable[[str], int]:
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
        raise argparse.ArgumentTypeError(f"{text} is not positive; 0.02 suits a clean picture")
    return float(text)


def times(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 2 for an input that cannot be used, 130 when interrupted."""
    options = build_parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _notice
            from . import commands as cli_commands

            cli_commands.COMMANDS[options.command](options)
    except InputError as error:
        return _say("error", error, status=2)
    except KeyboardInterrupt:
        return _say("interrupted", "nothing was written", status=130)
    except ModuleNotFoundError as error:
        return _say("error", f"package {error.name!r} is missing: pip install 'vipaint[cli]'", status=2)
    except OSError as error:
        return _say("error", f"{error}: check that the disk has room and the folder can be written to", status=2)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        return _say("error", _MEMORY, status=2)
    return 0


def _notice(message: Warning | str, category: type[Warning], filename: str, *_: object, **__: object) -> None:
    if "vipaint_ops" in filename:
        _say("notice", message)


def _say(kind: str, message: object, status: int = 0) -> int:
    print(f"vipaint: {kind}: {' '.join(str(message).split())}", file=sys.stderr)
    return status
