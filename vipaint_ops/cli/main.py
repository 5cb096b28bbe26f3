"""The console command ``vipaint``: its arguments, help and exit status."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ..errors import InputError, missing_package
from .say import say
from .stop import Stopped, held, stoppable

_PACKAGES = ("PIL", "diffusers", "matplotlib", "tqdm")
_DESCRIPTION = """\
Fill the hidden part of a picture in several plausible ways.

The mask marks the known pixels of the picture. vipaint fits a distribution over the pictures that agree with the
known pixels and with a diffusion model (the posterior, at two noise levels of the model). It then draws samples from
this distribution. It trains no model and downloads nothing. The embedded model paints 64-pixel houses. --prior takes
any latent diffusion model on disk.

  vipaint demo        first test: eight completions of a scene with one half hidden
  vipaint inpaint     fit and sample
  vipaint fit         fit only, saved to a file
  vipaint sample      samples from a saved fit
  vipaint batch       any of these on many pictures
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
  vipaint demo                               hide the right half; see vipaint-demo/sheet.png
  vipaint demo --mask box --seed 7 --out box
  vipaint demo --mask my_mask.png            white: known, black: to paint
""",
    "inpaint": """\
The mask is white for known pixels and black for pixels to paint (--invert-mask for the opposite). If its opacity
varies, it is opaque for known pixels and transparent for pixels to paint. See sheet.png first. If samples disagree with
the known pixels (consistency in metrics.json far above 1), raise --steps. If the model cannot reproduce the known
pixels, raise --noise-std.

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
Picture, mask, model and prompt must be those of the fit.

examples:
  vipaint sample --image scene.png --mask mask.png --posterior scene.safetensors --samples 32 --seed 5 --out more
""",
}
_MEMORY = (
    "out of memory: lower --batch-size, add --checkpointing (fit), use --dtype bfloat16, "
    "a smaller picture, or --device cpu"
)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of descriptions, and shows defaults that are not empty."""

    def _get_help_string(self, action: argparse.Action) -> str:
        empty = action.default is False or action.default in (None, "", argparse.SUPPRESS)
        return (action.help or "") + ("" if empty else " (default: %(default)s)")


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        say(f"vipaint: error: {message} (help: {self.prog} --help)", sys.stderr)
        self.exit(2)

    rest: str | None = None
    """The option that takes all words after ``--``, for a command that passes them on."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.rest is None or "--" not in args:
            return super().parse_known_args(args, namespace)
        end = args.index("--")
        options, unknown = super().parse_known_args(args[:end], namespace)
        setattr(options, self.rest, tuple(args[end + 1 :]))
        return options, unknown

    def parse_args(self, *arguments: Any, **given: Any) -> Any:
        options = super().parse_args(*arguments, **given)
        options.given = dict(vars(options))
        for name, value in options.given.items():
            if value == []:  # what some versions of argparse make of --name=--
                self.error(f"argument --{name.replace('_', '-')}: expected one argument")
        return options


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command and its subcommands; ``command`` in its result is the name of the subcommand."""
    from ..presets import PRESETS
    from .batch_options import add_batch

    parser = Parser("vipaint", description=_DESCRIPTION, epilog=_EXAMPLES[""], formatter_class=_Formatter)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")

    def command(name: str, summary: str) -> Parser:
        return commands.add_parser(
            name, help=summary, description=summary, epilog=_EXAMPLES.get(name), formatter_class=_Formatter
        )

    demo = command("demo", "Complete a scene of the package with the embedded model, and compare with the truth.")
    demo.add_argument("--mask", default="half", metavar="NAME|FILE", help="half, box, random, pixels, or a mask file")
    _add_noise(demo, 0.02)
    demo.set_defaults(prior=None, prompt="", negative_prompt="", cfg=1.0)
    inpaint = command("inpaint", "Fit the posterior of a masked picture and draw samples from it.")
    fit = command("fit", "Fit the posterior of a masked picture and save it.")
    fit.add_argument("--posterior", required=True, metavar="FILE", help="file for the fit (.safetensors)")
    fit.set_defaults(truth=None)
    sample = command("sample", "Draw samples from a saved fit.")
    sample.add_argument("--posterior", required=True, metavar="FILE", help="posterior file of fit or inpaint")
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
            "--preset",
            choices=[name.replace(" ", "-") for name in PRESETS],
            default="balanced",
            help="settings by cost (docs/results.md), or those of a version of the paper; other options change single "
            "settings",
        )
        machine = subparser.add_argument_group("machine")
        machine.add_argument("--seed", type=integer(0, 2**62 - 1), default=0, help="same seed, same pictures")
        machine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
        machine.add_argument(
            "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="precision of the networks"
        )
        machine.add_argument(
            "--overwrite",
            action="store_true",
            help="replace the unchanged files of an earlier run; nothing else",
        )
    add_batch(command("batch", "Run a command on many pictures, on several workers."))
    return parser


def _add_picture(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("picture")
    group.add_argument("--image", required=True, metavar="FILE", help="the picture; hidden pixels are not read")
    group.add_argument(
        "--mask", required=True, metavar="FILE", help="white (or opaque): known, black (or transparent): to paint"
    )
    group.add_argument(
        "--invert-mask", action="store_true", help="black (or transparent): known, white (or opaque): to paint"
    )


def _add_noise(parser: argparse.ArgumentParser, default: float | None) -> None:
    parser.add_argument(
        "--noise-std",
        type=positive_number,
        default=default,
        metavar="STD",
        help="noise of the known pixels (black -1, white 1), including the error of the autoencoder"
        + ("" if default else " (default: that of the fit)"),
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
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


def _add_fit(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("fit")
    group.add_argument("--iterations", type=integer(0), help="gradient steps (default: the preset's)")
    group.add_argument(
        "--keypoints",
        type=times,
        metavar="T,...",
        help="decreasing times in (0, 1], such as 0.55,0.4 (default: the preset's)",
    )
    group.add_argument("--checkpointing", action="store_true", help="less memory, more time")


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    from ..inference.corrections import CORRECTIONS

    group = parser.add_argument_group("sampling")
    group.add_argument("--samples", type=integer(1, 10_000), default=8, help="number of pictures")
    group.add_argument("--steps", type=integer(2), help="refinement steps (default: the preset's)")
    group.add_argument("--guidance", choices=list(CORRECTIONS), help="correction at every step (default: the preset's)")
    group.add_argument(
        "--batch-size",
        type=integer(1),
        default=8,
        help="pictures computed together: more memory, same samples up to rounding (one pixel in 500 by a level)",
    )
    group.add_argument(
        "--particles",
        type=integer(1, 1024),
        default=1,
        help="size of the populations of sequential Monte Carlo, for few measurements; 1: independent samples",
    )


def _add_output(parser: argparse.ArgumentParser, default: str | None) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("--out", default=default, required=default is None, metavar="DIR", help="folder for the results")
    if default is None:
        group.add_argument("--truth", metavar="FILE", help="the complete picture, for comparison")
    group.add_argument("--no-composite", action="store_true", help="do not restore the known pixels of the samples")


def integer(low: int, high: int = 10**6) -> Callable[[str], int]:
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


def text(words: str) -> str:
    words.encode()  # fails for bytes that are no UTF-8, which no file of the results could hold
    return words


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status.

    0: the results are in their place. 1: those of some items of a batch are not. 2: an error of the input or the
    system. 128 and the number of the signal if one has stopped it: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP.
    """
    logging.getLogger("matplotlib").setLevel(logging.CRITICAL)  # it warns that a full disk cannot hold its cache
    try:
        with warnings.catch_warnings(), stoppable():
            with held():
                options = build_parser().parse_args(arguments)
                _check_packages()
                from .commands import COMMANDS
            warnings.showwarning = _notice
            return COMMANDS[options.command](options) or 0
    except InputError as error:
        return _say("error", error, status=2)
    except KeyboardInterrupt as error:
        return _say("interrupted", getattr(error, "left", Stopped.left), status=getattr(error, "status", 130))
    except ModuleNotFoundError as error:
        return _say("error", missing_package(error), status=2)
    except OSError as error:
        return _say("error", f"{error}: check the free space of the disk and the permissions of the folder", status=2)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        return _say("error", _MEMORY, status=2)


def _check_packages() -> None:
    """Fails at once, not after a run whose sheet needs the package."""
    for name in _PACKAGES:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(name=name)


def _notice(message: Warning | str, category: type[Warning], filename: str, *_: object, **__: object) -> None:
    if "vipaint_ops" in filename:
        _say("notice", message)


def _say(kind: str, message: object, status: int = 0) -> int:
    say(f"vipaint: {kind}: {message}", sys.stderr)
    return status
