"""Optimizers and learning-rate schedules from Optax, by spec string."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from transformer_jax.axes import axes_of
from transformer_jax.spec import Registry, SpecError

HEADS = "HGKERP"  # axes of heads and of a head's features


# Allowed ranges of settings: (test, words).
POSITIVE = (lambda x: x > 0), "a number above 0"
NOT_NEGATIVE = (lambda x: x >= 0), "0 or more"
SHARE = (lambda x: 0 <= x <= 1), "a share from 0 to 1"
DECAY = (lambda x: 0 <= x < 1), "0 or more and below 1"
ANY = (lambda x: True), ""  # of a user's class
ALLOWED = {
  "lr": POSITIVE,
  "eps": POSITIVE,
  "weight_decay": NOT_NEGATIVE,
  "b1": DECAY,
  "b2": DECAY,
  "warmup": NOT_NEGATIVE,
  "decay": SHARE,
  "final": SHARE,
}


class Settings:
  """Base of optimizers and schedules: refuses numbers that make no sense.

  >>> try:
  ...   optimizers.build("adam(lr=-1.0)")
  ... except SpecError as error:
  ...   print(error)
  lr is -1.0; write a number above 0
  """

  def __post_init__(self):
    for name, value in vars(self).items():
      allowed, words = ALLOWED.get(name, ANY)
      # The registry refuses other types.
      if isinstance(value, (int, float)) and not allowed(value):
        raise SpecError(f"{name} is {value!r}; write {words}")


class Optimizer(Settings):
  """Settings of an optimizer.

  lr   the peak of the learning rate, or its factor in the schedule `noam`

  >>> list(optimizers), optimizers.build("adam").lr
  (['adam', 'adamw'], 0.001)
  """

  lr: float

  def build(self, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Returns the transformation of gradients at a learning rate by step."""
    raise NotImplementedError


class LearningRate(Settings):
  """Settings of a learning-rate schedule.

  >>> list(schedules)
  ['constant', 'cosine', 'noam', 'wsd']
  >>> rate = schedules.build("constant").build(peak=0.001, steps=100, D=64)
  >>> round(float(rate(50)), 5)
  0.001
  """

  def build(self, peak: float, steps: int, D: int) -> optax.Schedule:
    """Returns the learning rate by step, of so many steps and a width D."""
    raise NotImplementedError


optimizers = Registry("optimizer", Optimizer)
schedules = Registry("schedule", LearningRate)


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


@optimizers.register("adam")
@dataclasses.dataclass(frozen=True)
class Adam(Optimizer):
  """Kingma and Ba, 2015. https://arxiv.org/abs/1412.6980

  >>> from transformer_jax.numpy_interpreter import evaluate
  >>> adam = optimizers.build("adam(b2=0.999)").build(lambda step: 0.1)
  >>> params = {"gain_D": jnp.array([1.0])}
  >>> grads = {"gain_D": jnp.array([5.0])}
  >>> updates, _ = evaluate(lambda: adam.update(grads, adam.init(params)))
  >>> round(updates["gain_D"].item(), 3)  # the first step is the learning rate
  -0.1
  """

  lr: float = 1e-3
  b1: float = 0.9
  b2: float = 0.98
  eps: float = 1e-9

  def build(self, schedule: optax.Schedule) -> optax.GradientTransformation:
    return optax.adam(schedule, self.b1, self.b2, self.eps)


@optimizers.register("adamw")
@dataclasses.dataclass(frozen=True)
class AdamW(Optimizer):
  """Adam whose weight decay bypasses the moments. Loshchilov and Hutter, 2019.

  Only matrices and tables decay, not gains, shifts, slopes and per-head features.
  https://arxiv.org/abs/1711.05101

  >>> optimizers.build("adamw(weight_decay=0.1)").weight_decay
  0.1
  >>> matrices({"in_DF": 0, "gain_D": 0, "embedding_VD": 0})  # True: decays
  {'embedding_VD': True, 'gain_D': False, 'in_DF': True}
  """

  lr: float = 1e-3
  weight_decay: float = 0.01
  b1: float = 0.9
  b2: float = 0.98
  eps: float = 1e-8

  def build(self, schedule: optax.Schedule) -> optax.GradientTransformation:
    return optax.adamw(
      schedule,
      self.b1,
      self.b2,
      self.eps,
      weight_decay=self.weight_decay,
      mask=matrices,
    )


def matrices(params):
  """Returns a tree of bools: True for matrices and tables, by their names."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: is_matrix(path[-1].key), params
  )


def is_matrix(name: str) -> bool:
  """Returns whether a parameter of this name is a matrix or a table of vectors.

  Vectors are gains and shifts, per gate and per head too, and parameters with one axis
  besides those of heads and of a head's features.
  """
  axes, words = axes_of(name), name.split("_")
  per_head = len(axes) == 2 and {*axes} <= {*HEADS}
  return len(axes) > 1 and not per_head and not {"gain", "shift"} & {*words}


def build(optimizer, schedule, clip: float, steps: int, D: int):
  """Returns (gradient transformation, learning rate by step).

  optimizer   an `Optimizer` or its spec
  schedule    a `LearningRate` or its spec
  clip        largest global norm of the gradients; 0: no clipping
  steps       steps of the whole training
  D           width of the model, for schedules that depend on it
  """
  optimizer, schedule = optimizers.build(optimizer), schedules.build(schedule)
  rate = schedule.build(optimizer.lr, steps, D)
  parts = [optax.clip_by_global_norm(clip)] if clip else []
  return optax.chain(*parts, optimizer.build(rate)), rate
