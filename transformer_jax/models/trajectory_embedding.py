"""Input embedding of episodes: returns-to-go, observations and actions."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.axes import Dims
from transformer_jax.matmul import project_by
from transformer_jax.models.embeddings import Embedding, Params, embeddings
from transformer_jax.models.feature_norms import norms
from transformer_jax.positions import Coords


@embeddings.register("trajectory")
@dataclasses.dataclass(frozen=True)
class TrajectoryEmbedding(Embedding):
  """Three tokens of each step, embedded apart: return-to-go, observation, action.

  Chen et al., 2021, section 3. https://arxiv.org/abs/2106.01345. The input is
  float32 [B, K, 2 + N]: a return-to-go, N observed numbers, and an action's number.
  Returns and observations are projected, an action indexes a table; an action that is
  not there is NaN. The norm comes after positions, as in the paper.

  state     numbers of an observation
  actions   number of actions

  >>> embedding = embeddings.build("trajectory(state=4, actions=2)")
  >>> steps = jax.ShapeDtypeStruct((1, 20, 6), float)
  >>> embedding.places(steps)  # 20 steps of three tokens
  60
  >>> embedding.refusal(jax.ShapeDtypeStruct((1, 20, 4), float), 60)
  'these steps observe 2 numbers: write state=2'
  """

  state: int = 4
  actions: int = 2
  norm: Any = "layernorm"
  table: ClassVar[bool] = False

  def __post_init__(self):
    object.__setattr__(self, "norm", norms.build(self.norm))

  def init(self, key: jax.Array, dims: Dims) -> Params:
    keys, N = jax.random.split(key, 3), self.state
    return {
      "return_1D": jax.random.normal(keys[0], (1, dims.D)),
      "return_shift_D": jnp.zeros(dims.D),
      "state_ND": max(N, 1) ** -0.5 * jax.random.normal(keys[1], (N, dims.D)),
      "state_shift_D": jnp.zeros(dims.D),
      "action_ND": jax.random.normal(keys[2], (self.actions, dims.D)),
    }

  def __call__(self, params: Params, steps: jax.Array, at: Coords) -> jax.Array:
    """Returns x_BLD, three vectors of each step in a row."""
    return_BK1, state_BKN, action_BK1 = jnp.split(steps, [1, steps.shape[-1] - 1], -1)
    action_BK = action_BK1[..., 0].astype(jnp.int32)
    rows = params["action_ND"].at[action_BK]
    tokens = [
      project_by(return_BK1, params, "return_1D") + params["return_shift_D"],
      project_by(state_BKN, params, "state_ND") + params["state_shift_D"],
      rows.get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False),
    ]
    B, K, _ = steps.shape
    return jnp.stack(tokens, axis=2).reshape(B, len(tokens) * K, -1)

  def places(self, read: jax.Array) -> int:
    return 3 * read.shape[1]

  def refusal(self, read: Any, L: int) -> str | None:
    if len(read.shape) != 3:
      return "these are no steps of episodes: write tokens, or patches for images"
    if read.shape[2] - 2 != self.state:
      observed = read.shape[2] - 2
      return f"these steps observe {observed} numbers: write state={observed}"
    return None

  @property
  def example(self) -> jax.Array:
    return jnp.zeros((1, 2, 2 + self.state))
