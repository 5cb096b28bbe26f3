"""The hierarchical variational posterior: its parameters, sampling, saving and loading.

Keypoints t_K = T_e > ... > t_1 = T_s:
    q(z_K)           = N(alpha_K mu_K, tau_K^2)
    q(z_i | z_{i+1}) = N(g_i m_p(z_{i+1}) + (1 - g_i) alpha_i mu_i, tau_i^2),   g = sigmoid(gamma),
with m_p the mean of the prior's own reverse step and mu, tau, gamma of the latent's shape
(VIPaint, section 4.1, in any schedule). Other families, of the published codes, are in families.py. Several of them at
once are their mixture, in even parts.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..diffusion.prior import CountedPrior, DiffusionPrior, Evaluations
from ..diffusion.schedule import Level, reverse_mean, same_schedule
from ..diffusion.streams import NoiseStreams
from ..errors import InputError
from ..inference.linearised import exact
from ..measurement.observation import Observation
from ..priors.embedded_file import check_tensors
from ..settings import is_finite
from .config import check_times
from .families import FAMILIES, PriorStep

FORMAT = "vipaint-posterior-1"
_TENSORS = ("means", "log_stds", "gates")
_UNREADABLE = (SafetensorError, AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError)


_LARGEST_PARAMETER, _LARGEST_LOG_STD = 1e6, 50.0
"""Limits of a file. Clean latents are of a few units, and e^50 is far beyond any noise."""
_MOST_COMPONENTS, _MOST_ROWS = 4096, 10**15


class Keypoint(NamedTuple):
    """One level of a walk down the hierarchy: the draw ``z``, the law it came from, and the prior's step."""

    time: float
    level: Level
    z: Tensor
    q_mean: Tensor
    q_log_std: Tensor
    parent_prediction: Tensor | None
    """E[z_0 | z of the keypoint above]; none at the top."""
    p_mean: Tensor | None
    p_variance: float


class HierarchicalPosterior:
    """q(z_K) ... q(z_1 | z_2) of one observation.

    Args:
        times: K decreasing times in (0, 1], T_e first and T_s last.
        means: mu, ``[K, *latent_shape]``, top first, in units of clean latents.
        log_stds: ln tau, same shape.
        gates: gamma, same shape; the first is unused.
        eta: of the prior's reverse step m_p.
        family: of the parameters, a name in :data:`vipaint_ops.vipaint.families.FAMILIES`.
        components: number of posteriors; with several, tensors are ``[K, components, *latent_shape]``.

    Attributes:
        metadata: strings that name the prior and the observation it was fitted to; written into the file.
        history: a dictionary of loss terms (nats) for every iteration of the fit.
        evaluations: cost of the fit.
    """

    def __init__(
        self,
        times: tuple[float, ...],
        means: Tensor,
        log_stds: Tensor,
        gates: Tensor,
        eta: float = 1.0,
        family: str = "gated",
        components: int = 1,
    ):
        self.times, self.eta, self.family, self.components = tuple(times), eta, family, components
        self.means, self.log_stds, self.gates = means, log_stds, gates
        self.metadata: dict[str, str] = {}
        self.history: list[dict[str, float]] = []
        self.evaluations = Evaluations()

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one latent, without batch."""
        return tuple(self.means.shape[1 if self.components == 1 else 2 :])

    @property
    def _tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.means, self.log_stds, self.gates

    def parts(self) -> list[HierarchicalPosterior]:
        """The components, each a posterior of its own, without history and metadata; alone, itself."""
        if self.components == 1:
            return [self]
        split = zip(*(tensor.unbind(1) for tensor in self._tensors), strict=True)
        return [HierarchicalPosterior(self.times, mu, tau, gamma, self.eta, self.family) for mu, tau, gamma in split]

    @staticmethod
    def joined(parts: list[HierarchicalPosterior]) -> HierarchicalPosterior:
        """The mixture of ``parts`` in even shares, which have keypoints, eta and family in common; of one, itself."""
        first = parts[0]
        if len(parts) == 1:
            return first
        mu, tau, gamma = (torch.stack(same, 1) for same in zip(*(part._tensors for part in parts), strict=True))
        return HierarchicalPosterior(first.times, mu, tau, gamma, first.eta, first.family, len(parts))

    def walk(self, prior: CountedPrior, streams: NoiseStreams) -> Iterator[Keypoint]:
        """Draw one latent a stream at every keypoint, top first; differentiable in the parameters.

        Of several components every row has one, in turn.
        """
        family, levels = FAMILIES[self.family], [prior.schedule.level(t) for t in self.times]
        means, log_stds, gates = self._tensors
        if self.components > 1:
            rows = streams.dealt(self.components)
            means, log_stds, gates = means[:, rows], log_stds[:, rows], gates[:, rows]
        mean, log_std = family.top(means[0], log_stds[0], levels)
        mean = mean.expand(streams.rows, *self.latent_shape)
        z = mean + log_std.exp() * streams.normal(mean)
        yield Keypoint(self.times[0], levels[0], z, mean, log_std, None, None, 0.0)
        for k in range(1, len(self.times)):
            above, level = levels[k - 1], levels[k]
            prediction = prior.denoise(z, self.times[k - 1])
            p_mean, p_variance = reverse_mean(z, prediction, level, above, self.eta)
            step = PriorStep(above, level, z, prediction, p_mean)
            mean, log_std = family.step(means[k], log_stds[k], gates[k], step)
            z = mean + log_std.exp() * streams.normal(mean)
            yield Keypoint(self.times[k], level, z, mean, log_std, prediction, p_mean, p_variance)

    def sample(self, prior: CountedPrior, streams: NoiseStreams) -> Tensor:
        """Draws of z at T_s, ``[streams.rows, *latent_shape]``."""
        with torch.no_grad():
            *_, last = self.walk(prior, streams)
        return last.z

    def expectations(self, prior: DiffusionPrior, count: int) -> list[tuple[float, Tensor]]:
        """The model's predictions from ``count`` draws at every keypoint, noisiest first (VIPaint, figure 1).

        Their cost is added to ``evaluations``.

        Returns:
            The time of each keypoint with E[z_0 | z] decoded, ``[count, channels, height, width]``.
        """
        counted, streams = CountedPrior(prior), NoiseStreams(0, range(count))
        here = self.to(prior.device, prior.dtype)
        with torch.no_grad():
            predictions = [
                (keypoint.time, counted.decode(counted.denoise(keypoint.z, keypoint.time)))
                for keypoint in here.walk(counted, streams)
            ]
        self.evaluations = self.evaluations + counted.evaluations
        return predictions

    def check(self, prior: DiffusionPrior) -> None:
        """Refuse a prior that this posterior was not fitted with.

        Raises:
            InputError: the latent shape, the noise schedule or the model differ.
        """
        fitted, found = self.metadata, describe(prior)
        size, model = "use a picture of the size it was fitted to", "load the model it was fitted with"
        same_file = "weights_file" in found and fitted.get("weights_file") == found["weights_file"]
        shape = json.dumps(list(self.latent_shape))
        for key, was, same, remedy in (
            ("latent_shape", shape, shape == found["latent_shape"], size),
            ("latent_shape", fitted.get("latent_shape"), fitted.get("latent_shape") == found["latent_shape"], size),
            ("schedule", fitted.get("schedule"), same_schedule(fitted.get("schedule", ""), found["schedule"]), model),
            ("prior", fitted.get("prior"), same_file or fitted.get("prior") == found["prior"], model),
        ):
            if not same:
                raise InputError(
                    f"the posterior was fitted for {key} {was!r}, here it is {found[key]!r}: {remedy}, or fit again"
                )

    def check_observation(self, observation: Observation) -> None:
        """Refuse an observation that this posterior was not fitted to.

        Raises:
            InputError: measurements, operator or likelihood differ.
        """
        if self.metadata.get("observation", observation.digest) != observation.digest:
            raise InputError("observation is not the one of the fit: use that observation, or fit again")

    def to(self, device: torch.device, dtype: torch.dtype) -> HierarchicalPosterior:
        """A copy with its tensors on ``device`` in ``dtype``; history and metadata are shared."""
        mu, tau, gamma = (tensor.to(device, dtype) for tensor in self._tensors)
        copy = HierarchicalPosterior(self.times, mu, tau, gamma, self.eta, self.family, self.components)
        copy.metadata, copy.history, copy.evaluations = self.metadata, self.history, self.evaluations
        return copy

    def serialised(self) -> bytes:
        """The content of a safetensors file whose metadata can be read without loading it."""
        header = dict(self.metadata, format=FORMAT, times=json.dumps(self.times), eta=json.dumps(self.eta))
        header |= {"history": json.dumps(self.history), "evaluations": json.dumps(vars(self.evaluations))}
        header |= {"family": self.family, "components": str(self.components)}
        tensors = [tensor.detach().cpu().contiguous() for tensor in self._tensors]
        return _in_order(save(dict(zip(_TENSORS, tensors, strict=True)), header))

    def save(self, path: str | Path) -> None:
        """Write :meth:`serialised` to a file, whole or not at all.

        Raises:
            OSError: it cannot be written. What was at ``path`` is unchanged.
        """
        part = Path(path).with_name(f".vipaint-{uuid.uuid4().hex}.part")
        try:
            part.write_bytes(self.serialised())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> HierarchicalPosterior:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: the file is missing, damaged, or not a posterior.
        """
        if not os.path.isfile(path):
            raise InputError(f"posterior file {path} does not exist, or is no file")
        try:
            with safe_open(str(path), "pt") as file:
                header = dict(file.metadata() or {})
                if header.pop("format", None) != FORMAT:
                    raise InputError(f"{path} is not a VIPaint posterior (its format is not {FORMAT!r})")
                mu, tau, gamma = (file.get_tensor(name) for name in _TENSORS)
            times, eta = json.loads(header.pop("times")), json.loads(header.pop("eta"))
            history, evaluations = json.loads(header.pop("history")), json.loads(header.pop("evaluations"))
            family, components = header.pop("family", "gated"), int(header.pop("components", "1"))
            posterior = cls(times, mu, tau, gamma, eta, family, components)
            posterior.history, posterior.evaluations = history, Evaluations(**evaluations)
            posterior._check_content(path)
        except InputError:
            raise
        except _UNREADABLE as error:
            raise InputError(f"{path} is not a readable posterior file ({error}): fit and save it again") from error
        posterior.metadata = header
        return posterior

    def _check_content(self, path: str | Path) -> None:
        if self.family not in FAMILIES:
            raise InputError(f"{path} holds a posterior of the unknown family {self.family!r}; fit it again")
        if not 1 <= self.components <= _MOST_COMPONENTS:
            raise InputError(f"{path} is damaged: it has {self.components} components; fit it again")
        shape = (len(self.times), *((self.components,) if self.components != 1 else ()), *self.latent_shape)
        try:
            check_times(self.times)
            check_tensors(dict(zip(_TENSORS, self._tensors, strict=True)), _LARGEST_PARAMETER)
        except InputError as error:
            raise InputError(f"{path} is damaged: {error}; fit it again") from error
        if any(tensor.shape != shape or tensor.ndim < 2 for tensor in self._tensors):
            raise InputError(f"{path} is damaged: its tensors disagree in shape; fit it again")
        if not self.log_stds.abs().max() <= _LARGEST_LOG_STD:
            raise InputError(f"{path} is damaged: its log_stds are beyond {_LARGEST_LOG_STD}; fit it again")
        numbers = [self.eta, *(v for record in self.history for v in record.values())]
        counts = [*vars(self.evaluations).values()]
        if not isinstance(self.history, list) or not all(map(is_finite, numbers)) or not 0 <= self.eta <= 1:
            raise InputError(f"{path} is damaged: its eta or history are not finite numbers; fit it again")
        if not all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= _MOST_ROWS for v in counts):
            raise InputError(f"{path} is damaged: its evaluations are not counts; fit it again")


def _in_order(content: bytes) -> bytes:
    """A safetensors file with its metadata by name. The package writes them in an order that differs by run."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[end:]


def is_posterior(path: str | Path) -> bool:
    """Whether a file has the format of a posterior in its metadata."""
    if not os.path.isfile(path):
        return False
    try:
        with safe_open(str(path), "pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (OSError, SafetensorError, UnicodeError):
        return False


def log_ratio(walk: list[Keypoint], data_std: float) -> Tensor:
    """ln p - ln q of walks down the hierarchy, ``[batch]``, in nats, in float64 on the CPU.

    At T_e the prior is taken as N(0, alpha^2 data_std^2 + sigma^2): there is almost only noise.
    """
    total = torch.zeros(len(walk[0].z), dtype=torch.float64)
    for k in walk:
        level = k.level
        variance = (level.alpha * data_std) ** 2 + level.sigma**2 if k.p_mean is None else k.p_variance
        p = torch.distributions.Normal(0.0 * k.z if k.p_mean is None else k.p_mean, variance**0.5)
        q = torch.distributions.Normal(k.q_mean, k.q_log_std.exp())
        total += exact((p.log_prob(k.z) - q.log_prob(k.z)).flatten(1)).sum(1)
    return total


def describe(prior: DiffusionPrior) -> dict[str, str]:
    """The record of a prior in a posterior's metadata."""
    record = {
        "latent_shape": json.dumps(list(prior.latent_shape)),
        "schedule": prior.schedule.description,
        "prior": prior.identity,
    }
    file = getattr(prior, "weights_file", None)
    return record | {"weights_file": file} if file else record
