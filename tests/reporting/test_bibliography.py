"""references.bib has the paper of every encoding, variant, task and user's class."""

import re

import pytest
from fake_sweep import TEXT, edit, write_sweep

from experiments.reporting import load, references
from experiments.reporting.page import write_report
from experiments.setup.registries import registries
from transformer_jax.attention import attentions
from transformer_jax.positions import positions

ENTRY = re.compile(r"^@misc\{([a-z0-9]+),\n((?:  \w+ = \{.*\},\n)+)\}$", re.MULTILINE)
# The docstring names who had the idea, in a post that the paper describes.
OTHERS = {"2309.00071": "Peng", "2508.10925": "OpenAI"}  # OpenAI wrote on gpt-oss


def entries(text):
  """Returns {key: fields}; asserts that no line is outside of an entry or a comment."""
  rest = ENTRY.sub("", text)
  assert all(not line or line.startswith("% ") for line in rest.splitlines()), rest
  found = {}
  for key, body in ENTRY.findall(text):
    assert key not in found
    found[key] = dict(re.findall(r"^  (\w+) = \{(.*)\},$", body, re.MULTILINE))
  return found


def run(**config):
  return load.LoadedRun("a", "a", "text", "finished", config=config)


def bib(**config):
  specs = {key.replace("_", ".", 1): value for key, value in config.items()}
  return entries(references.to_bibtex([run(**specs)]))


def ids(found):
  return {fields["eprint"] for fields in found.values() if "eprint" in fields}


def test_an_entry_has_authors_title_year_and_arxiv_id():
  found = bib(model_position="alibi")
  assert found["press2022train"] == {
    "author": "Press and others",
    "title": "{Train Short, Test Long: Attention with Linear Biases Enables Input"
    " Length Extrapolation}",
    "year": "2022",
    "eprint": "2108.12409",
    "archiveprefix": "arXiv",
    "url": "https://arxiv.org/abs/2108.12409",
  }


def test_inner_and_default_encodings_sums_and_tasks_are_cited():
  found = bib(
    model_position="randomized(by_layer((t5, alibi)))",
    model_attention="gqa(2) + window(256)",
    task="blanks(reverse)",
  )
  expected = {"2305.16843", "1910.10683", "2108.12409", "2305.13245", "2004.05150"}
  assert ids(found) >= expected | {"2305.19466"}
  assert "2104.09864" in ids(bib(model_position="interpolated"))  # over RoPE


def test_a_paper_is_there_once_with_all_that_cite_it():
  text = references.to_bibtex(
    [run(**{"model.position": "rope_yarn"}), run(**{"model.position": "rope_ntk"})]
  )
  assert text.count("eprint = {2309.00071}") == 1
  assert "% positional encoding rope_yarn, positional encoding rope_ntk\n" in text


def test_a_page_without_an_arxiv_id_is_an_address():
  (fields,) = [
    x for x in bib(model_position="log_steps").values() if "Llama" in x["title"]
  ]
  assert fields["url"].startswith("https://huggingface.co/") and "eprint" not in fields


@pytest.mark.parametrize("key", references.KEYS)
def test_every_arxiv_paper_of_a_registered_class_has_a_title(key):
  for name, cls in registries()[key].items():
    for text in references._docs(cls):
      for paper in references.papers_in(text):
        known = references.known().get(paper.arxiv)
        assert not paper.arxiv or known, f"{name}: add {paper.arxiv} to papers.tsv"


@pytest.mark.parametrize(
  "registry", [positions, attentions], ids=["positions", "attention"]
)
def test_recorded_authors_and_years_are_those_of_the_docstrings(registry):
  compared = 0
  for name, cls in registry.items():
    (text,) = references._docs(cls)
    links = references.ARXIV.findall(text)
    who = references.WHO.search(" ".join(text.split()))
    if len(links) != 1 or not who:
      continue
    paper = references.known()[links[0][0]]
    author = OTHERS.get(paper.arxiv, re.split(r" et al| and | \d", who[1])[0])
    assert author in re.sub(r"[{}\\']", "", paper.authors) or "Team" in paper.authors
    assert paper.year == who[2], name
    compared += 1
  assert compared > 25


def test_a_class_of_ones_own_is_read_and_never_run(tmp_path, monkeypatch):
  (tmp_path / "own.py").write_text(
    '"""Spirals."""\nraise SystemExit("ran")\nclass Spiral:\n'
    '  """Turns {in} a 50% spiral. Müller & Lee, 2031. arXiv:3101.01234\n\n'
    '  turns   as in Press et al., 2022. https://arxiv.org/abs/2108.12409\n  """\n'
    'class Silent:\n  """Nothing."""\n'
  )
  monkeypatch.syspath_prepend(tmp_path)
  found = bib(model_position="randomized(own:Spiral(turns=3))")
  assert found["muller2031turns"] == {
    "author": r"M{\"{u}}ller and Lee",
    "title": r"{Turns (in) a 50\% spiral}",
    "year": "2031",
    "eprint": "3101.01234",
    "archiveprefix": "arXiv",
    "url": "https://arxiv.org/abs/3101.01234",
  }
  assert ids(found) == {"3101.01234", "2305.16843"}
  text = references.to_bibtex([run(**{"model.position": "own:Silent"})])
  assert "% positional encoding own:Silent: its docstring cites no paper." in text
  assert bib(model_position="gone:Class") == {}
  assert bib(model_position="no_such_encoding") == {}


@pytest.mark.usefixtures("undrawn")
def test_a_report_writes_the_papers_of_its_sweep(tmp_path):
  means = {label: TEXT[label] for label in ("none", "alibi")}
  workdir = write_sweep(tmp_path, {"text": ("bits_per_byte", means)})
  edit(workdir, "text-00", "config.json", task="copy")
  write_report(workdir)
  found = entries((workdir / "references.bib").read_text())
  assert ids(found) >= {"2108.12409", "2305.19466"}
