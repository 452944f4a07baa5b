"""Tasks on length, memory and search: right answers, the same rows in every bucket."""

import collections
import functools
import re

import jax
import numpy as np
import pytest

import transformer_jax.data  # noqa: F401
from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic import scan
from transformer_jax.data.tasks.algorithmic.base import (
  END,
  FIRST,
  PAD,
  SEPARATOR,
  START,
)
from transformer_jax.numpy_interpreter import evaluate, trace
from transformer_jax.spec import SpecError

ROWS, LONGEST = 32, 12
LENGTHS = (1, 4, 12)

# Below are the tasks in plain Python, written from the papers. Each function gets the
# symbols of a prompt and an answer, refuses prompts that the task may not pose, and
# returns the right answer; where not all of it counts, also which symbols do.


def plain(answer_of):
  return lambda prompt, answer: answer_of(prompt)


def replaced(prompt):
  read, written, *text = prompt
  assert read != written and set(text) == {read}
  return [written] * len(text)


def polynomial(prompt):
  x, *terms = (symbol - 3 for symbol in prompt)
  pairs = list(zip(terms[::2], terms[1::2], strict=True))
  assert abs(x) <= 2 and all(abs(c) <= 3 and 0 <= d <= 3 for c, d in pairs)
  return [sum(c * x**d for c, d in pairs) % 10 + 3]


def lego(prompt):
  *clauses, asked = prompt
  clauses = [clauses[n : n + 3] for n in range(0, len(clauses), 3)]
  sign, made_of = {0: 1, 1: -1}, {name: rest for name, *rest in clauses}
  assert len(made_of) == len(clauses)
  chain = [name for name, (_, source) in made_of.items() if source == 2]
  while len(chain) < len(clauses):
    chain += [name for name, (_, source) in made_of.items() if source == chain[-1]]
  values, value = {}, 1
  for name in chain:
    value *= sign[made_of[name][0]]
    values[name] = value
  assert chain.index(asked) >= len(chain) // 2
  return [{1: 0, -1: 1}[values[asked]]]


def lego_in_order(prompt):
  names = prompt[:-1:3]
  assert prompt[2:-1:3] == [2, *names[:-1]]
  return lego(prompt)


def interpret(words):
  """Table of Lake and Baroni: what each construction means, outermost first."""
  if "and" in words or "after" in words:
    n = next(n for n, word in enumerate(words) if word in ("and", "after"))
    first, second = interpret(words[:n]), interpret(words[n + 1 :])
    return first + second if words[n] == "and" else second + first
  if words[-1] in ("twice", "thrice"):
    return interpret(words[:-1]) * {"twice": 2, "thrice": 3}[words[-1]]
  if len(words) == 1:
    return ["I_" + words[0].upper()]
  act = [] if words[0] == "turn" else interpret(words[:1])
  turn = ["I_TURN_" + words[-1].upper()]
  ways = {"around": (turn + act) * 4, "opposite": turn * 2 + act}
  return turn + act if len(words) == 2 else ways[words[1]]


def translate(prompt):
  words = [scan.WORDS[symbol] for symbol in prompt]
  command = [word for word in words if word]
  assert words[len(words) - len(command) :] == command
  names = scan.WORDS + scan.ACTIONS
  return [names.index(action) for action in interpret(command)]


def passkey(prompt):
  (mark,) = [n for n, symbol in enumerate(prompt) if symbol == 10]
  key = prompt[mark + 1 : mark + 4]
  around = prompt[:mark] + prompt[mark + 4 :]
  assert max(key) < 10 and min(around) >= 11
  return key


def mqar(prompt, answer):
  pairs = dict(zip(prompt[::2], prompt[1::2], strict=True))
  asked = answer[::2]
  assert max(pairs.values()) < 4 <= min(pairs) and sorted(asked) == sorted(pairs)
  return [symbol for key in asked for symbol in (key, pairs[key])], [0, 1] * len(asked)


def flip_flop(prompt, answer):
  write, stored = prompt
  assert write == 2 and answer[-2] == 3
  want, counted = [], []
  for act, bit in zip(answer[::2], answer[1::2], strict=True):
    stored = bit if act == 2 else stored
    want += [act, stored if act == 3 else bit]
    counted += [0, act == 3]
  assert {*want[1::2], stored} <= {0, 1}
  return want, counted


def indirect(prompt):
  *string, source, sign, tens, ones = prompt
  shift = 10 * tens + ones
  assert len({*string}) == len(string) and min(string) >= 12 and shift <= 3
  place = string.index(source) + {10: shift, 11: -shift}[sign]
  assert place >= 0
  return [string[place]]


def add(first, second, digits):
  """Returns the sum of numbers whose digits come most significant first."""
  total = int("".join(map(str, first))) + int("".join(map(str, second)))
  return list(map(int, str(total).zfill(digits + 1)))


def add_reversed(prompt):
  plus = prompt.index(10)
  return add(prompt[:plus][::-1], prompt[:plus:-1], plus)[::-1]


def add_hinted(backwards, prompt):
  plus = prompt.index(10)
  first, second = prompt[:plus], prompt[plus + 1 :]
  hints, size = first[::2], plus // 2
  start = hints[-1] if not backwards else hints[0]
  run = list(range(start, start + size + 1))
  assert start > 10 and run[-1] < 10 + 1 + 20
  order = (lambda x: x) if backwards else (lambda x: x[::-1])
  assert order(hints) == order(second[::2]) == run[:-1]
  operands = (first[1::2], second[1::2])
  total = add(*(x[::-1] if backwards else x for x in operands), size)
  total = total[::-1] if backwards else total
  return [symbol for pair in zip(order(run), total, strict=True) for symbol in pair]


HINTED = "addition(hints=20, reversed=True, reversed_operands=True)"
ORACLES = {
  "copy(symbols=4, times=2)": plain(lambda p: [*p, 4, *p]),
  "reverse(symbols=4, times=2)": plain(lambda p: [*p[::-1], 4, *p[::-1]]),
  "reverse(symbols=4, copied=True)": plain(lambda p: [*p[::-1], 4, *p]),
  "repeat": plain(lambda p: {1: p}[len({*p})]),
  "repeat(times=2)": plain(lambda p: {1: 2 * p}[len({*p})]),
  "repeat(other=True, symbols=3)": plain(replaced),
  "summation": plain(lambda p: {True: [sum(p) % 10]}[0 < min(p) and max(p) < 10]),
  "polynomial": plain(polynomial),
  "lego": plain(lego_in_order),
  "lego(shuffled=True)": plain(lego),
  "scan": plain(translate),
  "passkey(digits=3)": plain(passkey),
  "mqar(keys=20, values=4)": mqar,
  "flip_flop(ignore=0.5)": flip_flop,
  "selective_copy(symbols=4, kept=5)": plain(lambda p: [x for x in p if x < 4]),
  "indirect_indexing(reach=3)": plain(indirect),
  "addition(reversed=True, reversed_operands=True)": plain(add_reversed),
  "addition(hints=20)": plain(functools.partial(add_hinted, False)),
  HINTED: plain(functools.partial(add_hinted, True)),
}
PROMPTS = collections.defaultdict(lambda: lambda n: n)
PROMPTS |= {
  "repeat(other=True, symbols=3)": lambda n: n + 2,
  "polynomial": lambda n: 2 * n + 1,
  "lego": lambda n: 3 * n + 1,
  "lego(shuffled=True)": lambda n: 3 * n + 1,
  "scan": lambda n: 9,
  "passkey(digits=3)": lambda n: n + 4,
  "mqar(keys=20, values=4)": lambda n: 2 * n,
  "flip_flop(ignore=0.5)": lambda n: 2,
  "selective_copy(symbols=4, kept=5)": lambda n: n + 5,
  "indirect_indexing(reach=3)": lambda n: n + 4,
  "addition(reversed=True, reversed_operands=True)": lambda n: 2 * n + 1,
  "addition(hints=20)": lambda n: 4 * n + 1,
  HINTED: lambda n: 4 * n + 1,
}


# Interpreted: compiling is most of what these tests would cost.
@functools.cache
def trained(spec):
  """Returns a training batch."""
  batch = functools.partial(tasks.build(spec).batch, batch_size=ROWS, length=LONGEST)
  return evaluate(batch, (), jax.random.key(0))


@functools.cache
def scorer(spec):
  score, key = tasks.build(spec).score, jax.random.key(0)
  return trace(lambda n: score((), key, ROWS, n, LONGEST), np.int32(0))


@functools.cache
def scored(spec, length):
  """Returns a batch that is scored at a length."""
  return scorer(spec)(np.int32(length))


@functools.partial(jax.jit, static_argnums=0)
def in_two_buckets(task, length):
  """Returns a batch scored in the longest bucket and in one of 4."""
  score = functools.partial(task.score, (), jax.random.key(0), ROWS)
  return score(length, LONGEST), score(4, 4)


def read(batch, row):
  """Returns prompt, answer, where the answer starts, and the row's weights."""
  token, weight = batch.input_BL[row], batch.weight_BL[row]
  token = np.append(token, batch.target_BL[row, -1:])
  np.testing.assert_array_equal(token[1:], batch.target_BL[row])
  start, separator, end = (
    np.flatnonzero(token == mark)[0] for mark in (START, SEPARATOR, END)
  )
  assert (token[:start] == PAD).all() and (token[end + 1 :] == PAD).all()
  prompt, answer = token[start + 1 : separator], token[separator + 1 : end]
  assert min(*prompt, *answer) >= FIRST
  symbols = (prompt - FIRST).tolist(), (answer - FIRST).tolist()
  return *symbols, separator, weight


def check(spec, batch, row):
  """Checks one row; returns the size of its prompt."""
  task = tasks.build(spec)
  prompt, answer, first, weight = read(batch, row)
  assert max(prompt + answer) < task.vocabulary - FIRST
  want = ORACLES[spec](prompt, answer)
  want, counted = want if isinstance(want, tuple) else (want, [1] * len(want))
  assert answer == want
  counted = [*([0] * first), *counted, task.stops]
  np.testing.assert_array_equal(weight[: len(counted)], counted)
  assert not weight[len(counted) :].any()
  return len(prompt)


@pytest.mark.parametrize("spec", ORACLES)
def test_training_answers_are_right(spec):
  sizes = {check(spec, trained(spec), row) for row in range(ROWS)}
  known = {PROMPTS[spec](n) for n in range(1, LONGEST + 1)}
  assert sizes <= known and len(sizes) > len(known) // 2


@pytest.mark.parametrize("spec", ORACLES)
@pytest.mark.parametrize("length", LENGTHS)
def test_scored_answers_are_right_and_end_at_the_right(spec, length):
  batch, task = scored(spec, length), tasks.build(spec)
  real = np.arange(task.tokens(LONGEST)) >= task.tokens(LONGEST) - task.tokens(length)
  np.testing.assert_array_equal(batch.at.real_BL, real[None])
  assert (batch.target_BL[:, -1] == END).all()
  sizes = {check(spec, batch, row) for row in range(ROWS)}
  assert sizes == {PROMPTS[spec](length)}


@pytest.mark.parametrize("spec", [spec for spec in ORACLES if spec != "scan"])
def test_strings_are_the_same_in_every_bucket(spec):
  task = tasks.build(spec)
  shape, found = (ROWS, task.numbers(LONGEST)), []
  random_RN = np.random.default_rng(0).integers(2**32, size=shape, dtype=np.uint32)
  for longest in (4, LONGEST):
    one = lambda random_N, n, longest=longest: task.strings(random_N, n, longest)
    random = random_RN[:, : task.numbers(longest)]
    strings = evaluate(jax.vmap(one, (0, None)), random, np.int32(4))
    cut = lambda x_RL, size: x_RL[:, : int(size)]
    found.append([*map(cut, strings, task.sizes(4))])
  jax.tree.map(np.testing.assert_array_equal, *found)


# Of the first not all of an answer counts; the second draws whole commands.
IN_BUCKETS = "mqar(keys=20, values=4)", "scan"


@pytest.mark.parametrize(
  "spec",
  [
    spec if spec in IN_BUCKETS else pytest.param(spec, marks=pytest.mark.slow)
    for spec in ORACLES
  ],
)
def test_rows_are_the_same_in_every_bucket(spec):
  padded, exact = jax.device_get(in_two_buckets(tasks.build(spec), 4))
  for field in ("input_BL", "target_BL", "weight_BL"):
    right = getattr(padded, field)[:, -exact.input_BL.shape[1] :]
    np.testing.assert_array_equal(right, getattr(exact, field), err_msg=field)


def texts(spec, length=12):
  return [read(scored(spec, length), row)[:2] for row in range(ROWS)]


def test_a_key_is_hidden_where_its_depth_says():
  for depth, place in ((0.0, 0), (0.5, 6), (1.0, 12)):
    found = texts(f"passkey(digits=3, depth={depth})")
    assert {prompt.index(10) for prompt, _ in found} == {place}
    assert {prompt[place + 1 : place + 4] == answer for prompt, answer in found} == {
      True
    }
  with pytest.raises(SpecError, match=r"depth is 1.5; it is a share, 0 to 1"):
    tasks.build("passkey(depth=1.5)")


def test_what_is_drawn_is_spread_out():
  marks = [prompt.index(10) for prompt, _ in texts("passkey(digits=3)")]
  assert min(marks) < 3 and max(marks) > 9 and len({*marks}) > 6
  asked = [prompt[:-1:3].index(prompt[-1]) for prompt, _ in texts("lego")]
  assert {*asked} == set(range(6, 12))
  shifts = {tuple(prompt[-3:]) for prompt, _ in texts("indirect_indexing(reach=3)")}
  assert len(shifts) == 7
  blanks = [prompt.index(4) for prompt, _ in texts("selective_copy(symbols=4, kept=5)")]
  assert len({*blanks}) > 2
  orders = [p[::2] == a[::2] for p, a in texts("mqar(keys=20, values=4)")]
  assert not any(orders)
  hints = {prompt[0] for prompt, _ in texts("addition(hints=20)")}
  assert len(hints) == 20 - 12
  first = [prompt[2:-1:3].index(2) for prompt, _ in texts("lego(shuffled=True)")]
  assert len({*first}) > 6


def test_scan_has_the_published_commands():
  words_NP, actions_NA, first_A = scan.commands()
  names = np.array(scan.WORDS + scan.ACTIONS)
  known = {}
  for words, actions in zip(words_NP, actions_NA, strict=True):
    known[" ".join(names[words[words > 0]])] = names[actions[actions > 0]].tolist()
  # The files of the published length split have 16,990 and 3,920 lines.
  assert len(known) == 20_910 and first_A[23] == 16_990 and first_A[-1] == 20_910
  assert max(len(actions) for actions in known.values()) == 48
  assert all(actions == interpret(words.split()) for words, actions in known.items())
  sizes = [len(actions) for actions in known.values()]
  assert sizes == sorted(sizes)
  lines = {
    "jump left": "LTURN JUMP",
    "jump around right": "RTURN JUMP RTURN JUMP RTURN JUMP RTURN JUMP",
    "turn left twice": "LTURN LTURN",
    "jump opposite left and walk thrice": "LTURN LTURN JUMP WALK WALK WALK",
    "jump opposite left after walk around left": (
      "LTURN WALK LTURN WALK LTURN WALK LTURN WALK LTURN LTURN JUMP"
    ),
  }
  short = {"LTURN": "I_TURN_LEFT", "RTURN": "I_TURN_RIGHT"}
  for command, actions in lines.items():
    want = [short.get(name, f"I_{name}") for name in actions.split()]
    assert known[command] == want


@functools.partial(jax.jit, static_argnums=0)
def sizes(task, progress):
  return task.examples(jax.random.key(1), 4000, 8, progress=progress)[2]


def test_scan_trains_on_all_short_commands_alike():
  shares = np.bincount(sizes(tasks.build("scan"), 1.0), minlength=9) / 4000
  first_A = scan.commands()[2]
  np.testing.assert_allclose(shares, np.diff(first_A[:10]) / first_A[9], atol=0.03)
  assert {*sizes(tasks.build("scan(fixed=True)"), 1.0).tolist()} == {8}
  growing = sizes(tasks.build("scan(curriculum=0.5)"), 0.25)
  assert {*growing.tolist()} == {1, 2, 3, 4}


@functools.partial(jax.jit, static_argnums=0)
def both(task):
  key = jax.random.key(0)
  return task.batch((), key, 64, 50), task.score((), key, 64, 50, 50)


def test_flip_flop_is_tested_on_another_share():
  for batch, ignores in zip(
    both(tasks.build("flip_flop(ignore=0.8, tested=0.1, fixed=True)")),
    (0.8, 0.1),
    strict=True,
  ):
    # The prompt writes and the last instruction reads, whatever the share.
    acts = np.asarray(batch.input_BL)[:, 4:-3:2] - FIRST
    for act, share in ((2, (1 - ignores) / 2), (3, (1 - ignores) / 2), (4, ignores)):
      np.testing.assert_allclose((acts == act).mean(), share, atol=0.03)


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    ("lego(variables=5)", "write variables=12"),
    ("mqar(keys=5)", "write mqar(keys=12)"),
    ("indirect_indexing(letters=5)", "write indirect_indexing(letters=12)"),
    ("addition(hints=12)", "write hints=13"),
    ("scan", "no command has 23 actions; choose from 1, 2, 3"),
    ("repeat(symbols=1, other=True)", "write symbols=2"),
    ("indirect_indexing(reach=100)", "reach is 100"),
    ("flip_flop(tested=1.5)", "tested is 1.5; it is a share"),
  ],
)
def test_what_cannot_be_posed_is_refused(spec, says):
  length = 23 if spec == "scan" else LONGEST
  with pytest.raises(SpecError, match=re.escape(says)):
    batch = functools.partial(tasks.build(spec).batch, batch_size=2, length=length)
    jax.eval_shape(batch, (), jax.random.key(0))
