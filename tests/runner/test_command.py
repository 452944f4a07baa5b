"""Every command helps with exit code 0, prints on any terminal, ends in one line."""

import gc
import os
import pathlib
import re
import subprocess
import sys

import pytest

from experiments.configs import base
from experiments.setup import config_file, flags
from experiments.setup.validate import ConfigError, resolve, validate
from transformer_jax import command
from transformer_jax.data.files import DataError, check_utf8

ROOT = pathlib.Path(__file__).parents[2]
SMALL = (
  *("--config.task=copy(symbols=4)", "--config.train.length=4", "--config.seeds=0,"),
  *("--config.train.steps=2", "--config.train.steps_per_dispatch=1"),
  *("--config.train.checkpoint_every=2", "--config.train.schedule=constant"),
  *("--config.model.width=8", "--config.model.heads=1", "--config.model.layers=1"),
  *("--config.model.feedforward=8", "--config.evaluate.lengths=1,"),
)


def run(*words, **environment):
  return subprocess.run(
    [sys.executable, "-m", *words],
    capture_output=True,
    timeout=200,
    env=os.environ | environment,
  )


@pytest.mark.parametrize(
  ("module", "flag"),
  [
    ("experiments.run", "--config"),
    ("experiments.sweep", "--groups"),
    ("experiments.report", "--workdir"),
    ("experiments.evaluate", "--split"),
    ("experiments.label", "--input"),
    ("experiments.translate", "--average"),
    ("experiments.similarity", "--folder"),
    ("transformer_jax.data.prepare", "--data_dir"),
  ],
)
def test_help_lists_the_flags_and_exits_with_0(commands, module, flag):
  done = commands.run(module, "--help")
  assert done.returncode == 0, done.stderr
  assert flag in done.stdout


def test_help_lists_every_key_with_its_comment():
  text = config_file.keys_help("--config=quickstart")
  assert text.count("\n") == len(config_file.flatten(base.get_config()))
  assert re.search(r"train\.batch_size = 16 +sequences in a batch", text)


def test_a_config_that_comes_with_the_project_goes_by_its_name():
  assert config_file.find("quickstart").samefile(config_file.DEFAULT)
  with pytest.raises(ConfigError, match="Did you mean"):
    config_file.find("quickstat")


@pytest.mark.parametrize(
  ("words", "says"),
  [
    ("report", "--workdir is missing; write --workdir=runs/quickstart"),
    ("report runs/mine", "'runs/mine' is not a flag; write --workdir=runs/mine"),
    ("report --wrkdir=x", "unknown flag --wrkdir. Did you mean '--workdir'?"),
    ("report --until=resolved", "--until is a flag of experiments.sweep; --help"),
    (
      "report --config.seeds=3",
      "--config.seeds is a flag of experiments.sweep; --help",
    ),
    ("report --profiling", "unknown flag --profiling. --help lists the flags"),
    ("label", "--run is missing; write --run="),
    ("label --batch_size=few", "--batch_size='few': write an integer"),
    ("export --run=x", "--folder is missing; write --folder="),
    ("generate --prmpt=x", "unknown flag --prmpt. Did you mean '--prompt'?"),
    ("translate --input", "Missing value for flag --input"),
    ("similarity", "--folder is missing; write --folder="),
    ("bench --section=op", "unknown flag --section. Did you mean '--sections'?"),
    ("bench --sections=ops", "unknown section 'ops'; choose from"),
    ("bench.aot --chip=v4", "unknown flag --chip. Did you mean '--chips'?"),
  ],
)
def test_a_mistyped_flag_of_any_command_is_one_sentence(commands, words, says):
  module, *flags = words.split()
  done = commands.run(f"experiments.{module}", *flags)
  assert done.returncode == 2 and not done.stdout, done.stderr
  assert done.stderr.startswith(f"error: {says}") and done.stderr.count("\n") == 1


@pytest.mark.slow  # test_end_to_end runs a sweep in an ASCII terminal
def test_a_terminal_without_unicode_ends_no_command(commands, tmp_path):
  ascii = {"PYTHONIOENCODING": "ascii", "COLUMNS": "120"}
  words = (f"--workdir={tmp_path}", *SMALL)
  done = commands.run("experiments.run", *words, environment=ascii)
  assert done.returncode == 0, done.stderr
  assert "report: " in done.stdout and "+-" in done.stdout
  assert "Traceback" not in done.stderr
  again = commands.run("experiments.report", words[0], environment=ascii)
  assert again.returncode == 0 and "error" not in again.stderr


def test_a_closed_pipe_ends_a_command_quietly(commands):
  code = "import os, runpy\nreader, writer = os.pipe()\nos.close(reader)\n"
  code += "os.dup2(writer, 1)\n"
  code += "runpy.run_module('experiments.run', run_name='__main__', alter_sys=True)"
  done = commands.run("", "--dry_run", *SMALL, code=code)
  assert done.returncode == command.CLOSED_PIPE and not done.stderr


UNWORKABLE = [
  ({"JAX_PLATFORMS": "cuda"}, "JAX_PLATFORMS=cuda: JAX finds no such device"),
  ({"JAX_ENABLE_X64": "1"}, "JAX_ENABLE_X64 is set"),
]


@pytest.mark.parametrize(("environment", "says"), UNWORKABLE)
def test_an_environment_that_cannot_work_is_one_sentence(
  commands, tmp_path, environment, says
):
  # JAX reads its variables when it is imported, which the server did before.
  config = {name.lower(): value for name, value in environment.items()}
  code = (
    f"import jax, runpy\nfor item in {config}.items():\n  jax.config.update(*item)\n"
  )
  code += "runpy.run_module('experiments.run', run_name='__main__', alter_sys=True)"
  words = (f"--workdir={tmp_path}", *SMALL)
  done = commands.run(*words, code=code, environment=environment)
  assert done.returncode == 2 and done.stderr.startswith(f"error: {says}"), done.stderr
  assert not [*tmp_path.iterdir()]


@pytest.mark.slow
@pytest.mark.parametrize(("environment", "says"), UNWORKABLE)
def test_the_environment_of_a_new_process_is_read(tmp_path, environment, says):
  done = run("experiments.run", f"--workdir={tmp_path}", *SMALL, **environment)
  said = done.stderr.decode()
  assert done.returncode == 2 and said.startswith(f"error: {says}"), said
  assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
  ("body", "says"),
  [("return []", "return a Plan"), ("return Plan('?', [])", "has no runs")],
)
def test_a_plan_that_is_none_is_one_sentence(tmp_path, body, says):
  head = "from experiments.configs.quickstart import get_config\n"
  head += "from experiments.setup.plan import Plan\n"
  path = tmp_path / "own.py"
  path.write_text(f"{head}def sweep():\n  {body}\n")
  with pytest.raises(ConfigError, match=says):
    config_file.plan(config_file.load(path), path, "sweep")


@pytest.mark.parametrize(
  ("key", "value", "says"),
  [
    ("train.optimizer", "adam(lr=-1)", "lr is -1; write a number above 0"),
    ("train.optimizer", "adamw(b2=1.0)", "b2 is 1.0; write 0 or more and below 1"),
    ("train.optimizer", "adamw(lr=1e400)", "write numbers below 1.8e308"),
    ("model.position", "rope(base=1e400)", "write numbers below 1.8e308"),
    ("train.schedule", "wsd(decay=2.0)", "decay is 2.0; write a share"),
    ("train.schedule", "cosine(warmup=500)", "write cosine(warmup=40), or more steps"),
    ("train.clip", float("nan"), "write a finite number"),
    ("model.position", "sinusoidal(base=-1)", "base is -1; write a number above 0"),
    (
      "model.position",
      "learned(max_positions=0)",
      "max_positions is 0; write 1 or more",
    ),
    ("model.position", "randomized(rope, step=0)", "step is 0; write 1 or more"),
    ("model.core", "blockwise(block=-1)", "block is -1; write 0 or more"),
    ("model.attention", "qk_norm(epsilon=-1.0)", "epsilon is -1.0; write 0 or more"),
    ("model.norm", "rmsnorm(-1.0)", "epsilon is -1.0; write 0 or more"),
    ("train.init_from", "/nosuch", "no config.json there"),
    ("task", "text(source=notes/a.txt)", "source is a text and needs quotes"),
    ("task", "text(source=/notes/a.txt)", "with quotes around texts"),
    ("task", "text(source=notes)", "source is a text and needs quotes"),
  ],
)
def test_a_value_without_sense_is_refused_before_the_first_run(key, value, says):
  with pytest.raises(ConfigError) as caught:
    validate(resolve(base.get_config(), {key: value}))
  assert says in str(caught.value)


@pytest.mark.parametrize("path", config_file.ready(), ids=lambda path: path.stem)
def test_configs_that_come_with_the_project_make_sense(path):
  # The weights that minilm.py starts from are fetched by its reader.
  validate(resolve(config_file.load(path).get_config(), {"train.init_from": ""}))


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_the_command_that_makes_utf8_works(tmp_path, encoding):
  old, new = tmp_path / "old", tmp_path / "new"
  old.write_bytes("Grüße aus Köln\n".encode(encoding))
  with pytest.raises(DataError) as caught:
    check_utf8(old.read_bytes(), str(old))
  advice = re.search(r"\((iconv [^)]*)\)", str(caught.value))[1]
  shell = advice.replace("OLD", str(old)).replace("NEW", str(new))
  subprocess.run(shell, shell=True, check=True)
  assert new.read_text(encoding="utf-8").lstrip("\ufeff") == "Grüße aus Köln\n"
  check_utf8(new.read_bytes(), str(new))


def test_flags_are_refused_before_jax_is_imported():
  code = "import sys, experiments.setup.flags; sys.exit('jax' in sys.modules)"
  assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
  assert flags.ConfigError is ConfigError


def test_a_command_collects_garbage_seldom_and_leaves_the_usual_threshold():
  usual = gc.get_threshold()
  with command.few_collections(objects=123_456):
    assert gc.get_threshold()[0] == 123_456
  assert gc.get_threshold() == usual
