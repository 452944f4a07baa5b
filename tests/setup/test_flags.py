"""Mistyped commands end with one line that says what is right, and exit code 2."""

import subprocess
import sys

import pytest
from absl import flags as absl_flags

from experiments.setup import command_line, flag_errors, flags, runs
from experiments.setup.validate import ConfigError, resolve

# ml_collections loads config files by a method that Python means to remove.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def parse(*words):
  values = absl_flags.FlagValues()
  argv = flags.config_first(["command", *words])
  flags.define(argv, values)
  return flags.parse(argv, values)


def test_messages_know_every_flag():
  values = absl_flags.FlagValues()
  flags.define(["command"], values)
  assert {*flag_errors.FLAGS} == {*values} | {"help"}


def test_every_key_is_a_flag_of_its_type():
  request = parse(
    "--config.model.position=rope(base=5e5)",
    "--config.train.clip=2",
    "--config.seeds=0,1",
    "--noconfig.model.tied",
    "--config.mesh.data",
    "-1",
    "--config=experiments/configs/pod.py",
    "--dry_run",
  )
  assert request.overrides == {
    "model.position": "rope(base=5e5)",
    "train.clip": 2.0,
    "seeds": (0, 1),
    "model.tied": False,
    "mesh.data": -1,
  }
  assert request.dry_run and request.path.stem == "pod"
  assert str(request.workdir) == "runs/pod"
  assert request.config.model.tied is False and request.base.model.tied is True


def test_seeds_are_a_tuple_or_a_range():
  request = parse("--config.seeds=0..9")
  assert request.overrides == {"seeds": tuple(range(10))}
  assert tuple(resolve(request.base, {"seeds": "3..4"}).seeds) == (3, 4)


def test_a_command_says_again_what_was_asked():
  request = parse("--config.model.position=rope(base=5e5)", "--config.seeds=(3,)")
  command = command_line.command("run", request.path, request.overrides)
  assert command.endswith(
    "'--config.model.position=rope(base=5e5)' '--config.seeds=(3,)'"
  )
  words = [f"--config.{key}={value}" for key, value in request.overrides.items()]
  assert parse(*words).overrides == request.overrides


@pytest.mark.parametrize(
  ("word", "says"),
  [
    ("--config.model.positon=rope", "Did you mean 'model.position'?"),
    ("--config.positon=rope", "Did you mean 'model.position'?"),
    ("--config.train.step=3", "Did you mean 'train.steps'?"),
    ("--config.model=3", "model is a group of keys"),
    ("--config.train.length=many", "'many': write a whole number, as in 64"),
    ("--config.train.steps=1.5", "write a whole number"),
    ("--config.train.clip=", "write a number"),
    ("--config.model.tied=maybe", "write true or false"),
    ("--config.seeds=(0,", "write a tuple, as in (0, 1, 2)"),
    ("--config.seeds=a,b", "write a tuple, as in (0, 1, 2)"),
    ("--config.seeds=9..0", "write the first and the last seed, as in seeds='0..9'"),
    ("--config.seeds=0..99999", "(1000 at most)"),
    ("--model.position=rope", "Did you mean '--config.model.position'?"),
    ("--steps=3", "Did you mean '--config.train.steps'?"),
    ("--dry-run", "Did you mean '--dry_run'?"),
    ("--wrkdir=x", "Did you mean '--workdir'?"),
    ("--workdir", "Missing value for flag --workdir"),
    ("--config=quickstrat.py", "Did you mean 'experiments/configs/quickstart.py'?"),
    ("--config=README.md", "--config=README.md: "),
    ("--flagfile=none.txt", "none.txt"),
    ("rope", "'rope' is no flag"),
  ],
)
def test_a_mistyped_flag_is_one_clear_line(word, says):
  with pytest.raises(ConfigError) as caught:
    parse(word)
  assert says in str(caught.value) and "\n" not in str(caught.value)


def test_all_mistyped_keys_are_said_at_once():
  with pytest.raises(ConfigError) as caught:
    parse("--config.model.positon=rope", "--config.train.setps=3")
  assert len(caught.value.problems) == 2


def command(*words):
  return subprocess.run(
    [sys.executable, "-m", *words], capture_output=True, text=True, timeout=120
  )


def test_the_command_exits_with_2_and_no_traceback():
  done = command("experiments.run", "--config.model.positon=rope")
  assert done.returncode == 2 and not done.stdout
  assert done.stderr.startswith("error: --config.model.positon: unknown key")
  assert len(done.stderr.splitlines()) == 1


def test_a_value_that_no_registry_knows_exits_with_2(commands, tmp_path):
  words = ("--config.model.position=rop", f"--workdir={tmp_path}")
  done = commands.run("experiments.sweep", *words)
  assert done.returncode == 2
  assert "Did you mean 'rope'?" in done.stderr and "Traceback" not in done.stderr
  assert not [*tmp_path.iterdir()]


def test_help_names_the_flags():
  done = command("experiments.sweep", "--help")
  for name in ("--config", "--workdir", "--[no]dry_run", "--[no]retry"):
    assert name in done.stdout


def test_a_plan_and_its_groups_are_chosen_by_name(tmp_path):
  base = "from experiments.configs.quickstart import get_config\n"
  plan = "from experiments.setup.plan import Grid, Plan\ndef paper() -> Plan:\n"
  (tmp_path / "own.py").write_text(base + plan + "  return Plan('?', Grid({}))\n")
  own = f"--config={tmp_path / 'own.py'}"
  request = parse(own, "--plan=paper", "--groups=text,copy")
  assert request.plan.question == "?" and request.groups == ("text", "copy")
  assert str(request.workdir) == "runs/own-paper"
  assert request.command("sweep").endswith("own.py --plan=paper --groups=text,copy")
  assert parse(own).plan is None
  for word, says in (("papr", "Did you mean 'paper'"), ("get_config", "no such plan")):
    with pytest.raises(ConfigError, match=says):
      parse(own, f"--plan={word}")
  with pytest.raises(ConfigError, match="It has sweep"):
    parse("--plan=paper")


def test_only_some_groups_of_a_plan_run():
  request = parse("--config=experiments/configs/quickstart.py")
  planned = runs.expand(request.plan, request.base, {})
  assert {run.group for run in runs.only(planned, ("copy",))} == {"copy"}
  assert runs.only(planned, ()) == planned
  with pytest.raises(ConfigError, match="no 'copi'. Did you mean 'copy'"):
    runs.only(planned, ("copi",))


def test_the_command_of_a_group_is_for_every_host():
  group = ["--coordinator=h:8476", "--processes=2", "--process=1", "--heartbeat=30.5"]
  again = parse(*group).command("run", workdir=True)
  assert "--coordinator=h:8476 --processes=2 --process=I --heartbeat=30.5" in again
  assert "--hang_timeout" not in again
  assert "--process" not in parse(*group).command("run")
  assert "--process" not in parse().command("run", workdir=True)
