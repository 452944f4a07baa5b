"""Choice of the fastest core on this device for an encoding and a variant; reasons."""

import dataclasses
from collections.abc import Iterable

import jax

from transformer_jax.attention.cores.base import Core, cores
from transformer_jax.attention.variants.bound_variant import PLAIN

# Best first, where all serve: docs/benchmarks.md has what was measured, on CPUs.
# A kernel that has not run on its device is never chosen; it has to be named.
ORDER = ("blockwise", "dense")
FEW = 128  # queries: fewer fill no tile. Dense is as fast then, and compiles in half
# the time, which is most of what a small run takes.


@cores.register("auto")
@dataclasses.dataclass(frozen=True)
class Auto(Core):
  """The fastest core that serves the encoding and the variant; results are the same.

  Never chooses a core that refuses; `choose` gives the reasons, and a run records them.

  >>> import transformer_jax as tj
  >>> from transformer_jax.attention.cores.auto import choose
  >>> for name in "rope", "cope":
  ...   encoding = tj.positions.build(name)
  ...   core, refused = choose(encoding, tj.Variant(), dropout=False, L=512)
  ...   print(core, [reason.partition(";")[0] for reason in refused.values()])
  Blockwise(block=0) []
  Dense() ['cope looks at whole rows of scores, and blockwise never holds one']
  """

  def attend(self, q_BLHK, k_BMGK, v_BMGE, context):
    encoding, variant = context.position.encoding, context.variant.variant
    dropout = context.dropout is not None
    core, _ = choose(encoding, variant, dropout, L=q_BLHK.shape[1])
    return core.attend(q_BLHK, k_BMGK, v_BMGE, context)

  def refusal(self, encoding, variant=PLAIN.variant, dropout=False):
    return cores.build("dense").refusal(encoding, variant, dropout)


def serving(
  core, encoding, variant, dropout: bool, L: int
) -> tuple[Core, dict[str, str]]:
  """Returns the core for L queries, and why faster cores were refused.

  core       the configured core; `Auto` chooses by the other arguments
  encoding   positional encoding
  variant    attention variant
  dropout    whether attention weights are dropped
  L          number of queries
  """
  if isinstance(core, Auto):
    return choose(encoding, variant, dropout, L)
  return core, {}


def choose(encoding, variant, dropout: bool, L: int) -> tuple[Core, dict[str, str]]:
  """Returns the core for L queries on this device, and why faster ones were refused."""
  refused: dict[str, str] = {}
  for name in _candidates(variant):
    core = cores.build(name)
    reason = core.refusal(encoding, variant, dropout)
    if reason is None and L < FEW and name != "dense":
      reason = f"{L} queries do not fill a tile"
    if reason is None:
      return core, refused
    refused[name] = reason
  raise ValueError("; ".join(refused.values()))


def _candidates(variant) -> Iterable[str]:
  """Returns the cores to try here, fastest first."""
  sizes = dict(jax.sharding.get_abstract_mesh().shape)
  if sizes.get("sequence", 1) > 1:
    yield "ring"
  if variant.overrides("features"):
    yield "linear"
  yield from ORDER
