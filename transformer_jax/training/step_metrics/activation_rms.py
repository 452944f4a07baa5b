"""Size of the residual stream by layer."""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.training.step_metrics.base import StepMetric, step_metrics


@step_metrics.register("activation_rms")
@dataclasses.dataclass(frozen=True)
class ActivationRMS(StepMetric):
  """Root mean square of the residual stream, over features and real tokens.

  After the embedding, each layer and the last norm; the norm of a token's vector is
  sqrt(D) times as large. Micro-batches count by their tokens: the value is that of the
  whole batch. NaN for a batch without a token.

  update   of what each sublayer adds instead, before a norm that may follow

  >>> from transformer_jax.training.step_metrics.base import PassArrays
  >>> x_BLD = jnp.array([[[3.0, 3.0], [9.0, 9.0]]])
  >>> real = {"decoder": jnp.array([[True, False]])}
  >>> arrays = PassArrays({"state": {"decoder/layer_0": x_BLD}}, real)
  >>> sums_2 = ActivationRMS().of_pass(arrays)["decoder/layer_0"]
  >>> float(ActivationRMS().join(sums_2[None]))
  3.0
  """

  update: bool = False

  @property
  def places(self):  # type: ignore[override]
    return ("update",) if self.update else ("state",)

  @property
  def name(self):
    return "update_rms" if self.update else "activation_rms"

  def of_pass(self, arrays):
    def sums(path: str, x_BLD: jax.Array) -> jax.Array:
      """Returns the sum of squares, and how many numbers it has."""
      real_BL = arrays.real[path.partition("/")[0]]
      real_BL1 = jnp.broadcast_to(real_BL, x_BLD.shape[:2])[..., None]
      square_BLD = jnp.square(x_BLD.astype(jnp.float32)) * real_BL1
      return jnp.stack([square_BLD.sum(), real_BL1.sum() * x_BLD.shape[-1] * 1.0])

    (place,) = self.places
    return {path: sums(path, x) for path, x in arrays.captured[place].items()}

  def join(self, sums_N2):
    square, count = sums_N2.sum(axis=0)
    return jnp.sqrt(square / count)
