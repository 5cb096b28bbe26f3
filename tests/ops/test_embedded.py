"""The file of the embedded prior: its networks, and errors for broken files."""

import json
import sys

import pytest
import torch
from safetensors.torch import save_file

from tests.ops.conftest import AUTOENCODER, DENOISER, EMBEDDED_METADATA, save_embedded, scene, tiny_networks
from tests.ops.no_float64 import DEVICE, no_float64, on_device
from vipaint_ops.diffusion.schedule import NoiseSchedule
from vipaint_ops.errors import InputError
from vipaint_ops.priors import embedded
from vipaint_ops.priors.embedded import is_embedded, load_embedded_prior

NORM = "denoiser.conv_norm_out.weight"


def test_the_file_gives_its_networks_and_schedule(embedded_file):
    prior = load_embedded_prior(embedded_file)
    schedule = NoiseSchedule.scaled_linear(0.0015, 0.0195)
    denoiser, autoencoder = (network.half().float() for network in tiny_networks())
    assert prior.schedule.description == schedule.description
    assert (prior.latent_shape, prior.dtype) == ((4, 16, 16), torch.float32)
    z, t = torch.randn(2, 4, 16, 16), torch.tensor([0.3, 0.8])
    alpha, sigma = (v.view(-1, 1, 1, 1) for v in (schedule.alpha(t), schedule.sigma(t)))
    with torch.no_grad():
        torch.testing.assert_close(prior.denoise(z, t), alpha * z - sigma * denoiser(z, 999 * t).sample)
        torch.testing.assert_close(prior.encode(scene()), autoencoder.encode(scene()).latent_dist.mean)
        torch.testing.assert_close(prior.decode(z), autoencoder.decode(z).sample)


def test_one_file_has_one_identity_in_any_precision(embedded_file, tmp_path):
    identities = {
        load_embedded_prior(embedded_file, dtype=dtype).identity
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    }
    assert len(identities) == 1
    assert load_embedded_prior(save_embedded(tmp_path / "other.safetensors", seed=1)).identity not in identities


def test_without_a_path_the_shipped_file_is_loaded(embedded_file, monkeypatch):
    monkeypatch.setattr(embedded, "EMBEDDED_PRIOR", embedded_file)
    assert load_embedded_prior().identity == load_embedded_prior(embedded_file).identity


def test_no_float64_on_the_device(embedded_file):
    with no_float64():
        prior = load_embedded_prior(embedded_file, DEVICE)
        z = on_device(torch.randn(2, 4, 16, 16, requires_grad=True))
        image = prior.decode(prior.denoise(z, on_device(torch.tensor([0.3, 0.8]))))
        latent = prior.encode(image)
        latent.sum().backward()
    assert {x.device for x in (prior, image, latent, z.grad)} == {DEVICE}


def test_only_its_own_format_is_embedded(embedded_file, tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "plain.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    assert is_embedded(embedded_file)
    others = [tmp_path / "plain.safetensors", tmp_path / "text.safetensors", tmp_path / "absent", tmp_path]
    assert not [path for path in others if is_embedded(path)]


@pytest.mark.parametrize(
    ("name", "content"),
    [("absent", None), ("empty", b""), ("text", b"hello"), ("long header", b"\xff" * 8 + b"{}"), ("cut", "half")],
)
def test_a_file_that_is_not_whole_is_refused(name, content, embedded_file, tmp_path):
    path = tmp_path / "prior.safetensors"
    if content is not None:
        whole = embedded_file.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(InputError, match=r"prior .*prior\.safetensors.* cannot be read"):
        load_embedded_prior(path)


def metadata(**changes):
    return {key: value for key, value in (EMBEDDED_METADATA | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "vipaint-embedded-9"}, "format 'vipaint-embedded-9'"),
        ({"format": None}, "format None"),
        ({"denoiser": None}, "denoiser"),
        ({"denoiser": "{"}, "is broken"),
        ({"denoiser": "[" * 100_000}, "is broken"),
        ({"denoiser": "[]"}, "is broken"),
        ({"denoiser": json.dumps(DENOISER | {"block_out_channels": [8, 16]})}, "size mismatch"),
        (
            {"denoiser": json.dumps(DENOISER | {"block_out_channels": [10**9, 10**9]})},
            "is 1000000000;",
        ),
        ({"denoiser": json.dumps(DENOISER | {"layers_per_block": 4000})}, "more than 16 layers"),
        ({"denoiser": json.dumps(DENOISER | {"block_out_channels": [8] * 1000})}, "more than 16 blocks"),
        ({"denoiser": json.dumps(DENOISER | {"norm_num_groups": 0})}, "is broken"),
        ({"denoiser": json.dumps(DENOISER | {"nonsense": 1})}, "nonsense"),
        ({"autoencoder": json.dumps(AUTOENCODER | {"latent_channels": 8})}, "size mismatch"),
        ({"prediction_type": "score"}, "score"),
        ({"schedule": json.dumps({"start": 0.0015, "end": 0.0195, "steps": 10**12})}, "steps is 1000000000000"),
        ({"schedule": json.dumps({"start": 0.0015, "end": -1, "steps": 1000})}, "end is -1"),
        ({"schedule": json.dumps({"start": 0.0015})}, "end"),
    ],
    ids=range(17),
)
def test_broken_or_hostile_metadata_are_refused(changes, message, tmp_path):
    path = save_embedded(tmp_path / "prior.safetensors", metadata=metadata(**changes))
    with pytest.raises(InputError, match=message):
        load_embedded_prior(path)


@pytest.mark.parametrize(
    ("weight", "message"),
    [(None, "Missing key"), (torch.full((8,), torch.nan), "NaN"), (torch.ones(9), "size mismatch")],
)
def test_broken_weights_are_refused(weight, message, tmp_path):
    path = save_embedded(tmp_path / "prior.safetensors", **{NORM: weight})
    with pytest.raises(InputError, match=message):
        load_embedded_prior(path)


def test_without_diffusers_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(InputError, match=r"package 'diffusers' is missing: run pip install '\.\[cli\]' in the folder"):
        load_embedded_prior()
