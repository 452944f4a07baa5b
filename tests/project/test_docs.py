"""Every block of code, command, link, path and flag of README and docs exists."""

import contextlib
import importlib.util
import io
import pathlib
import re
import shlex

import pytest
from absl import flags as absl_flags

import transformer_jax
import transformer_jax.data  # noqa: F401, fills the registry of tasks
from experiments.setup import flags, validate
from transformer_jax.attention.cores import cores
from transformer_jax.data.base import tasks
from transformer_jax.positions import PositionalEncoding
from transformer_jax.spec import errors

ROOT = pathlib.Path(__file__).parents[2]
# They define the flags of run and sweep.
SETUP = ROOT / "experiments" / "setup"
FLAGS = [SETUP / f"{x}.py" for x in ("flags", "host_flags", "launcher_flags")]
PLACES = ("*.md", "docs/**/*.md", "third_party/**/*.md", "experiments/**/*.md")
PAGES = sorted(
  page
  for place in PLACES
  for page in ROOT.glob(place)
  if not {"_build", "templates"} & {*page.parts}
)
# Their blocks run in test_interop.py, which knows what is printed. The notebook runs in
# test_analysis.py, which has a sweep.
TESTED = {"docs/interop.md", "README.md"}
# Their formulas come from the catalogue.
GENERATED = {"docs/attention.md", "docs/positions.md"}
# Records of what ran at a commit name files as they were called then.
RECORDS = ("docs/results/", "CHANGELOG.md")


def name(page):
  return str(page.relative_to(ROOT))


def blocks(language):
  """Returns [(page, block)] of all pages."""
  pattern = re.compile(rf"^```{language}\n(.*?)^```", re.DOTALL | re.MULTILINE)
  return [(page, text) for page in PAGES for text in pattern.findall(page.read_text())]


def commands():
  """Returns [(page, command)]: lines of blocks, and code in sentences."""
  whole = [(p, text.replace("\\\n", " ")) for p, text in blocks("")]
  lines = [(p, line) for p, text in whole for line in text.splitlines()]
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


def test_blocks_are_commands_or_python():
  """Others would be neither run nor parsed; Sphinx's own directives are no code."""
  for page in PAGES:
    opened = re.findall(r"^```(.*)$", page.read_text(), re.MULTILINE)[::2]
    formulas = {"text"} if name(page) in GENERATED else set()
    code = {x for x in opened if not x.startswith("{")}
    assert code <= {"", "python", *formulas}, name(page)


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
  if module in ("experiments.run", "experiments.sweep") and "=FILE" not in line:
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
    *FLAGS,
  ]
  files.append(ROOT / "experiments" / "inference.py")
  text = "".join(path.read_text() for path in files if path.exists())
  return {*re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"", text)}


def test_a_command_that_does_not_exist_would_be_found():
  with pytest.raises(AssertionError, match="has no --inptu"):
    test_commands_exist_and_take_their_flags(
      "x", "python -m experiments.label --run=R --inptu=a"
    )


STARTED = {  # processes that other commands start
  *("experiments.bench.ours", "experiments.bench.device_worker"),
  "experiments.runner.worker_process",
}


def test_every_command_is_on_the_page_of_commands_with_its_flags():
  page = (ROOT / "docs/reference/commands.md").read_text()
  for path in sorted(ROOT.glob("experiments/**/*.py")):
    text, module = path.read_text(), path.relative_to(ROOT).with_suffix("")
    module = ".".join(part for part in module.parts if part != "__main__")
    if "__main__" not in (text, path.stem) and 'if __name__ == "__main__"' not in text:
      continue
    if module in STARTED:
      continue
    row = re.search(rf"^\| `python -m {module}[ `].*$", page, re.MULTILINE)
    assert row, module
    for flag in re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"", text):
      assert f"`--{flag}`" in row[0], f"{module} --{flag}"
  shared = "".join(path.read_text() for path in FLAGS)
  for flag in re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"", shared):
    assert f"`--{flag}" in page or flag == "config", flag


def test_every_config_is_on_the_page_of_commands():
  page = (ROOT / "docs/reference/commands.md").read_text()
  for path in ROOT.glob("experiments/configs/*.py"):
    assert path.stem in ("__init__", "base") or f"`{name(path)}`" in page, path


def anchors(page):
  """Returns the anchors of a page's headings, as GitHub makes them."""
  headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
  plain = [re.sub(r"[^\w -]", "", heading.lower()) for heading in headings]
  return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_inside_of_the_project_lead_somewhere(page):
  for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
    if re.match(r"[a-z]+:", target):
      continue
    path, _, anchor = target.partition("#")
    there = (page.parent / path).resolve() if path else page
    assert there.exists(), f"{name(page)} links {target}"
    assert there.is_relative_to(ROOT), f"{name(page)} links {target}"
    if anchor:
      assert anchor in anchors(there), f"{name(page)} links {target}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_that_name_code_lead_to_its_file(page):
  for code, path in re.findall(r"\[`([\w.]+)`\]\(([^)]+\.py)\)", page.read_text()):
    text = (page.parent / path).read_text()
    last = code.rpartition(".")[2]
    defined = re.search(rf"^\s*(def|class) {last}\b", text, re.MULTILINE)
    assert defined or code == pathlib.Path(path).name, f"{name(page)}: {code}, {path}"


@pytest.mark.parametrize(
  "page", [p for p in PAGES if not name(p).startswith(RECORDS)], ids=name
)
def test_files_that_are_named_exist(page):
  for path in re.findall(
    r"(?<![\w/])((?:transformer_jax|experiments|docs|tests)/[\w/.]*\w\.\w+)",
    page.read_text(),
  ):
    assert (ROOT / path).exists(), f"{name(page)} names {path}"


def test_extras_that_are_installed_exist():
  setup = (ROOT / "setup.cfg").read_text()
  extras = setup.split("[options.extras_require]")[1].split("\n[")[0]
  for page in PAGES:
    for extra in re.findall(r"pip install -e '?\.\[([\w-]+)\]", page.read_text()):
      assert re.search(rf"^{extra} =", extras, re.MULTILINE), f"{name(page)}: {extra}"


def test_every_task_and_core_is_on_the_page_of_components():
  """Encodings and variants are on generated pages, which `make lint` checks."""
  page = (ROOT / "docs/reference/components.md").read_text()
  for registry in (tasks, cores):
    missing = [x for x in registry if f"`{x}`" not in page and f"`{x}(" not in page]
    assert not missing, f"{missing} are not named"


def test_every_dependency_has_its_reason():
  setup = (ROOT / "setup.cfg").read_text()
  needed = re.search(r"install_requires =\n((?:  .+\n)+)", setup)[1]
  needed += re.search(r"\ndev =\n((?:  .+\n)+)", setup)[1]
  table = (ROOT / "docs/reference/dependencies.md").read_text()
  for package in re.findall(r"^  ([\w-]+) ", needed, re.MULTILINE):
    assert re.search(rf"[| ]{package}[, ]", table), package


def test_the_changelog_has_every_renamed_key_and_argument():
  page = (ROOT / "CHANGELOG.md").read_text()
  for old, new in validate.RENAMED.items():
    assert f"| `{old}` | `{new}` |" in page, old
  for old, names in errors.RENAMED.items():
    for new in names:
      assert f"| `{old}` | `{new}` |" in page, (old, new)


def test_the_citation_has_the_version():
  text = (ROOT / "CITATION.cff").read_text()
  assert f"\nversion: {transformer_jax.__version__}\n" in text


def test_each_term_of_the_glossary_is_defined_once():
  page = (ROOT / "docs/reference/glossary.md").read_text()
  terms = re.findall(r"^\| ([a-z][^|]*) \|", page, re.MULTILINE)
  terms = [term for term in terms if term != "term"]
  assert len(terms) == len({*terms}) > 40
  for member in ("integer_positions", "needs_full_text", "centred", "full_scores"):
    assert hasattr(PositionalEncoding, member) and member in terms


@pytest.mark.parametrize("page", [p for p in PAGES if "reference" in p.parts], ids=name)
def test_tables_have_as_many_cells_in_each_row(page):
  for table in re.findall(r"(?:^\|.*\n)+", page.read_text(), re.MULTILINE):
    rows = [re.sub(r"`[^`]*`", "", row).count("|") for row in table.splitlines()]
    assert len({*rows}) == 1, table
