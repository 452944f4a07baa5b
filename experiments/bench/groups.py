"""Groups of the benchmark, as data: op, step, decode, and the quick check."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.bench.measure import Patience
from experiments.runner.process import cores

ENCODINGS = ("t5", "alibi", "per_distance", "fire", "rope", "none")
LENGTHS = tuple(2**n for n in range(9, 16))  # 512 to 32768
HEADS, WIDTH, LAYERS, VOCABULARY = 8, 256, 6, 8192
ARRAYS = 8 * 2**30  # bytes: cases whose arrays of [H, L, L] need more are left out
COPIES = {False: 3, True: 7}  # such arrays alive at once, by whether with gradients
SIZES = {256: 16, 1024: 4}  # training: tokens in a text, texts in a batch
PROMPT, NEW = 64, 128  # tokens read and written in decoding


@dataclasses.dataclass(frozen=True)
class Contender:
  """One measured program.

  side   library: `ours`, `torch` or `flax`
  case   of that side's worker
  args   of the case
  """

  name: str
  side: str
  case: str
  args: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class ContenderGroup:
  """Contenders that are timed in turns, so that any two can be compared."""

  name: str
  contenders: tuple[Contender, ...]
  patience: Patience = Patience()
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def split() -> int:
  """Returns the number of CPU devices that share the heads: the cores, or 1."""
  return cores() if HEADS % cores() == 0 else 1


def op(quick: bool, encodings: Sequence[str] = ENCODINGS) -> Iterator[ContenderGroup]:
  """Attention of one causal text, 8 heads of 64, forward and with gradients."""
  for L in LENGTHS[:4] if quick else LENGTHS:
    for backward in (False, True):
      name = f"L={L} {'forward and backward' if backward else 'forward'}"
      least = 2 if L <= 16384 else 1
      sittings = 1 if L > 4096 or quick else 2 if L == 4096 else 3
      yield ContenderGroup(
        name,
        tuple(_attentions(L, backward, encodings)),
        Patience(4 if quick else 8, least, most=12, sittings=sittings),
        {"L": L, "backward": backward},
      )


def _attentions(L, backward, encodings) -> Iterator[Contender]:
  def attention(name, side, **args):
    return Contender(name, side, "attention", args | {"L": L, "backward": backward})

  def ours(encoding, core, label="", devices=0):
    args = {"encoding": encoding, "core": core, "devices": devices or split()}
    return attention(f"{encoding} {label or core}", "ours", **args)

  whole = COPIES[backward] * 4 * HEADS * L * L <= ARRAYS
  for encoding in encodings if L <= 16384 else ("t5", "none"):
    yield ours(encoding, "auto")
    reference = encoding in ("t5", "none")
    if whole and (L <= 4096 or reference):
      yield ours(encoding, "dense")
    if L <= 4096 and reference:
      yield ours(encoding, "blockwise")
    if L <= 4096 and encoding == "t5" and split() > 1:
      yield ours(encoding, "auto", "auto on one device", 1)
  yield attention("torch causal", "torch", kind="causal")
  if whole:
    yield ours("t5", "jax", "jax.nn")
    yield attention("torch bias", "torch", kind="bias")
    yield attention("torch fixed bias", "torch", kind="fixed_bias")
  if L == 4096:
    yield attention("torch flex", "torch", kind="flex")


TORCH = (
  *("x_transformers", "x_transformers_t5", "x_transformers_alibi"),
  *("hf_gpt2", "hf_t5"),
)
STEPPED = (
  *("none", "learned", "sinusoidal", "rope", "alibi", "t5", "per_distance"),
  "fire",
)
ANCHOR = "x_transformers"  # the fastest peer in float32 goes into every group
AT_ONCE = 8  # encodings in a group


def step(quick: bool, encodings: Sequence[str] = STEPPED) -> Iterator[ContenderGroup]:
  """A training step of a decoder: our Trainer against the peers' models and AdamW."""
  for L, B in list(SIZES.items())[: 1 if quick else None]:
    sizes = {"B": B, "L": L}
    few = encodings[:2] if quick else encodings
    if L == 1024:
      few = [name for name in encodings if name in STEPPED]
    for start in range(0, len(few), AT_ONCE):
      part = few[start : start + AT_ONCE]
      contenders = [_ours(name, sizes, devices=cores()) for name in part]
      if not start and not quick:
        contenders += [_ours(name, sizes, "bfloat16", cores()) for name in part]
      contenders += list(_peers(sizes, quick) if not start else _anchor(sizes))
      yield ContenderGroup(
        f"L={L} {', '.join(part)}" if start else f"L={L}",
        (*contenders, Contender("matmul", "ours", "matmul", {})),
        Patience(seconds=20, least=2 if quick else 3, most=5),
        sizes,
      )


def _ours(encoding, sizes, dtype="float32", devices=1):
  name = f"{encoding} {dtype}" + (" on one device" if devices == 1 < cores() else "")
  args = {"position": encoding, "dtype": dtype, "devices": devices, **sizes}
  return Contender(name, "ours", "step", args)


def _anchor(sizes, kind=ANCHOR, dtype="float32"):
  yield Contender(
    f"torch {kind} {dtype}", "torch", "step", {"kind": kind, "dtype": dtype, **sizes}
  )


def _peers(sizes, quick) -> Iterator[Contender]:
  if not quick:
    for name in ("rope", "t5"):
      yield _ours(name, sizes)
  for dtype in ("float32", "bfloat16"):
    for kind in (ANCHOR, "hf_gpt2") if quick else TORCH:
      yield from _anchor(sizes, kind, dtype)
  flax = {"kind": "gpt2", **sizes}
  yield Contender("flax hf_gpt2 float32", "flax", "step", flax)


def decode(quick: bool, encodings: Sequence[str] = ()) -> Iterator[ContenderGroup]:
  """Greedy decoding with the cache against `generate` of HuggingFace's GPT-2."""
  for B in (1,) if quick else (1, 32):
    sizes = {"B": B, "prompt": PROMPT, "new": NEW}
    devices = {"devices": cores() if B % cores() == 0 else 1}
    ours = [
      Contender(name, "ours", "decode", {"position": name, **sizes, **devices})
      for name in ("learned", "rope", "t5")
    ]
    peer = Contender("torch hf_gpt2", "torch", "generate", sizes)
    yield ContenderGroup(f"B={B}", (*ours, peer), Patience(seconds=15, most=5), sizes)


RECURRENT = {
  "RNN": "recurrent(cell='elman')",
  "LSTM": "recurrent(cell='lstm')",
  "GRU": "recurrent(cell='gru')",
  "Transformer": "",
}
TOKENS = 4096  # in a batch, whatever the length of its texts


def recurrence(quick: bool, encodings: Sequence[str] = ()) -> Iterator[ContenderGroup]:
  """Training steps of recurrent models and of a Transformer, by length."""
  for L in (64, 256) if quick else (64, 256, 1024):
    sizes = {"B": TOKENS // L, "L": L}
    contenders = tuple(
      Contender(name, "ours", "recurrence", {"family": family, **sizes})
      for name, family in RECURRENT.items()
    )
    patience = Patience(seconds=4 if quick else 12, least=3, most=9)
    yield ContenderGroup(f"L={L}", contenders, patience, sizes)


FORMS: dict[str, dict[str, Any]] = {
  "chunks": {"form": "chunked"},
  "chunks, decays of features": {"form": "chunked", "per_feature": True},
  "lax.scan of the definition": {"form": "scan"},
}
LAYER_SPECS = {"layer gated_delta": "gated_delta", "layer multihead": "multihead"}


def mixers(quick: bool, encodings: Sequence[str] = ()) -> Iterator[ContenderGroup]:
  """The gated delta rule by its forms and by PyTorch, and a layer beside attention."""
  for L in (512, 2048) if quick else (512, 2048, 4096):
    for backward in (False, True):
      sizes = {"L": L, "backward": backward}
      args = sizes | {"devices": split()}
      contenders = [
        Contender(name, "ours", "delta_rule", form | args)
        for name, form in FORMS.items()
      ]
      contenders.append(Contender("torch chunks", "torch", "delta_rule", sizes))
      contenders += [
        Contender(name, "ours", "layer", {"attention": spec} | args)
        for name, spec in LAYER_SPECS.items()
      ]
      name = f"L={L} {'forward and backward' if backward else 'forward'}"
      patience = Patience(seconds=4 if quick else 8, least=3, most=9, sittings=1)
      yield ContenderGroup(name, tuple(contenders), patience, sizes)


def check(quick: bool, encodings: Sequence[str] = ()) -> Iterator[ContenderGroup]:
  """The groups of `make bench-check`: this project alone, a minute or two."""
  for L in (512, 2048):
    ours = [("t5", "auto"), ("t5", "dense"), ("t5", "blockwise")]
    ours += [("none", "auto"), ("rope", "auto"), ("fire", "auto")]
    devices = {"devices": split()}
    contenders = tuple(
      Contender(
        f"{encoding} {core}",
        "ours",
        "attention",
        {"encoding": encoding, "core": core, "L": L, "backward": True, **devices},
      )
      for encoding, core in ours
    )
    yield ContenderGroup(
      f"L={L}", contenders, Patience(seconds=8, least=5, most=15), {"L": L}
    )
  sizes = {"B": 16, "L": 256}
  yield ContenderGroup(
    "step",
    (_ours("rope", sizes, devices=cores()), Contender("matmul", "ours", "matmul", {})),
    Patience(seconds=8, least=4, most=7),
    sizes,
  )


SECTIONS = {
  "op": op,
  "step": step,
  "decode": decode,
  "recurrence": recurrence,
  "mixers": mixers,
  "check": check,
}
