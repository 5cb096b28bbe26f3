"""A denoiser and a measurement linearised at a noisy latent: products and solves with Tweedie's covariance.

With zh = E[z_0 | z_t], C = (sigma_t^2 / alpha_t) d zh / d z_t is the covariance of z_0 given z_t (Tweedie's second
moment; under classifier-free guidance that of the condition's prediction), and J = A dD is the operator A seen through
the decoder D. Products with C and J are finite differences of the networks: C is symmetric, so no gradient of the
denoiser is needed. Products with J^T are one backward pass through the decoder, or none with a linear decoder.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior
from ..diffusion.schedule import Level
from ..errors import InputError
from ..measurement.observation import Observation

SOLVER_TOLERANCE = 1e-3


def clean_variance(level: Level, data_std: float) -> float:
    """Variance of z_0 given z_t for independent N(0, data_std^2) latents (PiGDM, eq. 7 and appendix)."""
    return (data_std * level.sigma) ** 2 / ((data_std * level.alpha) ** 2 + level.sigma**2)


def column(value: Tensor, like: Tensor) -> Tensor:
    """``[batch]`` shaped to multiply ``like``."""
    return value.view(-1, *[1] * (like.ndim - 1))


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each sample, ``[batch]``."""
    return (a * b).flatten(1).sum(1)


def exact(x: Tensor) -> Tensor:
    """``x`` in float64 on the CPU, for small solves: some devices (Apple MPS) have no float64."""
    return x.cpu().double()


def back(x: Tensor, like: Tensor) -> Tensor:
    """A result of :func:`exact` tensors with the dtype, device and shape of ``like``."""
    return x.to(like.dtype).to(like.device).view_as(like)


class Linearised:
    """Denoiser and measurement linearised at z_t: products with C, C J^T, J and S, rows weighed by ``root``.

    Args:
        isotropic: C = r^2 I with r^2 of :func:`clean_variance`, without the denoiser.
        exact: J is the decoder's own although there is a linear decoder.
    """

    step = 0.3
    """Length of finite differences, in standard deviations: of z_0 given z_t (decoder), of the noise (denoiser).

    Long on purpose: half precision hides a shorter one, and a chain that is not weighed does better with the slope over
    the spread of the noise than with the derivative.
    """
    root: Tensor | float = 1.0
    """sqrt(w) of each measurement."""

    def __init__(
        self,
        prior: CountedPrior,
        observation: Observation,
        z: Tensor,
        t: float,
        isotropic: bool = False,
        exact: bool = False,
    ):
        self._prior, self._observation, self._isotropic = prior, observation, isotropic
        self._z, self._t, self._level = z, t, prior.schedule.level(t)
        self._linear = None if exact else prior.linear
        self.variance = clean_variance(self._level, prior.data_std)
        self.z0, self._conditional = prior.denoise_with_condition(z, t)
        with torch.set_grad_enabled(self._linear is None):
            self._source = self.z0.detach().requires_grad_()
            picture = prior.decode(self._source, exact)
            self._residual = observation.residual(picture)
        self.picture = picture.detach()

    @property
    def linear(self) -> bool:
        """Whether J is that of a linear decoder."""
        return self._linear is not None

    @property
    def residual(self) -> Tensor:
        """y - A D(zh)."""
        return self.root * self._residual.detach()

    @cached_property
    def noise_variance(self) -> Tensor:
        """Variance of each measurement given z_0: sigma_y^2, and the error of a linear J for a draw of z_0."""
        own = torch.full_like(self._observation.y, self._observation.noise_std**2)
        if self._linear is None:
            return own
        error = torch.full_like(self.picture[:1], self.variance * self._linear.error_variance)
        return own + self.root**2 * self._observation.operator.squared(error)

    def gain_times(self, u: Tensor) -> Tensor:
        """C J^T u."""
        if self._linear is not None:
            return self.covariance_times(self._linear.adjoint(self._adjoint(u), self.z0))
        (v,) = torch.autograd.grad(self._residual, self._source, -self.root * u, retain_graph=True)
        return self.covariance_times(v)

    def covariance_times(self, v: Tensor) -> Tensor:
        """C v: r^2 v, or a finite difference of the denoiser."""
        if self._isotropic:
            return self.variance * v
        length = self._length(self._level.sigma, v)
        moved = self._prior.denoise_condition(self._z + length * v, self._t)
        return self._level.sigma**2 / self._level.alpha * (moved - self._conditional) / length

    def forward(self, v: Tensor) -> Tensor:
        """J v: of the linear decoder, or a finite difference."""
        if self._linear is not None:
            return self._seen(self._linear.product(v))
        length = self._length(self.variance**0.5, v)
        with torch.no_grad():
            moved = self.root * self._observation.residual(self._prior.decode(self.z0 + length * v))
        return (self.residual - moved) / column(length.flatten(), moved)

    def _length(self, deviation: float, v: Tensor) -> Tensor:
        """The factor on ``v`` of a finite difference."""
        return self.step * deviation / column((v**2).flatten(1).mean(1).sqrt().clamp(min=1e-30), v)

    def precondition(self, u: Tensor) -> Tensor:
        """(r^2 A (L L^T + E) A^T + sigma_y^2)^-1 u, L the linear decoder; ``u`` itself without one.

        Rows are not weighed here: with r^2 I for C, every outlier would be explained. Conjugate gradients run in
        float64 where every device of its kind has it: in float32 they amplify rounding until a sample depends on its
        batch.
        """
        if self._linear is None:
            return u
        dtype = torch.float64 if u.device.type in ("cpu", "cuda") else u.dtype
        linear, observation = self._linear.to(dtype), self._observation.to(u.device, dtype)
        like = self.z0.to(dtype)

        def product(x: Tensor) -> Tensor:
            picture = observation.operator.adjoint(torch.where(observation.observed, x, 0.0))
            explained = linear.product(linear.adjoint(picture, like)) + linear.error_times(picture)
            seen = torch.where(observation.observed, observation.operator(explained), 0.0)
            return self.variance * seen + observation.noise_std**2 * x

        return conjugate_gradients(product, u.to(dtype)).to(u.dtype)

    def noise_times(self, u: Tensor) -> Tensor:
        """N u: sigma_y^2 u, and r^2 A E A^T u with the covariance E of the error of a linear decoder.

        E is correlated within the block of a cell: L alone would take the average over a block for precise.
        """
        own = self._observation.noise_std**2 * u
        if self._linear is None:
            return own
        return own + self.variance * self._seen(self._linear.error_times(self._adjoint(u)))

    def _adjoint(self, u: Tensor) -> Tensor:
        """A^T of measurements."""
        return self._observation.operator.adjoint(torch.where(self._observation.observed, self.root * u, 0.0))

    def _seen(self, picture: Tensor) -> Tensor:
        """A of a change of the picture, where there are measurements."""
        seen = self._observation.operator(picture)
        return self.root * torch.where(self._observation.observed, seen, 0.0)

    def draw(self, noise: Tensor, iterations: int) -> Tensor:
        """C^(1/2) ``noise`` by Lanczos with full orthogonalisation (Chow & Saad 2014, section 3).

        Where the Krylov space ends early, the next vector is rounding error and is dropped. It ends at once for r^2 I.
        """
        if self._isotropic:
            return self.variance**0.5 * noise
        rounding = 1e3 * torch.finfo(noise.dtype).eps
        norm = dot(noise, noise).sqrt()
        basis = [noise / column(norm, noise)]
        products: list[Tensor] = []
        for _ in range(iterations):
            products.append(self.covariance_times(basis[-1]))
            rest = products[-1]
            for vector in basis + basis:
                rest = rest - column(dot(rest, vector), vector) * vector
            left, whole = dot(rest, rest).sqrt(), dot(products[-1], products[-1]).sqrt()
            inverse = torch.where(left > rounding * whole, 1 / left, 0.0)
            basis.append(column(inverse, rest) * rest)
        v = _rows(basis[:-1])
        h = (v @ _rows(products).mT).cpu()
        eigenvalues, eigenvectors = torch.linalg.eigh((h + h.mT) / 2)
        first = eigenvectors[:, 0, :] * eigenvalues.clamp(min=0).sqrt()
        combined = torch.einsum("bij,bj->bi", eigenvectors, first).to(noise.device)
        return (norm[:, None] * torch.einsum("bid,bi->bd", v, combined)).view_as(noise)


class KrylovSpace:
    """Moves of z_0 that explain residuals, in a small Krylov space of S = J C J^T + N grown from ``vector``.

    N is :meth:`Linearised.noise_times`; the small problem takes its diagonal. With a linear decoder the space is
    preconditioned by :meth:`Linearised.precondition`, which is S^-1 itself where C = r^2 I. On moves delta = C J^T P c,
    spanned by an orthonormal basis P of the space, the energy delta^T C^-1 delta is c^T (P^T J C J^T P) c: no inverse
    of C is needed, and |residual - J delta|^2 / N + energy is a small least-squares problem. Unlike conjugate gradients
    it never makes the residual worse, whatever the asymmetry of a network's Jacobian; where the energy comes out
    negative it is taken as zero.
    """

    def __init__(self, model: Linearised, vector: Tensor, dimension: int):
        self._model, self._next = model, vector
        self._basis: list[Tensor] = []
        self._moves: list[Tensor] = []
        self._images: list[Tensor] = []
        self._noises: list[Tensor] = []
        self.grow(dimension)

    def grow(self, dimension: int) -> None:
        """Add ``dimension`` vectors to the space; each costs one product with C J^T and one with J."""
        model, noise_variance = self._model, self._model.noise_variance
        for _ in range(dimension):
            vector = model.precondition(self._next)
            for other in self._basis + self._basis:
                vector = vector - column(dot(vector, other), vector) * other
            vector = vector / column(dot(vector, vector).sqrt().clamp(min=1e-30), vector)
            self._basis.append(vector)
            self._moves.append(model.gain_times(vector))
            self._images.append(model.forward(self._moves[-1]))
            self._noises.append(model.noise_times(vector))
            self._next = self._images[-1] + self._noises[-1]
        moves, images, basis = (exact(_rows(v)) for v in (self._moves, self._images, self._basis))
        noise = exact(noise_variance).flatten(1)[:, None]
        energy = basis @ images.mT
        eigenvalues, eigenvectors = torch.linalg.eigh((energy + energy.mT) / 2)
        energy = (eigenvectors * eigenvalues.clamp(min=0)[:, None, :]) @ eigenvectors.mT
        self._weighed = images / noise
        normal = self._weighed @ images.mT + energy
        ridge = 1e-10 * normal.diagonal(dim1=1, dim2=2).mean(1) + 1e-30
        self._normal = normal + torch.diag_embed(ridge[:, None].expand(-1, len(self._basis)))
        self._move_rows, self._products = moves, images + exact(_rows(self._noises))

    def solve(self, residual: Tensor) -> Tensor:
        """C J^T S^-1 ``residual``, as nearly as the space allows: a move of z_0."""
        return back(self._weights(residual) @ self._move_rows, self._model.z0)

    def unexplained(self, residual: Tensor) -> Tensor:
        """``residual`` - S S^-1 ``residual``, with the S^-1 of this space: shaped like ``residual``."""
        return residual - back(self._weights(residual) @ self._products, residual)

    def _weights(self, residual: Tensor) -> Tensor:
        return torch.linalg.solve(self._normal, self._weighed @ exact(residual).flatten(1)[..., None]).mT


def conjugate_gradients(product: Callable[[Tensor], Tensor], u: Tensor, iterations: int = 25) -> Tensor:
    """The x with ``product(x)`` = ``u`` for a symmetric positive matrix, each row for itself.

    A row stops at a residual of 1e-3 of ``u``, or after ``iterations``.
    """
    x, residual, direction = torch.zeros_like(u), u, u
    size = whole = dot(u, u)
    for _ in range(iterations):
        running = size > SOLVER_TOLERANCE**2 * whole
        if not running.any():
            break
        image = product(direction)
        step = column(torch.where(running, size / dot(direction, image), 0.0), u)
        x, residual = x + step * direction, residual - step * image
        before, size = size, dot(residual, residual)
        direction = residual + column(torch.where(running, size / before, 0.0), u) * direction
    return x


def _rows(vectors: list[Tensor]) -> Tensor:
    """Vectors of a batch as the rows of ``[batch, count, size]``."""
    return torch.stack([v.flatten(1) for v in vectors], 1)


def require_gradients(observation: Observation) -> None:
    """Refuse to run where no gradient can be taken.

    Raises:
        InputError: the call is under ``torch.inference_mode``, or the observation was made under it.
    """
    if torch.is_inference_mode_enabled():
        raise InputError("gradients are switched off by torch.inference_mode(): call it outside of that context")
    if observation.y.is_inference():
        raise InputError("y was made under torch.inference_mode(), and gradients cannot use it: give y.clone()")
