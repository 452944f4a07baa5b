"""BibTeX of the papers that a sweep's encodings, variants, tasks and layers cite.

A paper is cited by the docstring of a class or of its file. A class of the user's own
is read, never imported: the report runs no code of a sweep.
"""

import ast
import dataclasses
import functools
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from experiments.reporting.latex import escape
from experiments.reporting.loaded_run import LoadedRun
from experiments.setup.registries import registries
from transformer_jax.spec import Registry, SpecError, outside
from transformer_jax.spec.grammar import IMPORT, parse

KEYS = (  # of the specs whose papers a sweep builds on
  *("model.position", "model.attention", "task", "model.family", "model.embedding"),
  *(
    "model.head",
    "model.norm",
    "model.norm_placement",
    "model.activation",
    "model.feedforward_kind",
    "model.convolution",
  ),
  *("train.optimizer", "train.schedule"),
)
TITLES = Path(__file__).with_name("papers.tsv")
LINK = re.compile(r"https?://[^\s<>\"')\]]+")
ARXIV = re.compile(
  r"arxiv\.org/(?:abs|pdf)/(\d{4}\.\d{4,5}|[a-z-]+/\d{7})|arXiv:(\S+\d)"
)
WHO = re.compile(
  r"([^\W\d_][\w'-]+(?: \d+| (?:and|&) [^\W\d_][\w'-]+)?(?: et al\.)?),"
  r" ((?:19|20)\d\d)"
)


@dataclasses.dataclass(frozen=True, order=True)
class Paper:
  """A cited paper: authors, year, title, and its arXiv id or address.

  >>> paper = Paper("Press and others", "2022", "Train Short", "2108.12409")
  >>> print(paper.bibtex("press"))
  @misc{press,
    author = {Press and others},
    title = {{Train Short}},
    year = {2022},
    eprint = {2108.12409},
    archiveprefix = {arXiv},
    url = {https://arxiv.org/abs/2108.12409},
  }
  """

  authors: str
  year: str
  title: str
  arxiv: str = ""
  url: str = ""

  def bibtex(self, key: str) -> str:
    """Returns the entry, its title in the capitals that it has."""
    fields = {
      "author": self.authors,
      "title": f"{{{self.title}}}",
      "year": self.year,
      "eprint": self.arxiv,
      "archiveprefix": self.arxiv and "arXiv",
      "url": self.url or f"https://arxiv.org/abs/{self.arxiv}",
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@misc{{{key},", *lines, "}"])


@functools.cache
def known() -> dict[str, Paper]:
  """Returns {arXiv id: paper} of the papers whose titles are recorded."""
  lines = TITLES.read_text("utf-8").splitlines()
  return {
    arxiv: Paper(escape_name(authors), year, escape(title), arxiv)
    for arxiv, year, authors, title in (line.split("\t") for line in lines)
  }


def escape_name(authors: str) -> str:
  """Returns authors for BibTeX; braces around a name of several words stay."""
  return authors if authors.startswith("{") else escape(authors)


def to_bibtex(runs: Iterable[LoadedRun]) -> str:
  """Returns references.bib: each paper once, with the classes that cite it."""
  cited: dict[Paper, list[str]] = {}
  silent: dict[str, None] = {}
  for name, docs in classes(runs).items():
    papers = [paper for text in docs for paper in papers_in(text)]
    for paper in papers:
      cited.setdefault(paper, []).append(name)
    if not papers and ":" in name:
      silent[name] = None
  keys: set[str] = set()
  parts = [
    "% Papers that the docstrings of this sweep's classes cite. First authors alone:\n"
    "% complete the names, and check each entry."
  ]
  parts += [f"% {name}: its docstring cites no paper." for name in silent]
  for paper in sorted(cited):
    names = ", ".join(dict.fromkeys(cited[paper]))
    key = _key(paper, keys)
    keys.add(key)
    parts.append(f"% {names}\n{paper.bibtex(key)}")
  return "\n\n".join(parts) + "\n"


def _key(paper: Paper, taken: set[str]) -> str:
  """Returns a key as vaswani2017attention, of ASCII letters and digits."""
  words = re.findall(r"[a-z0-9]+", re.sub(r"\\.|[{}]", "", paper.title).lower())
  first = next((word for word in words if len(word) > 3), "paper")
  name = re.sub(r"[^a-z]", "", re.sub(r"\\.", "", paper.authors.split()[0]).lower())
  key = plain = f"{name or 'anonymous'}{paper.year}{first}"
  for letter in "bcdefghijklmnopqrstuvwxyz":
    if key in taken:
      key = plain + letter
  return key


def classes(runs: Iterable[LoadedRun]) -> dict[str, list[str]]:
  """Returns {kind and name: docstrings} of the classes in all specs of runs."""
  found: dict[str, list[str]] = {}
  specs = dict.fromkeys(
    (key, spec)
    for key in KEYS
    for run in runs
    if isinstance(spec := run.config.get(key), str) and spec
  )
  for key, spec in specs:
    for name, docs in _of_spec(registries()[key], spec):
      found.setdefault(name, docs)
  return found


def _of_spec(registry: Registry, spec: str) -> Iterator[tuple[str, list[str]]]:
  """Yields (name, docstrings) of the classes in a spec and in its defaults."""
  try:
    if outside(spec):
      yield from _of_names(registry, parse(spec, registry.kind))
    else:
      yield from _of_object(registry, registry.build(spec))
  except (SpecError, ValueError, OSError):  # of another version of the code
    return


def _of_names(registry: Registry, node: ast.expr) -> Iterator[tuple[str, list[str]]]:
  """Yields the classes that a spec names; those of the user's own are read."""
  for part in ast.walk(node):
    if isinstance(part, ast.Attribute):
      module, found, name = ast.unparse(part).partition(IMPORT)
      if found:
        yield f"{registry.kind} {module}:{name}", docstrings(module, name)
    elif isinstance(part, ast.Name) and part.id in registry:
      yield f"{registry.kind} {part.id}", _docs(registry[part.id])


def _of_object(registry: Registry, thing: Any) -> Iterator[tuple[str, list[str]]]:
  """Yields an object's class and those of the objects in its fields."""
  if isinstance(thing, tuple):
    for part in thing:
      yield from _of_object(registry, part)
  elif isinstance(thing, registry.base):
    if type(thing) in registry.values():
      yield f"{registry.kind} {registry.name_of(thing)}", _docs(type(thing))
    if dataclasses.is_dataclass(thing):
      for field in dataclasses.fields(thing):
        yield from _of_object(registry, getattr(thing, field.name))


def _docs(cls: type) -> list[str]:
  module = sys.modules[cls.__module__].__doc__ or ""
  return [module] if LINK.search(module) else [inspect.getdoc(cls) or ""]


def docstrings(module: str, name: str) -> list[str]:
  """Returns the docstrings of a class and its file, read without running it."""
  for folder in sys.path:
    path = Path(folder or ".", *module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
      if file.is_file():
        return _read_docs(file, name)
  return []


def _read_docs(file: Path, name: str) -> list[str]:
  try:
    tree = ast.parse(file.read_text("utf-8"))
  except (OSError, SyntaxError, ValueError):
    return []
  named = [
    node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name
  ]
  texts = [ast.get_docstring(tree), *map(ast.get_docstring, named)]
  return [text for text in texts if text]


def papers_in(docstring: str) -> list[Paper]:
  """Returns the papers that a docstring cites before it explains arguments.

  >>> [paper.authors for paper in papers_in("Press et al., 2022. arXiv:2108.12409")]
  ['Press and others']
  """
  lines = docstring.splitlines()
  ends = [n for n, line in enumerate(lines) if re.match(r"\s*\w+(, \w+)*  +\S", line)]
  text = " ".join(" ".join(lines[: ends[0] if ends else None]).split())
  title = re.split(r"(?<=[.;:])\s", text, maxsplit=1)[0].rstrip(".;:")
  title = title.translate({ord("{"): "(", ord("}"): ")"})  # BibTeX counts braces
  papers: dict[Paper, None] = {}
  start = 0
  for match in re.finditer(rf"{LINK.pattern}|{ARXIV.pattern}", text):
    who = [*WHO.finditer(text, start, match.start())]
    start = match.end()
    papers[_paper(match[0].rstrip(".,;:"), title, who[-1] if who else None)] = None
  return [*papers]


def _paper(link: str, title: str, who: re.Match | None) -> Paper:
  """Returns the paper of a link; one without a record has the docstring's words."""
  found = ARXIV.search(link)
  arxiv = (found[1] or found[2]) if found else ""
  arxiv = re.sub(r"v\d+$", "", arxiv)
  if arxiv in known():
    return known()[arxiv]
  authors = _bibtex_names(who[1]) if who else "Unknown"
  year = who[2] if who else (f"20{arxiv[:2]}" if arxiv[:2].isdigit() else "n.d.")
  return Paper(authors, year, escape(title), arxiv, "" if arxiv else link)


def _bibtex_names(text: str) -> str:
  name = re.sub(r" et al\.$", " and others", text.replace(" & ", " and "))
  return escape(name)
