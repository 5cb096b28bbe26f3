"""Writes the example workflows: ``python -m tools.make_workflows`` regenerates ``workflows/*.json``.

Slots, their order and widget values come from the schema snapshots in ``tests/nodes``, so that workflows agree with
the nodes. Each function is a workflow, or a part of several.
"""

from __future__ import annotations

import json
from pathlib import Path

from tools.degraded_workflows import DEGRADED
from tools.inpaint_workflows import INPAINT
from tools.methods_workflow import embedded_methods
from tools.sampler_workflows import SAMPLERS
from tools.schema_snapshot import CORE_SNAPSHOT, SNAPSHOT
from tools.workflow_graph import Workflow
from tools.workflow_parts import add_fit, add_samples, embedded_scene, enlarge, took

WORKFLOWS = Path(__file__).parent.parent / "workflows"


def embedded_inpaint(flow: Workflow) -> None:
    """Inpainting with one node per step, on the embedded prior."""
    flow.group("Read me")
    flow.note(
        "# Four samples for half an image\n\n"
        "Press **Run**. No download is needed. The right half of a 64-pixel scene is masked. VIPaint fits a posterior "
        "with the embedded prior and draws four samples.\n\n"
        "- **seed** of *Sample Posterior*: new samples of the same fit.\n"
        "- **hole** of *Demo Scene*: another mask.\n"
        "- The curves show a fit with *iterations* above 0. The keypoint preview shows denoised predictions of four "
        "draws at each noise level.\n"
        "- The uncertainty map is bright where samples differ.\n\n"
        "The embedded prior supports only such scenes. For photographs, use a Stable Diffusion workflow.\n\n"
        f"{took(40)}"
    )
    given = embedded_scene(flow)
    fit = add_fit(flow, given)
    flow.add("PreviewImage", title="Curves of the fit", images=fit["loss_plot"])
    flow.add("PreviewImage", title="Keypoint preview", images=fit["keypoint_preview"])
    flow.group("Samples")
    composited = add_samples(flow, fit, given, seed=0)
    flow.group("Where samples differ", below=True)
    uncertainty = flow.add("VIPaintUncertaintyMap", images=composited["composited"])
    flow.column()
    enlarged = enlarge(flow, uncertainty["map"])
    flow.column()
    flow.add("PreviewImage", title="Uncertainty map", images=enlarged["IMAGE"])


def fit_once_sample_many(flow: Workflow) -> None:
    """One fit, saved; samples with several seeds, before and after loading it."""
    flow.group("Read me")
    flow.note(
        "# Fit once, sample many times\n\n"
        "1. Press **Run**. The posterior is fitted once and saved to `output/vipaint`. Two nodes draw samples with "
        "different seeds.\n"
        "2. Change a seed and run again. Only its samples are drawn; the fit is cached.\n"
        "3. After a restart: press **R** and select the file in *Load Posterior*. Un-mute the group *Load a fit* "
        "(select its nodes, Ctrl+M). Mute *Fit*, *Samples* and *More samples*.\n\n"
        "A posterior is valid for its image, mask and model only.\n\n"
        f"{took(70)}"
    )
    given = embedded_scene(flow)
    fit = add_fit(flow, given)
    flow.add("VIPaintSavePosterior", posterior=fit["posterior"])
    flow.group("Samples")
    add_samples(flow, fit, given, seed=1)
    flow.group("More samples", below=True)
    add_samples(flow, fit, given, seed=2)
    flow.group("Load a fit (muted)", below=True)
    loaded = flow.add("VIPaintLoadPosterior", file="output: vipaint/posterior_00001_.safetensors", muted=True)
    add_samples(flow, loaded, given, seed=3, muted=True)


ALL = (
    embedded_inpaint,
    fit_once_sample_many,
    *INPAINT,
    *DEGRADED,
    *SAMPLERS,
    embedded_methods,
)


def main() -> None:
    """Write every workflow."""
    schemas = json.loads(SNAPSHOT.read_text()) | json.loads(CORE_SNAPSHOT.read_text())
    for build in ALL:
        flow = Workflow(schemas)
        build(flow)
        (WORKFLOWS / f"{build.__name__}.json").write_text(json.dumps(flow.as_json(), indent=1) + "\n")


if __name__ == "__main__":
    main()
