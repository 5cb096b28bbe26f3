"""Settings of a fit and of the refinement, and the two published ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from ..diffusion.schedule import are_descending
from ..errors import InputError
from ..inference.corrections import CORRECTIONS, GuidanceConfig
from ..inference.perceptual import Distance, check_perceptual

OBJECTIVES = ("bound", "published_v1", "published_v2")
PUBLISHED = OBJECTIVES[1:]


@dataclass(frozen=True)
class FitConfig:
    """Settings of a fit; the defaults are the best ones measured (docs/results.md).

    :meth:`published_v1` and :meth:`published_v2` are the two published settings (docs/published.md).

    Attributes:
        keypoints: times T_e > ... > T_s in (0, 1]; none places them at ``keypoint_ratios``.
        keypoint_ratios: noise-to-signal ratios sigma / (alpha data_std) of the keypoints.
        iterations: gradient steps; 0 keeps the guided start.
        samples: Monte-Carlo walks per step.
        mean_rate, log_std_rate, gate_rate: Adam's learning rates; the means' is in units of data_std.
        betas: Adam's.
        rate_decay: factor on all learning rates after every ten iterations.
        start_chains, start_steps: the guided run that the parameters start from, where the objective is the bound.
        components: how many posteriors are fitted at once, each around a draw of its own; their mixture is sampled. See
            :meth:`several`.
        eta: of the prior's transitions; 1 is exact ancestral sampling.
        objective: what is descended, and from where: a name in :data:`OBJECTIVES`.
        bound_every: iterations between evaluations of the whole bound, for the curves, where the objective is the
            bound; 0 for never.
        checkpointing: recompute activations in the backward pass, to save memory.
        perceptual_weight: of a perceptual distance added to the likelihood's term (the published fits': 100 in v1,
            which adds it for inpainting, 0 in v2); 0 for none.
        perceptual: the distance; none for LPIPS from the package lpips.
    """

    keypoints: tuple[float, ...] | None = None
    keypoint_ratios: tuple[float, ...] = (13.0, 8.0)
    iterations: int = 50
    samples: int = 4
    mean_rate: float = 0.05
    log_std_rate: float = 0.02
    gate_rate: float = 0.03
    betas: tuple[float, float] = (0.9, 0.99)
    rate_decay: float = 1.0
    start_chains: int = 8
    start_steps: int = 8
    components: int = 1
    eta: float = 1.0
    objective: str = "bound"
    bound_every: int = 10
    checkpointing: bool = False
    perceptual_weight: float = 0.0
    perceptual: Distance | None = None

    def __post_init__(self):
        if self.keypoints is not None:
            check_times(self.keypoints)
        ratios = self.keypoint_ratios
        if not ratios or ratios[-1] <= 0 or any(a <= b for a, b in pairwise(ratios)):
            raise InputError(f"keypoint_ratios are {list(ratios)}; give one or more positive ones, decreasing")
        least_of = {"iterations": 0, "samples": 1, "start_chains": 2, "start_steps": 1, "components": 1}
        for name, least in least_of.items():
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if not 0 < self.eta <= 1:
            raise InputError(f"eta is {self.eta}; it must be above 0 and at most 1")
        if self.objective not in OBJECTIVES:
            raise InputError(f"objective is {self.objective!r}; choose one of {', '.join(OBJECTIVES)}")
        if self.components > 1 and self.objective != "bound":
            raise InputError(f"components is {self.components}; the setting {self.objective} fits one posterior: set 1")
        check_perceptual(self.perceptual_weight, self.perceptual)

    @classmethod
    def several(cls, components: int = 64) -> FitConfig:
        """Posteriors around finished draws, weighed by y where measurements are few (docs/method.md, section 8).

        They lie where a draw is told from its like, and gain nothing from iterations (docs/results.md).
        """
        return cls(components=components, keypoint_ratios=(0.4,), iterations=0, start_steps=30)

    @classmethod
    def fast(cls) -> FitConfig:
        """Half the iterations with half the walks, from a shorter start."""
        return cls(iterations=25, samples=2, start_chains=4, start_steps=6)

    @classmethod
    def published_v1(cls) -> FitConfig:
        """The first published setting: ImageNet-256 inpainting with two keypoints (see published_v1.py).

        Its eta multiplies a variance, so the standard deviation has its root; its rate of 0.001 is for ln tau^2.
        """
        return cls(
            keypoints=(0.55, 0.4), iterations=50, samples=5, mean_rate=0.1, log_std_rate=0.0005, gate_rate=0.01,
            rate_decay=0.99, eta=0.2**0.5, objective="published_v1",
        )  # fmt: skip

    @classmethod
    def published_v2(cls) -> FitConfig:
        """The second published setting: SD3.5-large-turbo with two keypoints (see published_v2.py).

        ``log_std_rate`` is the rate of its raw tau.
        """
        return cls(
            keypoint_ratios=(3.012, 1.008), iterations=50, samples=1, mean_rate=0.2, log_std_rate=0.2, gate_rate=0.2,
            betas=(0.9, 0.999), objective="published_v2",
        )  # fmt: skip


@dataclass(frozen=True)
class RefineConfig:
    """Settings of the refinement.

    :meth:`published_v1` and :meth:`published_v2` are the two published settings (docs/published.md).

    Attributes:
        guidance: "kalman" (no step size, keeps the spread), "pseudo_inverse" or "dps"; "published_v1" and
            "published_v2" take the published chains, whose constants are their own.
        steps: reverse steps from T_s to the clean latent, even in log-SNR (the published chains: in time).
        eta: 1 for ancestral noise, 0 for none.
        attempts: how many chains a sample may take, kalman guidance only: one that misses the observation by more than
            its noise and the autoencoder account for (:mod:`~vipaint_ops.vipaint.consistency`) is drawn again, and the
            one that misses it least is kept. 1 takes the first.
        batch_size: samples computed together; it changes memory, not results. A population is never split.
        particles: size of the populations that samples are drawn in by sequential Monte Carlo (kalman guidance); 1
            draws each by itself. Particles of one population share ancestors. With few measurements they reach modes
            in proportion to their weight (docs/results.md); with many, weights degenerate and are tempered
            (:class:`~vipaint_ops.inference.results.Populations` says how much).
        settings: of the correction.
        perceptual_weight: of a perceptual distance added to the data term of the published chains (100 in v1, which
            adds it for inpainting, 1 in v2); 0 for none.
        perceptual: the distance; none for LPIPS from the package lpips.
    """

    guidance: str = "kalman"
    steps: int = 28
    eta: float = 1.0
    attempts: int = 3
    batch_size: int = 8
    particles: int = 1
    settings: GuidanceConfig = field(default_factory=GuidanceConfig)
    perceptual_weight: float = 0.0
    perceptual: Distance | None = None

    def __post_init__(self):
        if self.guidance not in (known := [*CORRECTIONS, *PUBLISHED]):
            raise InputError(f"guidance is {self.guidance!r}; choose one of {', '.join(known)}")
        if self.steps < 1:
            raise InputError(f"steps is {self.steps}; it must be at least 1")
        if self.attempts < 1:
            raise InputError(f"attempts is {self.attempts}; it must be at least 1")
        if self.particles < 1:
            raise InputError(f"particles is {self.particles}; it must be at least 1")
        if self.particles > 1 and (self.guidance != "kalman" or self.eta != 1):
            raise InputError(
                f"particles is {self.particles} with guidance {self.guidance!r} and eta {self.eta:g}: particles need "
                "kalman guidance and eta 1"
            )
        if self.perceptual_weight and self.guidance in CORRECTIONS:
            raise InputError(
                f"perceptual_weight is {self.perceptual_weight}, and {self.guidance} guidance has no term for it: set "
                "it to 0"
            )
        check_perceptual(self.perceptual_weight, self.perceptual)

    @classmethod
    def published_v1(cls) -> RefineConfig:
        """The first published setting: 400 unit steps from T_s = 0.4 (see published_v1.py)."""
        return cls(guidance="published_v1", steps=400, eta=0.2)

    @classmethod
    def published_v2(cls) -> RefineConfig:
        """The second published setting: 249 unit steps from T_s = 0.25, before the shift (see published_v2.py)."""
        return cls(guidance="published_v2", steps=249, eta=1.0)


def check_times(times: tuple[float, ...]) -> None:
    """Refuse keypoints that are not decreasing times in (0, 1].

    Raises:
        InputError: as said.
    """
    if not are_descending(times):
        raise InputError(
            f"keypoints are {list(times)}; give one or more times in (0, 1], decreasing from T_e to T_s, "
            "such as 0.55,0.4"
        )
