"""The nodes that save and load a fitted posterior."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths
import torch
from comfy_api.v0_0_2 import io

from ..vipaint_ops.errors import InputError
from ..vipaint_ops.vipaint import HierarchicalPosterior
from .listing import files_below
from .search import schema
from .shown import with_text
from .sockets import PosteriorSocket, output

FOLDER = "vipaint"
"""ComfyUI's models folder for posteriors. New ones are saved to the output folder."""
_SAVED = "output: "
"""Marks the names of files in the output folder."""
_SUFFIX = ".safetensors"


def register_folder() -> None:
    """Register the models folder with ComfyUI."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))


def _names() -> list[str]:
    """Names of the posterior files on the disk, as the node shows them."""
    shared = {name for folder in folder_paths.get_folder_paths(FOLDER) for name in files_below(folder, _SUFFIX)}
    saved = [_SAVED + name for name in files_below(folder_paths.get_output_directory(), _SUFFIX)]
    return sorted(shared) + saved


def _find(name: str) -> Path | None:
    """Path of the posterior file of that name; None if there is none in the folders."""
    folders = folder_paths.get_folder_paths(FOLDER)
    if name.startswith(_SAVED):
        folders = [folder_paths.get_output_directory()]
    # With the root as its start, no name leads out of its folder.
    inside = os.path.relpath(os.path.join(os.sep, name.removeprefix(_SAVED)), os.sep)
    paths = [Path(folder, inside) for folder in folders]
    return next((path for path in paths if path.suffix == _SUFFIX and os.path.isfile(path)), None)


class SavePosterior(io.ComfyNode):
    """Saves a posterior."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="VIPaintSavePosterior",
            display_name="Save Posterior",
            category="VIPaint",
            description="Saves a fitted posterior to ComfyUI's output folder, as safetensors with readable metadata. "
            "Load Posterior lists it.",
            inputs=[
                PosteriorSocket.Input("posterior", tooltip="From Fit Posterior."),
                io.String.Input(
                    "filename_prefix",
                    default="vipaint/posterior",
                    tooltip="Folder and file name. A number is appended.",
                ),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, posterior, filename_prefix) -> io.NodeOutput:
        try:
            folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
                filename_prefix, folder_paths.get_output_directory()
            )
        except Exception as error:  # what ComfyUI raises for places outside its folder
            reason = " ".join(str(error).split())
            raise InputError(f"filename_prefix {filename_prefix[:60]!r} names no place for a file: {reason}") from error
        file = f"{name}_{counter:05}_.safetensors"
        try:
            posterior.save(Path(folder) / file)
        except (OSError, ValueError) as error:  # ValueError: a name with a null byte
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputError(
                f"cannot write {file[:60]!r} ({reason}): choose another filename_prefix, or free space on the "
                "disk. The fit is kept until it changes"
            ) from error
        return with_text(f"{subfolder}/{file}".lstrip("/"))


class LoadPosterior(io.ComfyNode):
    """Loads a posterior."""

    open_inputs = frozenset({"file"})

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="VIPaintLoadPosterior",
            display_name="Load Posterior",
            category="VIPaint",
            description="Loads a posterior of Save Posterior, for the same image, mask and model.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=_names(),
                    tooltip="Files in models/vipaint and in the output folder. Press R to refresh the list.",
                )
            ],
            outputs=[output(PosteriorSocket, "posterior", "For Sample Posterior.")],
        )

    @classmethod
    def validate_inputs(cls, file=None):
        # ComfyUI passes None for an input with a link. Its own check would refuse files newer than its list.
        return True if file is None or (isinstance(file, str) and _find(file)) else _missing(file)

    @classmethod
    def fingerprint_inputs(cls, file):
        path = None if file is None else _find(file)
        return f"{path.stat().st_mtime_ns} {path.stat().st_size}" if path else ""

    @classmethod
    def execute(cls, file) -> io.NodeOutput:
        path = _find(file)
        if path is None:
            raise InputError(_missing(file))
        with torch.inference_mode(False):
            return io.NodeOutput(HierarchicalPosterior.load(path))


def _missing(file: str) -> str:
    return f"file is {file!r}, which is not in models/{FOLDER} or the output folder: press R and choose another"
