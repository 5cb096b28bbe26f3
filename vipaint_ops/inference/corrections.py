r"""Corrections of the denoiser's prediction by an observation: DPS, pseudo-inverse and Kalman.

A correction is a frozen dataclass that is called at every step of a reverse chain (:class:`Correction`). Any callable
of that signature can take its place.

The three differ in their covariance of z_0 given z_t, C = (sigma_t^2 / alpha_t) d zh / d z_t (Tweedie's second moment),
seen through the decoder D and the operator A, J = A dD:

    E[z_0 | z_t, y] = zh + C J^T S^-1 (y - A D(zh)),    S = J C J^T + sigma_y^2.

Robust noise is Gaussian noise with a variance sigma_y^2 / w of its own for each measurement, where w follows from the
residual (:mod:`vipaint_ops.measurement.likelihood`). Rows of y - A D(zh) and J times sqrt(w) have the variance
sigma_y^2 again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior
from ..diffusion.schedule import Level, ReverseStep, reverse_kernel
from ..diffusion.streams import NoiseStreams
from ..measurement.observation import Observation
from ..settings import Settings, choice, number
from .linearised import KrylovSpace, Linearised, clean_variance, column, dot

COVARIANCES = ("tweedie", "isotropic")
GRADIENTS = ("denoiser", "decoder", "chain")
"""Gradients that a method can need: of the denoiser, of the decoder; "chain" if one goes through both."""


@dataclass(frozen=True)
class Corrected:
    """A prediction of z_0, and the same corrected by the observation, ``[batch, *latent_shape]`` each.

    Attributes:
        prediction: E[z_0 | z_t], of the denoiser.
        z0: E[z_0 | z_t, y] or, with spread, a draw from p(z_0 | z_t, y).
        eta: factor on the eta of the reverse step from here.
    """

    prediction: Tensor
    z0: Tensor
    eta: float = 1.0


class Correction(Protocol):
    """Corrects the prediction at one step of a reverse chain."""

    def __call__(
        self,
        prior: CountedPrior,
        observation: Observation,
        z: Tensor,
        step: ReverseStep,
        streams: NoiseStreams,
    ) -> Corrected:
        """Correct E[z_0 | z] for ``z`` at ``step.t``, ``[batch, *latent_shape]``; row k uses stream k alone."""
        ...

    def differentiates(self, decoder: str) -> frozenset[str]:
        """The gradients that are taken (:data:`GRADIENTS`), with a decoder of that name."""
        ...


@dataclass(frozen=True)
class DPS(Settings):
    """A step down the gradient of the residual's norm (Chung et al. 2023, eq. 16 and algorithm 1).

    The norm is taken of each sample, never of the batch.

    Attributes:
        scale: step size zeta (published: 0.3 to 1 at 1000 steps).
    """

    scale: float = number(1.0, 0)

    def __call__(self, prior, observation, z, step, streams) -> Corrected:
        """See :class:`Correction`."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            z0 = prior.denoise(z, step.t)
            picture = prior.decode(z0)
            root = root_weights(prior, observation, z0.detach(), picture.detach(), step.level, streams)
            norm = (root * observation.residual(picture)).flatten(1).norm(dim=1)
            (gradient,) = torch.autograd.grad(norm.sum(), z)
        length = self.scale / reverse_kernel(step.next, step.level).on_z0
        return Corrected(z0.detach(), z0.detach() - length * gradient)

    def differentiates(self, decoder: str) -> frozenset[str]:
        """See :class:`Correction`."""
        return frozenset(GRADIENTS if decoder == "exact" else ["denoiser"])


@dataclass(frozen=True)
class PseudoInverse(Settings):
    """PiGDM (Song et al. 2023, eq. 6-8): S = r^2 A A^T + sigma_y^2 with one variance r^2 for all latents.

    Where n pixels share k latents, the decoder's J J^T has k eigenvalues, each n / k times its mean diagonal entry, and
    no others. S is built from these.
    """

    def __call__(self, prior, observation, z, step, streams) -> Corrected:
        """See :class:`Correction`."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            prediction = prior.denoise(z, step.t)
            decoded = prior.decode(prediction)
            residual = observation.residual(decoded)
        z0, picture = prediction.detach(), decoded.detach()
        variance = clean_variance(step.level, prior.data_std)
        gain = decoder_gain(prior, z0, picture, variance**0.5, streams)
        shared = max(1.0, picture[0].numel() / z0[0].numel())
        seen = observation.operator.squared((shared * variance * gain).expand_as(picture))
        root = root_weights(prior, observation, z0, picture, step.level, streams)
        weighed = root**2 * residual.detach() / (root**2 * seen + observation.noise_std**2)
        (gradient,) = torch.autograd.grad(residual, z, -weighed)
        return Corrected(z0, z0 + step.level.sigma**2 / step.level.alpha * gradient)

    def differentiates(self, decoder: str) -> frozenset[str]:
        """See :class:`Correction`."""
        return frozenset(GRADIENTS if decoder == "exact" else ["denoiser"])


@dataclass(frozen=True)
class CatchUp(Settings):
    """A longer move where a chain has fallen behind its observation.

    A small Krylov space explains only a part of a network's residuals, so a chain falls behind step by step. The
    residual should look like the draw J e + n. The parts of both outside the space have many directions, so their
    squares hardly vary by chance (on a Gaussian prior they agree within a tenth). Where the residual's is larger, the
    mean's move is lengthened, the more the larger the part outside the space is. This is a heuristic, not a law.

    Attributes:
        tolerated: ratio of the two squares that counts as chance.
        power: of the ratio beyond that.
        most: largest factor on the move; 1 for none.
    """

    tolerated: float = number(1.2, 0, open=True)
    power: float = number(4.0, 0)
    most: float = number(16.0, 1)

    def factor(self, krylov: KrylovSpace, residual: Tensor, predicted: Tensor) -> Tensor:
        """The factor on the mean's move, ``[batch]``, in the space grown from ``residual`` - ``predicted``."""
        innovation = residual - predicted
        left, chance, common = (dot(u, u) for u in map(krylov.unexplained, (residual, predicted, innovation)))
        behind = (left / (self.tolerated * chance).clamp(min=1e-30)) ** self.power
        return 1 + common / dot(innovation, innovation) * (behind.clamp(1, self.most) - 1)


@dataclass(frozen=True)
class Kalman(Settings):
    """The Kalman update with Tweedie's covariance, and a draw from the covariance that it leaves.

    It has no step size, and is exact for a Gaussian prior (TMPD, Boys et al. 2023, gives the mean).

    Attributes:
        covariance: C, the covariance of z_0 given z_t. "tweedie" is that of the denoiser, one forward pass a product;
            "isotropic" is r^2 I with r^2 of PiGDM (Song et al. 2023).
        isotropic_below: noise-to-signal ratio sigma / (alpha data_std) below which C is r^2 I in any case.
        exact_below: noise-to-signal ratio below which J is the decoder's own, not that of a linear decoder.
        solver_iterations: dimension of the Krylov space in which S is inverted; up to twice as many where no spread is
            drawn and a large part of the residual lies outside the space.
        unexplained: that part, as a share of the residual's square, above which the space grows.
        linear_iterations: dimension of the space with a linear decoder, which preconditions it. It does not grow.
        spread_iterations: Lanczos iterations of a draw from N(0, C); 0 adds no spread.
        spread_above: noise-to-signal ratio below which no spread is added. There it would be fine noise that the few
            solver iterations cannot keep out of the observed part.
        spread_eta: factor on the eta of reverse steps where spread is drawn. From a draw of z_0 every eta leads to the
            same law, and more fresh noise removes more of the errors of earlier steps.
        most_fresh: largest share of a step's noise that ``spread_eta`` may draw afresh. Chains of a network can diverge
            where a long step draws all of it.
        catch_up: for chains that fall behind, where spread is drawn.
    """

    covariance: str = choice("tweedie", COVARIANCES)
    isotropic_below: float = number(0.3, 0)
    exact_below: float = number(0.06, 0)
    solver_iterations: int = number(3, 1)
    unexplained: float = number(0.05, 0)
    linear_iterations: int = number(2, 1)
    spread_iterations: int = number(2, 0)
    spread_above: float = number(0.5, 0)
    spread_eta: float = number(1.5, 1)
    most_fresh: float = number(0.91, 0, 1)
    catch_up: CatchUp = field(default_factory=CatchUp)

    def __call__(self, prior, observation, z, step, streams) -> Corrected:
        """See :class:`Correction`."""
        ratio = step.level.sigma / (prior.data_std * step.level.alpha)
        isotropic = self.covariance == "isotropic" or ratio < self.isotropic_below
        model = Linearised(prior, observation, z, step.t, isotropic, ratio < self.exact_below)
        model.root = root_weights(prior, observation, model.z0, model.picture, step.level, streams)
        if self.spread_iterations == 0 or ratio <= self.spread_above:
            return Corrected(model.z0, model.z0 + self._mean_move(model))
        spread = model.draw(streams.normal(z), self.spread_iterations)
        noise = torch.where(observation.observed, observation.noise_std * streams.normal(model.residual), 0.0)
        predicted = model.forward(spread) + noise
        krylov = KrylovSpace(model, model.residual - predicted, self._dimension(model))
        factor = self.catch_up.factor(krylov, model.residual, predicted)
        return Corrected(model.z0, model.z0 + matheron(model, krylov, spread, predicted, factor), self._eta(step))

    def differentiates(self, decoder: str) -> frozenset[str]:
        """See :class:`Correction`."""
        return frozenset({"decoder"} if decoder == "exact" or self.exact_below > 0 else ())

    def _dimension(self, model: Linearised) -> int:
        # The preconditioner of a linear decoder takes all measurements for equally precise.
        preconditioned = model.linear and isinstance(model.root, float)
        return self.linear_iterations if preconditioned else self.solver_iterations

    def _mean_move(self, model: Linearised) -> Tensor:
        """C J^T S^-1 (y - A D(zh)); the Krylov space of an exact J doubles where much of the residual is outside it."""
        residual = model.residual
        krylov = KrylovSpace(model, residual, self._dimension(model))
        move = krylov.solve(residual)
        if model.linear:
            return move
        left = krylov.unexplained(residual)
        unfinished = dot(left, left) > self.unexplained * dot(residual, residual)
        if unfinished.any():
            krylov.grow(self.solver_iterations)
            move = torch.where(column(unfinished, move), krylov.solve(residual), move)
        return move

    def _eta(self, step: ReverseStep) -> float:
        variance = reverse_kernel(step.next, step.level).variance
        fresh = self.most_fresh * step.next.sigma**2 / max(variance, 1e-30)
        return max(1.0, min(self.spread_eta, fresh**0.5))


CORRECTIONS: dict[str, Correction] = {"kalman": Kalman(), "pseudo_inverse": PseudoInverse(), "dps": DPS()}
"""The corrections by name, with their defaults."""


def matheron(model: Linearised, krylov: KrylovSpace, spread: Tensor, predicted: Tensor, factor: Tensor) -> Tensor:
    """Matheron's rule: e + C J^T S^-1 (y - A D(zh) - J e - n), the mean's part of the move times ``factor``.

    With e ~ N(0, C), n ~ N(0, sigma_y^2) and ``factor`` 1, zh plus this is a draw from
    N(E[z_0 | z_t, y], Cov[z_0 | z_t, y]): the exact law for a Gaussian prior.

    Args:
        spread: e, ``[batch, *latent_shape]``.
        predicted: J e + n, shaped like the residual.
        factor: ``[batch]``.
    """
    return spread + column(factor, spread) * krylov.solve(model.residual) - krylov.solve(predicted)


def decoder_gain(prior: CountedPrior, z0: Tensor, picture: Tensor, std: float, streams: NoiseStreams) -> Tensor:
    """Variance of the picture for unit variance of the latent around ``z0``, shaped to multiply ``picture``.

    ``picture`` is the decoded ``z0``. The gain is one number a sample, 1 for an identity decoder.
    That of a linear decoder is the same everywhere.
    """
    if prior.linear is not None:
        return column(torch.full_like(dot(z0, z0).detach(), prior.linear.gain), picture)
    with torch.no_grad():
        noise = std * streams.normal(z0)
        moved = prior.decode(z0 + noise) - picture
        return column((moved**2).flatten(1).mean(1) / (noise**2).flatten(1).mean(1), picture)


def root_weights(
    prior: CountedPrior,
    observation: Observation,
    z0: Tensor,
    picture: Tensor,
    level: Level,
    streams: NoiseStreams,
) -> Tensor | float:
    """sqrt(w) of each measurement; 1 for Gaussian noise.

    Errors of the prediction are taken as equal all over the picture, so that a blur does not average them away. If
    weights drop too early, the chain does not recover.
    """
    if not observation.likelihood.robust:
        return 1.0
    variance = clean_variance(level, prior.data_std)
    gain = decoder_gain(prior, z0, picture, variance**0.5, streams)
    predicted = observation.operator((variance * gain).sqrt().expand_as(picture)) ** 2
    return observation.likelihood.weights(observation.residual(picture), observation.noise_std**2, predicted).sqrt()
