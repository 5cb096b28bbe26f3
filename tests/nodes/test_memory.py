"""Memory of gradients: measured by a forward pass, and the form in which a batch fits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nodes.host.blocks import checkpointed_blocks, inner_blocks
from nodes.host.memory import Cost, form, in_parts, measure


class Residual(nn.Module):
    """A block of two layers."""

    def __init__(self, channels: int):
        super().__init__()
        self.first, self.act, self.second = (
            nn.Conv2d(channels, channels, 1),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x, seen=None):
        if seen is not None:
            seen.append(x)
        return x + self.second(self.act(self.first(x)))


class Decoder(nn.Module):
    """Blocks in a list, in a namespace and in a sequence, and an upsampling of one layer, as autoencoders have them."""

    def __init__(self):
        super().__init__()
        self.mid = nn.Module()
        self.mid.block = Residual(6)
        self.up = nn.ModuleList([nn.Sequential(Residual(6), Residual(6))])
        self.upsample = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(6, 3, 1))

    def forward(self, x):
        return self.upsample(self.up[0](self.mid.block(x)))


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = nn.Module()
    network.decoder = Decoder()
    return network.double().requires_grad_(False)


def test_blocks_are_found_in_lists_namespaces_and_sequences(network):
    assert [type(block) for block in inner_blocks(network)] == [Residual] * 3


def test_recomputed_blocks_and_split_rows_have_the_same_gradient(network):
    x, weight = torch.randn(5, 6, 8, 8, dtype=torch.float64), torch.randn(5, 3, 16, 16, dtype=torch.float64)

    def gradient(function):
        leaf = x.clone().requires_grad_()
        y = function(leaf)
        (weight * y).sum().backward()
        return torch.cat([y.flatten(), leaf.grad.flatten()])

    expected = gradient(network.decoder)
    with checkpointed_blocks(inner_blocks(network)):
        torch.testing.assert_close(gradient(network.decoder), expected)
    torch.testing.assert_close(gradient(lambda z: in_parts(network.decoder, z, 2)), expected)
    assert not any("forward" in block.__dict__ for block in inner_blocks(network))


def test_a_block_that_takes_a_list_is_not_recomputed():
    block, seen = Residual(6).requires_grad_(False), []
    x = torch.randn(1, 6, 4, 4, requires_grad=True)
    with checkpointed_blocks([block]):
        block(x, seen).sum().backward()
    assert len(seen) == 1


def test_the_measured_graph_is_what_autograd_keeps(network):
    x = torch.randn(1, 6, 8, 8, dtype=torch.float64)
    cost = measure(network.decoder, x, network, inner_blocks(network))
    row = x.nbytes
    assert cost.graph == (3 * 3 + 4) * row, "the input of every layer; the last one has four times the cells"
    assert cost.inputs == (3 + 4) * row
    assert cost.block == 3 * row
    assert cost.fixed == 0


def test_copies_of_weights_count_once_for_all_rows(network):
    def on_copies(x):
        copies = {name: weight.clone() for name, weight in network.decoder.named_parameters()}
        return torch.func.functional_call(network.decoder, copies, x)

    x = torch.randn(1, 6, 8, 8, dtype=torch.float64)
    cost = measure(on_copies, x, network, inner_blocks(network))
    matrices = sum(p.nbytes for p in network.decoder.parameters() if p.ndim > 1)
    assert cost.fixed == matrices
    assert cost.graph == 13 * x.nbytes
    assert cost.scaled(4) == Cost(0, 52 * x.nbytes, 4 * cost.inputs, 4 * cost.block, matrices)


ROW = Cost(forward=10, graph=100, inputs=20, block=30, fixed=5)


@pytest.mark.parametrize(
    ("rows", "free", "checkpointing", "expected"),
    [
        (4, 405, "auto", (4, False)),
        (4, 404, "auto", (3, False)),
        (4, 199, "auto", (1, False)),
        (4, 104, "auto", (2, True)),
        (4, 10, "auto", (1, True)),
        (4, 1000, "on", (4, True)),
        (4, 250, "off", (2, False)),
        (4, 10, "off", (1, False)),
    ],
)
def test_the_form_keeps_the_graph_of_as_many_rows_as_fit_before_it_recomputes_blocks(
    rows, free, checkpointing, expected
):
    assert form(ROW, rows, free, checkpointing) == expected


def test_the_peak_of_the_form_fits_if_a_row_fits():
    for free in range(50, 1000, 7):
        found = form(ROW, 8, free, "auto")
        assert ROW.total(*found) <= free
