"""Learning-rate schedules from Optax."""

import dataclasses

import jax.numpy as jnp
import optax

from transformer_jax.training.optimizers.base import LearningRate, schedules


@schedules.register("constant")
@dataclasses.dataclass(frozen=True)
class Constant(LearningRate):
  """Rises linearly for `warmup` steps, then stays at the peak.

  >>> rate = schedules.build("constant(warmup=10)").build(peak=1.0, steps=100, D=64)
  >>> [round(float(rate(step)), 3) for step in (0, 5, 10, 99)]
  [0.0, 0.5, 1.0, 1.0]
  """

  warmup: int = 0

  def build(self, peak: float, steps: int, D: int) -> optax.Schedule:
    rise = optax.linear_schedule(0.0, peak, max(1, self.warmup))
    return optax.join_schedules([rise, optax.constant_schedule(peak)], [self.warmup])


@schedules.register("cosine")
@dataclasses.dataclass(frozen=True)
class CosineDecay(LearningRate):
  """Rises linearly for `warmup` steps, then falls to `final` of the peak as a cosine.

  Loshchilov and Hutter, 2017. https://arxiv.org/abs/1608.03983

  >>> rate = schedules.build("cosine(warmup=10)").build(peak=1.0, steps=110, D=64)
  >>> [round(float(rate(step)), 3) for step in (0, 10, 60, 110)]
  [0.0, 1.0, 0.55, 0.1]
  """

  warmup: int = 0
  final: float = 0.1

  def build(self, peak: float, steps: int, D: int) -> optax.Schedule:
    steps = max(steps, self.warmup + 1)
    return optax.warmup_cosine_decay_schedule(
      0.0, peak, self.warmup, steps, self.final * peak
    )


@schedules.register("noam")
@dataclasses.dataclass(frozen=True)
class Noam(LearningRate):
  """Rises linearly, then falls as 1 / sqrt(step), in units of 1 / sqrt(width).

  Vaswani et al., 2017, equation 3: the optimizer's lr is a factor, 1 in the paper.
  https://arxiv.org/abs/1706.03762

  >>> rate = schedules.build("noam(warmup=100)").build(peak=1.0, steps=1000, D=64)
  >>> [round(float(rate(step)), 5) for step in (49, 99, 399)]  # D**-0.5 * step**-0.5
  [0.00625, 0.0125, 0.00625]
  """

  warmup: int = 4000

  def build(self, peak: float, steps: int, D: int) -> optax.Schedule:
    def rate(count):
      step = jnp.asarray(count, jnp.float32) + 1
      return peak * D**-0.5 * jnp.minimum(step**-0.5, step * self.warmup**-1.5)

    return rate


@schedules.register("wsd")
@dataclasses.dataclass(frozen=True)
class WarmupStableDecay(LearningRate):
  """Rises, stays at the peak, and falls linearly over the last `decay` share of steps.

  Hu et al., 2024. https://arxiv.org/abs/2404.06395

  >>> rate = schedules.build("wsd(warmup=10)").build(peak=1.0, steps=100, D=64)
  >>> [round(float(rate(step)), 3) for step in (0, 10, 80, 90, 100)]
  [0.0, 1.0, 1.0, 0.5, 0.0]
  """

  warmup: int = 0
  decay: float = 0.2
  final: float = 0.0

  def build(self, peak: float, steps: int, D: int) -> optax.Schedule:
    fall = max(1, round(self.decay * steps))
    return optax.join_schedules(
      [
        optax.linear_schedule(0.0, peak, max(1, self.warmup)),
        optax.constant_schedule(peak),
        optax.linear_schedule(peak, self.final * peak, fall),
      ],
      [self.warmup, max(self.warmup, steps - fall)],
    )
