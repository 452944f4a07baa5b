"""Kinds of feed-forward layers: dense, experts with a router, mixtures by layer.

Hooks are pure functions of parameters; `feedforward.py` holds the parameters.
"""

import dataclasses
import math
import statistics
from typing import Literal

import jax
import jax.numpy as jnp

from transformer_jax.spec import Registry, SpecError

LEAST = 1e-20  # added to a sum of weights before a division by it


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


@feedforwards.register("sparse")
@dataclasses.dataclass(frozen=True)
class SparseUnits(FeedForwardKind):
  """Dense, with hidden units that are 0 where they are not among the largest ones.

      h <- relu(h - (mean + std normal_quantile(sparsity))),   then the activation

  Statistical top-k: a threshold for each token, without sorting. You et al., 2025,
  Spark Transformer, https://arxiv.org/abs/2506.06644; Gemma 3n. With a gated activation
  h are the gates.

  sparsity   share of hidden units that are 0, if they are normally distributed

  >>> kind, h_BLF = feedforwards.build("sparse(0.5)"), jnp.array([[[-1.0, 0.0, 4.0]]])
  >>> kind.sparsify(h_BLF).tolist()  # above the mean
  [[[0.0, 0.0, 3.0]]]
  """

  sparsity: float = 0.95

  def __post_init__(self):
    if isinstance(self.sparsity, bool) or not 0 < self.sparsity < 1:
      raise SpecError(
        f"sparse: sparsity is {self.sparsity!r}; write a share between 0 and 1, as"
        " sparsity=0.95, or dense"
      )

  def sparsify(self, h_BLF):
    quantile = statistics.NormalDist().inv_cdf(self.sparsity)
    wide_BLF = h_BLF.astype(jnp.float32)
    mean_BL1 = jnp.mean(wide_BLF, axis=-1, keepdims=True)
    std_BL1 = jnp.std(wide_BLF, axis=-1, keepdims=True)
    return jax.nn.relu(wide_BLF - (mean_BL1 + std_BL1 * quantile)).astype(h_BLF.dtype)


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
      if type(value) is not int or value < smallest:
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


@feedforwards.register("by_layer")
@dataclasses.dataclass(frozen=True)
class KindsByLayer(FeedForwardKind):
  """Cycles through a list of kinds, layer by layer: layer n has kind n mod N.

  kinds   (a, b): layers 0, 2, 4, ... have a and layers 1, 3, 5, ... have b

  >>> kind = feedforwards.build("by_layer((dense, experts(4)))")
  >>> [kind.layer(n).experts for n in range(4)]
  [0, 4, 0, 4]
  """

  kinds: tuple[FeedForwardKind, ...] = (FeedForwardKind(), Experts())

  def __post_init__(self):
    if not isinstance(self.kinds, tuple) or not self.kinds:
      raise SpecError("by_layer takes a list of kinds: by_layer((dense, experts(8)))")
    built = tuple(feedforwards.build(kind) for kind in self.kinds)
    object.__setattr__(self, "kinds", built)

  def layer(self, n):
    return self.kinds[n % len(self.kinds)].layer(n)


@feedforwards.register("leading")
@dataclasses.dataclass(frozen=True)
class LeadingLayers(FeedForwardKind):
  """One kind in the first layers and another in all others: DeepSeek-V3.

  count   number of first layers
  first   their kind
  rest    kind of the others

  >>> kind = feedforwards.build("leading(2, dense, experts(4))")
  >>> [kind.layer(n).experts for n in range(4)]
  [0, 0, 4, 4]
  """

  count: int = 1
  first: FeedForwardKind = FeedForwardKind()
  rest: FeedForwardKind = Experts()

  def __post_init__(self):
    if type(self.count) is not int or self.count < 0:
      raise SpecError(f"leading: count is {self.count!r}; write 0 or more layers")
    for name in ("first", "rest"):
      object.__setattr__(self, name, feedforwards.build(getattr(self, name)))

  def layer(self, n):
    return (self.first if n < self.count else self.rest).layer(n)
