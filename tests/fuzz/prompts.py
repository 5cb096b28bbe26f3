"""Random prompts from the nodes' own descriptions: one node, what it needs, and up to two odd inputs."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

from tests.fuzz.values import Value, Widget
from tests.host.comfy_client import Graph, Link, Node
from tests.host.graphs import EMBEDDED

PICTURE, SMALL_PICTURE = "fuzz.png", "small.png"
"""Pictures of 64x64 pixels with a hole and of 32x32, in ComfyUI's input folder."""
_PLAIN = {"INT", "FLOAT", "STRING", "BOOLEAN"}
_SHAPES = [
    [0],
    [3],
    [],
    [64, 64],
    [0, 64, 64, 3],
    [1, 0, 64, 3],
    [1, 64, 0, 3],
    [1, 64, 64, 0],
    [1, 64, 64],
    [1, 1, 1, 3],
    [1, 7, 5, 3],
    [1, 64, 64, 1],
    [1, 64, 64, 2],
    [1, 64, 64, 4],
    [1, 64, 64, 5],
    [2, 64, 64, 3],
    [1, 1, 64, 64, 3],
    [1, 64, 200, 3],
    [1, 4, 8, 8],
    [1, 4, 0, 8],
    [1, 3, 8, 8],
    [0, 4, 8, 8],
    [1, 4, 1, 8, 8],
]
_FILLS = ["uniform", "zeros", "ones", "nan", "inf", "one nan", "large", "negative"]
_LOADERS = {
    "MODEL": ("VIPaintLoadLDMCheckpoint", "ckpt_name", 0),
    "VAE": ("VIPaintLoadLDMCheckpoint", "ckpt_name", 1),
    "VIPAINT_POSTERIOR": ("VIPaintLoadPosterior", "file", 0),
}
"""Node, widget and output that read a file for a socket."""
_TYPES = ["float32"] * 6 + ["float16", "bfloat16", "float64", "int64", "uint8", "bool", "complex64"]


@dataclass
class Case:
    """A prompt.

    Attributes:
        target: class of the node under test.
        odd: names of the inputs that were chosen at random.
    """

    graph: Graph
    target: str
    odd: list[str] = field(default_factory=list)


class Prompts:
    """Prompts for the pack's nodes.

    Args:
        info: ComfyUI's /object_info.
    """

    def __init__(self, info: dict[str, Any]):
        self._info = info
        self._targets = sorted(name for name in info if name.startswith("VIPaint"))
        self._observes = [name for name in self._targets if name.startswith("VIPaintObserve") and "Chain" not in name]

    def case(self, seed: int, without: tuple[str, ...] = ()) -> Case:
        """The prompt of a seed; inputs named in ``without`` are as in a first try."""
        builder = _Builder(self._info, self._observes, random.Random(seed), without)
        return builder.build(builder.numbers.choice(self._targets))


class _Builder:
    def __init__(self, info: dict[str, Any], observes: list[str], numbers: random.Random, without: tuple[str, ...]):
        self.info, self.observes, self.numbers, self.without = info, observes, numbers, without
        self.graph = Graph()
        self._shared: dict[str, Node] = {}

    def build(self, target: str) -> Case:
        inputs = self._inputs(target)
        count = self.numbers.choice([0, 1, 1, 1, 2, 2])
        chosen = self.numbers.sample(sorted(inputs), min(count, len(inputs)))
        case = Case(self.graph, target, [name for name in chosen if name not in self.without])
        node = self._add(target, set(chosen))
        outputs = self.info[target]["output"]
        for index, kind in enumerate(outputs):
            link = self._run(target, node[0]) if kind == "SAMPLER" else node[index]
            self.graph.add("TestSink", value=link)
        return case

    def _inputs(self, name: str) -> dict[str, tuple[Any, dict[str, Any], bool]]:
        """Type, facts and whether it is required, of each input."""
        groups = self.info[name]["input"]
        return {
            slot: (kind, facts[0] if facts else {}, group == "required")
            for group in ("required", "optional")
            for slot, (kind, *facts) in groups.get(group, {}).items()
        }

    def _add(self, name: str, odd: set[str]):
        given = {}
        for slot, (kind, facts, required) in self._inputs(name).items():
            plain = kind in _PLAIN or isinstance(kind, list) or kind == "COMBO"
            if slot in odd:
                # The numbers are drawn even if the input stays sane, so that all other inputs stay as they are.
                random_value = self._odd_widget(Widget(slot, kind, facts)) if plain else self._odd_link(kind, required)
                if slot not in self.without:
                    if random_value is not None:
                        given[slot] = random_value
                    continue
            if plain:
                given[slot] = Widget(slot, kind, facts).cheap()
            elif required and slot == "image" and "Super" in name:
                given[slot] = self._one("LoadImage", image=SMALL_PICTURE)[0]
            elif required:
                given[slot] = self._link(kind)
        return self.graph.add(name, **given)

    def _odd_widget(self, widget: Widget) -> Any:
        drawn = widget.legal(self.numbers) if self.numbers.random() < 0.3 else widget.hostile(self.numbers)
        missing = self.numbers.random() < 0.05
        return None if missing else self._value(drawn)

    def _value(self, value: Value) -> Any:
        if value.linked:
            return self.graph.add("TestLinkedValue", value=json.dumps(value.value))[0]
        return value.value

    def _odd_link(self, kind: str, required: bool) -> Link | None:
        """A tensor of odd size, rank, type or content; a guider of odd strength; a hostile file; or nothing at all."""
        if self.numbers.random() < 0.05:
            return None
        if kind in ("IMAGE", "MASK", "LATENT"):
            fill = self.numbers.choice(_FILLS)
            shape, of_type = self.numbers.choice(_SHAPES), self.numbers.choice(_TYPES)
            return self.graph.add(
                "TestTensor", shape=json.dumps(shape), fill=fill, dtype=of_type, latent=kind == "LATENT"
            )[0]
        if kind == "GUIDER":
            drawn = Widget("cfg", "FLOAT", {"min": 0.0, "max": 100.0, "default": 1.0}).hostile(self.numbers)
            return self._guider(self._value(drawn))
        if kind in _LOADERS and self.numbers.random() < 0.6:
            name, widget, output = _LOADERS[kind]
            files = Widget(widget, *self._inputs(name)[widget][:2]).choices()
            return self.graph.add(name, **{widget: self.numbers.choice(files)})[output]
        if self.numbers.random() < 0.2:
            return self.graph.add("TestLinkedValue", value=json.dumps(self.numbers.choice([None, 3, "abc", [], {}])))[0]
        return self._link(kind)

    def _guider(self, cfg: Any) -> Link:
        label = self._link("CONDITIONING")
        return self.graph.add("CFGGuider", model=self._link("MODEL"), positive=label, negative=label, cfg=cfg)[0]

    def _one(self, name: str, **inputs: Any) -> Node:
        """A node that all others share."""
        key = json.dumps([name, inputs])
        if key not in self._shared:
            self._shared[key] = self.graph.add(name, **inputs)
        return self._shared[key]

    def _link(self, kind: str) -> Link:
        """A sane output of this type."""
        if kind in ("IMAGE", "MASK", "*"):
            return self._one("LoadImage", image=PICTURE)[1 if kind == "MASK" else 0]
        if kind == "VIPAINT_OBSERVATION":
            name = self.numbers.choice(["VIPaintObserveInpaint"] * 4 + self.observes)
            return self._add(name, set())[0]
        if kind == "VIPAINT_STITCH":
            return self._add("VIPaintCropForInpaint", set())[2]
        if kind == "VIPAINT_POSTERIOR":
            return self._add("VIPaintFitPosterior", set())[0]
        if kind == "GUIDER":
            return self._guider(1.0)
        loader = self._one("VIPaintLoadLDMCheckpoint", ckpt_name=EMBEDDED)
        if kind == "CONDITIONING":
            return self._one("VIPaintLDMClassLabel", model=loader[0], label=-1)[0]
        return loader[1 if kind == "VAE" else 0]

    def _run(self, name: str, sampler: Link) -> Link:
        """The latent that ComfyUI samples with a sampler."""
        observation = self.graph.prompt[sampler[0]]["inputs"].get("observation")
        if observation is None or "Observe" not in self.graph.prompt[observation[0]]["class_type"]:
            observation = self._link("VIPAINT_OBSERVATION")
        latent = self.graph.add("VIPaintEmptyLatent", observation=observation, vae=self._link("VAE"), num_samples=1)
        model = self._link("MODEL")
        sigmas = self.graph.add("BasicScheduler", model=model, scheduler="simple", steps=2, denoise=1.0)
        noise = self.graph.add("RandomNoise", noise_seed=1)
        return self.graph.add(
            "SamplerCustomAdvanced",
            noise=noise[0],
            guider=self._guider(1.0),
            sampler=sampler,
            sigmas=sigmas[0],
            latent_image=latent[0],
        )[0]
