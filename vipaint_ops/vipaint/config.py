"""Settings of a fit and of the refinement, and the two published ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

from ..diffusion.schedule import are_descending
from ..errors import InputError
from ..inference.corrections import GRADIENTS, Correction, Kalman
from ..inference.decoder import DECODERS
from ..inference.known import replaces_pixels
from ..inference.perceptual import Distance, check_perceptual
from ..measurement.observation import Observation
from ..settings import Settings, choice, number

PUBLISHED = ("published_v1", "published_v2")
OBJECTIVES = ("bound", "layouts", *PUBLISHED)
CHAINS = ("guided", "ding", *PUBLISHED)


@dataclass(frozen=True)
class FitConfig(Settings):
    """Settings of a fit; the defaults are the best ones measured (docs/results.md).

    :meth:`published_v1` and :meth:`published_v2` are the two published settings (docs/published.md).

    Attributes:
        keypoints: times T_e > ... > T_s in (0, 1]; none places them at ``keypoint_ratios``.
        keypoint_ratios: noise-to-signal ratios sigma / (alpha data_std) of the keypoints.
        iterations: gradient steps; 0 keeps the guided start.
        samples: Monte-Carlo walks per step.
        batch_size: chains of the start, and walks of the objective "bound", computed together.
        mean_rate, log_std_rate, gate_rate: Adam's learning rates; the means' is in units of data_std.
        betas: Adam's.
        rate_decay: factor on all learning rates after every ten iterations.
        start_chains, start_steps: the guided run that gives the initial parameters, for the objective "bound".
        guidance: of that run.
        components: number of posteriors, each around its own draw; their mixture is sampled. See :meth:`several`.
        eta: of the prior's transitions; 1 is exact ancestral sampling.
        objective: the loss and its start, a name in :data:`OBJECTIVES`.
        bound_every: iterations between evaluations of the whole bound, for the curves of the objective "bound"; 0 for
            never.
        checkpointing: recompute activations in the backward pass, to save memory.
        decoder: as in :class:`~vipaint_ops.samplers.config.SamplerConfig`.
        perceptual_weight: of a perceptual distance added to the likelihood's term (the published fits': 100 in v1,
            which adds it for inpainting, 0 in v2); 0 for none.
        perceptual: the distance; none for LPIPS from the package lpips.
    """

    keypoints: tuple[float, ...] | None = None
    keypoint_ratios: tuple[float, ...] = (13.0, 8.0)
    iterations: int = number(0, 0)
    samples: int = number(4, 1)
    batch_size: int = number(8, 1)
    mean_rate: float = number(0.05, 0)
    log_std_rate: float = number(0.02, 0)
    gate_rate: float = number(0.03, 0)
    betas: tuple[float, float] = (0.9, 0.99)
    rate_decay: float = number(1.0, 0, 1, open=True)
    start_chains: int = number(4, 2)
    start_steps: int = number(6, 1)
    guidance: Kalman = field(default_factory=lambda: Kalman(linear_iterations=1, spread_iterations=1))
    components: int = number(1, 1)
    eta: float = number(1.0, 0, 1, open=True)
    objective: str = "bound"
    bound_every: int = number(10, 0)
    checkpointing: bool = False
    decoder: str = choice("linear", DECODERS)
    perceptual_weight: float = 0.0
    perceptual: Distance | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.keypoints is not None:
            check_times(self.keypoints)
        ratios = self.keypoint_ratios
        finite = all(isinstance(ratio, (int, float)) and 0 < ratio < math.inf for ratio in ratios)
        if not ratios or not finite or any(a <= b for a, b in pairwise(ratios)):
            raise InputError(f"keypoint_ratios are {list(ratios)}; give one or more positive ones, decreasing")
        if len(self.betas) != 2 or not all(isinstance(b, (int, float)) and 0 <= b < 1 for b in self.betas):
            raise InputError(f"betas are {list(self.betas)}; give two numbers of at least 0 and below 1")
        if self.objective not in OBJECTIVES:
            raise InputError(f"objective is {self.objective!r}; choose one of {', '.join(OBJECTIVES)}")
        if self.components > 1 and self.objective in PUBLISHED:
            raise InputError(f"components is {self.components}; the setting {self.objective} fits one posterior: set 1")
        check_perceptual(self.perceptual_weight, self.perceptual)

    @property
    def differentiates(self) -> frozenset[str]:
        """The gradients that are taken, of :data:`~vipaint_ops.inference.corrections.GRADIENTS`."""
        if self.objective in PUBLISHED:
            return frozenset(GRADIENTS)
        if self.objective == "layouts":
            return frozenset({"denoiser"} if self.iterations else ())
        return self.guidance.differentiates(self.decoder) | ({"denoiser"} if self.iterations else frozenset())

    @property
    def largest_batch(self) -> int:
        """Rows that the networks can be given at once, whatever ``batch_size``: chains and walks, or layouts."""
        if self.objective == "layouts":
            return self.components
        return max(self.samples, self.start_chains if self.objective == "bound" else 0)

    @classmethod
    def several(cls, components: int = 64) -> FitConfig:
        """Components around finished draws, weighed by y with few measurements (docs/method.md, section 8).

        No optimisation: iterations gain nothing (docs/results.md). Use with at most 16 measurements, when several
        answers fit.
        """
        return cls(components=components, keypoint_ratios=(0.4,), start_steps=30)

    @classmethod
    def layouts(cls, components: int = 16) -> FitConfig:
        """Layouts of a hole, fitted to what the known latents say of them (docs/method.md, section 9). For masks.

        Refine it from there with the chain "ding" in few steps: samples are cheap.
        """
        return cls(
            components=components,
            keypoint_ratios=(1.5,),
            iterations=30,
            samples=1,
            mean_rate=0.1,
            start_steps=8,
            objective="layouts",
            decoder="exact",
        )

    @classmethod
    def published_v1(cls) -> FitConfig:
        """The first published setting: ImageNet-256 inpainting with two keypoints (see published/v1.py).

        Its eta multiplies a variance, so the standard deviation has its root; its rate of 0.001 is for ln tau^2.
        """
        return cls(
            keypoints=(0.55, 0.4),
            iterations=50,
            samples=5,
            mean_rate=0.1,
            log_std_rate=0.0005,
            gate_rate=0.01,
            rate_decay=0.99,
            eta=0.2**0.5,
            objective="published_v1",
            decoder="exact",
        )

    @classmethod
    def published_v2(cls) -> FitConfig:
        """The second published setting: SD3.5-large-turbo with two keypoints (see published/v2.py).

        ``log_std_rate`` is the rate of its raw tau. The ratios are sigma 0.751 and 0.502, steps 500 and 250 of 1000
        before the shift of 3.
        """
        return cls(
            keypoint_ratios=(3.012, 1.008),
            iterations=50,
            samples=1,
            mean_rate=0.2,
            log_std_rate=0.2,
            gate_rate=0.2,
            betas=(0.9, 0.999),
            objective="published_v2",
            decoder="exact",
        )


@dataclass(frozen=True)
class RefineConfig(Settings):
    """Settings of the refinement.

    :meth:`published_v1` and :meth:`published_v2` are the two published settings (docs/published.md).

    Attributes:
        guidance: the correction of every prediction, such as :class:`~vipaint_ops.inference.corrections.Kalman` (no
            step size, keeps the spread), ``PseudoInverse`` or ``DPS``, or one of your own.
        steps: reverse steps from T_s to the clean latent, even in log-SNR (the published chains: in time).
        eta: 1 for ancestral noise, 0 for none.
        attempts: chains per sample at most, with Kalman guidance. A sample whose residual exceeds noise and
            autoencoder error (:mod:`~vipaint_ops.vipaint.consistency`) is drawn again, and the one with the smallest
            residual is kept. 1 takes the first.
        batch_size: samples computed together. A population is never split.
        particles: size of the populations that samples are drawn in by sequential Monte Carlo, with Kalman guidance; 1
            draws each by itself. Particles of a population share ancestors. With few measurements they reach modes in
            proportion to their weight (docs/results.md). With many, weights degenerate and are tempered
            (:class:`~vipaint_ops.inference.results.Populations`).
        decoder: as in :class:`~vipaint_ops.samplers.config.SamplerConfig`.
        chain: a name in :data:`CHAINS`. "guided" corrects every prediction. "ding" takes DInG's transitions for masks,
            without ``eta``, ``attempts`` and the decoder, and is "guided" for other observations. The published chains
            ignore ``guidance``.
        perceptual_weight: of a perceptual distance added to the data term of the published chains (100 in v1, which
            adds it for inpainting, 1 in v2); 0 for none.
        perceptual: the distance; none for LPIPS from the package lpips.
    """

    guidance: Correction = field(default_factory=Kalman)
    steps: int = number(32, 1)
    eta: float = number(1.0, 0, 1)
    attempts: int = number(3, 1)
    batch_size: int = number(8, 1)
    particles: int = number(1, 1)
    chain: str = "guided"
    decoder: str = choice("linear", DECODERS)
    perceptual_weight: float = 0.0
    perceptual: Distance | None = None

    def __post_init__(self):
        super().__post_init__()
        if not callable(self.guidance):
            raise InputError(
                f"guidance is {self.guidance!r}; give a correction, such as Kalman(), PseudoInverse() or DPS() of "
                "vipaint_ops.inference.corrections"
            )
        if self.chain not in CHAINS:
            raise InputError(f"chain is {self.chain!r}; choose one of {', '.join(CHAINS)}")
        if self.particles > 1 and not (self.kalman and self.kalman.covariance == "tweedie" and self.eta == 1):
            raise InputError(
                f"particles is {self.particles} with guidance {self.guidance}, chain {self.chain!r} and eta "
                f"{self.eta:g}: particles need kalman guidance with covariance 'tweedie', and eta 1"
            )
        if self.perceptual_weight and self.chain not in PUBLISHED:
            raise InputError(
                f"perceptual_weight is {self.perceptual_weight}, and the chain {self.chain!r} has no term for it: set "
                "it to 0"
            )
        check_perceptual(self.perceptual_weight, self.perceptual)

    @property
    def kalman(self) -> Kalman | None:
        """The correction, if it is :class:`~vipaint_ops.inference.corrections.Kalman` and the chain uses it."""
        return self.guidance if self.chain == "guided" and isinstance(self.guidance, Kalman) else None

    def decoder_for(self, observation: Observation) -> str:
        """``decoder``, but "exact" where DInG's transitions take no gradient of it: no map is made."""
        return "exact" if self.chain == "ding" and replaces_pixels(observation) else self.decoder

    @property
    def differentiates(self) -> frozenset[str]:
        """The gradients that are taken, of :data:`~vipaint_ops.inference.corrections.GRADIENTS`."""
        published = self.chain in PUBLISHED
        return frozenset(GRADIENTS) if published else self.guidance.differentiates(self.decoder)

    @classmethod
    def published_v1(cls) -> RefineConfig:
        """The first published setting: 400 unit steps from T_s = 0.4 (see published/v1.py)."""
        return cls(chain="published_v1", steps=400, eta=0.2, decoder="exact")

    @classmethod
    def published_v2(cls) -> RefineConfig:
        """The second published setting: 249 unit steps from T_s = 0.25, before the shift (see published/v2.py)."""
        return cls(chain="published_v2", steps=249, eta=1.0, decoder="exact")


def check_times(times: tuple[float, ...]) -> None:
    """Refuse keypoints that are not decreasing times in (0, 1].

    Raises:
        InputError: see above.
    """
    if not are_descending(times):
        raise InputError(
            f"keypoints are {list(times)}; give one or more times in (0, 1], decreasing from T_e to T_s, "
            "such as 0.55,0.4"
        )
