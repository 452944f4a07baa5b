"""The tasks of Delétang et al., 2022, in plain Python, written from their description.

Prompts and answers are strings of characters: symbol n is the n-th of the alphabet.
Each oracle also refuses prompts that its task may not pose.
"""

import dataclasses
import math
import re
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Oracle:
  """answer: prompt -> answer; spec: of the task, if it isn't its name."""

  answer: Callable[[str], str]
  alphabet: str = "01234"
  spec: str | None = None


def posed(pattern, prompt):
  """Refuses a prompt that the pattern does not match."""
  assert re.fullmatch(pattern, prompt), prompt


def modular_arithmetic(prompt):
  posed(r"\d([-+*]\d)*", prompt)
  return str(eval(prompt) % 5)


def navigate(prompt):
  posed("[012]+", prompt)
  place = 0
  for step in prompt:
    place = (place + {"0": -1, "1": 0, "2": 1}[step]) % 5
  return str(place)


def manipulate_stack(prompt):
  posed("[01]+[234]*", prompt)
  assert len(prompt) == 1 or prompt[-1] in "234"
  stack = []
  for symbol in prompt:
    if symbol == "2":
      stack = stack[:-1]
    else:
      stack.append({"3": "0", "4": "1"}.get(symbol, symbol))
  return ("".join(reversed(stack)) + "2").ljust(len(prompt) + 1, "0")


def parse(text):
  """Returns (value, size, size of its left part) of the expression at the start."""
  if text[0].isdigit():
    return int(text[0]), 1, None
  if text[0] == "-":
    return -int(text[1]), 2, None
  assert text[0] == "(", text
  first, size, _ = parse(text[1:])
  end = text[1 + size]
  if end == ")":
    assert size < 3, f"a bracket in a bracket: {text}"
    return first, size + 2, None
  second, other, _ = parse(text[2 + size :])
  assert text[2 + size + other] == ")", text
  value = {"+": first + second, "-": first - second, "*": first * second}[end]
  return value, 3 + size + other, size


def brackets(prompt):
  value, size, _ = parse(prompt)
  assert size == len(prompt), prompt
  return str(value % 5)


def solve_equation(prompt):
  if len(prompt) < 3:
    posed("0+", prompt)
    return "0"
  left, value = prompt.split("=")
  assert left.count("x") == 1 and "*" not in left
  (x,) = [d for d in "01234" if brackets(left.replace("x", d)) == value]
  return x


def missing_duplicate(prompt):
  if len(prompt) == 1:
    posed("1", prompt)
    return "1"
  half = len(prompt) // 2
  posed(rf"[01]*2[01]*{'3' * (len(prompt) % 2)}", prompt)
  filled = {bit: prompt.replace("2", bit) for bit in "01"}
  (found,) = [b for b, s in filled.items() if s[:half] == s[half : 2 * half]]
  return found


def binary(operate, room):
  """Returns the oracle of an operation; room: symbols of the answer beyond the prompt.

  Prompts of one and two symbols are a number alone, and `operate` gets None with it.
  """

  def answer(prompt):
    size = len(prompt) + room
    if len(prompt) < 3:
      assert prompt in ("0", "00", "10", "01"), prompt
      digits = f"{operate(int(prompt[::-1], 2), None):b}"[::-1][: size - 1]
    else:
      posed("[01]+2[01]+", prompt)
      numbers = [int(part[::-1], 2) for part in prompt.split("2")]
      assert min(numbers) > 0, prompt
      digits = f"{operate(*numbers):b}"[::-1]
    assert len(digits) < size
    return (digits + "2").ljust(size, "0")

  return answer


def root(prompt):
  posed("0*1[01]*", prompt)
  return f"{math.isqrt(int(prompt, 2)):b}".zfill(math.ceil(len(prompt) / 2))


def add(first, second):
  return first if second is None else first + second


def multiply(first, second):
  return 0 if second is None else first * second


ORACLES = {
  "even_pairs": Oracle(lambda p: str((p.count("01") + p.count("10")) % 2)),
  "modular_arithmetic": Oracle(modular_arithmetic, "01234+-*"),
  "parity": Oracle(lambda p: str(p.count("1") % 2)),
  "cycle_navigation": Oracle(navigate),
  "stack_manipulation": Oracle(manipulate_stack),
  "reverse": Oracle(lambda p: p[::-1], "01", "reverse(symbols=2)"),
  "modular_arithmetic_brackets": Oracle(brackets, "01234+-*()"),
  "solve_equation": Oracle(solve_equation, "01234+-()x="),
  "duplicate": Oracle(lambda p: p + p, "01"),
  "missing_duplicate": Oracle(missing_duplicate),
  "odds_first": Oracle(lambda p: p[1::2] + p[::2], "01"),
  "binary_addition": Oracle(binary(add, 1), "012"),
  "binary_multiplication": Oracle(binary(multiply, 0), "012"),
  "sqrt": Oracle(root, "01"),
  "bucket_sort": Oracle(lambda p: "".join(sorted(p))),
}
