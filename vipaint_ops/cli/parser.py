"""The commands of ``vipaint``: their help, and the options that each takes."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn

from . import options as add
from .batch_options import BATCH_EXAMPLES, BATCH_USAGE, add_batch
from .say import say

_DESCRIPTION = """\
Restore a picture with a hole, a blur or too few pixels in several plausible ways.

vipaint fits a distribution over the pictures that agree with the known pixels and with a diffusion model (the
posterior), and draws samples from it. It trains no model and downloads nothing. The embedded model paints 64-pixel
houses. --prior takes any latent diffusion model on disk.

  vipaint demo        first test: eight completions of a scene with one half hidden
  vipaint inpaint     paint what a mask hides
  vipaint deblur      sharpen a blurred picture
  vipaint upscale     enlarge a small picture
  vipaint fit         fit only, saved to a file
  vipaint sample      samples from a saved fit
  vipaint degrade     make a test case from a clean picture
  vipaint compare     scores of restored pictures
  vipaint batch       a command on many pictures
  vipaint methods     the presets and methods, with their costs
  vipaint info        what a checkpoint is, and what a run takes
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
  vipaint demo --mask my_mask.png            white: to paint, black: known
""",
    "inpaint": """\
The mask is white for pixels to paint and black for known pixels, as in ComfyUI (--white known for the opposite). If its
opacity varies, it is transparent for pixels to paint and opaque for known pixels. See sheet.png first. If samples
disagree with the known pixels (consistency in metrics.json far above 1), raise --steps. If the model cannot reproduce
the known pixels, raise --noise-std.

examples:
  vipaint inpaint --image scene.png --mask mask.png --samples 8 --out result
  vipaint inpaint --image photo.jpg --mask hole.png --crop --noise-std auto --out result \\
      --prior ~/models/sd15 --prompt "a garden" --cfg 3 --dtype bfloat16 --device cuda
  vipaint inpaint --image scene.png --mask mask.png --out copaint --method copaint --set steps=50
  vipaint inpaint --image scene.png --mask mask.png --out paper --preset published-v1
""",
    "deblur": """\
The blur must be known: its kind and size, or a picture of its kernel. With --mask, hidden pixels of the blurred picture
are painted, too.

examples:
  vipaint deblur --image soft.png --blur gaussian --std 2 --noise-std auto --out result
  vipaint deblur --image moved.png --blur motion --kernel-size 15 --angle 30 --out result
  vipaint deblur --image soft.png --kernel kernel.png --out result
""",
    "upscale": """\
The result is --factor times as wide and high. With --blur or --kernel, the large picture was blurred first. With
--mask, hidden pixels of the small picture are painted, too.

examples:
  vipaint upscale --image small.png --factor 4 --out result
  vipaint upscale --image small.png --factor 2 --kind average --noise-std 0.05 --samples 4 --out result
""",
    "fit": """\
examples:
  vipaint fit --image scene.png --mask mask.png --posterior scene.safetensors
  vipaint fit --image soft.png --blur gaussian --std 2 --posterior soft.safetensors
  vipaint sample --image scene.png --mask mask.png --posterior scene.safetensors --samples 32 --out more
""",
    "sample": """\
Picture, mask (or blur, or scale), model and prompt must be those of the fit. For a fit with --crop, give one file a
window.

examples:
  vipaint sample --image scene.png --mask mask.png --posterior scene.safetensors --samples 32 --seed 5 --out more
  vipaint sample --image scene.png --mask mask.png --posterior scene.safetensors --first 32 --samples 32 --out rest
""",
    "degrade": """\
Writes degraded.png, and the mask and kernel that restore it. A picture is blurred first, then reduced, then masked.

examples:
  vipaint degrade --image clean.png --blur motion --kernel-size 15 --angle 30 --noise-std 0.05 --out case
  vipaint deblur --image case/degraded.png --kernel case/degraded_kernel.png --noise-std 0.05 --out result
  vipaint degrade --image clean.png --mask mask.png --out case
""",
    "compare": """\
Scores: PSNR (dB) and SSIM against --truth; with --image and its degradation, the residual in units of the noise (about
1 is expected); with --mask, the seam: steps across the edge of the hole against those beside it (1: no seam); diversity
of the pictures; LPIPS if the package lpips is installed.

examples:
  vipaint compare result/sample_*.png --truth clean.png
  vipaint compare result --truth clean.png --image photo.png --mask mask.png --noise-std 0.02 --out scores
""",
    "batch": BATCH_EXAMPLES,
    "methods": """\
examples:
  vipaint methods
""",
    "info": """\
Reads the configuration and no weights, and counts operations and memory. TFLOP and "÷ plain" are of the whole run, with
its fit; "÷ plain" in units of a plain generation of as many pictures. GiB is the peak on the card if nothing is
recomputed, without text encoders. Other pictures and prompts take other numbers of steps, within some percent.

examples:
  vipaint info ~/models/stable-diffusion-v1-5
  vipaint info ~/models/sdxl.safetensors --prior-config ~/models/sdxl-base --size 1024x768 --preset fast
  vipaint info ~/models/stable-diffusion-v1-5 --check-gradients --device cuda
""",
}


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of descriptions, and shows defaults that are not empty."""

    def _get_help_string(self, action: argparse.Action) -> str:
        empty = action.default is False or action.default in (None, "", argparse.SUPPRESS)
        return (action.help or "") + ("" if empty else " (default: %(default)s)")


class _Parser(argparse.ArgumentParser):
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
    parser = _Parser("vipaint", description=_DESCRIPTION, epilog=_EXAMPLES[""], formatter_class=_Formatter)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")

    def command(name: str, summary: str) -> _Parser:
        return commands.add_parser(
            name, help=summary, description=summary, epilog=_EXAMPLES[name], formatter_class=_Formatter
        )

    _add_demo(command("demo", "Complete a scene of the package with the embedded model, and compare with the truth."))
    _add_inpaint(command("inpaint", "Paint what a mask hides: fit the posterior of the picture and draw samples."))
    _add_deblur(command("deblur", "Sharpen a picture with a known blur: fit its posterior and draw samples."))
    _add_upscale(command("upscale", "Enlarge a small picture: fit the posterior of the large one and draw samples."))
    _add_fit(command("fit", "Fit the posterior of a masked, blurred or small picture and save it."))
    _add_sample(command("sample", "Draw samples from a saved fit."))
    _add_degrade(command("degrade", "Make a test case: mask, blur or reduce a clean picture, with noise."))
    _add_compare(command("compare", "Print scores of restored pictures."))
    batch = command("batch", "Run a command on many pictures, on several workers.")
    batch.usage, batch.rest = BATCH_USAGE, "item_options"
    add_batch(batch)
    command("methods", "Print the presets and methods: source, use, gradients and cost.")
    _add_info(command("info", "Print what a checkpoint is, and the operations and memory of a run."))
    return parser


def _add_demo(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("mask")
    group.add_argument("--mask", default="half", metavar="NAME|FILE", help="half, box, random, pixels, or a mask file")
    add.add_white(group)
    parser.set_defaults(prior=None, prompt="", negative_prompt="", cfg=1.0, crop=False, **_NO_BLUR, **_NO_SCALE)
    add.add_composite(parser)
    _add_restoration(parser, out="vipaint-demo")


_NO_BLUR = dict.fromkeys(("blur", "kernel", "kernel_size", "std", "angle"))
_NO_SCALE = {"factor": None, "kind": "bicubic"}
_NO_COMPOSITE = {"no_composite": True, "feather": 0, "colour_match": False}


def _add_inpaint(parser: argparse.ArgumentParser) -> None:
    add.add_picture(parser, truth=True)
    add.add_mask(parser, required=True)
    _add_crop(parser)
    parser.set_defaults(**_NO_BLUR, **_NO_SCALE)
    add.add_composite(parser)
    add.add_model(parser)
    _add_restoration(parser)


def _add_deblur(parser: argparse.ArgumentParser) -> None:
    add.add_picture(parser, truth=True)
    add.add_blur(parser)
    add.add_mask(parser)
    parser.set_defaults(crop=False, **_NO_SCALE, **_NO_COMPOSITE)
    add.add_model(parser)
    _add_restoration(parser)


def _add_upscale(parser: argparse.ArgumentParser) -> None:
    add.add_picture(parser, truth=True)
    add.add_scale(parser, factor=4)
    add.add_blur(parser)
    add.add_mask(parser)
    parser.set_defaults(crop=False, **_NO_COMPOSITE)
    add.add_model(parser)
    _add_restoration(parser)


def _add_restoration(parser: argparse.ArgumentParser, out: str | None = None) -> None:
    """The options from the noise to the results of a command that fits and samples."""
    add.add_noise(parser, 0.02)
    add.add_preset(parser)
    add.add_method(parser)
    add.add_fit(parser)
    add.add_sampling(parser)
    add.add_output(parser, out, plots=True)
    add.add_machine(parser)


def _add_crop(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--crop",
        action="store_true",
        help="restore a window around each hole, in the size that the model was trained for, and stitch it into the "
        "untouched picture",
    )


def _add_degradation(parser: argparse.ArgumentParser) -> None:
    add.add_mask(parser)
    add.add_blur(parser)
    add.add_scale(parser)


def _add_fit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--posterior", required=True, metavar="FILE", help="file for the fit (.safetensors)")
    add.add_picture(parser)
    _add_degradation(parser)
    add.add_model(parser)
    add.add_noise(parser, 0.02)
    add.add_preset(parser)
    add.add_fit(parser)
    add.add_overwrite(parser)
    add.add_machine(parser)
    parser.set_defaults(truth=None, crop=False)


def _add_sample(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--posterior", required=True, nargs="+", metavar="FILE", help="posterior file of fit, or of another command"
    )
    add.add_picture(parser, truth=True)
    _add_degradation(parser)
    _add_crop(parser)
    add.add_model(parser)
    add.add_noise(parser, None)
    add.add_preset(parser)
    add.add_sampling(parser)
    add.add_composite(parser)
    add.add_output(parser, None, plots=True)
    add.add_machine(parser)
    parser.set_defaults(method="vipaint", set=None)


def _add_degrade(parser: argparse.ArgumentParser) -> None:
    add.add_picture(parser)
    _add_degradation(parser)
    add.add_noise(parser, 0.02, auto=False)
    add.add_seed(parser)
    add.add_output(parser, None)
    parser.set_defaults(truth=None)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pictures", nargs="+", metavar="FILE|DIR", help="restored pictures, or folders of results")
    group = parser.add_argument_group("against")
    group.add_argument("--truth", metavar="FILE", help="the complete picture")
    group.add_argument("--image", metavar="FILE", help="the degraded picture, for the residual")
    _add_degradation(parser)
    add.add_noise(parser, 0.02, auto=False)
    add.add_output(parser, None, required=False)


def _add_info(parser: argparse.ArgumentParser) -> None:
    add.add_checkpoint(parser)
    add.add_run(parser)
    parser.set_defaults(prompt="", negative_prompt="", cfg=1.0)
