"""Nodes for latent diffusion models that the host's loaders do not support."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pickle import UnpicklingError

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.utils
import folder_paths
from comfy_api.v0_0_2 import io

from ...vipaint_ops.errors import InputError
from ...vipaint_ops.priors.embedded import EMBEDDED_PRIOR
from ...vipaint_ops.priors.embedded_file import is_embedded, read_embedded
from ..host.fingerprint import WEIGHTS
from ..search import schema
from ..sockets import output
from .embedded import PREVIEW, from_embedded
from .layout import Checkpoint, check_checkpoint, from_compvis
from .networks import build_model, build_vae

EMBEDDED = "embedded prior (64x64 scenes)"
"""First option of the loader: the file that is part of the pack."""

_CLASSES = "vipaint_ldm_classes"
_SUPPORTED = (
    "This node loads the embedded prior and the LSUN churches, LSUN bedrooms, CelebA-HQ, FFHQ and cin256-v2 models of "
    "CompVis/latent-diffusion. For Stable Diffusion and other models use the core Load Checkpoint node"
)


def load_model(path: str, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The MODEL of a checkpoint file, with its class embedding."""
    with _about(path):
        return _model(path, _read(path), disable_dynamic)


def load_vae_patcher(path: str, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The patcher of a checkpoint file's VAE. As in the host, ``disable_dynamic`` has no effect."""
    with _about(path):
        return _vae(path, _read(path)).patcher


def _read(path: str) -> Checkpoint:
    if is_embedded(path):
        checkpoint = from_embedded(read_embedded(path))
        checkpoint.preview = PREVIEW if path == str(EMBEDDED_PRIOR) else None
        return checkpoint
    try:
        tensors = comfy.utils.load_torch_file(path, safe_load=True)
    except UnpicklingError as error:
        raise InputError(
            "it is damaged or holds more than tensors, which could run code when read: convert it to .safetensors as "
            "described in the help page of this node"
        ) from error
    except Exception as error:  # what a broken file raises is of no one kind
        raise InputError(f"it cannot be read ({error}); it may be incomplete") from error
    checkpoint = from_compvis(tensors)
    check_checkpoint(checkpoint)
    return checkpoint


def _model(path: str, checkpoint: Checkpoint, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    model = build_model(checkpoint, disable_dynamic)
    model.set_attachments(_CLASSES, checkpoint.classes.clone())
    model.set_attachments(WEIGHTS, checkpoint.digest)
    # By this newer hosts load the file again, for a second device or for weight hooks.
    model.cached_patcher_init = (load_model, (path,))
    return model


def _vae(path: str, checkpoint: Checkpoint) -> comfy.sd.VAE:
    vae = build_vae(checkpoint)
    vae.patcher.set_attachments(WEIGHTS, checkpoint.digest)
    vae.patcher.cached_patcher_init = (load_vae_patcher, (path,))
    return vae


@contextmanager
def _about(path: str) -> Iterator[None]:
    """Add the file name to an error."""
    try:
        yield
    except comfy.model_management.OOM_EXCEPTION:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise InputError(f"checkpoint {path!r} cannot be loaded here: {reason}. {_SUPPORTED}") from error


def _checkpoints() -> list[str]:
    """Names of the checkpoint files; none if the disk cannot be read."""
    try:
        return folder_paths.get_filename_list("checkpoints")
    except OSError:
        return []


class LoadLDMCheckpoint(io.ComfyNode):
    """A latent diffusion checkpoint as MODEL and VAE."""

    open_inputs = frozenset({"ckpt_name"})

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VIPaintLoadLDMCheckpoint",
            display_name="Load LDM Checkpoint (VIPaint)",
            category="VIPaint/loaders",
            description="Loads the embedded prior of this pack, or an early latent diffusion model (churches, "
            "bedrooms, faces, ImageNet) that the core loaders do not support.",
            inputs=[
                io.Combo.Input(
                    "ckpt_name",
                    options=[EMBEDDED, *_checkpoints()],
                    tooltip="The embedded prior (64 x 64 images, no file needed) or a file in models/checkpoints.",
                )
            ],
            outputs=[
                output(io.Model, "model", "For BasicGuider, CFGGuider, KSampler or VIPaint Inpaint."),
                output(io.Vae, "vae", "The VAE of the model."),
            ],
        )

    @classmethod
    def execute(cls, ckpt_name: str) -> io.NodeOutput:
        embedded = ckpt_name == EMBEDDED
        path = str(EMBEDDED_PRIOR) if embedded else folder_paths.get_full_path("checkpoints", ckpt_name)
        if path is None:
            raise InputError(f"ckpt_name is {ckpt_name!r}, which is not in models/checkpoints: press R, choose another")
        with _about(path):
            checkpoint = _read(path)
            model, vae = _model(path, checkpoint), _vae(path, checkpoint)
        return io.NodeOutput(model, vae)


class LDMClassLabel(io.ComfyNode):
    """A class of a class-conditional latent diffusion model as CONDITIONING."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VIPaintLDMClassLabel",
            display_name="LDM Class Label (VIPaint)",
            category="VIPaint/loaders",
            description="Class conditioning for models of Load LDM Checkpoint. Models without classes need it too, "
            "with label -1.",
            inputs=[
                io.Model.Input("model", tooltip="From Load LDM Checkpoint."),
                io.Int.Input(
                    "label",
                    default=-1,
                    min=-1,
                    max=999,
                    tooltip="ImageNet class index. -1 = no class, also for the negative conditioning.",
                ),
            ],
            outputs=[output(io.Conditioning, "conditioning", "For a guider or a sampler.")],
        )

    @classmethod
    def execute(cls, model: comfy.model_patcher.ModelPatcher, label: int) -> io.NodeOutput:
        classes = model.get_attachment(_CLASSES)
        if classes is None:
            raise InputError("model is not from Load LDM Checkpoint and has no class labels; use its text encoder")
        if label > len(classes) - 2:
            known = f"-1 to {len(classes) - 2}" if len(classes) > 1 else "-1 (it has no classes)"
            raise InputError(f"label is {label}; this model takes {known}")
        return io.NodeOutput([[classes[label].view(1, 1, -1), {}]])
