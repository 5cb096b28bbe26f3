"""Inpainting with VIPaint as a pipeline of diffusers, for text-to-image models without a model made for inpainting.

    pipeline = DiffusionPipeline.from_pretrained(
        "models/stable-diffusion-v1-5", custom_pipeline="docs/vipaint_pipeline.py", trust_remote_code=True
    )
    images = pipeline("a garden", image=photo, mask_image=hole, num_images_per_prompt=4).images

diffusers copies this file and runs the copy; ``trust_remote_code`` permits it. The package ``vipaint`` must be
installed.
Models: Stable Diffusion 1.5, 2, XL, 3, 3.5, Flux and Qwen-Image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import diffusers
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.image_processor import PipelineImageInput, VaeImageProcessor
from PIL.Image import Image

from vipaint_ops import InputError, Observation, operators, restore
from vipaint_ops.images import masks
from vipaint_ops.operators.inpainting import evidence
from vipaint_ops.priors.diffusers import from_loaded

_FAMILIES = {
    "SD3Transformer2DModel": "StableDiffusion3Pipeline",
    "FluxTransformer2DModel": "FluxPipeline",
    "QwenImageTransformer2DModel": "QwenImagePipeline",
}


class VIPaintPipeline(DiffusionPipeline):
    """Several completions of one picture with a hole, as samples of the posterior of the model."""

    _optional_components: ClassVar[list[str]] = [
        *(f"{part}{number}" for part in ("tokenizer", "text_encoder") for number in ("", "_2", "_3")),
        "unet",
        "transformer",
    ]

    def __init__(
        self,
        vae: Any,
        scheduler: Any,
        unet: Any = None,
        transformer: Any = None,
        tokenizer: Any = None,
        tokenizer_2: Any = None,
        tokenizer_3: Any = None,
        text_encoder: Any = None,
        text_encoder_2: Any = None,
        text_encoder_3: Any = None,
    ):
        super().__init__()
        parts = {name: part for name, part in locals().items() if name not in ("self", "__class__")}
        self.register_modules(**parts)

    def __call__(
        self,
        prompt: str = "",
        image: PipelineImageInput | None = None,
        mask_image: PipelineImageInput | None = None,
        negative_prompt: str = "",
        guidance_scale: float = 3.0,
        num_images_per_prompt: int = 4,
        generator: torch.Generator | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        noise_std: float = 0.02,
        callback: Callable[[Any], None] | None = None,
        **settings: Any,
    ) -> ImagePipelineOutput | tuple[list[Image] | torch.Tensor | Any]:
        """Paint the white part of ``mask_image`` in several ways.

        Args:
            prompt, negative_prompt: of the whole picture; the negative one is used if ``guidance_scale`` is not 1.
            image: one picture of any size: PIL, or an array or tensor in [0, 1].
            mask_image: of the same size; white is to be painted. All but black is.
            guidance_scale: scale of classifier-free guidance; 1 for none, as for Flux.
            num_images_per_prompt: number of completions.
            generator: the seed of the run is drawn from it.
            output_type: "pil", "np" or "pt"; or "latent", for latents of the prior.
            return_dict: whether to return an ``ImagePipelineOutput``, else a tuple.
            noise_std: noise of the known pixels (black -1, white 1), with the error of the autoencoder.
            callback: called after every step with its progress.
            settings: further arguments of ``vipaint_ops.restore``: ``preset``, ``method`` and their settings.

        Raises:
            InputError: an image is missing, or their sizes differ; or the model or a setting is refused.
        """
        if image is None or mask_image is None:
            raise InputError("image or mask_image is missing: give both")
        picture = VaeImageProcessor(do_resize=False).preprocess(image)
        hole = VaeImageProcessor(do_resize=False, do_normalize=False, do_convert_grayscale=True).preprocess(mask_image)
        known = evidence(1 - hole)
        if picture.shape[2:] != known.shape[2:] or len(picture) != 1:
            raise InputError(
                f"image is {tuple(picture.shape)} and mask_image {tuple(hole.shape)}: give one of each, of one size"
            )
        prior = from_loaded(self._family(), prompt, negative_prompt, guidance_scale)
        observation = Observation(known * picture, operators.Inpainting(known), noise_std)
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device if generator else None))
        result = restore(prior, observation, num_images_per_prompt, seed=seed, callback=callback, **settings)
        images: Any = result.latents
        if output_type != "latent":
            images = masks.without_shift(result.images.cpu(), picture, known)
            images = VaeImageProcessor().postprocess(masks.composite(images, picture, known), output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _family(self) -> DiffusionPipeline:
        """The text-to-image pipeline of these parts, which encodes prompts."""
        xl = self.text_encoder_2 is not None
        unets = "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline"
        name = unets if self.unet is not None else _FAMILIES.get(type(self.transformer).__name__)
        if name is None:
            raise InputError(f"transformer is {type(self.transformer).__name__}; it is not supported")
        kind = getattr(diffusers, name)
        taken = kind._get_signature_types()
        absent = {part: None for part in ("safety_checker", "feature_extractor") if part in taken}
        return kind(**{part: value for part, value in self.components.items() if part in taken} | absent)
