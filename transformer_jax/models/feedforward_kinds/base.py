"""Base class of kinds of feed-forward layers, and the dense one.

Hooks are pure functions of parameters; `feedforward.py` holds the parameters.
"""

import dataclasses

import jax

from transformer_jax.spec import Registry


@dataclasses.dataclass(frozen=True)
class FeedForwardKind:
  """Dense: the same hidden units for each token. Vaswani et al., 2017.

  https://arxiv.org/abs/1706.03762

  A kind with experts has a router, and the fields that `Experts` documents.

  experts   number of experts that tokens choose from; 0: none

  >>> list(feedforwards), feedforwards.build("dense").experts
  (['by_layer', 'dense', 'experts', 'leading', 'sparse'], 0)
  """

  active = 0
  width = 0
  shared = 0
  shared_gate = False
  bias = False
  balance_rate = 0.0
  scaled_input = False

  @property
  def experts(self) -> int:
    return 0

  def route(
    self, logits_BLX: jax.Array, bias_X: jax.Array | None = None
  ) -> tuple[jax.Array, jax.Array]:
    """Returns (weight_BLX, share_BLX) of the experts of each token: see `Experts`."""
    raise NotImplementedError

  def sparsify(self, h_BLF: jax.Array) -> jax.Array:
    """Returns hidden units before the activation, or what is left of them."""
    return h_BLF

  def layer(self, n: int) -> "FeedForwardKind":
    """Returns the kind of layer n."""
    return self


feedforwards = Registry("kind of feed-forward layer", FeedForwardKind)
feedforwards.register("dense")(FeedForwardKind)
