"""Pipelines of diffusers with random networks of a few thousand weights, one for each family."""

import diffusers
import torch
import transformers
from diffusers import FlowMatchEulerDiscreteScheduler
from transformers.convert_slow_tokenizer import bytes_to_unicode

LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
CLIP_TOKENS = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
DYNAMIC = {"use_dynamic_shifting": True, "base_image_seq_len": 4, "max_image_seq_len": 32, "max_shift": 0.9}
"""Of a scheduler whose shift depends on the size of the picture."""


def clip(width=6, pooled=None):
    """A tokenizer of letters with its text encoder; with ``pooled``, of that many projected numbers."""
    tokenizer = transformers.CLIPTokenizer(
        vocab={token: i for i, token in enumerate(CLIP_TOKENS)}, merges=[], model_max_length=16
    )
    kind = transformers.CLIPTextModel if pooled is None else transformers.CLIPTextModelWithProjection
    config = transformers.CLIPTextConfig(
        vocab_size=len(CLIP_TOKENS),
        hidden_size=width,
        intermediate_size=8,
        projection_dim=pooled or width,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=len(CLIP_TOKENS) - 2,
        eos_token_id=len(CLIP_TOKENS) - 1,
        pad_token_id=len(CLIP_TOKENS) - 1,
    )
    return tokenizer, kind(config).eval()


def t5(width=6):
    """A tokenizer of letters with its text encoder."""
    letters = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in LETTERS)]
    tokenizer = transformers.T5TokenizerFast(vocab=letters, extra_ids=0, model_max_length=512)
    config = transformers.T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=4,
        d_ff=8,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return tokenizer, transformers.T5EncoderModel(config).eval()


def kl_autoencoder(shift_factor=0.1):
    return diffusers.AutoencoderKL(
        latent_channels=4,
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        scaling_factor=0.4,
        shift_factor=shift_factor,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def flux(guidance_embeds=True, **scheduler):
    """A Flux pipeline, distilled for guidance or not."""
    torch.manual_seed(3)
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=6,
        pooled_projection_dim=8,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(2, 2, 4),
    )
    tokenizer, text_encoder = clip(8)
    tokenizer_2, text_encoder_2 = t5(6)
    return diffusers.FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**(scheduler or DYNAMIC)),
        vae=kl_autoencoder(),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        text_encoder_2=text_encoder_2,
        tokenizer_2=tokenizer_2,
        transformer=transformer,
    )


def sd3():
    """A Stable Diffusion 3 pipeline without its third encoder."""
    torch.manual_seed(4)
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        caption_projection_dim=16,
        pooled_projection_dim=10,
        pos_embed_max_size=10,
    )
    (tokenizer, text_encoder), (tokenizer_2, text_encoder_2) = clip(6, pooled=6), clip(4, pooled=4)
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=kl_autoencoder(),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        text_encoder_2=text_encoder_2,
        tokenizer_2=tokenizer_2,
        text_encoder_3=None,
        tokenizer_3=None,
    )


def qwen_transformer(joint_attention_dim=8):
    return diffusers.QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=joint_attention_dim,
        axes_dims_rope=(2, 2, 4),
    )


def qwen_image():
    """A Qwen-Image pipeline."""
    torch.manual_seed(5)
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = [*marks, *bytes_to_unicode().values()]
    tokenizer = transformers.Qwen2Tokenizer(vocab={token: i for i, token in enumerate(alphabet)}, merges=[])
    text = {
        "vocab_size": len(alphabet),
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rope_scaling": {"type": "default", "mrope_section": [1, 1], "rope_theta": 1e4, "rope_type": "default"},
    }
    vision = {"depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 2, "out_hidden_size": 8}
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    autoencoder = diffusers.AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[True],
        latents_mean=[-0.7, 0.1, 0.4, -0.2],
        latents_std=[2.8, 1.4, 0.7, 1.2],
    )
    return diffusers.QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**DYNAMIC),
        vae=autoencoder,
        text_encoder=transformers.Qwen2_5_VLForConditionalGeneration(config).eval(),
        tokenizer=tokenizer,
        transformer=qwen_transformer(),
    )


def _unet(**keywords):
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 8),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=4,
        layers_per_block=1,
        attention_head_dim=4,
        **keywords,
    )


def _ddpm():
    return diffusers.DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1
    )


def sd15():
    """A Stable Diffusion 1.5 pipeline."""
    torch.manual_seed(6)
    tokenizer, text_encoder = clip(6)
    return diffusers.StableDiffusionPipeline(
        vae=kl_autoencoder(shift_factor=None),
        unet=_unet(cross_attention_dim=6),
        scheduler=_ddpm(),
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl():
    """A Stable Diffusion XL pipeline."""
    torch.manual_seed(7)
    (tokenizer, text_encoder), (tokenizer_2, text_encoder_2) = clip(6), clip(4, pooled=5)
    unet = _unet(
        cross_attention_dim=10,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=5 + 6 * 4,
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=kl_autoencoder(shift_factor=None),
        unet=unet,
        scheduler=_ddpm(),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        text_encoder_2=text_encoder_2,
        tokenizer_2=tokenizer_2,
        add_watermarker=False,
    )
