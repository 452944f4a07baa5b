"""Files for papers: figures as SVG, PDF and CSV, and tables that LaTeX reads."""

import csv
import io
import re
import shutil
import subprocess

import pytest
from fake_sweep import COPY, TEXT, write_sweep
from undrawn import leave_out

from experiments.reporting import comparisons, latex, picture, style
from experiments.reporting.differences import differences
from experiments.reporting.length_curves import length_curves
from experiments.reporting.page import write_report
from experiments.reporting.paper import paper_tables
from experiments.reporting.training_curves import training_curves

ODD = "a&b%$#_{}~^\\ <x> [1] *é ł | “q” – −"
FIGURES = [
  f"{kind}_{group}"
  for kind in ("length_curves", "differences", "training_curves")
  for group in ("text", "copy")
]


def read_csv(path):
  return [*csv.DictReader(path.read_text().splitlines())]


@pytest.mark.parametrize("name", FIGURES)
def test_each_figure_is_a_picture_a_drawing_a_page_and_its_numbers(quick, name):
  assert (quick / f"{name}.png").read_bytes().startswith(b"\x89PNG")
  svg = (quick / f"{name}.svg").read_text()
  assert svg.startswith("<?xml") and "var(--" not in svg and "currentColor" not in svg
  assert (quick / f"{name}.pdf").read_bytes().startswith(b"%PDF-")
  rows = read_csv(quick / f"{name}.csv")
  assert {row["variant"] for row in rows} >= {"alibi", "rope"}


def test_the_numbers_are_those_that_the_figure_shows(quick):
  found = comparisons.find(quick)
  rows = read_csv(quick / "length_curves_text.csv")
  (row,) = [r for r in rows if (r["variant"], r["length"]) == ("rope", "512")]
  (rope,) = [c for c in found.at("text", 512) if c.label == "rope"]
  assert (float(row["mean"]), float(row["low"])) == (
    rope.estimate.mean,
    rope.estimate.low,
  )
  rows = {r["variant"]: r for r in read_csv(quick / "differences_text.csv")}
  assert float(rows["rope"]["difference"]) == rope.difference.mean
  assert rows["rope"]["verdict"] == rope.verdict
  losses = found.sweep.of("text")[5].losses
  rows = read_csv(quick / "training_curves_text.csv")
  (row,) = [r for r in rows if (r["variant"], r["step"]) == ("rope", "400")]
  seeds = [losses[seed][400] for seed in (0, 1, 2)]
  assert float(row["lowest"]) == min(seeds) and float(row["highest"]) == max(seeds)


@pytest.mark.parametrize("draw", [length_curves, differences, training_curves])
def test_the_same_numbers_give_the_same_bytes_without_a_date(quick, draw):
  found = comparisons.find(quick)
  more = ["bits_per_byte"] if draw is length_curves else []
  drawn = draw(found, "text", *more)
  assert {*drawn.files} == {"png", "svg", "pdf", "csv"}
  for ending, content in drawn.files.items():
    assert (quick / f"{drawn.name}.{ending}").read_bytes() == content
  assert drawn.svg in (quick / "report.html").read_text()
  assert b"CreationDate" not in drawn.files["pdf"]
  assert b"<dc:date>" not in drawn.files["svg"]


def test_cells_of_a_figures_numbers_are_no_formulas():
  numbers = picture.Numbers(("variant", "mean"), [("=1+1", -0.5)])
  assert [*csv.reader(io.StringIO(numbers.to_csv()))][1] == ["'=1+1", "-0.5"]


@pytest.mark.usefixtures("undrawn")
def test_of_many_variants_the_leading_ones_are_drawn_and_the_file_has_all(tmp_path):
  means = {"none": (3.0, 3.0)} | {
    f"v{n:02d}": (3 - n / 40, 3.5 - n / 40) for n in range(29)
  }
  means["far"] = (3.2, 2.0)
  workdir = write_sweep(tmp_path, {"text": ("bits_per_byte", means)}, (0, 1), (64, 128))
  found = comparisons.find(workdir)
  named = style.leading(found, "text")
  assert len(named) == style.MOST and {"none", "v28", "far"} <= {*named}
  assert "v01" not in named
  for draw, more in ((length_curves, ["bits_per_byte"]), (training_curves, [])):
    drawn = draw(found, "text", *more)
    assert "Of 31 variants the 24 that lead" in drawn.caption
    rows = csv.DictReader(drawn.files["csv"].decode().splitlines())
    assert {row["variant"] for row in rows} == {*means}


def check_latex(text):
  """A strict reader of tables: braces, environments, cells, and bare characters."""
  stack = []
  for match in re.finditer(r"(?<!\\)(?:\\\\)*\\(begin|end)\{([a-z]+)\}", text):
    if match[1] == "begin":
      stack.append(match[2])
    else:
      assert stack.pop() == match[2]
  assert not stack
  assert text.isascii()
  bare = re.sub(r"\\\\|\\[&%$#_{}]", "", text)
  body = "\n".join(line for line in bare.splitlines() if not line.startswith("%"))
  depth = 0
  for char in body:
    depth += (char == "{") - (char == "}")
    assert depth >= 0
  assert depth == 0 and body.count("$") % 2 == 0 and not re.search(r"[%#~_]", body)
  for columns, table in re.findall(
    r"\\begin\{tabular\}\{((?:l|r|p\{0\.6\\linewidth\})+)\}(.*?)\\end\{tabular\}",
    text,
    re.DOTALL,
  ):
    many = len(re.findall("[lrp]", columns.replace(r"\linewidth", "")))
    lines = [x for x in table.strip().splitlines() if not re.match(r"\\\w+rule$", x)]
    for line in lines:
      assert line.endswith(r" \\") and not line.startswith(("[", "*"))
      cells = re.findall(r"(?<!\\)(?:\\\\)*&", line.removesuffix(r" \\"))
      assert len(cells) == many - 1, line


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
  """A report whose labels and groups have each special character of LaTeX."""
  means = {"none": TEXT["none"], ODD: TEXT["alibi"], "[x": TEXT["rope"]}
  content = {"a_b": ("bits_per_byte", means), "a b": ("bits_per_byte", means)}
  content |= {"%&": ("accuracy", {"none": COPY["none"], "*": COPY["alibi"]})}
  workdir = write_sweep(tmp_path_factory.mktemp("odd"), content)
  with pytest.MonkeyPatch.context() as patch:
    leave_out(patch)
    write_report(workdir)
  return workdir


def test_each_figure_has_files_of_its_own(odd):
  """Names of two groups differ in special characters alone."""
  page = (odd / "report.html").read_text()
  figures = r'<div role="img" aria-label="([^"]+)">.*?Files: (\S+)\.png'
  titles = {file: title for title, file in re.findall(figures, page, re.DOTALL)}
  for name, group in (("length_curves_a_b", "a_b"), ("length_curves_a_b-2", "a b")):
    assert titles[name] == f"{group}: bits per byte by context length"
  assert len(titles) == page.count("<figcaption>") - page.count("Training loss, a line")
  assert all((odd / f"{name}.svg").is_file() for name in titles)
  ids = re.findall(r'\bid="([^"]+)"', page)
  assert len(ids) == len({*ids})


def test_tables_are_latex_with_labels_captions_notes_and_bold(quick):
  text = (quick / "tables.tex").read_text()
  check_latex(text)
  labels = re.findall(r"\\label\{(.*?)\}", text)
  assert len(labels) == len({*labels}) == text.count(r"\caption{")
  main = text[text.index(r"\label{tab:main-text}") :].split(r"\end{table}")[0]
  (alibi,) = [line for line in main.splitlines() if line.startswith("alibi")]
  cells = alibi.split(" & ")
  assert cells[1].startswith(r"\textbf{2.7") and cells[4].startswith(r"\textbf{2.7")
  (none,) = [line for line in main.splitlines() if line.startswith("none")]
  (worse,) = [line for line in main.splitlines() if line.startswith("sinusoidal")]
  assert r"\textbf" not in none and r"\textbf" not in worse.split(" & ")[4]
  assert "Bold: better than none, resolved after correction." in main
  assert re.search(
    r"Corrected p: .*sinusoidal at 8x \$<\$ 0.001; t5 at 8x = 0.048", main
  )
  assert "learned at 8x undefined: table ends at position 63." in main


def test_what_did_not_resolve_is_not_bold(tmp_path):
  means = {"none": TEXT["none"], "rope": (3.075, 3.19, 3.31, 3.425)}
  workdir = write_sweep(tmp_path, {"text": ("bits_per_byte", means)}, (0, 1))
  found = comparisons.find(workdir)
  text = latex.document(found, paper_tables(found))
  assert "did not resolve" in text and r"\textbf" not in text


def test_every_special_character_of_a_label_is_escaped(odd):
  text = (odd / "tables.tex").read_text()
  check_latex(text)
  escaped = (
    r"a\&b\%\$\#\_\{\}\textasciitilde{}\textasciicircum{}\textbackslash{} $<$x$>$ {[}1"
    r"{]} {*}{\'{e}} {\l} \textbar{} ``q'' -- $-$"
  )
  assert latex.escape(ODD) == escaped and escaped in text
  assert latex.escape("漢\n\n字") == r"\texttt{U+6F22} \texttt{U+5B57}"
  labels = re.findall(r"\\label\{(.*?)\}", text)
  assert len(labels) == len({*labels}) and {"tab:main-a-b", "tab:main-a-b-2"} <= {
    *labels
  }


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex on the PATH")
def test_pdflatex_reads_the_tables(odd, tmp_path):
  text = (odd / "tables.tex").read_text()
  start = "\\documentclass{article}\\usepackage{booktabs,amssymb}\\begin{document}\n"
  (tmp_path / "paper.tex").write_text(f"{start}{text}\\end{{document}}\n")
  command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
  done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120)
  assert done.returncode == 0, done.stdout.decode("latin-1")[-2000:]
