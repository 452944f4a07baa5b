"""Muon: momentum, orthogonalized by Newton-Schulz iterations."""

import dataclasses
from typing import Any, Literal

import jax
import optax
from optax import contrib

from transformer_jax.spec import SpecError, nearest
from transformer_jax.training.optimizers.adam import AdamW
from transformer_jax.training.optimizers.base import Optimizer, optimizers
from transformer_jax.training.optimizers.matrix_axes import (
  is_hidden_matrix,
  matrix_axes,
)


@optimizers.register("muon")
@dataclasses.dataclass(frozen=True)
class Muon(Optimizer):
  """Muon on hidden matrices, AdamW on the rest. Jordan et al., 2024.

  The momentum of each matrix is replaced by a nearly orthogonal one, by a Newton-Schulz
  iteration in float32, times a factor of its shape. This is Optax's, whose momentum is
  bias-corrected; `bias_correction=False` is that of the authors and of PyTorch.
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
