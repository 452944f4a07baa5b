"""Choice of the fastest core on this device for an encoding and a variant; reasons.

On a CPU the order was measured. On an accelerator kernels come first, and each is
compared with `dense` on that device before a model uses it: see `self_check`. What no
kernel serves takes `dense` while its scores are few, else tiles of XLA.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax

from transformer_jax.attention.cores import self_check
from transformer_jax.attention.cores.base import Core, cores
from transformer_jax.attention.cores.self_check.outcomes import (
  forget,
  here,
  known_failure,
)
from transformer_jax.attention.variants.bound_variant import PLAIN
from transformer_jax.devices import free_axes, platform

# Best first, where all serve: docs/benchmarks.md has what was measured, on CPUs.
ORDER = ("blockwise", "dense")
# By platform; each is used once it was equal to `dense` there.
# Smaller tiles are for what fails in large ones, as where fast memory does not suffice.
TILES = "pallas_tpu", "pallas_tpu(block=256)", "pallas_tpu(block=128)"
KERNELS = {"tpu": TILES, "gpu": ("cudnn", "pallas_gpu")}
FEW = 128  # queries: fewer fill no tile. Dense is as fast then, and compiles in half
# the time, which is most of what a small run takes.
SHARE = 1 / 64  # of an accelerator's memory for the scores of one layer in `dense`
MEMORY = 2**34  # bytes, where a device does not say: the smallest TPUs have these
V5P = "TPU v5", "TPU v5p"  # kinds of devices

_chosen: dict[Any, tuple[Core, dict[str, str]]] = {}  # by platform and kind of call


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
  Blockwise(block=0, at_once=None) []
  Dense() ['cope looks at whole rows of scores, and blockwise never holds one']
  """

  def attend(self, q_BLHK, k_BMGK, v_BMGE, context):
    encoding, variant = context.position.encoding, context.variant.variant
    kind = encoding, variant, context.dropout is not None, q_BLHK.shape[1]
    core, refused = choose(*kind, call=(q_BLHK, k_BMGK, v_BMGE, context))
    with contextlib.suppress(TypeError):  # a user's class that cannot be hashed
      _chosen.setdefault((platform(), *kind), (core, refused))
    return core.attend(q_BLHK, k_BMGK, v_BMGE, context)

  def refusal(self, encoding, variant=PLAIN.variant, dropout=False):
    return cores.build("dense").refusal(encoding, variant, dropout)


def start_record() -> None:
  """Forgets the cores that earlier runs of this process took."""
  _chosen.clear()
  forget()


def serving(
  core, encoding, variant, dropout: bool, L: int
) -> tuple[Core, dict[str, str]]:
  """Returns the core for L queries, and why faster cores were refused.

  core       the configured core; `Auto` chooses by the other arguments, as it did if
             it was called
  encoding   positional encoding
  variant    attention variant
  dropout    whether attention weights are dropped
  L          number of queries
  """
  if not isinstance(core, Auto):
    return core, {}
  kind = encoding, variant, dropout, L
  return _chosen.get((platform(), *kind)) or choose(*kind)


def choose(
  encoding, variant, dropout: bool, L: int, call: tuple | None = None
) -> tuple[Core, dict[str, str]]:
  """Returns the core for L queries on this device, and why faster ones were refused.

  call   arguments of `Core.attend`, or tracers: kernels are checked for their types and
         shapes. None: a kernel is taken to pass unless a check has failed
  """
  refused: dict[str, str] = {}
  failed = set[str]()  # kernels that a check refused
  for name in _candidates(variant, call):
    kind, _, options = name.partition("(")
    if options and kind not in failed:
      continue  # other tiles do not change why a core serves nothing
    core = cores.build(name)
    reason = core.refusal(encoding, variant, dropout)
    if reason is None and L < FEW and name != "dense":
      reason = f"{L} queries do not fill a tile"
    if reason is None and call:
      reason = core.misfit(*call[:3])
    if reason is None and name in KERNELS.get(platform(), ()):
      reason = _checked(core, encoding, variant, call)
      failed |= {kind} if reason else set()
    if reason is None:
      return core, refused
    refused[name] = reason
  raise ValueError("; ".join(refused.values()))


def _checked(core: Core, encoding, variant, call: tuple | None) -> str | None:
  """Returns why a kernel cannot be trusted on this device, or None."""
  if call is None:
    return known_failure(core, encoding, variant)
  return self_check.failure(self_check.scheme_of(core, *call))


def _candidates(variant, call: tuple | None) -> Iterator[str]:
  """Yields the cores to try here, fastest first."""
  sizes = dict(jax.sharding.get_abstract_mesh().shape)
  if sizes.get("sequence", 1) > 1:
    yield "ring"
  if variant.overrides("features"):
    yield "linear"
  kernels = KERNELS.get(platform(), ())
  yield from kernels
  if kernels and call and _prefers_dense(call[0].shape, call[1].shape):
    yield "dense"  # one large operation after another, where tiles are a loop
  yield from ORDER


def _prefers_dense(q_BLHK: tuple, k_BMGK: tuple) -> bool:
  """Returns whether `dense` comes before tiles on an accelerator.

  libtpu 0.0.42 ends its process at 2,048 rows for a v5p: docs/results/profile.md.
  """
  device = here()
  breaks = device is not None and device.device_kind in V5P and q_BLHK[1] > 1024
  return not breaks and _scores_are_few(q_BLHK, k_BMGK)


def _scores_are_few(q_BLHK: tuple, k_BMGK: tuple) -> bool:
  """Returns whether all scores of a layer take a small share of a device's memory."""
  (B, L, H, _), M = q_BLHK, k_BMGK[1]
  devices = 1
  for axis, size in free_axes().items():
    devices *= size if axis != "sequence" else 1
  scores = 4 * B * H * L * M / devices
  device = here()
  limit = (device.memory_stats() or {}).get("bytes_limit") if device else None
  return scores <= SHARE * (limit or MEMORY)
