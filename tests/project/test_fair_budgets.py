"""The how-to page on fair budgets: its file and its commands, in small."""

import dataclasses
import pathlib
import re
import shlex

import pytest
from absl import flags as absl_flags
from fake_runs import train  # noqa: F401, a fixture

from experiments import sweep
from experiments.runner import cost, sweep_loop
from experiments.setup import flags
from experiments.setup.matching import KEYS

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "howto" / "fair_budgets.md").read_text()
COMMANDS = re.findall(r"^python -m experiments\.sweep (.*)$", PAGE, re.MULTILINE)
SMALL = ["--config.task=copy", "--config.train.length=8", "--config.model.layers=1"]
SMALL += ["--config.train.batch_size=4", "--config.evaluate.examples=16"]


def score(config, folder, name, stop):
  """Stands for a training; the page's plans need one score of each seed."""
  scores = [
    {"seed": seed, "length": 8, "measure": "accuracy", "part": "mean", "value": 0.5}
    for seed in config.seeds
  ]
  measures = [{"name": "accuracy", "better": "higher"}]
  made = {"seeds": [*config.seeds], "measures": measures, "scores": scores}
  return made | {"train_length": 8, "lengths": [8]}


@pytest.fixture
def here(tmp_path, monkeypatch, request):
  """A folder with the page's file; nothing trains or is drawn, FLOPs are guessed."""
  (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
  (tmp_path / "fair.py").write_text(code)
  (tmp_path / "experiments").symlink_to(ROOT / "experiments")
  monkeypatch.chdir(tmp_path)
  request.getfixturevalue("train").run = score
  guess = lambda config: cost.parameters(config) * cost.tokens(config)
  monkeypatch.setattr(sweep_loop, "report", lambda *args: True)
  monkeypatch.setitem(cost.COSTS, "flops", guess)
  return tmp_path


def requested(words):
  argv = flags.config_first(["sweep", *shlex.split(words), *SMALL])
  values = absl_flags.FlagValues()
  flags.define(argv, values)
  return flags.parse(argv, values)


@pytest.mark.parametrize(
  "words",
  [
    # The shipped ladder has 60 runs of a search.
    pytest.param(words, marks=[pytest.mark.slow] * ("ladder.py" in words))
    for words in COMMANDS
  ],
)
def test_a_command_of_the_page_works(words, here, capsys):
  request = dataclasses.replace(requested(words), workers=1)
  assert sweep.main(request) == 0
  said = capsys.readouterr().out
  if "fair.py" in words:  # whose learned table has parameters
    assert " matched: " in said
  assert ("tuning: " in said) == ("tune" in words)
  assert (here / "runs").exists() != ("--dry_run" in words)


def test_the_page_has_every_match_and_both_ladders():
  for quantity, keys in KEYS.items():
    cells = ", ".join(f"`{key}`" for key in keys)
    assert re.search(rf'\| `"{quantity}"` \| [^|]+ \| {cells} \|', PAGE)
  assert len(COMMANDS) >= 7
