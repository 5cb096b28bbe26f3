"""Records what saved workflows rely on in the nodes of a running ComfyUI, and compares it with what was recorded.

``tests/nodes/schemas.json`` is the released schema of this pack's nodes. A workflow file holds widget values by
position and links by slot number, so inputs and outputs may be appended, and nothing else.
``tests/nodes/core_schemas.json`` holds the names and types of the few core nodes that the pack's workflows use. Record
it with the oldest ComfyUI that is supported and check it with the newest::

    python -m tools.schema_snapshot --url http://127.0.0.1:8188            # record, refused where it would break
    python -m tools.schema_snapshot --url http://127.0.0.1:8188 --check    # exit status 1 where they differ
    python -m tools.schema_snapshot --url http://127.0.0.1:8188 --core [--check]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

Slot = dict[str, Any]
Schemas = dict[str, dict[str, Any]]

FOLDER = Path(__file__).parent.parent / "tests" / "nodes"
SNAPSHOT, CORE_SNAPSHOT = FOLDER / "schemas.json", FOLDER / "core_schemas.json"
CATEGORY = "VIPaint"
CORE_NODES = (
    "BasicScheduler",
    "Canny",
    "CFGGuider",
    "CheckpointLoaderSimple",
    "CLIPLoader",
    "CLIPTextEncode",
    "ControlNetApplyAdvanced",
    "ControlNetLoader",
    "DualCLIPLoader",
    "FluxGuidance",
    "GrowMask",
    "ImageBatch",
    "ImageBlur",
    "ImagePadForOutpaint",
    "ImageScale",
    "ImageUpscaleWithModel",
    "InpaintModelConditioning",
    "LatentBatch",
    "LoadImage",
    "LoraLoader",
    "ModelSamplingAuraFlow",
    "ModelSamplingSD3",
    "PreviewImage",
    "RandomNoise",
    "SamplerCustomAdvanced",
    "SaveImage",
    "UNETLoader",
    "UpscaleModelLoader",
    "VAEDecode",
    "VAELoader",
)
WIDGET_TYPES = ("BOOLEAN", "COMBO", "FLOAT", "INT", "STRING")
"""Inputs of these types have a value of their own; all others need a link."""

FILES = ["files"]
"""In place of the options of an input that lists what is on the user's disk."""

_FILE_INPUTS = (
    "ckpt_name",
    "clip_name",
    "clip_name1",
    "clip_name2",
    "control_net_name",
    "file",
    "image",
    "lora_name",
    "model_name",
    "unet_name",
    "vae_name",
)
_FACTS = ("default", "min", "max", "options")
_FLAGS = ("multiline", "control_after_generate", "image_upload")


def breaking_changes(old: Schemas, new: Schemas) -> list[str]:
    """What in ``new`` breaks workflows that were saved with ``old``, a sentence each; none if ``new`` only adds."""
    changes = []
    for node, schema in old.items():
        if node not in new:
            changes.append(f"{node} is gone")
            continue
        for kind in ("input", "output"):
            found = _slot_changes(kind, schema[kind + "s"], new[node][kind + "s"])
            changes += [f"{node}: {change}" for change in found]
    return changes


def read_schemas(url: str, core: bool = False) -> Schemas:
    """The schemas of this pack's nodes, or of the core nodes that its workflows use, from a running ComfyUI."""
    with urlopen(url + "/object_info") as answer:
        nodes = json.load(answer)
    if core:
        return {name: _core_facts(_schema(nodes[name])) for name in CORE_NODES}
    return {name: _schema(node) for name, node in sorted(nodes.items()) if node["category"].split("/")[0] == CATEGORY}


def _slot_changes(kind: str, old: list[Slot], new: list[Slot]) -> list[str]:
    changes = []
    for position, slot in enumerate(old):
        name = slot["name"]
        if position >= len(new):
            changes.append(f"{kind} {name} is gone")
        elif new[position]["name"] != name:
            changes.append(f"{kind} {position} was {name} and is now {new[position]['name']}")
        else:
            changes += [f"{kind} {name} {change}" for change in _value_changes(slot, new[position])]
    return changes + [f"{kind} {slot['name']} is new and needs a link" for slot in new[len(old) :] if _needs_link(slot)]


def _value_changes(old: Slot, new: Slot) -> list[str]:
    """Reasons why a link or a saved value that fitted ``old`` may not fit ``new``."""
    if old["type"] != new["type"]:
        return [f"was {old['type']} and is now {new['type']}"]
    changes = []
    if _needs_link(new) and not _needs_link(old):
        changes.append("needs a link now")
    if gone := [option for option in old.get("options", ()) if option not in new.get("options", ())]:
        changes.append(f"has lost {', '.join(map(repr, gone))}")
    (low, high), (new_low, new_high) = _range(old), _range(new)
    if new_low > low or new_high < high:
        changes.append(f"had the range {low} to {high} and has {new_low} to {new_high}")
    if saved_values(old) != saved_values(new):
        changes.append(f"had {saved_values(old)} saved values and has {saved_values(new)}")
    return changes


def saved_values(slot: Slot) -> int:
    """How many values a workflow file holds for an input: the browser adds one to seeds, and one to uploads."""
    if slot["type"] not in WIDGET_TYPES:
        return 0
    return 1 + bool(slot.get("control_after_generate")) + bool(slot.get("image_upload"))


def _range(slot: Slot) -> tuple[float, float]:
    return slot.get("min", -math.inf), slot.get("max", math.inf)


def _needs_link(slot: Slot) -> bool:
    return slot.get("optional") is False and slot["type"] not in WIDGET_TYPES


def _schema(node: dict[str, Any]) -> dict[str, Any]:
    """One node of ``/object_info``, without what depends on the host's version or on the user's files."""
    inputs = [
        _input(name, node["input"][kind][name], optional=kind == "optional")
        for kind in ("required", "optional")
        for name in node["input_order"].get(kind, ())
    ]
    outputs = [{"name": n, "type": t} for n, t in zip(node["output_name"], node["output"], strict=True)]
    return {key: node[key] for key in ("display_name", "category", "output_node")} | {
        "inputs": inputs,
        "outputs": outputs,
    }


def _input(name: str, specification: list[Any], optional: bool) -> Slot:
    kind, settings = specification[0], dict(specification[1]) if len(specification) > 1 else {}
    if isinstance(kind, list):  # older nodes give the choices in place of the type
        kind, settings["options"] = "COMBO", kind
    if kind == "COMBO" and name in _FILE_INPUTS:
        settings |= {"options": FILES, "default": None}
    # The browser gives these a rule for the next seed, whatever the node says.
    settings["control_after_generate"] = settings.get("control_after_generate") or name in ("seed", "noise_seed")
    facts = {key: settings[key] for key in _FACTS if settings.get(key) is not None}
    flags = {key: True for key in _FLAGS if settings.get(key)}
    return {"name": name, "type": kind, "optional": optional, "tooltip": bool(settings.get("tooltip"))} | facts | flags


def _core_facts(schema: dict[str, Any]) -> dict[str, Any]:
    keys = ("name", "type", "optional", *_FLAGS)
    inputs = [{key: slot[key] for key in keys if key in slot} for slot in schema["inputs"]]
    return {"inputs": inputs, "outputs": schema["outputs"]}


def main() -> int:
    """Record or check; the exit status is 1 where nodes and snapshot do not fit."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8188", help="of the running ComfyUI (default: %(default)s)")
    parser.add_argument("--core", action="store_true", help="the core nodes that the workflows use, not this pack's")
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    options = parser.parse_args()
    path, schemas = CORE_SNAPSHOT if options.core else SNAPSHOT, read_schemas(options.url, options.core)
    recorded = json.loads(path.read_text()) if path.exists() else {}
    if changes := breaking_changes(recorded, schemas):
        print("Saved workflows would break:", *changes, f"To accept that, delete {path.name} first.", sep="\n")
        return 1
    if not options.check:
        path.write_text(json.dumps(schemas, indent=1) + "\n")
    elif recorded != schemas and not options.core:
        print(f"The nodes have more than {path.name} says; record it again.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
