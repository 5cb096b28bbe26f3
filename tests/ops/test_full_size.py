"""Laws of the cost of a restoration, on tiny networks."""

import dataclasses
import itertools
import sys

import diffusers
import pytest
import torch
from torch import nn

from benchmarks import full_size
from benchmarks.architectures import UNET_BLOCKS, Architecture, Network, autoencoder, row
from benchmarks.full_size import Cache, four_tiles
from vipaint_ops import Evaluations
from vipaint_ops.evaluation.cost import Costs, Row, peak_memory, recompute, tflop, trace

SMALL = {
    "block_out_channels": (8, 8), "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2, "layers_per_block": 1, "norm_num_groups": 4,
}  # fmt: skip
UNET = {
    "sample_size": 8, "block_out_channels": (8,), "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("CrossAttnUpBlock2D",), "mid_block_type": None, "layers_per_block": 1, "cross_attention_dim": 8,
    "attention_head_dim": 2, "norm_num_groups": 4,
}  # fmt: skip


def meta(*shape):
    return torch.empty(shape, device="meta")


def frozen(module):
    return module.to("meta").requires_grad_(False)


def tiny_unet():
    conditions = {"timestep": (1,), "encoder_hidden_states": (1, 5, 8)}
    return Network("UNet", diffusers.UNet2DConditionModel, UNET, (1, 4, 8, 8), UNET_BLOCKS, conditions=conditions)


def tiny_autoencoder():
    return [dataclasses.replace(network, config={**network.config, **SMALL}) for network in autoencoder(8, 4)]


class Block(nn.Module):
    """A layer whose backward pass needs the layer's output, so that all of it is recomputed."""

    def __init__(self):
        super().__init__()
        self.layer, self.activation = nn.Linear(16, 16), nn.SiLU()

    def forward(self, x):
        return self.activation(self.layer(x))


def test_operations_of_a_linear_layer_and_its_input_gradient():
    layer = frozen(nn.Linear(16, 32))
    found = trace(layer, meta(10, 16), layer.parameters())
    assert found.forward == found.backward == 2 * 10 * 16 * 32
    assert found.kept == 0


def test_operations_of_a_convolution_and_its_input_gradient():
    layer = frozen(nn.Conv2d(4, 8, 3, padding=1))
    found = trace(layer, meta(1, 4, 6, 6), layer.parameters())
    assert found.forward == found.backward == 2 * 36 * 9 * 4 * 8


def test_flash_attention_goes_backwards_in_two_and_a_half_forwards():
    found = trace(lambda x: torch.nn.functional.scaled_dot_product_attention(x, x, x), meta(1, 2, 64, 8))
    assert found.forward == 2 * 2 * 2 * 64 * 64 * 8
    assert found.backward == 2.5 * found.forward
    assert found.kept < 64 * 64 * 2 * 4, "no matrix of scores is kept"


def test_a_tensor_saved_twice_counts_once_and_weights_do_not():
    layer = frozen(nn.Linear(16, 16))

    def function(x):
        y = layer(x)
        return y.sin() * y.cos() + y.exp().flatten()[: y.numel()].view_as(y)

    found = trace(function, meta(10, 16), layer.parameters())
    assert found.kept == 4 * 10 * 16 * 4, "y, sin y, cos y, exp y"
    assert found.peak >= found.kept


def test_without_gradients_no_graph_is_alive():
    layers = frozen(nn.Sequential(*(Block() for _ in range(8))))
    found = trace(layers, meta(10, 16), layers.parameters())
    assert found.working == 4 * 10 * 16 * 4, "the input of all, and of a block, its layer's output, its own output"
    assert found.kept == 8 * 10 * 16 * 4


def test_checkpointing_adds_one_forward_to_a_backward():
    plain, checkpointed = (frozen(nn.Sequential(*(Block() for _ in range(4)))) for _ in range(2))
    recompute(checkpointed, (Block,))
    whole, less = (trace(layers, meta(10, 16), layers.parameters()) for layers in (plain, checkpointed))
    assert less.forward == whole.forward
    assert less.backward == whole.backward + whole.forward
    tiles = whole.tiled(9)
    assert tiles.forward == 9 * whole.forward
    assert tiles.backward == 9 * (whole.backward + whole.forward)
    assert tiles.kept == 0


@pytest.mark.parametrize("network", [tiny_autoencoder()[0], tiny_unet()], ids=["decoder", "unet"])
def test_rows_of_diffusers_networks(network):
    whole, less = row(network, False), row(network, True)
    assert 0 < whole.forward < whole.backward
    assert whole.forward == less.forward
    assert whole.backward < less.backward <= whole.backward + whole.forward
    assert less.kept < whole.kept <= whole.peak


BOTH = ("denoiser", "decoder")
ONE = Costs(
    Row(3e12, 5e12, 10, 100, 120),
    Row(7e12, 11e12, 20, 200, 250),
    Row(13e12, 17e12, 0, 0, 0),
)


def test_cost_is_additive_in_rows():
    first, second = Evaluations(1, 2, 3, 4, 5, 6, 7), Evaluations(7, 6, 5, 4, 3, 2, 1)
    for guided in (False, True):
        parts = tflop(first, ONE, guided) + tflop(second, ONE, guided)
        assert tflop(first + second, ONE, guided) == pytest.approx(parts)


@pytest.mark.parametrize(("guided", "expected"), [(False, 34), (True, 45)])
def test_guidance_doubles_all_rows_but_those_of_the_condition_alone(guided, expected):
    rows = Evaluations(denoiser_forward=2, denoiser_backward=1, decoder_backward=1, condition_forward=4)
    assert tflop(rows, ONE, guided) == pytest.approx(expected)


def test_peak_memory_holds_both_graphs_of_a_chain_and_else_the_larger_one():
    assert peak_memory(1000, ONE, 1, False, BOTH) == 1000 + 100 + 250
    assert peak_memory(1000, ONE, 2, True, BOTH) == 1000 + 2 * 2 * 100 + 2 * 250
    assert peak_memory(1000, ONE, 2, True, {"decoder"}) == 1000 + 2 * 250
    assert peak_memory(1000, ONE, 2, True, {"denoiser"}) == 1000 + 2 * 2 * ONE.denoiser.peak
    tiled = ONE._replace(decoder=ONE.decoder.tiled(9))
    assert peak_memory(1000, tiled, 4, False, BOTH) == 1000 + 4 * 100 + 250
    assert peak_memory(1000, tiled, 40, True, {"decoder"}) == 1000 + 80 * 10


def test_tiles_are_those_of_the_host():
    assert [four_tiles(side).rows.side for side in (64, 128)] == [36, 72]


def test_counts_are_kept_until_settings_change(tmp_path):
    numbers = itertools.count()
    path = tmp_path / "full_size.json"
    for settings, expected in (("a", 0), ("a", 0), ("b", 1)):
        assert Cache(path).get("name", settings, lambda: next(numbers)) == expected
    assert Cache(path, fresh=True).get("name", "b", lambda: next(numbers)) == 2


def test_rows_of_a_method_on_the_free_prior(tmp_path):
    rows = Cache(tmp_path / "full_size.json").rows("Blended", full_size.ON_NORMAL["Blended"])
    assert rows.total.denoiser_forward == 4 * 250
    assert rows.total.decoder_forward == 4
    assert Cache(tmp_path / "full_size.json").rows("Blended", full_size.ON_NORMAL["Blended"]) == rows


def test_report_on_a_tiny_architecture(tmp_path, monkeypatch):
    tiny = [Architecture(name, tiny_unet(), *tiny_autoencoder(), guided=name == "one") for name in ("one", "two")]
    monkeypatch.setattr(full_size, "row", lambda network, checkpointed: ONE.denoiser)
    monkeypatch.setattr(full_size, "ARCHITECTURES", tiny)
    monkeypatch.setattr(full_size, "ON_EMBEDDED", {})
    monkeypatch.setattr(full_size, "ON_NORMAL", {"Blended": full_size.ON_NORMAL["Blended"]})
    monkeypatch.setattr(sys, "argv", ["full_size", "--out", str(tmp_path)])
    full_size.main()
    text = (tmp_path / "full_size.md").read_text()
    assert "| Blended |" in text and "| plain, 28 steps |" in text


def test_without_a_card_the_device_is_an_error(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["full_size", "--device", "cuda"])
    with pytest.raises(SystemExit, match="2"):
        full_size.main()
    assert len(capsys.readouterr().err.splitlines()) == 1
