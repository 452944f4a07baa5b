"""How a recurrent decoder conditions on the encoder."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.attention.projections import Arrays, Weights
from transformer_jax.matmul import project_by
from transformer_jax.spec import Registry


@dataclasses.dataclass(frozen=True)
class Bottleneck:
  """Conditions through the initial state alone, of fixed size. Sutskever et al., 2014.

  https://arxiv.org/abs/1409.3215. Base class of links:

    attends   whether states of the decoder attend to those of the encoder
    feeds     whether each step reads the context of the previous state
    output    from state and context to the vector that predicts the next token

  >>> list(links), links.build("bottleneck").attends
  (['bahdanau', 'bottleneck', 'luong'], False)
  """

  attends: ClassVar[bool] = False
  feeds: ClassVar[bool] = False

  def weights(self, D: int, attention: Weights) -> Weights:
    """Returns the shapes of the weights of `output`, besides those of attention."""
    return {}

  def output(
    self, w: Arrays, token_BLD: jax.Array, h_BLD: jax.Array, found_BLD: jax.Array
  ) -> jax.Array:
    """Returns x_BLD, from which the next token is predicted.

    w           weights of `output`
    token_BLD   embedded input tokens
    h_BLD       states of the last layer
    found_BLD   contexts: outputs of cross-attention
    """
    return h_BLD


links = Registry("link", Bottleneck)
links.register("bottleneck")(Bottleneck)


@links.register("luong")
@dataclasses.dataclass(frozen=True)
class Luong(Bottleneck):
  """Attends from each state: tanh(W [context; h]). Luong et al., 2015.

  https://arxiv.org/abs/1508.04025. The attention variants `multiplicative` and `concat`
  return just that; the context of any other variant is added to W h. All steps attend
  at once, without the paper's input feeding.

  >>> link = links.build("luong")
  >>> link.attends, link.feeds, link.weights(4, attention={})
  (True, False, {'state_DD': ((4, 4), 1)})
  """

  attends: ClassVar[bool] = True

  def weights(self, D, attention):
    return {} if "state_DD" in attention else {"state_DD": ((D, D), 1)}

  def output(self, w, token_BLD, h_BLD, found_BLD):
    if "state_DD" not in w:
      return found_BLD
    return jnp.tanh(found_BLD + project_by(h_BLD, w, "state_DD"))


@links.register("bahdanau")
@dataclasses.dataclass(frozen=True)
class Bahdanau(Bottleneck):
  """Attends from the previous state; each step reads the context.

  Bahdanau et al., 2015, https://arxiv.org/abs/1409.0473, with the attention variant
  `additive`. The output is a maxout of token, state and context. In a deep decoder the
  first layer attends, as in Wu et al., 2016, https://arxiv.org/abs/1609.08144.

  >>> link = links.build("bahdanau")
  >>> link.attends, link.feeds, list(link.weights(4, attention={}))
  (True, True, ['token_DND', 'top_DND', 'found_DND'])
  """

  attends: ClassVar[bool] = True
  feeds: ClassVar[bool] = True

  def weights(self, D, attention):
    return {f"{name}_DND": ((D, 2, D), 1) for name in ("token", "top", "found")}

  def output(self, w, token_BLD, h_BLD, found_BLD):
    read = {"token": token_BLD, "top": h_BLD, "found": found_BLD}
    both_BLND = sum(project_by(x, w, f"{name}_DND") for name, x in read.items())
    return jnp.max(both_BLND, axis=-2)
