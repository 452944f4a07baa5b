"""Labelling lines with a run's folder: what comes out, and what is refused."""

import functools
import json

import jax.numpy as jnp
import numpy as np
import pytest
import random_parameters
from absl import flags

from experiments import inference, label
from experiments.configs import base, brown_tagging
from experiments.runner.build import build
from experiments.setup.runs import baseline, expand
from experiments.setup.validate import ConfigError, flatten, resolve, validate
from transformer_jax.command import guarded
from transformer_jax.data.base import tasks
from transformer_jax.data.files import DataError
from transformer_jax.data.tokenizers import BOS, EOS, tokenizers
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import coords
from transformer_jax.training.checkpoint import Keeper
from transformer_jax.training.json_files import write_json

LENGTH, NAMES = 12, ("bad", "fine", "good")
WORDS = "tokenizer='char(size=24)', classes=5"
TASKS = {
  "pairs": f"classification('corpus', second='other', {WORDS})",
  "tags": f"tagging('corpus', {WORDS})",
}


def make(folder, task):
  """Writes a run that was not trained long: two seeds as they start."""
  config = resolve(
    base.get_config(),
    {
      **{"task": task, "seeds": (3, 5), "model.kind": "encoder", "model.width": 16},
      **{"model.heads": 2, "model.layers": 1, "model.feedforward": 16},
      **{"model.embedding": "tokens(types=2)", "train.length": LENGTH},
    },
  )
  write_json(folder / "config.json", flatten(config))
  write_json(folder / "labels.json", NAMES)
  tokenizers.build("char(size=24)").train(["abcdefg hij"]).save(folder / "tokenizer")
  # One label is clearly the best.
  state = random_parameters.state(build(config).trainer.shapes, 2, output_DV=8.0)
  with Keeper(folder / "checkpoints") as keeper:
    keeper.save(1, state, {"diverged": {}})
  return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  return {name: make(tmp_path_factory.mktemp(name), TASKS[name]) for name in TASKS}


class Alone:
  """Reads one row at a time, without padding."""

  def __init__(self, labeller):
    self.weights, self.encode = {"params": labeller.params}, labeller.tokenizer.encode
    self.apply = functools.partial(evaluate, labeller.model.apply)

  def __call__(self, tokens, types, places):
    """Returns the (label, probability) at each place, of labels that exist."""
    kinds = {"type_BL": jnp.array([types])}
    at = coords.consecutive(1, len(tokens)).replace(data=kinds)
    logits_LV = self.apply(self.weights, jnp.array([tokens]), at)[0]
    e_LV = np.exp(logits_LV[places, : len(NAMES)].astype(np.float64))
    p_LV = e_LV / e_LV.sum(axis=1, keepdims=True)
    return [(NAMES[row.argmax()], row.max()) for row in p_LV]


def test_a_pair_gets_a_label_and_its_probability(runs):
  labeller = label.load(runs["pairs"], seed=1)
  alone, lines = Alone(labeller), ["abc\tdef", "", "hij\tba", "ga\tbcd", "de\tfgc"]
  found = [*label.label(labeller, lines, 2)]
  assert found[1] == "" and len(found) == 5
  chosen = set()
  for line, said in zip(lines, found, strict=True):
    if line:
      a, b = map(alone.encode, line.split("\t"))
      types = [0] * (len(a) + 2) + [1] * (len(b) + 1)
      ((name, chance),) = alone([BOS, *a, EOS, *b, EOS], types, [0])
      assert said.split("\t")[0] == name
      assert abs(float(said.split("\t")[1]) - chance) < 1e-4
      chosen.add(name)
  assert len(chosen) > 1
  assert [*label.label(label.load(runs["pairs"]), lines, 2)] != found


def test_words_get_tags_and_long_sentences_are_read_in_pieces(runs, capsys):
  labeller = label.load(runs["tags"])
  alone, lines = Alone(labeller), ["abc de f", "", "hi/j abcd ab c defg h"]
  found = [*label.label(labeller, lines, 4)]

  def tagged(words):
    tokens, places = [BOS], []
    for word in words:
      places.append(len(tokens))
      tokens += alone.encode(word)
    answers = alone([*tokens, EOS], [0] * (len(tokens) + 1), places)
    return [f"{word}/{name}" for word, (name, _) in zip(words, answers, strict=True)]

  # 4 + 4 + 2 characters fill a row beside its start and its end.
  pieces = ["hi/j", "abcd", "ab"], ["c", "defg", "h"]
  assert found[0] == " ".join(tagged(["abc", "de", "f"]))
  assert found[1:] == ["", " ".join(x for some in pieces for x in tagged(some))]
  assert not capsys.readouterr().err
  (long,) = label.label(labeller, ["abcdefghijabc"], 4, "here")
  assert long.startswith("abcdefghijabc/")
  said = capsys.readouterr().err
  assert "here, line 1: 13 tokens are cut to 10, the most that this run reads" in said


def test_single_texts_may_hold_tabs_and_words_may_have_no_token():
  task = tasks.build(f"classification('corpus', {WORDS})")
  example = task.asked("a\tb", "here")
  assert example.parts == ("a\tb",) and not example.second
  assert task.answered(example, [("good", 0.98765)]) == "good\t0.9877"
  assert task.answered(example, [None]) == ""
  task = tasks.build(TASKS["tags"])
  example = task.asked("a  b/c", "here")
  assert task.answered(example, [None, ("nn", 0.5)]) == "a/_ b/c/nn"


def refusal(action, kind=ConfigError):
  with pytest.raises(kind) as caught:
    action()
  assert "\n" not in str(caught.value)
  return str(caught.value)


def test_what_cannot_be_used_is_one_sentence(runs, tmp_path):
  assert "is no run: it has no config.json" in refusal(lambda: label.load(tmp_path))
  (tmp_path / "config.json").write_text("{}")
  said = refusal(lambda: label.load(tmp_path))
  assert "its task is not classification or tagging but text(source=" in said
  config = json.loads((runs["tags"] / "config.json").read_text())
  (tmp_path / "config.json").write_text(json.dumps(config))
  assert "has no vocabulary yet" in refusal(lambda: label.load(tmp_path))
  said = refusal(lambda: label.load(runs["tags"], seed=2))
  assert "--seed=2: this run has 2 seeds" in said
  task = label.load(runs["pairs"]).task
  said = refusal(lambda: task.asked("only one", "a.txt, line 3"), DataError)
  assert said == ("a.txt, line 3 has 1 of the 2 texts of a pair; write text TAB other")
  (tmp_path / "labels.json").write_text("[")
  assert "holds no labels" in refusal(lambda: label.kept(tmp_path), DataError)
  (tmp_path / "labels.json").unlink()
  assert "cannot read the labels" in refusal(lambda: label.kept(tmp_path), DataError)


@pytest.fixture
def command(monkeypatch, capsys):
  """Runs the command in this process; returns its exit code, output and errors."""
  values = flags.FlagValues()
  flags.DEFINE_integer("verbosity", 0, "", flag_values=values)
  for module in (flags, inference, label):
    if hasattr(module, "FLAGS"):
      monkeypatch.setattr(module, "FLAGS", values)
  for kind in ("string", "integer", "list"):
    define = getattr(flags, f"DEFINE_{kind}")
    own = lambda *args, define=define: define(*args, flag_values=values)
    monkeypatch.setattr(flags, f"DEFINE_{kind}", own)
  label.define()

  def run(*words):
    argv = values(["label", *map(str, words)])
    try:
      code = guarded(lambda: label.main(argv), (ConfigError,)) or 0
    except SystemExit as ended:
      code = ended.code
    return code, *capsys.readouterr()

  return run


def test_the_command_reads_files_and_says_what_is_wrong(runs, command, tmp_path):
  path, run = tmp_path / "text", f"--run={runs['tags']}"
  path.write_text("abc de\n\nf\n")
  code, out, err = command(run, f"--input={path}")
  assert code == 0 and not err and out.count("\n") == 3
  assert out.startswith("abc/") and out.split("\n")[1] == ""
  assert command(run, f"--input={path}", "--batch_size=1") == (0, out, "")
  path.write_bytes(b"")
  wrong = [(f"error: {path} is empty; give one text on each line\n", f"--input={path}")]
  bad = tmp_path / "bad"
  bad.write_bytes(b"good\nb\xffd\n")
  wrong.append((f"error: {bad}, line 2: not UTF-8 (byte 2)", f"--input={bad}"))
  wrong.append(("error: [Errno 2] No such file", f"--input={tmp_path / 'none'}"))
  wrong.append(("error: --batch_size=0: write 1 or more", "--batch_size=0"))
  wrong.append(("error: 'text' is not a flag; write --input=text", "text"))
  for said, *words in wrong:
    code, _, err = command(run, "--batch_size=1", *words)
    assert code == 2 and err.startswith(said) and err.count("\n") == 1, err


def test_standard_input_is_answered_as_it_comes(runs):
  labeller, seen = label.load(runs["tags"]), []

  def coming():
    for line in ("abc", "de"):
      seen.append(line)
      yield line

  found = label.label(labeller, coming(), 1)
  assert next(found).startswith("abc/") and seen == ["abc"]
  assert inference.named("-") == "standard input"


def test_every_run_of_the_plan_for_brown_is_valid():
  made = brown_tagging.sweep()
  todo = expand(made, brown_tagging.get_config(), {})
  assert baseline(made, todo) == "none" and len(todo) == 3
  for each in todo:
    validate(each.config)
    task = build(each.config).task
    assert task.classes == 96 and task.kind == "encoder"
  # What hangs on a tag is left out, and what a tag consists of is not.
  format = task.format
  whole = {"nn-tl": "nn", "ppss+bem": "ppss", "bez*": "bez", "*": "*", "*-hl": "*"}
  whole |= {"--": "--", "---hl": "--", "pp$": "pp$", "``": "``", ".-hl": "."}
  assert {tag: format._coarse(tag) for tag in whole} == whole
