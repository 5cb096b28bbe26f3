"""Writes ``locales/en``: the names and tooltips of the nodes in the form that ComfyUI translates from.

They come from a running ComfyUI, and are the base of other languages, ``locales/<language>``::

    python -m tools.make_locales --url http://127.0.0.1:8188            # write
    python -m tools.make_locales --url http://127.0.0.1:8188 --check    # exit status 1 where the files differ
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from tools.schema_snapshot import CATEGORY

LOCALES = Path(__file__).parent.parent / "locales"
NODES, MAIN = "nodeDefs.json", "main.json"
_OWN_TYPES = "VIPAINT_"


def english(url: str) -> dict[str, dict[str, Any]]:
    """Contents of the files in ``locales/en``, by name, from a running ComfyUI."""
    with urlopen(url + "/object_info") as answer:
        every = json.load(answer)
    nodes = {name: node for name, node in sorted(every.items()) if node["category"].split("/")[0] == CATEGORY}
    types = {type for node in nodes.values() for type in _types(node) if type.startswith(_OWN_TYPES)}
    names = {type: type.removeprefix(_OWN_TYPES).capitalize() for type in sorted(types)}
    return {NODES: {name: _node(node) for name, node in nodes.items()}, MAIN: {"dataTypes": names}}


def as_file(content: dict[str, Any]) -> str:
    """The text of a file."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _types(node: dict[str, Any]) -> list[Any]:
    return [slot[0] for slot in _inputs(node).values()] + node["output"]


def _inputs(node: dict[str, Any]) -> dict[str, list[Any]]:
    return node["input"].get("required", {}) | node["input"].get("optional", {})


def _node(node: dict[str, Any]) -> dict[str, Any]:
    outputs = enumerate(zip(node["output_name"], node["output_tooltips"], strict=True))
    return {
        "display_name": node["display_name"],
        "description": node["description"],
        "inputs": {name: {"name": name, "tooltip": slot[1]["tooltip"]} for name, slot in _inputs(node).items()},
        "outputs": {str(place): {"name": name, "tooltip": tooltip} for place, (name, tooltip) in outputs},
    }


def main() -> int:
    """Write or check; the exit status is 1 where a checked file differs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8188", help="of the running ComfyUI (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    options = parser.parse_args()
    folder, files = LOCALES / "en", {name: as_file(content) for name, content in english(options.url).items()}
    if options.check:
        return int(any((folder / name).read_text(encoding="utf-8") != text for name, text in files.items()))
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
