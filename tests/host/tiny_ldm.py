"""Small latent diffusion models in diffusers, and their tensors in the layouts of CompVis's checkpoints."""

import re

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel, VQModel
from diffusers.models.attention_processor import Attention

from vipaint_ops import NoiseSchedule

KINDS = ["churches", "faces", "classes"]
CLASSES = 10


def fill(network, seed):
    """Weights of the spread they have after training, normalisations near 1."""
    numbers = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        spread = 0.1 if parameter.ndim < 2 else 0.7 * parameter[0].numel() ** -0.5
        torch.nn.init.normal_(parameter, 0.0, spread, generator=numbers)
    for module in network.modules():
        if isinstance(module, (torch.nn.GroupNorm, torch.nn.LayerNorm)):
            module.weight.data += 1
    return network.eval().requires_grad_(False)


def autoencoder(kind):
    """kl-f8 for churches, vq-f4 with 64 codes for the others."""
    levels, widths = (4, [32, 32, 64, 64]) if kind == "churches" else (3, [32, 64, 64])
    settings = {
        "block_out_channels": widths,
        "layers_per_block": 2,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }
    if kind == "churches":
        return fill(AutoencoderKL(latent_channels=4, **settings), 1)
    network = fill(VQModel(latent_channels=3, num_vq_embeddings=64, **settings), 1)
    network.quantize.embedding.weight.data *= 2
    return network


def denoiser(kind):
    """Churches resample in residual blocks and have 8 heads; faces have heads of 32 channels; classes transformers."""
    widths = [32, 64, 96]
    if kind == "classes":
        network = UNet2DConditionModel(
            in_channels=3,
            out_channels=3,
            block_out_channels=widths,
            cross_attention_dim=16,
            attention_head_dim=1,
            down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        )
    elif kind == "faces":
        network = UNet2DModel(
            in_channels=3,
            out_channels=3,
            block_out_channels=widths,
            attention_head_dim=32,
            down_block_types=["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
            up_block_types=["AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
        )
    else:
        network = UNet2DModel(
            in_channels=4,
            out_channels=4,
            block_out_channels=widths,
            resnet_time_scale_shift="scale_shift",
            downsample_type="resnet",
            upsample_type="resnet",
            attn_norm_num_groups=32,
            down_block_types=["AttnDownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
            up_block_types=["ResnetUpsampleBlock2D", "AttnUpBlock2D", "AttnUpBlock2D"],
        )
        for module in network.modules():
            if isinstance(module, Attention):
                module.heads = 8
    return fill(network, 2)


RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def compvis_unet(network, heads):
    """A diffusers UNet's weights under CompVis's names; q, k and v of plain attention joined head by head."""
    layers = network.config.layers_per_block
    first = {
        "conv_in": "input_blocks.0.0",
        "conv_out": "out.2",
        "conv_norm_out": "out.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
    }
    weights = network.state_dict()
    renamed = {}
    for key, value in weights.items():
        module, kind = key.rsplit(".", 1)
        if module in first:
            renamed[f"{first[module]}.{kind}"] = value
            continue
        place, level, part, index, rest = re.fullmatch(
            r"(down|mid|up)_blocks?\.?(\d*)\.(\w+)\.(\d+)\.(.*)", module
        ).groups()
        first_block, index = int(level or 0) * (layers + 1), int(index)
        last_block, number = first_block + layers, first_block + index
        block = {"down": f"input_blocks.{number + 1}", "up": f"output_blocks.{number}"}.get(place, "middle_block")
        if part == "downsamplers":
            renamed[f"input_blocks.{last_block + 1}.0.{RESNET.get(rest, 'op')}.{kind}"] = value
        elif part == "upsamplers":
            attends = any(other.startswith(f"up_blocks.{level}.attentions.") for other in weights)
            renamed[f"output_blocks.{last_block}.{1 + attends}.{RESNET.get(rest, 'conv')}.{kind}"] = value
        elif part == "resnets":
            renamed[f"{block}.{2 * index if place == 'mid' else 0}.{RESNET[rest]}.{kind}"] = value
        elif rest == "to_q":
            parts = [weights[f"{module[: -len('to_q')]}to_{x}.{kind}"].unflatten(0, (heads(value), -1)) for x in "qkv"]
            joined = torch.stack(parts, 1).flatten(0, 2)
            renamed[f"{block}.1.qkv.{kind}"] = joined[..., None] if kind == "weight" else joined
        elif rest == "to_out.0":
            renamed[f"{block}.1.proj_out.{kind}"] = value[..., None] if kind == "weight" else value
        elif rest not in ("to_k", "to_v"):
            renamed[f"{block}.1.{rest.replace('group_norm', 'norm')}.{kind}"] = value
    return renamed


def compvis_first_stage(network):
    """A diffusers autoencoder's weights under CompVis's names."""
    levels = len(network.config.block_out_channels)
    renamed = {}
    for key, value in network.state_dict().items():
        key = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", key)
        key = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", key)
        key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
        key = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", key)
        key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
        key = key.replace("mid_block.attentions.0", "mid.attn_1").replace("conv_norm_out", "norm_out")
        key = key.replace("conv_shortcut", "nin_shortcut").replace("group_norm", "norm").replace("to_out.0", "proj_out")
        key = re.sub(r"attn_1\.to_(\w)", r"attn_1.\1", key)
        renamed[key] = value[:, :, None, None] if "attn_1" in key and value.ndim == 2 else value
    return renamed


def heads_of(kind):
    return lambda query: 8 if kind == "churches" else len(query) // 32


class TinyLDM:
    """Both networks of a kind, in diffusers, and their checkpoint's tensors."""

    def __init__(self, kind):
        self.kind, self.denoiser, self.autoencoder = kind, denoiser(kind), autoencoder(kind)
        self.schedule = NoiseSchedule.scaled_linear(0.0015, 0.0155 if kind == "churches" else 0.0195)
        self.scale = 0.8 if kind == "churches" else 1.0
        self.classes = torch.randn(CLASSES + 1, 16, generator=torch.Generator().manual_seed(3))

    def predict(self, x, step, label=None):
        """E[x_0 | x] at a step of 1000, ``x`` as the host carries it, z / alpha."""
        alpha, sigma = self.schedule.alpha(step / 999), self.schedule.sigma(step / 999)
        context = {} if label is None else {"encoder_hidden_states": self.classes[label].expand(len(x), 1, -1)}
        return x - sigma / alpha * self.denoiser(alpha * x, step, **context).sample

    def decode(self, latent):
        return ((self.autoencoder.decode(latent / self.scale).sample + 1) / 2).clamp(0, 1).movedim(1, -1)

    def encode(self, picture):
        encoded = self.autoencoder.encode(picture.movedim(-1, 1) * 2 - 1)
        return encoded.latent_dist.mode() if self.kind == "churches" else encoded.latents

    def tensors(self):
        unet = compvis_unet(self.denoiser, heads_of(self.kind))
        tensors = {f"model.diffusion_model.{k}": v for k, v in unet.items()}
        if self.kind == "faces":  # the average counts, not the last step of training
            tensors |= {f"model_ema.{('diffusion_model.' + k).replace('.', '')}": v for k, v in unet.items()}
            tensors |= {f"model.diffusion_model.{k}": v + 0.1 for k, v in unet.items()}
        tensors |= {f"first_stage_model.{k}": v for k, v in compvis_first_stage(self.autoencoder).items()}
        if self.kind == "churches":
            tensors["scale_factor"] = torch.tensor(self.scale)
            tensors["betas"] = torch.linspace(0.0015**0.5, 0.0155**0.5, 1000) ** 2
        elif self.kind == "classes":
            tensors["cond_stage_model.embedding.weight"] = self.classes
        return {k: v.contiguous().clone() for k, v in tensors.items()}
