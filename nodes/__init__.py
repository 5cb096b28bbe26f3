"""The nodes of this pack, as an extension of ComfyUI's V3 node API."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.v0_0_2 import ComfyExtension


async def comfy_entrypoint() -> ComfyExtension:
    """Called by ComfyUI once, when it loads the pack."""
    # Imported here, so that tools which import the pack's folder outside ComfyUI do not need ComfyUI.
    from comfy_api.v0_0_2 import ComfyExtension, io

    from ..vipaint_ops.errors import InputError
    from .checks import checked
    from .compare import Compare
    from .composite import CompositeObserved, CropToObservation
    from .crop import CropForInpaint, Stitch
    from .demo import DemoScene
    from .gather import GatherList
    from .inpaint import Inpaint
    from .ldm.nodes import LDMClassLabel, LoadLDMCheckpoint
    from .masks import MakeMask, MaskToLatentGrid
    from .model_size import ModelSize
    from .observe.blur import ObserveGaussianBlur, ObserveKernel, ObserveMotionBlur
    from .observe.chain import ObserveChain
    from .observe.degrade import DegradeImage, KernelPreview
    from .observe.inpaint import ObserveInpaint
    from .observe.noise import EstimateNoiseLevel, RobustLikelihood
    from .observe.scale import ObserveSuperResolution
    from .photograph import ExamplePhotograph
    from .posterior import FitPosterior, SamplePosterior
    from .posterior_files import LoadPosterior, SavePosterior, register_folder
    from .restore import Deblur, SuperResolve
    from .samplers.base import EmptyLatent
    from .samplers.gradient_free import (
        BlendedSampler,
        DDNMSampler,
        DInGSampler,
        LanPaintSampler,
        LATINOSampler,
        REDDiffSampler,
        RePaintSampler,
    )
    from .samplers.guided import CoPaintSampler, DPSSampler, KalmanSampler, PiGDMSampler, PSLDSampler, ReSampleSampler
    from .seeds import register as register_seeds
    from .uncertainty import UncertaintyMap

    register_folder()
    register_seeds()
    # ComfyUI shows the module of an error's class before its message, but not that of a builtin one.
    InputError.__module__ = "builtins"

    class VIPaintExtension(ComfyExtension):
        async def get_node_list(self) -> list[type[io.ComfyNode]]:
            nodes = [
                Inpaint,
                ObserveInpaint,
                FitPosterior,
                SamplePosterior,
                CompositeObserved,
                CropToObservation,
                CropForInpaint,
                Stitch,
                SavePosterior,
                LoadPosterior,
                LoadLDMCheckpoint,
                LDMClassLabel,
                DemoScene,
                Deblur,
                SuperResolve,
                ObserveGaussianBlur,
                ObserveMotionBlur,
                ObserveKernel,
                ObserveSuperResolution,
                ObserveChain,
                DegradeImage,
                KernelPreview,
                MakeMask,
                MaskToLatentGrid,
                Compare,
                CoPaintSampler,
                DPSSampler,
                PSLDSampler,
                ReSampleSampler,
                REDDiffSampler,
                RePaintSampler,
                BlendedSampler,
                DDNMSampler,
                DInGSampler,
                LanPaintSampler,
                LATINOSampler,
                PiGDMSampler,
                KalmanSampler,
                EmptyLatent,
                EstimateNoiseLevel,
                RobustLikelihood,
                GatherList,
                ModelSize,
                ExamplePhotograph,
                UncertaintyMap,
            ]
            return [*map(checked, nodes)]

    return VIPaintExtension()
