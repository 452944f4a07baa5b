"""Random graphs without a cycle, whose nodes depend on others, and orders of them.

Allen-Zhu, 2025, Brevo. https://arxiv.org/abs/2512.17351
"""

from collections.abc import Hashable, Mapping, Sequence

import jax
import jax.numpy as jnp

from transformer_jax.data.tasks.algorithmic.base import below
from transformer_jax.data.tasks.algorithmic.ragged import numbers

MOST = 4  # parents of a node, and children
NONE = -1


def draw_graph(key: jax.Array, size: jax.Array, max_size: int) -> jax.Array:
  """Returns the parents of each node, parent_NP, or -1.

  Node n has parents below n: the first ones, up to a quarter of all, have none, each
  other one 1 to 4, all numbers equally likely, of those with fewer than 4 children.

  size       number of nodes; the others have no parents
  max_size   N
  """
  start_key, number_key, parent_key = jax.random.split(key, 3)
  roots = 1 + below((size - 1) // 4 + 1, jax.random.bits(start_key))
  number_N = numbers(number_key, max_size)
  before_N, width = jnp.arange(max_size), min(MOST, max_size)

  def add(children_N, node):
    free_N = (before_N < node) & (children_N < MOST)
    most = jnp.clip(jnp.sum(free_N), 1, MOST)
    random_N = numbers(jax.random.fold_in(parent_key, node), max_size)
    # Half of the numbers, which are signed then, so that -1 is below all.
    order_N = jnp.where(free_N, (random_N >> 1).astype(jnp.int32), NONE)
    value_P, parent_P = jax.lax.top_k(order_N, width)
    chosen_P = (jnp.arange(width) < 1 + below(most, number_N[node])) & (value_P >= 0)
    chosen_P &= (node >= roots) & (node < size)
    return children_N.at[parent_P].add(chosen_P), jnp.where(chosen_P, parent_P, NONE)

  nobody_N = jnp.zeros(max_size, jnp.int32)
  _, parent_NP = jax.lax.scan(add, nobody_N, jnp.arange(max_size))
  return parent_NP


def adjacency(parent_NP: jax.Array) -> jax.Array:
  """Returns depends_NN: whether the second node is a parent of the first."""
  N = parent_NP.shape[0]
  return jnp.any(parent_NP[:, :, None] == jnp.arange(N), axis=1)


def ancestors(depends_NN: jax.Array, node: jax.Array) -> jax.Array:
  """Returns member_N: the node and all that it depends on, which come before it."""
  N = depends_NN.shape[0]

  def visit(n, member_N):
    return member_N | (member_N[N - 1 - n] & depends_NN[N - 1 - n])

  return jax.lax.fori_loop(0, N, visit, jnp.arange(N) == node)


def draw_order(key: jax.Array, depends_NN: jax.Array, member_N: jax.Array) -> jax.Array:
  """Returns the members in an order in which nodes follow their parents; -1: no more.

  Drawn from its end: each node is one of those whose children all stand after it, all
  equally likely.
  """
  N = depends_NN.shape[0]

  def take(left_N, random):
    waits_N = jnp.any(depends_NN & left_N[:, None], axis=0)
    ready_N = left_N & ~waits_N
    chosen = below(jnp.maximum(jnp.sum(ready_N), 1), random)
    node = jnp.argmax(jnp.cumsum(ready_N) > chosen)
    some = jnp.any(left_N)
    left_N &= jnp.arange(N) != jnp.where(some, node, NONE)
    return left_N, jnp.where(some, node, NONE)

  _, last_N = jax.lax.scan(take, member_N, numbers(key, N))
  place_N = jnp.sum(member_N) - 1 - jnp.arange(N)
  return jnp.where(place_N >= 0, last_N[jnp.maximum(place_N, 0)], NONE)


def depth_of(depends_NN: jax.Array, member_N: jax.Array, node: jax.Array) -> jax.Array:
  """Returns the fewest edges from a node to one of its ancestors without parents."""
  N = depends_NN.shape[0]
  leaf_N = member_N & ~jnp.any(depends_NN, axis=1)

  def step(carry):
    near_N, edges = carry
    return jnp.any(depends_NN & near_N[:, None], axis=0), edges + 1

  def goes_on(carry):
    return ~jnp.any(carry[0] & leaf_N)

  start = jnp.arange(N) == node, jnp.int32(0)
  return jax.lax.while_loop(goes_on, step, start)[1]


def is_order(
  order: Sequence[Hashable],
  parents: Mapping[Hashable, Sequence[Hashable]],
  node: Hashable,
) -> bool:
  """Returns whether an order has a node and its ancestors, each after its parents."""
  wanted, new = {node}, [node]
  while new:
    new = [p for n in new for p in parents.get(n, ()) if p not in wanted]
    wanted |= {*new}
  place = {n: at for at, n in enumerate(order)}
  follows = all(
    place[p] < place[n] for n in order for p in parents.get(n, ()) if p in place
  )
  return {*order} == wanted and len(order) == len(wanted) and follows
