"""Muon: momentum, orthogonalized by Newton-Schulz iterations."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from transformer_jax.spec import SpecError, nearest
from transformer_jax.training.optimizers.adam import AdamW
from transformer_jax.training.optimizers.base import Optimizer, optimizers
from transformer_jax.training.optimizers.matrix_axes import (
  is_hidden_matrix,
  matrix_axes,
)
from transformer_jax.training.optimizers.newton_schulz import (
  DION,
  STANDARD,
  each_matrix,
  orthogonalized,
  rounded,
)


@optimizers.register("muon")
@dataclasses.dataclass(frozen=True)
class Muon(Optimizer):
  """Muon on hidden matrices, AdamW on the rest. Jordan et al., 2024.

  The momentum of each matrix is replaced by a nearly orthogonal one, by a Newton-Schulz
  iteration, times a factor of its shape. This is Optax's, in float32 and with a
  bias-corrected momentum. `bias_correction=False` is the momentum of the authors and of
  PyTorch, `ns_dtype` their rounding.
  https://kellerjordan.github.io/posts/muon/

  The rest are embeddings, the output head, tables, gains, shifts and other vectors.

  lr                of Muon; that of AdamW follows the same schedule in proportion
  adam_lr           of AdamW; None: `lr`, which fits with `consistent_rms`
  weight_decay      of Muon's matrices, decoupled
  beta              decay of the momentum
  nesterov          whether to look ahead
  bias_correction   whether the momentum's bias to its start is corrected
  consistent_rms    the root mean square of updates: 0.2 is that of AdamW's (Liu et al.,
                    2025, https://arxiv.org/abs/2502.16982). None: the factor is
                    sqrt(max(1, outputs / inputs))
  ns_steps          Newton-Schulz iterations
  ns_dtype          of the iterations: float32; bfloat16, rounded as by the authors; or
                    bfloat16_fused, rounded as by PyTorch
  coefficients      of the iteration: standard, or dion, which has its own five steps
  preconditioning   how a matrix is scaled before: frobenius, spectral, aol or schatten
  per_head          orthogonalize the matrix of each head alone
  only              names of the parameters that Muon gets, such as ('in_DF', 'out_FD');
                    (): all hidden matrices
  adam_b1, adam_b2, adam_eps, adam_weight_decay   of AdamW

  >>> import jax.numpy as jnp
  >>> from transformer_jax.numpy_interpreter import evaluate
  >>> muon = optimizers.build("muon(lr=1.0)").build(lambda step: 1.0)
  >>> params = {"in_DF": jnp.eye(2), "gain_D": jnp.ones(2)}
  >>> grads = {"in_DF": jnp.diag(jnp.array([9.0, 5.0])), "gain_D": jnp.ones(2)}
  >>> updates, _ = evaluate(lambda: muon.update(grads, muon.init(params), params))
  >>> [round(float(x)) for x in jnp.diag(updates["in_DF"])]  # whatever the scale
  [-1, -1]
  """

  lr: float = 0.02
  adam_lr: float | None = 1e-3
  weight_decay: float = 0.0
  beta: float = 0.95
  nesterov: bool = True
  bias_correction: bool = True
  consistent_rms: float | None = None
  ns_steps: int = 5
  ns_dtype: Literal["float32", "bfloat16", "bfloat16_fused"] = "float32"
  coefficients: Literal["standard", "dion"] = "standard"
  preconditioning: Literal["frobenius", "spectral", "aol", "schatten"] = "frobenius"
  per_head: bool = False
  only: tuple[str, ...] = ()
  adam_b1: float = 0.9
  adam_b2: float = 0.98
  adam_eps: float = 1e-8
  adam_weight_decay: float = 0.0

  def __post_init__(self):
    super().__post_init__()
    if self.ns_dtype != "float32" and self.preconditioning != "frobenius":
      raise SpecError(
        f"muon: preconditioning={self.preconditioning} is of ns_dtype=float32; leave"
        " one of them out"
      )
    for name in self.only:
      if matrix_axes(name) is None:
        raise SpecError(
          f"muon: {name} has not two axes, so it is no matrix; leave it out of only,"
          " and AdamW gets it"
        )

  def build(self, schedule: optax.Schedule) -> optax.GradientTransformation:
    adam_lr = self.lr if self.adam_lr is None else self.adam_lr
    adamw = AdamW(
      adam_lr, self.adam_weight_decay, self.adam_b1, self.adam_b2, self.adam_eps
    )
    parts = {
      "muon": self._of_matrices(schedule),
      "adamw": adamw.build(lambda step: schedule(step) * (adam_lr / self.lr)),
    }
    return optax.partition(parts, self._labels)

  def _of_matrices(self, schedule):
    """Returns the transformation of the gradients of matrices."""
    if self.ns_dtype != "float32":
      return self._in_bfloat16(schedule)
    own = self.bias_correction
    muon = contrib.muon(
      schedule,
      ns_coeffs=self.coefficients,
      ns_steps=self.ns_steps,
      beta=self.beta if own else 0.0,
      weight_decay=self.weight_decay,
      nesterov=self.nesterov and own,
      preconditioning=self.preconditioning,
      muon_weight_dimension_numbers=self._dimension_numbers,
      consistent_rms=self.consistent_rms,
    )
    # The scale of the trace does not matter: each matrix is divided by its norm.
    return muon if own else optax.chain(optax.trace(self.beta, self.nesterov), muon)

  def _in_bfloat16(self, schedule):
    """Returns the same with iterations in bfloat16, which Optax does not have."""
    return optax.chain(
      momentum(self.beta, self.nesterov, self.bias_correction),
      optax.stateless(self._orthogonalized),
      optax.add_decayed_weights(self.weight_decay),
      optax.scale_by_learning_rate(schedule),
    )

  def _orthogonalized(self, momenta, _):
    """Returns nearly orthogonal matrices times a factor of their shape, rounded."""
    dion = self.coefficients == "dion"
    steps = DION if dion else [STANDARD] * self.ns_steps
    fused = self.ns_dtype == "bfloat16_fused"

    def orthogonal(m_NOI):
      outputs, inputs = m_NOI.shape[-2:]
      factor = max(1, outputs / inputs) ** 0.5
      if self.consistent_rms is not None:
        factor = self.consistent_rms * max(outputs, inputs) ** 0.5
      x_NOI = orthogonalized(m_NOI, steps, fused) * factor
      return x_NOI if fused else rounded(x_NOI)

    def one(path, m):
      axes = matrix_axes(path[-1].key, self.per_head)
      assert axes is not None  # of all that `_takes` lets in
      return each_matrix(orthogonal, m, axes)

    return jax.tree_util.tree_map_with_path(one, momenta)

  def _labels(self, params):
    """Returns which optimizer gets each parameter."""
    paths = jax.tree_util.tree_leaves_with_path(params)
    names = {path[-1].key for path, _ in paths}
    for name in self.only:
      if name not in names:
        raise SpecError(
          f"muon: no parameter is called {name}.{nearest(name, names)} Change only."
        )

    def label(path: Any, _) -> str:
      return "muon" if self._takes(path[-1].key) else "adamw"

    return jax.tree_util.tree_map_with_path(label, params)

  def _takes(self, name):
    return name in self.only if self.only else is_hidden_matrix(name)

  def _dimension_numbers(self, params):
    """Returns Optax's description of the axes of each matrix."""

    def one(path, x):
      axes = matrix_axes(path[-1].key, self.per_head)
      assert axes is not None  # of all that `_takes` lets in
      return contrib.MuonDimensionNumbers(axes.inputs, axes.outputs)

    return jax.tree_util.tree_map_with_path(one, params)


def momentum(
  beta: float, nesterov: bool, bias_correction: bool
) -> optax.GradientTransformation:
  """Returns the moving average of gradients, as Optax's Muon and the authors' have it.

      m <- beta m + (1 - beta) g,   with nesterov: beta m + (1 - beta) g of the new m

  beta              decay of the average
  nesterov          whether to look ahead
  bias_correction   whether averages are divided by the sum of their weights
  """

  def init(params):
    return optax.EmaState(jnp.int32(0), jax.tree.map(jnp.zeros_like, params))

  def update(grads, state, params=None):
    count = state.count + 1
    mean = jax.tree.map(lambda m, g: m + (1 - beta) * (g - m), state.ema, grads)

    def correction(steps):
      return 1 - beta**steps if bias_correction else 1.0

    def ahead(m, g):
      return beta * m / correction(count + 1) + (1 - beta) * g / correction(count)

    if nesterov:
      updates = jax.tree.map(ahead, mean, grads)
    else:
      updates = jax.tree.map(lambda m: m / correction(count), mean)
    return updates, optax.EmaState(count, mean)

  return optax.GradientTransformation(init, update)
