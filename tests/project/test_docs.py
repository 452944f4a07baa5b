"""Every block of code and every command of README and docs is one that works."""

import contextlib
import importlib.util
import io
import pathlib
import re
import shlex

import pytest
from absl import flags as absl_flags

from experiments.setup import flags

ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
# Its block runs in test_interop.py, which knows what it prints.
TESTED = {"docs/interop.md"}


def name(page):
  return str(page.relative_to(ROOT))


def blocks(language):
  """Returns [(page, block)] of all pages."""
  pattern = re.compile(rf"^```{language}\n(.*?)^```", re.DOTALL | re.MULTILINE)
  return [(page, text) for page in PAGES for text in pattern.findall(page.read_text())]


def commands():
  """Returns [(page, command)]: lines of blocks, and code in sentences."""
  lines = [(p, line) for p, text in blocks("") for line in text.splitlines()]
  inline = re.compile(r"`(python -m [^`]+|make [^`]+)`")
  lines += [(page, x) for page in PAGES for x in inline.findall(page.read_text())]
  joined = {(name(p), line.strip()) for p, line in lines}
  return sorted(
    (p, line) for p, line in joined if line.startswith(("python ", "make "))
  )


PYTHON = [(p, text) for p, text in blocks("python") if name(p) not in TESTED]


@pytest.mark.parametrize(("page", "code"), PYTHON, ids=[name(p) for p, _ in PYTHON])
def test_blocks_of_python_run(page, code, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with contextlib.redirect_stdout(io.StringIO()):
    exec(compile(code, page, "exec"), {"__name__": "block"})


# ml_collections imports config files the old way.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_exist_and_take_their_flags(page, line):
  words = shlex.split(line.partition(" < ")[0].partition(" && ")[0], comments=True)
  if words[0] == "make":
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M)
    assert {word for word in words[1:] if "=" not in word} <= {*targets}
    return
  module, arguments = words[2], words[3:]
  found = importlib.util.find_spec(module)
  assert found, module
  if module in ("experiments.run", "experiments.sweep") and "=F" not in line:
    argv, values = flags.config_first([module, *arguments]), absl_flags.FlagValues()
    flags.define(argv, values)
    assert flags.parse(argv, values)
  defined = _flags_of(found)
  for word in arguments:
    if match := re.match(r"--([a-z_]+)(?=[= ]|$)", word):
      assert match[1] in defined, f"{module} has no --{match[1]}"


def _flags_of(found):
  """Returns the flags that a command's own files define."""
  here = pathlib.Path(found.origin)
  files = [
    here,
    here.with_name("__main__.py"),
    ROOT / "experiments" / "setup" / "flags.py",
  ]
  files.append(ROOT / "experiments" / "inference.py")
  text = "".join(path.read_text() for path in files if path.exists())
  return {*re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"", text)}


def test_a_command_that_does_not_exist_would_be_found():
  with pytest.raises(AssertionError, match="has no --inptu"):
    test_commands_exist_and_take_their_flags(
      "x", "python -m experiments.label --run=R --inptu=a"
    )
