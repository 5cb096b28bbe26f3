"""The hierarchical posterior: its law, its files, and what it refuses."""

import json
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.ops.gaussian_chain import DOUBLE, FLOW, VP, draw, gaussian, walk_moments
from vipaint_ops import HierarchicalPosterior, InputError
from vipaint_ops.diffusion.prior import CountedPrior, Evaluations
from vipaint_ops.diffusion.schedule import reverse_kernel
from vipaint_ops.diffusion.streams import NoiseStreams
from vipaint_ops.vipaint.config import check_times
from vipaint_ops.vipaint.posterior import describe

SHAPE, SIZE = (2, 4), 8
TIMES = (0.8, 0.6, 0.4)
both_schedules = pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])


def hierarchy(times: tuple[float, ...] = TIMES, eta: float = 1.0, shape=SHAPE) -> HierarchicalPosterior:
    means, gates = draw(len(times), *shape, seed=3), draw(len(times), *shape, seed=4)
    return HierarchicalPosterior(times, means, 0.5 * draw(len(times), *shape, seed=5) - 1, gates, eta)


def saved(tmp_path, **changes):
    """A file of a posterior with some of its header replaced; None leaves an entry out."""
    posterior = hierarchy()
    posterior.metadata = describe(gaussian())
    path = tmp_path / "posterior.safetensors"
    posterior.save(path)
    with safe_open(str(path), "pt") as file:
        header, tensors = file.metadata() | changes, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, {k: v for k, v in header.items() if v is not None})
    return path


@both_schedules
@pytest.mark.parametrize("eta", [1.0, 0.5, 0.0])
def test_a_walk_has_the_moments_of_the_law_it_is_defined_by(schedule, eta):
    prior, q, count = gaussian(schedule), hierarchy(eta=eta), 8000
    keypoints = list(q.walk(CountedPrior(prior), NoiseStreams(0, range(count))))
    assert [k.time for k in keypoints] == list(TIMES)
    for keypoint, (mean, covariance) in zip(keypoints, walk_moments(prior, q), strict=True):
        deviation = keypoint.z.flatten(1) - mean
        assert (deviation.mean(0).abs() < 5 * (covariance.diagonal() / count).sqrt()).all()
        products = deviation[:, :, None] * deviation[:, None, :]
        assert ((products.mean(0) - covariance).abs() < 5 * products.std(0) / count**0.5).all()


@both_schedules
def test_an_open_gate_with_the_priors_own_variance_is_the_prior(schedule):
    """Gates of one leave the prior's reverse step, so its exact marginals are kept from top to bottom."""
    prior, q, count = gaussian(schedule), hierarchy(), 8000
    streams = NoiseStreams(0, range(count))
    q.gates.fill_(40.0)
    for k in (1, 2):
        levels = schedule.level(TIMES[k]), schedule.level(TIMES[k - 1])
        q.log_stds[k] = 0.5 * torch.tensor(reverse_kernel(*levels).variance).log()
    keypoints = list(q.walk(CountedPrior(prior), streams))
    for keypoint in keypoints[1:]:
        torch.testing.assert_close(keypoint.q_mean, keypoint.p_mean)
        assert keypoint.q_log_std.exp().square().flatten().tolist() == pytest.approx([keypoint.p_variance] * SIZE)


def test_a_shut_gate_forgets_the_keypoint_above():
    q = hierarchy()
    q.gates.fill_(-80.0)
    keypoints = list(q.walk(CountedPrior(gaussian()), NoiseStreams(0, range(3))))
    for k, keypoint in enumerate(keypoints):
        torch.testing.assert_close(keypoint.q_mean, (keypoint.level.alpha * q.means[k]).expand(3, *SHAPE))


def test_sample_k_alone_is_sample_k_of_a_batch():
    prior, q = CountedPrior(gaussian()), hierarchy()
    batch = q.sample(prior, NoiseStreams(7, range(5)))
    for k in range(5):
        torch.testing.assert_close(q.sample(prior, NoiseStreams(7, [k]))[0], batch[k])


def test_a_sample_is_the_end_of_a_walk_without_a_graph():
    prior, q = CountedPrior(gaussian()), hierarchy()
    q.means.requires_grad_()
    *_, last = q.walk(prior, NoiseStreams(1, range(4)))
    sample = q.sample(prior, NoiseStreams(1, range(4)))
    assert last.z.requires_grad
    assert not sample.requires_grad
    assert torch.equal(sample, last.z)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE, torch.bfloat16])
@pytest.mark.parametrize("shape", [(8,), (2, 4), (1, 2, 2, 2)])
def test_what_is_loaded_is_what_was_saved(tmp_path, dtype, shape):
    q = hierarchy(eta=0.3, shape=shape).to(torch.device("cpu"), dtype)
    q.metadata = describe(gaussian(shape=shape)) | {"note": "näive ☀"}
    q.history = [{"loss": 1 / 3, "top": -2.5e-300}, {"loss": 0.1}]
    q.evaluations = Evaluations(1, 2, 3, 4)
    q.save(tmp_path / "q.safetensors")
    again = HierarchicalPosterior.load(tmp_path / "q.safetensors")
    for name in ("means", "log_stds", "gates"):
        before, after = getattr(q, name), getattr(again, name)
        assert after.dtype == dtype
        assert torch.equal(before, after)
    for name in ("times", "eta", "metadata", "history", "evaluations"):
        assert getattr(again, name) == getattr(q, name)
    again.check(gaussian(shape=shape))


def test_the_file_says_what_it_is_without_being_loaded(tmp_path):
    with safe_open(str(saved(tmp_path)), "pt") as file:
        header = file.metadata()
    assert json.loads(header["times"]) == list(TIMES)
    assert json.loads(header["latent_shape"]) == list(SHAPE)
    assert header["schedule"] == VP.description
    assert header["prior"] == gaussian().identity


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (gaussian(shape=(4, 2)), r"latent_shape .*\[2, 4\].*\[4, 2\]"),
        (gaussian(FLOW), "schedule .*vp 1000.*flow 3"),
    ],
)
def test_another_size_or_schedule_is_refused(tmp_path, other, message):
    q = HierarchicalPosterior.load(saved(tmp_path))
    q.check(gaussian())
    with pytest.raises(InputError, match=message):
        q.check(other)


@pytest.mark.parametrize("shape", [(2, 4), (4, 2)])
def test_a_header_that_contradicts_the_tensors_fits_nothing(tmp_path, shape):
    q = HierarchicalPosterior.load(saved(tmp_path, latent_shape="[4, 2]"))
    with pytest.raises(InputError, match="latent_shape"):
        q.check(gaussian(shape=shape))


def test_another_model_is_refused(tmp_path):
    q, other = HierarchicalPosterior.load(saved(tmp_path)), gaussian()
    other.identity = "another model"
    with pytest.raises(InputError, match="another model"):
        q.check(other)


def test_a_posterior_fitted_to_nothing_is_refused():
    with pytest.raises(InputError, match="fitted"):
        hierarchy().check(gaussian())


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "pt"},
        {"format": None},
        {"times": None},
        {"times": "not json"},
        {"times": "0.5"},
        {"times": "[]"},
        {"times": "[0.4, 0.6, 0.8]"},
        {"times": "[0.8, 0.6]"},
        {"times": "[NaN, 0.6, 0.4]"},
        {"times": '["0.8", 0.6, 0.4]'},
        {"eta": "[1]"},
        {"eta": '"much"'},
        {"eta": "NaN"},
        {"eta": "-3"},
        {"family": "spam"},
        {"history": None},
        {"history": "{"},
        {"history": '"text"'},
        {"history": "[1, 2]"},
        {"evaluations": "[]"},
        {"evaluations": '{"spam": 1}'},
        {"evaluations": '{"denoiser_forward": "many"}'},
        {"times": "[" * 100_000},
    ],
    ids=lambda changes: "-".join(f"{k}={str(v)[:20]}" for k, v in changes.items()),
)
def test_a_file_with_a_wrong_header_is_refused(tmp_path, changes):
    path = saved(tmp_path, **changes)
    with pytest.raises(InputError):
        HierarchicalPosterior.load(path)


def wrong_tensors():
    good = {name: getattr(hierarchy(), name) for name in ("means", "log_stds", "gates")}
    yield "missing", {k: v for k, v in good.items() if k != "gates"}
    yield "of another shape", good | {"gates": good["gates"][:, :1].contiguous()}
    yield "of too many keypoints", {k: torch.cat([v, v]) for k, v in good.items()}
    yield "without dimensions", {k: v.sum() for k, v in good.items()}
    yield "NaN", good | {"means": good["means"] * float("nan")}
    yield "infinite", good | {"log_stds": good["log_stds"] + float("inf")}
    yield "integer", {k: v.long() for k, v in good.items()}
    yield "boolean", {k: v > 0 for k, v in good.items()}


@pytest.mark.parametrize("tensors", [pytest.param(t, id=name) for name, t in wrong_tensors()])
def test_a_file_with_wrong_tensors_is_refused(tmp_path, tensors):
    path = saved(tmp_path)
    with safe_open(str(path), "pt") as file:
        save_file(tensors, path, file.metadata())
    with pytest.raises(InputError):
        HierarchicalPosterior.load(path)


def test_damaged_files_are_refused(tmp_path):
    path = saved(tmp_path)
    whole = path.read_bytes()
    for cut in (0, 4, 8, 100, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError):
            HierarchicalPosterior.load(path)
    for content in (b"\0" * 64, b"PK\x03\x04 a pickle", struct.pack("<Q", 2**62) + whole[8:], whole + b"more"):
        path.write_bytes(content)
        with pytest.raises(InputError):
            HierarchicalPosterior.load(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        HierarchicalPosterior.load(tmp_path / "none.safetensors")
    with pytest.raises(InputError):
        HierarchicalPosterior.load(tmp_path)


@pytest.mark.parametrize("times", [(1.0,), (0.55, 0.4), (0.9, 0.8, 0.001), (1, 0.5)])
def test_decreasing_times_are_accepted(times):
    check_times(times)


@pytest.mark.parametrize(
    "times", [(), (0.0,), (1.1,), (0.4, 0.55), (0.5, 0.5), (-0.1,), (float("nan"),), ("0.5",), (550, 400), (None,)]
)
def test_other_times_are_refused(times):
    with pytest.raises(InputError, match="keypoints"):
        check_times(times)


def test_equal_posteriors_are_equal_files(tmp_path):
    """The package that writes them orders metadata anew at every call."""
    q = hierarchy()
    q.metadata = {name: name for name in ("prior", "schedule", "observation", "latent_shape")} | {"prompt": "ä 'b'"}
    contents = {q.serialised() for _ in range(5)}
    assert len(contents) == 1
    (tmp_path / "q.safetensors").write_bytes(*contents)
    loaded = HierarchicalPosterior.load(tmp_path / "q.safetensors")
    assert loaded.metadata == q.metadata
    assert loaded.serialised() in contents
