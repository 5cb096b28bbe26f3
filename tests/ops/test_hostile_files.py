"""Hostile posteriors, checkpoints, pictures and masks are read whole or refused by name: no NaN, no other error."""

import json

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.fuzz.hostile_files import KINDS, check, hostile_file
from tests.ops.conftest import AUTOENCODER, DENOISER, EMBEDDED_METADATA, save_embedded
from tests.ops.gaussian_chain import gaussian
from vipaint_ops import HierarchicalPosterior, InputError
from vipaint_ops.priors.embedded_file import read_embedded
from vipaint_ops.vipaint.posterior import describe

NORM = "denoiser.conv_norm_out.weight"
SCHEDULE = {"start": 0.0015, "end": 0.0195, "steps": 1000}


@settings(max_examples=250)
@given(seed=st.integers(0, 2**32))
@example(seed=19)
@example(seed=259)
@example(seed=266)
def test_a_hostile_file_is_read_or_refused_by_name(seed, tmp_path_factory):
    path = hostile_file(seed, tmp_path_factory.mktemp("hostile"))
    assert check(path) in ("ok", "refused")


def test_a_seed_gives_the_same_file_and_all_kinds_occur(tmp_path):
    (tmp_path / "again").mkdir()
    for seed in range(40):
        one, other = (hostile_file(seed, folder) for folder in (tmp_path, tmp_path / "again"))
        assert one.name == other.name
        assert one.is_dir() or one.read_bytes() == other.read_bytes()
    assert {path.name.split("_")[0] for path in tmp_path.glob("*_*")} == set(KINDS)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("schedule", SCHEDULE | {"steps": 10**13}),
        ("schedule", SCHEDULE | {"steps": 1}),
        ("schedule", SCHEDULE | {"steps": 2.5}),
        ("schedule", SCHEDULE | {"steps": True}),
        ("schedule", SCHEDULE | {"start": 0}),
        ("schedule", SCHEDULE | {"start": float("nan")}),
        ("schedule", SCHEDULE | {"end": 1}),
        ("schedule", SCHEDULE | {"start": 0.02, "end": 0.01}),
        ("schedule", SCHEDULE | {"spam": 1}),
        ("schedule", []),
        ("denoiser", DENOISER | {"norm_num_groups": -4}),
        ("denoiser", DENOISER | {"norm_num_groups": 3}),
        ("denoiser", DENOISER | {"block_out_channels": [[8, 8]]}),
        ("denoiser", DENOISER | {"in_channels": 10**400}),
        ("autoencoder", AUTOENCODER | {"scaling_factor": 0}),
        ("autoencoder", AUTOENCODER | {"scaling_factor": float("inf")}),
        ("autoencoder", AUTOENCODER | {"sample_size": None}),
    ],
)
def test_a_setting_out_of_range_is_refused_before_a_network_is_made(name, change, tmp_path):
    """By the reader that the library and the nodes share."""
    path = save_embedded(tmp_path / "prior.safetensors", metadata=EMBEDDED_METADATA | {name: json.dumps(change)})
    with pytest.raises(InputError, match=rf"prior .*prior\.safetensors.* is broken: its {name}"):
        read_embedded(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_weights_that_are_not_finite_in_half_precision_are_refused(value, dtype, embedded_file, tmp_path):
    tensors = load_file(embedded_file)
    tensors[NORM] = tensors[NORM].to(dtype)
    tensors[NORM][3] = value
    save_file(tensors, tmp_path / "prior.safetensors", EMBEDDED_METADATA)
    with pytest.raises(InputError, match=rf"prior\.safetensors.*{NORM}.* (NaN or infinite|above 65504)"):
        read_embedded(tmp_path / "prior.safetensors")


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.uint8])
def test_weights_of_another_type_are_refused(dtype, embedded_file, tmp_path):
    tensors = load_file(embedded_file)
    tensors[NORM] = tensors[NORM].to(dtype)
    save_file(tensors, tmp_path / "prior.safetensors", EMBEDDED_METADATA)
    with pytest.raises(InputError, match=NORM):
        read_embedded(tmp_path / "prior.safetensors")


def posterior(tmp_path, **changes):
    found = HierarchicalPosterior((0.6, 0.4), *torch.zeros(3, 2, 2, 4))
    found.history = [{"loss": 1.0}]
    for name, value in changes.items():
        setattr(found, name, value)
    found.save(tmp_path / "fit.safetensors")
    return tmp_path / "fit.safetensors"


@pytest.mark.parametrize(
    "changes",
    [
        {"history": [{"loss": float("nan")}]},
        {"history": [{"loss": True}]},
        {"history": [{"loss": 10**400}]},
        {"history": {}},
        {"components": 0},
        {"components": -1},
        {"components": 10**13},
        {"eta": float("nan")},
        {"means": torch.full((2, 2, 4), 1e30)},
        {"log_stds": torch.full((2, 2, 4), 90.0)},
        {"gates": torch.zeros(2, 2, 4).to(torch.float8_e4m3fn)},
        {name: torch.zeros(2, 0, 4) for name in ("means", "log_stds", "gates")},
        {name: torch.zeros(2) for name in ("means", "log_stds", "gates")},
        {name: torch.tensor(0.0) for name in ("means", "log_stds", "gates")},
    ],
    ids=str,
)
def test_a_posterior_with_numbers_that_are_none_is_refused(changes, tmp_path):
    with pytest.raises(InputError, match=r"fit\.safetensors"):
        HierarchicalPosterior.load(posterior(tmp_path, **changes))


@pytest.mark.parametrize("count", [-1, 0.5, float("nan"), 10**30, True, None])
def test_rows_are_counts(count, tmp_path):
    path = posterior(tmp_path)
    found = HierarchicalPosterior.load(path)
    found.evaluations.denoiser_forward = count
    found.save(path)
    with pytest.raises(InputError, match=r"fit\.safetensors is damaged: its evaluations"):
        HierarchicalPosterior.load(path)


def test_a_posterior_of_the_same_file_fits_by_another_name_of_the_model(tmp_path):
    found, prior = HierarchicalPosterior((0.6,), *torch.zeros(3, 1, 2, 4)), gaussian()
    prior.weights_file = "abc"
    found.metadata = describe(prior)
    other = gaussian()
    other.identity, other.weights_file = "the name in ComfyUI", "abc"
    found.check(other)
    other.weights_file = "another"
    with pytest.raises(InputError, match="fitted for prior"):
        found.check(other)
    del other.weights_file
    with pytest.raises(InputError, match="fitted for prior"):
        found.check(other)
