"""Checks a user's encoding, attention variant, mixer or task against its contract.

  python -m experiments.check my_file:MyClass
  python -m experiments.check 'my_file:MyClass(start=0.5)'

Prints one line for each property that training, the cores, packing, the cache and the
report rely on; the tests check every registered class for the same ones. Run it in the
folder of your file. Exit code 0: all hold; 1: one does not, with a cure; 2: bad input.
"""

import argparse
import contextlib
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

# Simulated devices wait for each other in threads, of which there must be enough.
os.environ.setdefault("NPROC", "16")

import jax  # noqa: E402

from transformer_jax.attention import Mixer, Variant, attentions  # noqa: E402
from transformer_jax.attention.mixers import mixer_probe  # noqa: E402
from transformer_jax.attention.variants import probe as attention_probe  # noqa: E402
from transformer_jax.data import task_probe  # noqa: E402
from transformer_jax.data.base import Task, tasks  # noqa: E402
from transformer_jax.members import failed  # noqa: E402
from transformer_jax.positions import PositionalEncoding, positions  # noqa: E402
from transformer_jax.positions import probe as encoding_probe  # noqa: E402
from transformer_jax.spec import SpecError, nearest  # noqa: E402

Property = Callable[[Any], None]
KINDS = {
  PositionalEncoding: ("positional encoding", encoding_probe),
  Variant: ("attention variant", attention_probe),
  Mixer: ("mixer", mixer_probe),
  Task: ("task", task_probe),
}
DEVICES = 8  # of a mesh that splits parameters
CURES = {
  "every_core": "read positions only from the arguments, and what needs whole rows of"
  " scores in full_scores() or weigh()",
  "looks_both_ways": "define bidirectional(), or raise ValueError in it, whose message"
  " says 'use it in a decoder'",
  "another_text": "define cross(), or raise ValueError in it, whose message says 'use"
  " it in a decoder'",
  "packed_and_padded": "read nothing of tokens of other segments, or of order -1",
  "later_changes": "write needs_full_text = True if later tokens change earlier ones",
  "future": "sum from the past only",
  "shifting": "write relative as it is: True where a shift of all positions changes"
  " nothing",
  "million": "count positions in int32 before you turn them into floats",
  "bfloat16": "return queries, keys and outputs in the type in which they came, and"
  " calculate in float32",
  "axes": "let names of parameters end in their axes, H for a number of each head",
  "learns": "use every parameter where gradients reach it, in float32 and not rounded",
  "decoding": "treat each token by itself and its position, whatever else is there",
  "num_positions": "return NaN past the last position: table.at[pos].get(mode='fill',"
  " fill_value=jnp.nan)",
  "pure": "draw from the key with jax.random alone",
  "program": "let no shape depend on length, only on bucket",
}


def main(argv: list[str] | None = None) -> int:
  """Prints one line for each property; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog="python -m experiments.check",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("spec", help="my_file:MyClass, or a name such as alibi")
  spec = parser.parse_args(argv).spec
  use_cpu()
  try:
    thing, (kind, probe) = built(spec)
  except SpecError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  print(f"{spec}, as {kind}:")
  if report("hooks and declarations fit", lambda _: probed(thing, probe), thing):
    print("The rest of the contract needs these first.")
    return 1
  wrong = sum(report(*each, thing) for each in contract(kind))
  print(f"{wrong} do not hold" if wrong else "All of them hold")
  return int(wrong > 0)


def use_cpu() -> None:
  """Gives this process a CPU with several devices: no property depends on speed."""
  with contextlib.suppress(RuntimeError):  # JAX has started
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", DEVICES)


def built(spec: str) -> tuple[Any, tuple[str, Any]]:
  """Returns the object of a spec, with the name and probe of its kind."""
  import transformer_jax.data  # noqa: F401, fills the registry of tasks

  errors = []
  for registry, base in (
    (positions, PositionalEncoding),
    (attentions, Variant),
    (tasks, Task),
  ):
    try:
      thing = registry.build(spec)
      return thing, KINDS[Mixer if isinstance(thing, Mixer) else base]
    except SpecError as error:
      errors.append(str(error))
    except Exception as error:  # whatever a user's file may raise
      raise failed(spec, error) from error
  other = [message for message in errors if "must inherit" not in message]
  if ":" not in spec:
    raise SpecError(
      f"'{spec}' is no encoding, attention variant or task."
      f"{nearest(spec, [*positions, *attentions, *tasks])} Your own is module:Class,"
      " as in my_file:MyEncoding"
    )
  raise SpecError(
    other[0]
    if other
    else f"{spec} must inherit PositionalEncoding, Variant or Task of transformer_jax"
  )


def probed(thing: Any, probe: Any) -> None:
  """Runs the quick test, also of classes of the package."""
  probe.check(thing)
  probe.probe(thing)


def contract(kind: str) -> Iterator[tuple[str, Property]]:
  """Yields the names and functions of the properties of a kind of thing."""
  from experiments.contract import encoding, mixer, task, variant

  modules = {
    "positional encoding": encoding,
    "attention variant": variant,
    "mixer": mixer,
  }
  if kind == "attention variant":
    for core in ("blockwise", "linear"):
      yield (
        f"the core {core} gives the dense answer and gradients, or is refused",
        functools.partial(_compare_core, core),
      )
    yield (
      "attention that looks both ways is defined or refused",
      variant.looks_both_ways_or_is_refused,
    )
  for name, value in vars(modules.get(kind, task)).items():
    if name.startswith("test_"):
      yield name.removeprefix("test_").replace("_", " "), value


def _compare_core(core: str, attention: Variant) -> None:
  """Compares a core with the dense one, for one attention variant."""
  from experiments.contract import attention_layers
  from experiments.contract.harness import MODES

  attention_layers.compare_cores(attention_layers.make(attention), core, MODES)


def report(title: str, run: Property, thing: Any) -> bool:
  """Runs one property and prints its line; returns whether it does not hold."""
  start = time.perf_counter()
  try:
    run(thing)
  except Exception as error:  # whatever the code of a user may raise
    print(f"  no   {title}: {sentence(title, error)}", flush=True)
    return True
  print(f"  yes  {title} ({time.perf_counter() - start:.1f} s)", flush=True)
  return False


def sentence(title: str, error: Exception) -> str:
  """Returns an error and its cure, in one line."""
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  telling = [line for line in lines if "Max absolute" in line] or lines
  message = telling[0][:300] if telling else ""
  if isinstance(error, SpecError):  # its message has the cure
    return message
  name = title.replace(" ", "_")
  cure = next(
    (cure for key, cure in CURES.items() if key in name), "see docs/design.md"
  )
  kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
  return f"{kind}{message}{'; ' if kind or message else ''}{cure}"


if __name__ == "__main__":
  sys.exit(main())
