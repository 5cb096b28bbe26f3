"""The example workflow that compares all methods: a row each, and lines beside the rows for what they share."""

from __future__ import annotations

from typing import Any

from tools.sampler_workflows import FOUR, OTHERS, STEP_SIZE
from tools.workflow_graph import WIDTH, Node, Output, Point, Workflow
from tools.workflow_parts import EMBEDDED, embedded_guider, took

_SHARED, _LINES, _ROWS = 400, 1640, 1860
"""Left edges of the nodes that all rows share, of the lines, and of the nodes in rows."""
_COLUMN, _BETWEEN_ROWS, _BELOW_FRAME = 400, 40, 80
_HEADER, _FIRST_LINE = 170, 56
"""From the upper edge of a row to its nodes, and to the first line that passes over them."""
_APART, _INTO_NODE = 10, 40
"""Between lines, and from where they turn down to their node."""
_FIRST_SLOT, _SLOT = 14, 20
_STEPS = 100


def embedded_methods(flow: Workflow) -> None:
    """Four methods on one image, and the others muted, on the embedded prior."""
    flow.group("Read me")
    flow.note(
        "# Comparison of methods\n\n"
        "Press **Run**. Four methods inpaint the right half of a scene, from the same noise in the same 100 steps. "
        "*Compare* shows the samples with their metrics.\n\n"
        "The other nine are muted: select the nodes of their rows and press Ctrl+M. PSLD, Kalman and ReSample take a "
        "few minutes.\n\n"
        "A row is a method. What the rows share (model, image, noise, steps) comes down the lines on their left.\n\n"
        "Equal steps are not equal cost, and differ from the published numbers of steps. The help page of each sampler "
        "lists both.\n\n"
        f"{took(135)}"
    )
    lines = _shared(flow)
    copaint, settings = FOUR["CoPaint"]
    four = FOUR | {"CoPaint": (copaint, settings | {"step_size": STEP_SIZE})}
    bottom = _block(flow, lines, four, top=0, muted=False)
    _block(flow, lines, OTHERS, top=bottom, muted=True)


class _Lines:
    """Outputs that several nodes use. Each has a line that rises beside its node, runs over all, and down the rows."""

    def __init__(self, flow: Workflow):
        self._flow = flow
        self._outputs: dict[str, Output] = {}
        self._rows: list[int] = []

    def add(self, **outputs: Output) -> None:
        """Lines of these names."""
        self._outputs |= outputs

    def __getitem__(self, name: str) -> Output:
        return self._outputs[name]

    def row(self, top: int) -> None:
        """The lines reach one row more."""
        self._rows.append(top)

    def beside(self, node: Node, **names: str) -> None:
        """Lead the inputs of a shared node to lines, from above."""
        left, top = node.position
        for name, line in names.items():
            x, y = left - _INTO_NODE - _APART * self._place(line), top + _FIRST_SLOT + _SLOT * node.slot(name)
            start = self._start(line)
            self._flow.route(node, name, [*start, (x, start[-1][1]), (x, y)])

    def first(self, node: Node, *names: str) -> None:
        """Lead the inputs of a row's first node to the lines of the same names."""
        for name in names:
            self._flow.route(node, name, self._down(name))

    def over(self, node: Node, **names: str) -> None:
        """Lead inputs of a row's other node to lines, over the nodes before it."""
        x = node.position[0] - _INTO_NODE
        for name, line in names.items():
            down = self._down(line)
            self._flow.route(node, name, [*down, (x, down[-1][1])])

    def _place(self, line: str) -> int:
        return list(self._outputs).index(line)

    def _start(self, line: str) -> list[Point]:
        place, output = self._place(line), self._outputs[line]
        left, top = output.node["pos"]
        x = left + WIDTH + _INTO_NODE + _APART * place
        return [(x, top + _FIRST_SLOT + _SLOT * output.slot), (x, -_FIRST_LINE - _APART * place)]

    def _down(self, line: str) -> list[Point]:
        x, start = _LINES + _APART * self._place(line), self._start(line)
        turns = [top + _FIRST_LINE + _APART * self._place(line) for top in self._rows]
        return [*start, (x, start[-1][1]), *((x, y) for y in turns)]


def _shared(flow: Workflow) -> _Lines:
    """Model, image, observation and what the sampling begins with."""
    lines = _Lines(flow)
    left, middle, right = (_SHARED + _COLUMN * column for column in range(3))
    flow.frame("Model and image", left - 20, 0, _COLUMN + WIDTH + 40)
    flow.place(left, _BELOW_FRAME)
    model = flow.add("VIPaintLoadLDMCheckpoint", ckpt_name=EMBEDDED)
    flow.place(left, 300)
    scene = flow.add("VIPaintDemoScene")
    flow.place(middle, _BELOW_FRAME)
    label = flow.add("VIPaintLDMClassLabel", model=model["model"])
    flow.place(middle, 300)
    observed = flow.add("VIPaintObserveInpaint", image=scene["image"], mask=scene["mask"], noise_level=0.02)
    lines.add(model=model["model"], vae=model["vae"], original=scene["image"], observation=observed["observation"])
    flow.frame("Start of all methods", right - 20, 0, WIDTH + 40)
    flow.place(right, _BELOW_FRAME)
    guider = embedded_guider(flow, model, label)
    sigmas = flow.add("BasicScheduler", model=model["model"], scheduler="simple", steps=_STEPS, denoise=1.0)
    latent = flow.add("VIPaintEmptyLatent", observation=observed["observation"], vae=model["vae"], num_samples=1)
    noise = flow.add("RandomNoise", noise_seed=0)
    lines.beside(guider, model="model")
    lines.beside(sigmas, model="model")
    lines.beside(latent, vae="vae")
    lines.add(guider=guider["GUIDER"], sigmas=sigmas["SIGMAS"], latent_image=latent["latent"], noise=noise["NOISE"])
    return lines


def _block(flow: Workflow, lines: _Lines, methods: dict[str, tuple[str, dict[str, Any]]], top: int, muted: bool) -> int:
    """Rows of methods, whose samples are joined in pairs and compared. Returns where the next block begins."""
    ends: list[tuple[int, Output]] = []
    joins = (len(methods) - 1).bit_length()
    columns = 2 + joins + 3
    for number, (name, (kind, settings)) in enumerate(methods.items(), 1):
        flow.frame(f"{name} (muted)" if muted else name, _ROWS - 20, top, columns * _COLUMN)
        lines.row(top)
        flow.place(_ROWS, top + _HEADER)
        method = flow.add(kind, observation=lines["observation"], vae=lines["vae"], **settings, muted=muted)
        lines.first(method, "observation", "vae")
        ends.append((0, _sampled(flow, lines, method, top, muted)))
        # As in a binary counter: two ends of the same level are joined, and after the last row all that are left.
        while len(ends) > 1 and (number == len(methods) or ends[-1][0] == ends[-2][0]):
            (level, first), (_, second) = ends[-2:]
            flow.place(_ROWS + (2 + level) * _COLUMN, top + _HEADER)
            joined = flow.add("LatentBatch", samples1=first, samples2=second, muted=muted)
            ends[-2:] = [(level + 1, joined["LATENT"])]
        if number == len(methods):
            _compared(flow, lines, ends[0][1], methods, (_ROWS + (2 + joins) * _COLUMN, top + _HEADER), muted)
        top = flow.bottom + _BETWEEN_ROWS
    return top


def _sampled(flow: Workflow, lines: _Lines, method: Node, top: int, muted: bool) -> Output:
    flow.place(_ROWS + _COLUMN, top + _HEADER)
    start = {name: lines[name] for name in ("noise", "guider", "sigmas", "latent_image")}
    sampled = flow.add("SamplerCustomAdvanced", sampler=method["sampler"], **start, muted=muted)
    lines.over(sampled, **{name: name for name in start})
    return sampled["output"]


def _compared(
    flow: Workflow, lines: _Lines, samples: Output, names: dict[str, Any], corner: Point, muted: bool
) -> None:
    left, top = corner
    flow.place(left, top)
    decoded = flow.add("VAEDecode", samples=samples, vae=lines["vae"], muted=muted)
    flow.place(left + _COLUMN, top)
    compared = flow.add(
        "VIPaintCompare",
        images=decoded["IMAGE"],
        original=lines["original"],
        observation=lines["observation"],
        names="\n".join(names),
        muted=muted,
    )
    flow.place(left + 2 * _COLUMN, top)
    flow.add("SaveImage", images=compared["sheet"], filename_prefix="vipaint/methods", muted=muted)
    lines.over(decoded, vae="vae")
    lines.over(compared, original="original", observation="observation")
