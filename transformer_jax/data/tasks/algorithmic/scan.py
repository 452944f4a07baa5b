"""SCAN, commands to actions. Lake and Baroni, 2018. https://arxiv.org/abs/1711.00350"""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import FIRST, Strings, below
from transformer_jax.spec import SpecError

VERBS = ("walk", "look", "run", "jump")
PLACES = ("left", "right", "opposite", "around")
WORDS = ("", *VERBS, "turn", *PLACES, "twice", "thrice", "and", "after")
ACTIONS = ("I_WALK", "I_LOOK", "I_RUN", "I_JUMP", "I_TURN_LEFT", "I_TURN_RIGHT")


@tasks.register("scan")
@dataclasses.dataclass(frozen=True)
class Scan(Strings):
  """Translates a command to actions. The length counts the actions.

  Training draws from all commands of up to the length alike: with 22 in training and
  more in evaluation this is the published split, with 25 that of Kazemnejad et al.,
  2023 (https://arxiv.org/abs/2305.19466). Lengths that no command has are refused.

  Not as published: empty words before the command make it nine words long, so that all
  answers start at the same place.

  >>> task = Scan()
  >>> prompt, answer = task.problem(4)
  >>> names = WORDS + ACTIONS
  >>> " ".join(names[n] for n in prompt if n)
  'run opposite left after walk'
  >>> " ".join(names[n] for n in answer)
  'I_WALK I_TURN_LEFT I_TURN_LEFT I_RUN'
  """

  symbols: ClassVar[int] = len(WORDS) + len(ACTIONS)
  answers: ClassVar[int] = len(ACTIONS)

  def sizes(self, length):
    return 9, length

  def tokens(self, length):
    known = np.flatnonzero(np.diff(commands()[2])).tolist()
    if isinstance(length, int) and length not in known:
      raise SpecError(
        f"scan: no command has {length} actions; choose from"
        f" {', '.join(map(str, known))}"
      )
    return super().tokens(length)

  def problem(self, length, seed=0):
    self.tokens(length)  # refuses lengths that no command has
    words_NP, actions_NA, first_A = commands()
    n = np.random.RandomState(seed).randint(first_A[length], first_A[length + 1])
    return words_NP[n].tolist(), actions_NA[n, :length].tolist()

  def examples(self, key, rows, max_length, length=None, progress=1.0):
    words_NP, actions_NA, first_A = map(jnp.asarray, commands())
    least, most = (max_length if self.fixed else 1), max_length
    if self.curriculum:
      most = jnp.ceil(max_length * progress / self.curriculum).astype(jnp.int32)
      most = jnp.clip(most, 1, max_length)
    if length is not None:
      least = most = length
    start, end = first_A[least], first_A[most + 1]
    drawn_B = start + below(end - start, jax.random.bits(key, (rows,)))
    length_B = jnp.searchsorted(first_A, drawn_B, side="right") - 1
    actions_BA = actions_NA[drawn_B, :max_length]
    return FIRST + words_NP[drawn_B], FIRST + actions_BA, length_B


@functools.cache
def commands() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns all commands, sorted by their number of actions.

  words_NP    padded on the left
  actions_NA  padded on the right
  first_A     number of commands with fewer than A actions
  """
  one = phrases()
  pairs = [(first, second) for first in one for second in one]
  both = [(a + ("and",) + b, x + y) for (a, x), (b, y) in pairs]
  both += [(a + ("after",) + b, y + x) for (a, x), (b, y) in pairs]
  found = sorted(one + both, key=lambda command: len(command[1]))
  symbol = {name: n for n, name in enumerate(WORDS + ACTIONS)}
  words_NP = np.zeros((len(found), 9), np.int32)
  actions_NA = np.zeros((len(found), 48), np.int32)
  for n, (words, actions) in enumerate(found):
    words_NP[n, 9 - len(words) :] = [symbol[name] for name in words]
    actions_NA[n, : len(actions)] = [symbol[name] for name in actions]
  sizes_N = [len(actions) for _, actions in found]
  return words_NP, actions_NA, np.searchsorted(sizes_N, np.arange(50)).astype(np.int32)


Phrase = tuple[tuple[str, ...], tuple[str, ...]]  # words and actions


def phrases() -> list[Phrase]:
  """Returns the parts of commands: action, direction and number of repetitions."""
  acts = {name: (f"I_{name.upper()}",) for name in VERBS}
  found: list[Phrase] = [((name,), act) for name, act in acts.items()]
  for name, act in {**acts, "turn": ()}.items():
    for side in ("left", "right"):
      turn = (f"I_TURN_{side.upper()}",)
      found.append(((name, side), turn + act))
      found.append(((name, "opposite", side), 2 * turn + act))
      found.append(((name, "around", side), 4 * (turn + act)))
  often = {1: (), 2: ("twice",), 3: ("thrice",)}
  return [(words + more, n * act) for words, act in found for n, more in often.items()]
