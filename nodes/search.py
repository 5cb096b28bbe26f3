"""Words by which ComfyUI's node search finds the nodes, in versions whose schema holds them."""

from __future__ import annotations

import dataclasses
from typing import Any

from comfy_api.v0_0_2 import io

_INPAINT = (
    "inpaint",
    "remove object",
    "object removal",
    "remove person",
    "eraser",
    "cleanup",
    "watermark",
    "fill",
    "generative fill",
    "uncrop",
    "outpaint",
    "expand image",
    "restore",
    "restoration",
    "old photo",
    "scratches",
)
_DEBLUR = ("deblur", "unblur", "sharpen", "refocus", "out of focus", "camera shake", "deconvolution")
_SCALE = ("upscale", "upscaler", "enlarge", "super resolution", "enhance", "increase resolution", "4x")
_SAMPLER = ("posterior sampling", "inverse problem", "inpaint sampler")
_NOISE = ("noise", "grain", "denoise", "sigma")
_BLUR = (*_DEBLUR, "blur", "kernel", "psf")

ALIASES: dict[str, tuple[str, ...]] = {
    "VIPaintInpaint": _INPAINT,
    "VIPaintObserveInpaint": _INPAINT,
    "VIPaintDeblur": (*_DEBLUR, "restore", "restoration", "old photo"),
    "VIPaintSuperResolve": (*_SCALE, "restore", "restoration", "old photo"),
    "VIPaintFitPosterior": ("variational inference", "posterior", "inverse problem"),
    "VIPaintSamplePosterior": ("posterior", "variations", "inverse problem"),
    "VIPaintCompositeObserved": ("paste", "blend", "stitch", "keep original", "feather"),
    "VIPaintCropForInpaint": ("crop and stitch", "large photo", "mask crop", "inpaint crop", "zoom", "high resolution"),
    "VIPaintStitch": ("crop and stitch", "paste back", "uncrop", "merge"),
    "VIPaintCropToObservation": ("crop to size", "remove padding", "unpad"),
    "VIPaintSavePosterior": ("export posterior", "store posterior"),
    "VIPaintLoadPosterior": ("import posterior", "open posterior"),
    "VIPaintLoadLDMCheckpoint": ("latent diffusion", "lsun", "celeba", "imagenet", "embedded prior", "model loader"),
    "VIPaintLDMClassLabel": ("class conditioning", "imagenet class"),
    "VIPaintDemoScene": ("example image", "test image", "sample picture"),
    "VIPaintExamplePhotograph": ("example image", "test image", "sample picture", "demo photo", "load image"),
    "VIPaintObserveGaussianBlur": _BLUR,
    "VIPaintObserveMotionBlur": (*_BLUR, "motion"),
    "VIPaintObserveKernel": _BLUR,
    "VIPaintObserveSuperResolution": _SCALE,
    "VIPaintObserveChain": ("combine", "compose degradations", "old photo", "restore"),
    "VIPaintDegradeImage": ("add noise", "blur image", "corrupt", "downscale", "test image"),
    "VIPaintKernelPreview": ("point spread function", "psf", "show blur"),
    "VIPaintMakeMask": ("create mask", "random mask", "box mask", "outpaint", "uncrop", "brush"),
    "VIPaintMaskToLatentGrid": ("latent mask", "snap mask", "noise mask"),
    "VIPaintUncertaintyMap": ("uncertainty", "variance", "confidence", "heat map", "standard deviation", "variations"),
    "VIPaintCompare": ("metrics", "psnr", "ssim", "image quality", "difference"),
    "VIPaintCoPaintSampler": (*_SAMPLER, "outpaint"),
    "VIPaintDPSSampler": (*_SAMPLER, "deblur", "diffusion posterior sampling"),
    "VIPaintPSLDSampler": (*_SAMPLER, "deblur"),
    "VIPaintReSampleSampler": (*_SAMPLER, "deblur"),
    "VIPaintREDDiffSampler": (*_SAMPLER, "deblur"),
    "VIPaintRePaintSampler": (*_SAMPLER, "remove object", "fill"),
    "VIPaintBlendedSampler": (*_SAMPLER, "remove object", "fill", "blended diffusion"),
    "VIPaintDDNMSampler": (*_SAMPLER, "deblur"),
    "VIPaintDInGSampler": (*_SAMPLER, "remove object", "fill"),
    "VIPaintLanPaintSampler": (*_SAMPLER, "remove object", "fill", "outpaint"),
    "VIPaintLATINOSampler": (*_SAMPLER, "deblur"),
    "VIPaintPiGDMSampler": (*_SAMPLER, "deblur"),
    "VIPaintKalmanSampler": (*_SAMPLER, "deblur"),
    "VIPaintEmptyLatent": ("empty latent image", "latent size"),
    "VIPaintEstimateNoiseLevel": _NOISE,
    "VIPaintRobustLikelihood": ("outliers", "dust", "scratches", "salt and pepper", "old photo"),
}
"""Per node id, beside the words of its name."""

_FIELD = "search_aliases"
_HAS_ALIASES = _FIELD in {field.name for field in dataclasses.fields(io.Schema)}


def schema(node_id: str, **arguments: Any) -> io.Schema:
    """The schema of a node, with its aliases where the host has them.

    Raises:
        KeyError: the node has no aliases yet.
    """
    if _HAS_ALIASES:
        arguments[_FIELD] = list(ALIASES[node_id])
    return io.Schema(node_id=node_id, **arguments)
