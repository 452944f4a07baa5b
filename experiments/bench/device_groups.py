"""Groups of the benchmark of an accelerator, as data, in the order of their turns.

What is timed is compared before: the four timed encodings, then their speed, then the
step, then the comparison of all other encodings.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from experiments.bench.groups import Contender, ContenderGroup
from experiments.bench.measure import Patience

TIMED = ("none", "t5", "alibi", "rope")
OURS = {
  "gpu": ("pallas_gpu", "cudnn", "blockwise"),
  "tpu": ("pallas_tpu", "blockwise"),
}
# A rehearsal on a CPU interprets the kernels.
REHEARSED = (
  *("pallas_gpu(block=8)", "pallas_tpu(block=8)", "blockwise(block=7)"),
  "cudnn(implementation='xla')",
)
TOKENS = 16_384  # in all sequences of a timed call, whatever their length
LENGTHS = (4096, 16_384, 1024)
HEADS, WIDTH = 16, 128
SHORT = 128  # tokens of a rehearsal: a block of splash attention
BIASED = "t5", "alibi"
TINY_MODEL = {"width": 32, "layers": 2, "heads": 4, "feedforward": 128, "length": 64}


@dataclasses.dataclass(frozen=True)
class DevicePlan:
  """Groups for a platform: tpu, gpu, or cpu for a rehearsal with tiny shapes.

  encodings   names of the encodings to compare
  torch       whether PyTorch takes part

  >>> plan = DevicePlan("gpu", ("none", "shaw"))
  >>> [(section, group.name) for section, group in plan.groups()][-1]
  ('compare', 'shaw')
  >>> [c.name for c in DevicePlan("tpu", ()).compared("t5").contenders]
  ['pallas_tpu', 'blockwise']
  """

  platform: str
  encodings: tuple[str, ...]
  torch: bool = False

  @property
  def tiny(self) -> bool:
    """Returns whether this is a rehearsal."""
    return self.platform == "cpu"

  def groups(self) -> Iterator[tuple[str, ContenderGroup]]:
    """Yields (section, group)."""
    timed = [name for name in TIMED if name in self.encodings]
    for name in timed:
      yield "compare", self.compared(name)
    lengths = (SHORT,) if self.tiny else LENGTHS
    for L in lengths:
      for name in timed:
        yield "speed", self.speed(name, L)
      if L == lengths[0]:
        yield "step", self.step()
    for name in self.encodings:
      if name not in timed:
        yield "compare", self.compared(name)

  def compared(self, encoding: str) -> ContenderGroup:
    """Returns comparisons of the cores with `dense`."""
    shape: dict[str, Any] = {}
    if self.tiny:
      shape = {"L": 20, "H": 4, "G": 2, "K": 8, "window": 7}
    names = OURS.get(self.platform, REHEARSED)
    contenders = tuple(
      Contender(core, "ours", "compare", {"encoding": encoding, "core": core, **shape})
      for core in names
    )
    return ContenderGroup(encoding, contenders)

  def speed(self, encoding: str, L: int) -> ContenderGroup:
    """Returns attention forward and backward, ours beside others', in turns."""
    B, H, K = (1, 2, 8) if self.tiny else (TOKENS // L, HEADS, WIDTH)
    sizes = {"B": B, "L": L, "H": H, "K": K}
    patience = Patience(0.0, 2, 2) if self.tiny else Patience(3.0, least=3, most=9)
    contenders = (*self._ours(encoding, sizes), *self._torch(encoding, sizes))
    facts = sizes | {"encoding": encoding}
    return ContenderGroup(f"L={L} {encoding}", contenders, patience, facts)

  def _ours(self, encoding, sizes) -> Iterator[Contender]:
    def case(name, core):
      args = {"encoding": encoding, "core": core, **sizes}
      return Contender(name, "ours", "attention", args)

    for core in OURS.get(self.platform, REHEARSED):
      if core.startswith("cudnn") and encoding in BIASED:
        continue  # it refuses them, as the comparison says
      yield case(core.partition("(")[0], core)
    yield case("dense", "dense")
    yield case("jax.nn", "jax.nn")
    if self.platform != "gpu" and encoding not in BIASED:
      yield case("splash", "splash")

  def _torch(self, encoding, sizes) -> Iterator[Contender]:
    kinds = {"none": ("flash", "flex"), "t5": ("flex",), "alibi": ("flex",)}
    for kind in kinds.get(encoding, ()) if self.torch else ():
      args = {"kind": kind, "encoding": encoding, **sizes}
      yield Contender(f"torch {kind}", "torch", "attention", args)

  def step(self) -> ContenderGroup:
    """Returns the training step of the pod config, as it is and without recomputing."""
    sizes: dict[str, Any] = {"per_device": 2, **TINY_MODEL} if self.tiny else {}
    patience = Patience(0.0, 2, 2) if self.tiny else Patience(5.0, least=3, most=9)
    contenders = tuple(
      Contender(f"remat={remat}", "ours", "step", {"remat": remat, **sizes})
      for remat in ("full", "none")
    )
    return ContenderGroup("pod", contenders, patience)
