"""Probes: a linear classifier, and one with a hidden layer.

Both start with the same logits for all classes, so that an untrained probe guesses.
Hewitt and Liang, 2019, section 3.2. https://arxiv.org/abs/1909.03368
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.analysis.probes.base import Probe, probes
from transformer_jax.spec import SpecError


@probes.register("linear")
@dataclasses.dataclass(frozen=True)
class LinearProbe(Probe):
  """Logits x W + b: multinomial logistic regression.

  >>> params = LinearProbe().init(jax.random.key(0), features=4, outputs=3)
  >>> params["weight_DC"].shape
  (4, 3)
  """

  def init(self, key, features, outputs):
    return {
      "weight_DC": jnp.zeros((features, outputs)),
      "bias_C": jnp.zeros(outputs),
    }

  def apply(self, params, x_ID):
    return x_ID @ params["weight_DC"] + params["bias_C"]


@probes.register("mlp")
@dataclasses.dataclass(frozen=True)
class MLPProbe(Probe):
  """One hidden layer with ReLU.

  hidden   its units

  >>> params = MLPProbe(hidden=2).init(jax.random.key(0), features=4, outputs=3)
  >>> params["hidden_DF"].shape, params["weight_FC"].shape
  ((4, 2), (2, 3))
  """

  hidden: int = 64

  def __post_init__(self):
    if self.hidden < 1:
      raise SpecError(f"mlp: hidden is {self.hidden}; write 1 or more")

  def init(self, key, features, outputs):
    scale = (2 / features) ** 0.5
    return {
      "hidden_DF": scale * jax.random.normal(key, (features, self.hidden)),
      "hidden_F": jnp.zeros(self.hidden),
      "weight_FC": jnp.zeros((self.hidden, outputs)),
      "bias_C": jnp.zeros(outputs),
    }

  def apply(self, params, x_ID):
    h_IF = jax.nn.relu(x_ID @ params["hidden_DF"] + params["hidden_F"])
    return h_IF @ params["weight_FC"] + params["bias_C"]
