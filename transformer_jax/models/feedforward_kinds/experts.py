"""Experts: feed-forward layers that tokens choose from, by a router."""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp

from transformer_jax.axes import Dims, whole
from transformer_jax.models.feedforward_kinds.base import FeedForwardKind, feedforwards
from transformer_jax.spec import SpecError

LEAST = 1e-20  # added to a sum of weights before a division by it


@feedforwards.register("experts")
@dataclasses.dataclass(frozen=True)
class Experts(FeedForwardKind):
  """Each token chooses some of many feed-forward layers. Shazeer et al., 2017.

      y = sum_x w_x expert_x(x), w_x = score_x of the `active` experts chosen, else 0

  https://arxiv.org/abs/1701.06538. Every token is computed by every expert, and those
  not chosen weigh 0: no token is dropped, and nothing is saved. Qwen's and Mixtral's
  are `experts(128, 8)`, DeepSeek-V3's `experts(256, 8, shared=2048, router='sigmoid',
  bias=True, groups=8, active_groups=4, scale=2.5)`, Llama 4's `experts(16, 1,
  shared=8192, router='sigmoid', normalized=False, scaled_input=True)`.

  count           number of experts
  active          experts of each token
  width           hidden units of an expert; 0: those of a dense layer
  shared          hidden units of a further expert that every token uses; 0: none
  shared_gate     it is multiplied by a sigmoid of the token: Qwen2-MoE, Qwen3-Next
  router          scores of all experts: softmax or sigmoid of logits
  normalized      weights of a token's experts add up to 1, times `scale`
  scale           factor on the weights
  bias            of an expert, added where experts are chosen and nowhere else; no
                  gradient reaches it: DeepSeek-V3, https://arxiv.org/abs/2412.19437
  groups          groups of experts of one size; a token chooses among the experts of
                  the `active_groups` whose two best scores have the largest sum
  active_groups   groups that a token chooses experts from
  scaled_input    weights multiply what an expert reads, not what it returns: Llama 4
  balance_rate    by which each training step moves the bias: up where fewer tokens
                  than the mean choose the expert, down where more do; 0: it stays. Wang
                  et al., 2024, have 0.001: https://arxiv.org/abs/2408.15664

  >>> kind = feedforwards.build("experts(4, 2)")
  >>> logits_BLX = jnp.log(jnp.array([[[1.0, 2.0, 4.0, 3.0]]]))
  >>> weight_BLX, share_BLX = jax.jit(kind.route)(logits_BLX)
  >>> [round(x, 3) for x in weight_BLX.ravel().tolist()]
  [0.0, 0.0, 0.571, 0.429]
  >>> [round(x, 3) for x in share_BLX.ravel().tolist()]
  [0.1, 0.2, 0.4, 0.3]
  """

  count: int = 8
  active: int = 2
  width: int = 0
  shared: int = 0
  shared_gate: bool = False
  router: Literal["softmax", "sigmoid"] = "softmax"
  normalized: bool = True
  scale: float = 1.0
  bias: bool = False
  groups: int = 1
  active_groups: int = 1
  scaled_input: bool = False
  balance_rate: float = 0.0

  def __post_init__(self):
    least = dict(count=1, active=1, width=0, shared=0, groups=1, active_groups=1)
    for name, smallest in least.items():
      value = getattr(self, name)
      if not whole(value, smallest):
        raise SpecError(f"experts: {name} is {value!r}; write {smallest} or more")
    for name in ("shared_gate", "normalized", "bias", "scaled_input"):
      if not isinstance(getattr(self, name), bool):
        raise SpecError(
          f"experts: {name} is {getattr(self, name)!r}; write True or False"
        )
    if self.router not in ("softmax", "sigmoid"):
      raise SpecError(f"experts: router is {self.router!r}; write softmax or sigmoid")
    if isinstance(self.scale, bool) or not self.scale > 0:
      raise SpecError(f"experts: scale is {self.scale!r}; write a number above 0")
    self._check_balance()
    if self.shared_gate and not self.shared:
      raise SpecError(
        "experts: shared_gate=True is of a shared expert; write its hidden units, as"
        " shared=256"
      )
    self._check_groups()

  def _check_balance(self) -> None:
    """Raises SpecError where steps cannot move a bias."""
    rate = self.balance_rate
    if isinstance(rate, bool) or not 0 <= rate < math.inf:
      raise SpecError(f"experts: balance_rate is {rate!r}; write 0 or more, as 0.001")
    if rate and not self.bias:
      raise SpecError(
        f"experts: balance_rate={rate} moves the bias of the choice, and there is none;"
        " write bias=True"
      )

  def _check_groups(self) -> None:
    """Raises SpecError where a token cannot choose as many experts."""
    if self.count % self.groups:
      raise SpecError(
        f"experts: {self.groups} groups do not divide {self.count} experts; change one"
        " of them"
      )
    if self.active_groups > self.groups:
      raise SpecError(
        f"experts: active_groups={self.active_groups} of {self.groups} groups; write at"
        f" most {self.groups}"
      )
    open_ = self.count // self.groups * self.active_groups
    if self.active > open_:
      raise SpecError(
        f"experts: active={self.active}, and a token chooses from {open_} experts;"
        f" write at most {open_}"
      )

  @property
  def experts(self) -> int:
    return self.count

  def sized(self, dims: Dims) -> "Experts":
    """Returns the experts with the width that is that of the model written out."""
    return dataclasses.replace(self, width=self.width or dims.F)

  def route(
    self, logits_BLX: jax.Array, bias_X: jax.Array | None = None
  ) -> tuple[jax.Array, jax.Array]:
    """Returns (weight_BLX, share_BLX), in float32.

    weight_BLX   of each expert's output or input; 0: not chosen
    share_BLX    of the experts among a token's scores, which add up to 1

    logits_BLX   of the router, float32
    bias_X       of the choice, or None
    """
    scores = {"softmax": jax.nn.softmax, "sigmoid": jax.nn.sigmoid}[self.router]
    score_BLX = scores(logits_BLX)
    # Logits have no ties where scores round to 1; sums of scores need the scores.
    plain = bias_X is None and self.groups == 1
    choice_BLX = logits_BLX if plain else score_BLX
    if bias_X is not None:
      choice_BLX = choice_BLX + jax.lax.stop_gradient(bias_X)
    weight_BLX = jnp.where(self.chosen(choice_BLX), score_BLX, 0.0)
    if self.normalized:
      weight_BLX /= jnp.sum(weight_BLX, axis=-1, keepdims=True) + LEAST
    share_BLX = score_BLX / (jnp.sum(score_BLX, axis=-1, keepdims=True) + LEAST)
    return weight_BLX * self.scale, share_BLX

  def chosen(self, choice_BLX: jax.Array) -> jax.Array:
    """Returns True for the experts of each token, from scores to choose by."""
    if self.groups > 1:
      of_group = choice_BLX.reshape(*choice_BLX.shape[:2], self.groups, -1)
      best = jax.lax.top_k(of_group, min(2, of_group.shape[-1]))[0]
      open_BLG = largest(jnp.sum(best, axis=-1), self.active_groups)
      of_group = jnp.where(open_BLG[..., None], of_group, -jnp.inf)
      choice_BLX = of_group.reshape(choice_BLX.shape)
    return largest(choice_BLX, self.active)


def largest(x_BLX: jax.Array, count: int) -> jax.Array:
  """Returns True for the `count` largest numbers of each token; of equals, the first.

  >>> largest(jnp.array([[[3.0, 1.0, 3.0, 2.0]]]), 2).tolist()
  [[[True, False, True, False]]]
  """
  _, index_BLC = jax.lax.top_k(jax.lax.stop_gradient(x_BLX), count)
  places_X = jnp.arange(x_BLX.shape[-1])
  return jnp.any(index_BLC[..., None] == places_X, axis=-2)
