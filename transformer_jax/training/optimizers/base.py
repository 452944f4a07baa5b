"""Base classes and registries of optimizers and learning-rate schedules."""

import optax

from transformer_jax.spec import Registry, SpecError

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
  "beta": DECAY,
  "consistent_rms": POSITIVE,
  "ns_steps": POSITIVE,
  "adam_lr": POSITIVE,
  "momentum": DECAY,
  "b3": DECAY,
  "adam_b1": DECAY,
  "adam_b2": DECAY,
  "adam_eps": POSITIVE,
  "adam_weight_decay": NOT_NEGATIVE,
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
      # The registry refuses other types. Defaults make sense: no eps, in Optax's lars.
      number = isinstance(value, (int, float)) and value != getattr(
        type(self), name, None
      )
      if number and not allowed(value):
        raise SpecError(f"{name} is {value!r}; write {words}")


class Optimizer(Settings):
  """Settings of an optimizer.

  lr   the peak of the learning rate, or its factor in the schedule `noam`

  >>> optimizers.build("adam").lr
  0.001
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
