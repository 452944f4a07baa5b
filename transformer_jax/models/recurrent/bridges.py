"""How a recurrent decoder learns of its source."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.attention.projections import Arrays, Weights
from transformer_jax.matmul import project
from transformer_jax.spec import Registry


@dataclasses.dataclass(frozen=True)
class Bottleneck:
  """By nothing but its first state: a vector of fixed size. Sutskever et al., 2014.

  https://arxiv.org/abs/1409.3215. What a link says:

    attends   whether states of the decoder attend to those of the encoder
    feeds     whether each step reads what the state before it found
    output    what predicts the next token
  """

  attends: ClassVar[bool] = False
  feeds: ClassVar[bool] = False

  def weights(self, D: int, attention: Weights) -> Weights:
    """Returns the shapes of the weights of `output`, beside those of attention."""
    return {}

  def output(
    self, w: Arrays, token_BLD: jax.Array, h_BLD: jax.Array, found_BLD: jax.Array
  ) -> jax.Array:
    """Makes one vector of the token that was read, the state, and what it found."""
    return h_BLD


links = Registry("link", Bottleneck)
links.register("bottleneck")(Bottleneck)


@links.register("luong")
@dataclasses.dataclass(frozen=True)
class Luong(Bottleneck):
  """Each state looks for what it lacks: tanh(W [context; h]). Luong et al., 2015.

  https://arxiv.org/abs/1508.04025. The attention variants `multiplicative` and `concat`
  return just that; what another one finds is added to W h here. All steps attend at
  once, without the paper's input feeding.
  """

  attends: ClassVar[bool] = True

  def weights(self, D, attention):
    return {} if "state_DD" in attention else {"state_DD": ((D, D), 1)}

  def output(self, w, token_BLD, h_BLD, found_BLD):
    if "state_DD" not in w:
      return found_BLD
    return jnp.tanh(found_BLD + project(h_BLD, w["state_DD"], 1))


@links.register("bahdanau")
@dataclasses.dataclass(frozen=True)
class Bahdanau(Bottleneck):
  """The state before a token looks, and the step reads what it finds.

  Bahdanau et al., 2015, https://arxiv.org/abs/1409.0473, with the attention variant
  `additive`. The output is a maxout of token, state and context. In a deep decoder the
  first layer looks, as in Wu et al., 2016, https://arxiv.org/abs/1609.08144.
  """

  attends: ClassVar[bool] = True
  feeds: ClassVar[bool] = True

  def weights(self, D, attention):
    return {f"{name}_DND": ((D, 2, D), 1) for name in ("token", "top", "found")}

  def output(self, w, token_BLD, h_BLD, found_BLD):
    read = {"token": token_BLD, "top": h_BLD, "found": found_BLD}
    both_BLND = sum(project(x, w[f"{name}_DND"], 1) for name, x in read.items())
    return jnp.max(both_BLND, axis=-2)
