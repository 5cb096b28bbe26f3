"""The nodes that save and load a fitted posterior."""

from __future__ import annotations

import hashlib
from pathlib import Path

import folder_paths
import torch
from comfy_api.v0_0_2 import io

from ..vipaint_ops.vipaint import HierarchicalPosterior
from .sockets import PosteriorSocket, output

FOLDER = "vipaint"
"""ComfyUI's models folder for posteriors. New ones are saved to the output folder."""


def register_folder() -> None:
    """Register the models folder with ComfyUI."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))


def _files() -> dict[str, Path]:
    """Posterior files by their name in the node."""
    shared = {name: Path(folder_paths.get_full_path(FOLDER, name)) for name in folder_paths.get_filename_list(FOLDER)}
    made = Path(folder_paths.get_output_directory())
    saved = {f"output: {path.relative_to(made).as_posix()}": path for path in made.rglob("*.safetensors")}
    return {name: path for name, path in (shared | saved).items() if name.endswith(".safetensors")}


class SavePosterior(io.ComfyNode):
    """Saves a posterior."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
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
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory()
        )
        file = f"{name}_{counter:05}_.safetensors"
        posterior.save(Path(folder) / file)
        return io.NodeOutput(ui={"text": [f"{subfolder}/{file}".lstrip("/")]})


class LoadPosterior(io.ComfyNode):
    """Loads a posterior."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VIPaintLoadPosterior",
            display_name="Load Posterior",
            category="VIPaint",
            description="Loads a posterior of Save Posterior, for the same image, mask and model.",
            inputs=[
                io.Combo.Input(
                    "file", options=sorted(_files()),
                    tooltip="Files in models/vipaint and in the output folder. Press R to refresh the list.",
                )
            ],
            outputs=[output(PosteriorSocket, "posterior", "For Sample Posterior.")],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, file):
        path = _files().get(file)
        return hashlib.sha256(path.read_bytes()).hexdigest() if path else ""

    @classmethod
    def execute(cls, file) -> io.NodeOutput:
        with torch.inference_mode(False):
            return io.NodeOutput(HierarchicalPosterior.load(_files()[file]))
