"""A ComfyUI to try things in: what came of a prompt, and what no prompt may change."""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.fuzz.hostile_files import hostile_file
from tests.fuzz.prompts import PICTURE, SMALL_PICTURE, Case, Prompts
from tests.host.comfy_client import ComfyClient, Graph, HostError
from tests.host.comfy_server import ROOT, ComfyServer
from tests.host.graphs import embedded_prior, inpaint, ksampler, restoration, right_half, with_hole

_PATIENCE = 90.0
"""Seconds until a prompt is stopped; all of them are small."""
_STOP = 60.0
"""Seconds in which a stopped prompt has to end."""
_REFUSALS = ("InputError",)
_PACK_FRAME = re.compile(r'custom_nodes/vipaint/([^"]+)", line \d+, in (\w+)')
_OTHER_FRAME = re.compile(r'/(nodes|comfy_extras/\w+|vipaint_test_pack/\w+)\.py", line')


@dataclass(frozen=True)
class Outcome:
    """What came of one prompt.

    Attributes:
        kind: "ran", "refused by ComfyUI", "refused by the pack", "stopped", or something unexpected.
        about: the message; for an unexpected exception its type and where in the pack it was raised.
    """

    kind: str
    about: str = ""

    @property
    def expected(self) -> bool:
        """Whether the pack did what it promises."""
        return self.kind in ("ran", "refused by ComfyUI", "refused by the pack", "refused by another node", "stopped")


class Host:
    """A ComfyUI on the CPU with the pack, hostile files in its folders, and a picture of 64x64 pixels with a hole."""

    def __init__(self, comfyui: Path, base: Path, files: int = 200):
        self.server = ComfyServer(comfyui, base)
        for folder in (base / "models/checkpoints", base / "models/vipaint"):
            folder.mkdir(exist_ok=True)
            for seed in range(files):
                hostile_file(seed, folder)
        (base / "models/vipaint/dangling.safetensors").symlink_to(base / "nowhere")
        self.server.start()
        self._connect()
        self.prompts = Prompts(self.client.object_info())
        self._plain = self._digest()
        self._threads = self._count_threads()

    def _connect(self) -> None:
        self.client = ComfyClient(self.server.url, self.server.base)
        scene = np.asarray(Image.open(ROOT / "vipaint_ops/assets/demo_scene.png").convert("RGB"))
        self.client.put_image(PICTURE, with_hole(scene, right_half(scene)))
        self.client.put_image(SMALL_PICTURE, scene[::2, ::2])

    def restart(self) -> None:
        """After a crash or a hang."""
        self.close()
        self.server.start()
        self._connect()

    def close(self) -> None:
        """Stop it."""
        self.client.close()
        self.server.stop()

    def run(self, case: Case) -> Outcome:
        """Queue the prompt and tell what came of it."""
        try:
            prompt = self.client.queue(case.graph)
        except HostError as refusal:
            return Outcome("refused by ComfyUI", str(refusal))
        except Exception as error:
            return Outcome("no answer", repr(error))
        return self._ended(prompt)

    def interrupt(self, seed: int) -> Outcome:
        """Stop a fit, a refinement or a method of another paper at a random moment."""
        numbers = random.Random(seed)
        prompt = self.client.queue(_long(numbers))
        self.client.wait_for_start(prompt)  # ComfyUI forgets an interrupt that comes before
        time.sleep(numbers.uniform(0.0, 3.0))
        self.client.interrupt()
        return self._ended(prompt, _STOP)

    def unchanged(self) -> list[str]:
        """What the prompts have changed and must not: ComfyUI's own sampler, and the number of threads."""
        self.client.clear_history()
        found = []
        if self._digest() != self._plain:
            found.append("ComfyUI's own sampler gives other pictures")
        if self._count_threads() > self._threads:
            found.append(f"{self._count_threads()} threads, {self._threads} at the start")
        return found

    def _ended(self, prompt: str, patience: float = _PATIENCE) -> Outcome:
        try:
            entry = self.client.wait(prompt, patience)
        except TimeoutError:
            return self._late(prompt)
        except Exception as error:
            return Outcome("no answer", repr(error))
        return _outcome(entry)

    def _late(self, prompt: str) -> Outcome:
        try:
            self.client.wait(prompt, _STOP)
        except Exception as error:
            return Outcome("hang", repr(error))
        return Outcome("too long", f"stopped after {_PATIENCE:.0f} s")

    def _digest(self) -> str:
        graph = Graph()
        loader, label = embedded_prior(graph)
        sampled = ksampler(graph, loader[0], label, label, channels=4, nonce=time.time_ns() % (1 << 32))
        saved = graph.add("TestSaveTensor", latent=sampled[0])
        run = self.client.run(graph)
        path = self.server.base / "output" / run.outputs[saved.id]["files"][0]
        digest = hashlib.sha256(load_file(path)["value"].contiguous().view(torch.uint8).numpy()).hexdigest()
        path.unlink()
        return digest

    def _count_threads(self) -> int:
        return len(list(Path(f"/proc/{self.server.process.pid}/task").iterdir()))


def _long(numbers: random.Random) -> Graph:
    """A prompt of several seconds."""
    graph, seed = Graph(), numbers.randrange(1 << 30)
    kind = numbers.choice(["fit", "sample", "all in one", "quality"])
    if kind == "fit":
        restoration(graph, PICTURE, {"iterations": 200, "seed": seed})
    elif kind == "sample":
        restoration(graph, PICTURE, num_samples=16, steps=60, seed=seed, batch_size=numbers.choice([1, 4]))
    else:
        inpaint(graph, PICTURE, num_samples=8, seed=seed, preset="quality" if kind == "quality" else "balanced")
    return graph


def _outcome(entry: dict[str, Any]) -> Outcome:
    for kind, data in entry["status"]["messages"]:
        if kind == "execution_interrupted":
            return Outcome("stopped")
        if kind == "execution_error":
            return _failure(data)
    reports = [r for shown in entry["outputs"].values() for r in shown.get("report", [])]
    if not all(report["finite"] for report in reports if "finite" in report):
        return Outcome("silent NaN")
    return Outcome("ran")


def _failure(data: dict[str, Any]) -> Outcome:
    """An exception: of the pack on purpose, of another node without the pack's part, or unexpected."""
    if data["exception_type"].endswith(_REFUSALS):
        return Outcome("refused by the pack", data["exception_message"])
    frames = _PACK_FRAME.findall("".join(data["traceback"]))
    # The host names an all-in-one node for the nodes that it expands into.
    if not frames and _OTHER_FRAME.search("".join(data["traceback"])):
        return Outcome("refused by another node", f"{data['node_type']}: {data['exception_type']}")
    where = " in ".join(reversed(frames[-1])) if frames else "ComfyUI"
    message = re.sub(r"\d+", "#", data["exception_message"]).strip().split("\n")[0][:160]
    return Outcome("unexpected exception", f"{data['node_type']}: {data['exception_type']} at {where}: {message}")


def record(case: int, outcome: Outcome, **more: Any) -> dict[str, Any]:
    """A line of the results."""
    return {"case": case, **asdict(outcome), **more}


def smallest(run: Callable[[Case], Outcome], prompts: Prompts, seed: int, outcome: Outcome) -> Case:
    """The prompt of the seed with as few odd inputs as show the same outcome."""
    case = prompts.case(seed)
    for name in case.odd:
        without = tuple(other for other in case.odd if other != name)
        smaller = prompts.case(seed, without)
        if without and run(smaller) == outcome:
            return smaller
    return case
