"""Adam, and Adam with decoupled weight decay."""

import dataclasses

import optax

from transformer_jax.training.optimizers.base import Optimizer, optimizers
from transformer_jax.training.optimizers.matrices import matrices


@optimizers.register("adam")
@dataclasses.dataclass(frozen=True)
class Adam(Optimizer):
  """Kingma and Ba, 2015. https://arxiv.org/abs/1412.6980

  >>> import jax.numpy as jnp
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
