"""Compiled programs of XLA as data: computations, instructions, shapes, loops.

Read from the text of `Compiled.as_text()`, which names shapes, memory spaces and the
computations that an instruction calls.
"""

import dataclasses
import functools
import math
import re

BYTES = {"pred": 1, "token": 0, "opaque": 0}
ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
HEADER = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
START = re.compile(r"^\s+(ROOT )?%?([\w.-]+) = ")
END = re.compile(
  r"^\}(?!\})"
)  # "}}" ends a kernel's metadata, which has lines of its own
NAME = re.compile(r"%([\w.-]+)")
CALLED = re.compile(
  r"(?:calls|body|to_apply|true_computation|false_computation)=%?([\w.-]+)"
)
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Array:
  """Shape and place of one array.

  fast   it lies in a fast memory of the chip, and not in HBM

  >>> Array("bf16", (4, 8)).bytes
  64
  """

  kind: str
  sizes: tuple[int, ...]
  fast: bool = False

  @property
  def bytes(self) -> int:
    """Returns its size, without the padding of tiles."""
    return math.ceil(math.prod(self.sizes) * width(self.kind))


def width(kind: str) -> float:
  """Returns the bytes of one element, of a kind such as bf16 or f8e4m3."""
  if kind in BYTES:
    return BYTES[kind]
  bits = re.match(r"[a-z]+(\d+)", kind)
  assert bits, f"XLA has no elements of kind {kind}"
  return int(bits[1]) / 8


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One instruction.

  arrays   its results
  inside   text of its operands, of a constant's value or of a parameter's number
  rest     text of its attributes

  >>> loop = Instruction("loop", (), "while", "%start", "condition=%c, body=%b", False)
  >>> loop.operands, loop.called
  (['start'], ['b'])
  """

  name: str
  arrays: tuple[Array, ...]
  op: str
  inside: str
  rest: str
  root: bool

  @functools.cached_property
  def operands(self) -> list[str]:
    """The names of instructions of the same computation."""
    return NAME.findall(self.inside)

  @property
  def constant(self) -> int | None:
    """Returns the value of an integer constant; None: it is not one."""
    whole = re.fullmatch(r"-?\d+", self.inside)
    return int(self.inside) if self.op == "constant" and whole else None

  @property
  def called(self) -> list[str]:
    """Returns the names of the computations that it calls, but for conditions."""
    branches = BRANCHES.search(self.rest)
    names = NAME.findall(branches[1]) if branches else []
    return CALLED.findall(self.rest) + names

  def attribute(self, pattern: str) -> str | None:
    """Returns the first group of a pattern in the attributes, or None."""
    match = re.search(pattern, self.rest)
    return match[1] if match else None


@dataclasses.dataclass(frozen=True)
class Computation:
  """Instructions by name, in their order.

  >>> x = Instruction("x", (Array("f32", (2,)),), "parameter", "0", "", root=True)
  >>> computation = Computation("main", {"x": x})
  >>> computation.root.name, computation.users("x")
  ('x', [])
  """

  name: str
  instructions: dict[str, Instruction]

  @functools.cached_property
  def root(self) -> Instruction:
    """The instruction whose result is the computation's."""
    return next(each for each in self.instructions.values() if each.root)

  @functools.cached_property
  def parameters(self) -> dict[int, Instruction]:
    """The parameters, by number."""
    every = self.instructions.values()
    found = [each for each in every if each.op == "parameter"]
    return {int(each.inside): each for each in found}

  def users(self, name: str) -> list[Instruction]:
    """Returns the instructions that read one."""
    return [each for each in self.instructions.values() if name in each.operands]


@dataclasses.dataclass(frozen=True)
class Module:
  r"""Computations by name; `entry` is the first to run.

  devices   that run it

  >>> module = parse("ENTRY %main (x: f32[]) -> f32[] {\n ROOT %x = f32[] add(%a)\n}")
  >>> list(module.computations), module.entry.root.op, module.devices
  (['main'], 'add', 1)
  """

  computations: dict[str, Computation]
  entry: Computation
  devices: int


def parse(text: str) -> Module:
  """Returns the computations of a program's text."""
  computations: dict[str, Computation] = {}
  inside: dict[str, Instruction] = {}
  entry = name = ""
  for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
    if header := HEADER.match(line):
      name, inside = header[2], {}
      entry = name if header[1] else entry
    elif END.match(line) and name:
      computations[name] = Computation(name, inside)
      name = ""
    elif name and (start := START.match(line)):
      inside[start[2]] = _instruction(start, line[start.end() :])
  devices = re.search(r"num_partitions=(\d+)", text)
  count = int(devices[1]) if devices else 1
  return Module(computations, computations[entry], count)


def _instruction(start: re.Match, text: str) -> Instruction:
  """Returns an instruction; text is that after `name = `."""
  shape, text = _cut(text) if text.startswith("(") else _word(text)
  op, _, text = text.lstrip().partition("(")
  inside, rest = _cut(f"({text}")
  results, root = tuple(arrays(shape)), bool(start[1])
  return Instruction(start[2], results, op, inside[1:-1], rest, root)


def arrays(shape: str) -> list[Array]:
  """Returns the arrays of a shape's text.

  >>> [x.bytes for x in arrays("(f32[2,3]{1,0:T(8,128)S(1)}, pred[])")]
  [24, 1]
  """
  return [
    Array(
      kind,
      tuple(int(n) for n in sizes.split(",") if n),
      bool(re.search(r"S\([1-9]", layout)),
    )
    for kind, sizes, layout in ARRAY.findall(shape)
  ]


def _word(text: str) -> tuple[str, str]:
  word, _, rest = text.partition(" ")
  return word, rest


def _cut(text: str) -> tuple[str, str]:
  """Returns the parenthesized start of a text, and what follows it."""
  depth = 0
  for place, letter in enumerate(text):
    depth += (letter == "(") - (letter == ")")
    if not depth:
      return text[: place + 1], text[place + 1 :]
  return text, ""


def trips(module: Module, loop: Instruction, around: Computation) -> int | None:
  """Returns how often a loop runs, None where the data decide.

  XLA says it for CPUs. For TPUs it is read from the condition: a counter that starts
  at a constant, is compared with a constant, and grows by one.
  """
  known = loop.attribute(r'known_trip_count":\{"n":"(\d+)"')
  if known:
    return int(known)
  name = loop.attribute(r"condition=%?([\w.-]+)")
  condition = module.computations[name or ""]
  if condition.root.op != "compare" or "direction=LT" not in condition.root.rest:
    return None
  counter, limit = (condition.instructions[x] for x in condition.root.operands)
  last = limit.constant
  if last is None or counter.op != "get-tuple-element":
    return None
  first = _first(loop, around, int(counter.attribute(r"index=(\d+)") or 0))
  return last - first


def _first(loop: Instruction, around: Computation, index: int) -> int:
  """Returns the first value of a loop's counter, 0 where it is not a constant."""
  start = around.instructions[loop.operands[0]]
  if start.op != "tuple":
    return 0
  value = around.instructions[start.operands[index]]
  while value.op in ("copy", "bitcast"):
    value = around.instructions[value.operands[0]]
  return value.constant or 0
