"""Norms of the features of tokens."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.argument_ranges import allowed
from transformer_jax.normalization import layer_norm, rms_norm
from transformer_jax.spec import Registry, SpecError

Params = dict[str, jax.Array]


class Norm:
  """Scales the features of each token; parameters are named gain_D and shift_D.

  reads_batch   whether training normalizes by statistics of the whole batch: then a
                norm has `measure` and parameters that no gradient reaches

  >>> norms.build("rmsnorm(epsilon=1e-5)").epsilon
  1e-05
  """

  reads_batch: ClassVar[bool] = False

  def __post_init__(self):
    epsilon = getattr(self, "epsilon", 0.0)
    if words := allowed("epsilon", epsilon):  # of somebody's config.json, too
      raise SpecError(f"epsilon is {epsilon}; write {words}")

  def init(self, D: int) -> Params:
    """Returns the parameters for D features."""
    raise NotImplementedError

  def __call__(self, params: Params, x_BLD: jax.Array) -> jax.Array:
    """Returns the normalized features x_BLD, in the dtype of x."""
    raise NotImplementedError

  def measure(
    self, params: Params, x_BLD: jax.Array, real_BL: jax.Array
  ) -> tuple[Params, Params]:
    """Returns (parameters for this batch, running statistics after it).

    params    stored parameters
    x_BLD     features of a training batch
    real_BL   where there is a token
    """
    raise NotImplementedError


norms = Registry("norm", Norm)


@norms.register("none")
@dataclasses.dataclass(frozen=True)
class NoNorm(Norm):
  """Leaves features as they are: the control of any comparison of norms.

  >>> norms.build("none")({}, jnp.array([[[3.0, 4.0]]])).tolist()
  [[[3.0, 4.0]]]
  """

  def init(self, D: int) -> Params:
    return {}

  def __call__(self, params: Params, x_BLD: jax.Array) -> jax.Array:
    return x_BLD


@norms.register("rmsnorm")
@dataclasses.dataclass(frozen=True)
class RMSNorm(Norm):
  """Scales features to unit mean square. Zhang and Sennrich, 2019.

  https://arxiv.org/abs/1910.07467

  offset   is added to the gains: 1 in Gemma, whose gains are stored near zero
  gain     multiplies by a learned vector; nanochat does not

  >>> x_BLD = RMSNorm()({"gain_D": jnp.array([1.0, 2.0])}, jnp.array([[[3.0, 4.0]]]))
  >>> [round(x, 3) for x in x_BLD.ravel().tolist()]  # 3 and 8, divided by sqrt(12.5)
  [0.849, 2.263]
  """

  epsilon: float = 1e-6
  offset: float = 0.0
  gain: bool = True

  def init(self, D: int) -> Params:
    return {"gain_D": jnp.ones(D) - self.offset} if self.gain else {}

  def __call__(self, params: Params, x_BLD: jax.Array) -> jax.Array:
    gain_D = params["gain_D"] if self.gain else None
    if gain_D is not None and self.offset:
      gain_D = gain_D + self.offset
    return rms_norm(x_BLD, gain_D, self.epsilon)


@norms.register("layernorm")
@dataclasses.dataclass(frozen=True)
class LayerNorm(Norm):
  """Centers and scales features. Ba et al., 2016. https://arxiv.org/abs/1607.06450

  shift   adds a learned vector; MPT does not
  gain    multiplies by a learned vector; OLMo does neither

  >>> norm = norms.build("layernorm(shift=False, gain=False)")
  >>> x_BLD = norm({}, jnp.array([[[1.0, 2.0, 3.0]]]))
  >>> [round(x, 3) for x in x_BLD.ravel().tolist()]
  [-1.225, 0.0, 1.225]
  """

  epsilon: float = 1e-5
  shift: bool = True
  gain: bool = True

  def init(self, D: int) -> Params:
    gain = {"gain_D": jnp.ones(D)} if self.gain else {}
    return gain | ({"shift_D": jnp.zeros(D)} if self.shift else {})

  def __call__(self, params: Params, x_BLD: jax.Array) -> jax.Array:
    gain_D = params["gain_D"] if self.gain else None
    shift_D = params["shift_D"] if self.shift else None
    return layer_norm(x_BLD, gain_D, shift_D, self.epsilon)


@norms.register("batchnorm")
@dataclasses.dataclass(frozen=True)
class BatchNorm(Norm):
  """Centers and scales each feature over the tokens of a batch.

  Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167. In training by the mean and
  the variance of the batch's tokens, without padding; elsewhere by running averages of
  them, which are stored as parameters, and which no optimizer moves. Why Transformers
  do not use it: Shen et al., 2020, https://arxiv.org/abs/2003.07845.

  momentum   weight of the old average: average = momentum * average
             + (1 - momentum) * statistic of the batch

  >>> norm = norms.build("batchnorm(momentum=0.5, epsilon=0.0)")
  >>> x_BLD = jnp.array([[[1.0], [3.0]], [[5.0], [99.0]]])  # the last one is padding
  >>> real_BL = jnp.array([[True, True], [True, False]])
  >>> params, running = norm.measure(norm.init(1), x_BLD, real_BL)
  >>> [round(x, 3) for x in norm(params, x_BLD)[:, 0, 0].tolist()]  # mean 3, var 8 / 3
  [-1.225, 1.225]
  >>> {name: round(x.item(), 3) for name, x in running.items()}
  {'running_mean_D': 1.5, 'running_var_D': 1.833}
  """

  momentum: float = 0.9
  epsilon: float = 1e-5
  reads_batch: ClassVar[bool] = True

  def __post_init__(self):
    super().__post_init__()
    if not 0 <= self.momentum < 1:
      raise SpecError(f"momentum is {self.momentum}; write 0 or more and below 1")

  def init(self, D: int) -> Params:
    zero_D, one_D = jnp.zeros(D), jnp.ones(D)
    start = {"gain_D": one_D, "shift_D": zero_D}
    return start | {"running_mean_D": zero_D, "running_var_D": one_D}

  def __call__(self, params: Params, x_BLD: jax.Array) -> jax.Array:
    scale_D = jax.lax.rsqrt(params["running_var_D"] + self.epsilon) * params["gain_D"]
    centered = x_BLD.astype(jnp.float32) - params["running_mean_D"]
    return (centered * scale_D + params["shift_D"]).astype(x_BLD.dtype)

  def measure(self, params, x_BLD, real_BL):
    mean_D, var_D = moments(x_BLD, real_BL)
    batch = {"running_mean_D": mean_D, "running_var_D": var_D}
    some = jnp.any(real_BL)

    def average(name):
      old_D, new_D = params[name], jax.lax.stop_gradient(batch[name])
      # Without a token there is no statistic.
      return jnp.where(some, self.momentum * old_D + (1 - self.momentum) * new_D, old_D)

    return params | batch, {name: average(name) for name in batch}


def moments(x_BLD: jax.Array, real_BL: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns mean_D and var_D, in float32, over the tokens where real_BL is true."""
  real_BL1 = jnp.broadcast_to(real_BL, x_BLD.shape[:2])[..., None]
  count = jnp.maximum(jnp.sum(real_BL1), 1)

  def mean(y_BLD):
    return jnp.sum(jnp.where(real_BL1, y_BLD, 0.0), axis=(0, 1)) / count

  x_BLD = x_BLD.astype(jnp.float32)
  mean_D = mean(x_BLD)
  return mean_D, mean(jnp.square(x_BLD - mean_D))
