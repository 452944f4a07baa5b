"""Tables as LaTeX: booktabs, with caption, label, notes, and bold where resolved."""

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence

from experiments.reporting.findings import Findings
from experiments.reporting.report_table import Table
from experiments.reporting.text import multiple

PACKAGES = "% needs \\usepackage{booktabs,amssymb}\n"
SPECIAL = {
  **{char: "\\" + char for char in "&%$#_{}"},
  **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
  # A row may not start with these: they would be arguments of the \\ before it.
  **{"[": "{[}", "]": "{]}", "*": "{*}"},
  **{"<": "$<$", ">": "$>$", "|": r"\textbar{}"},
  **{"±": r"$\pm$", "−": "$-$", "×": r"$\times$", "·": r"$\cdot$", "≤": r"$\le$"},
  **{"–": "--", "—": "---", "“": "``", "”": "''", "‘": "`", "’": "'", "…": r"\ldots{}"},
  **{"▲": r"$\blacktriangle$", "▼": r"$\blacktriangledown$", "○": r"$\circ$"},
  **{"≥": r"$\ge$", "≈": r"$\approx$", "→": r"$\to$", "\u00a0": "~", '"': "''"},
  **{"ß": r"{\ss}", "æ": r"{\ae}", "Æ": r"{\AE}", "ø": r"{\o}", "Ø": r"{\O}"},
  **{"ł": r"{\l}", "Ł": r"{\L}", "œ": r"{\oe}", "ı": r"{\i}"},
}
ACCENTS = {
  **{"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"'},
  **{"\u0304": "=", "\u0307": ".", "\u030a": "r", "\u0306": "u", "\u030b": "H"},
  **{"\u030c": "v", "\u0327": "c", "\u0328": "k"},
}
LONG = 40  # characters of a cell that LaTeX breaks into lines


def document(findings: Findings, tables: Iterable[Table]) -> str:
  """Returns the tables of a report, each with a label of its own."""
  labels: set[str] = set()
  texts = []
  for table in tables:
    label = label_of(table, labels)
    labels.add(label)
    notes = (*table.notes, *p_notes(findings, table))
    texts.append(to_latex(table, label, notes))
  return PACKAGES + "\n".join(texts)


def label_of(table: Table, taken: set[str]) -> str:
  """Returns a label of letters, digits and hyphens that is not taken."""
  name = re.sub(r"[^A-Za-z0-9]+", "-", table.name).strip("-")
  label, number = f"tab:{name}", 1
  while label in taken:
    number += 1
    label = f"tab:{name}-{number}"
  return label


def p_notes(findings: Findings, table: Table) -> list[str]:
  """Returns the corrected p values of the verdicts in a group's main table."""
  group = table.name.removeprefix("main_")
  if group == table.name or group not in findings.sweep.groups:
    return []
  values = [
    f"{c.label} at {multiple(c.times)} {_p(c.p_holm)}"
    for cell in findings.main(group)
    for c in findings.cell(cell)
    if c.p_holm is not None and c.verdict in ("better", "worse", "equivalent")
  ]
  bold = f"Bold: better than {findings.sweep.baseline}, resolved after correction."
  notes = [bold] if table.bold else []
  return notes + ([f"Corrected p: {'; '.join(values)}."] if values else [])


def _p(value: float) -> str:
  return "< 0.001" if value < 0.001 else f"= {value:.2g}"


def to_latex(table: Table, label: str, notes: Sequence[str] = ()) -> str:
  """Returns a table of booktabs; long cells are broken into lines.

  label   for \\ref
  notes   sentences below the table
  """
  columns = "".join(map(_column, zip(*(table.header, *table.rows), strict=True)))
  return "\n".join(
    [
      r"\begin{table}",
      r"\centering",
      rf"\caption{{{escape(table.title)}.}}",
      rf"\label{{{label}}}",
      rf"\begin{{tabular}}{{{columns.replace('r', 'l', 1)}}}",
      r"\toprule",
      _line(table.header),
      r"\midrule",
      *(
        _line(cells, {column for line, column in table.bold if line == n})
        for n, cells in enumerate(table.rows)
      ),
      r"\bottomrule",
      r"\end{tabular}",
      *(rf"\par\smallskip{{\footnotesize {escape(note)}\par}}" for note in notes),
      r"\end{table}",
      "",
    ]
  )


def _column(cells: tuple[str, ...]) -> str:
  return r"p{0.6\linewidth}" if max(map(len, cells)) > LONG else "r"


def _line(cells: Sequence[str], bold: Collection[int] = ()) -> str:
  texts = (
    rf"\textbf{{{escape(cell)}}}" if n in bold else escape(cell)
    for n, cell in enumerate(cells)
  )
  return " & ".join(texts) + r" \\"


def escape(text: str) -> str:
  """Returns text that LaTeX sets as it stands, whatever characters it has.

  A letter with an accent is written with commands, which pdfLaTeX knows without
  packages; a character that it does not know as its number, U+6F22.
  """
  return "".join(map(_character, " ".join(text.split())))


def _character(char: str) -> str:
  if char in SPECIAL:
    return SPECIAL[char]
  if char.isascii():
    return char
  base, *marks = list(unicodedata.normalize("NFD", char))
  if len(marks) == 1 and marks[0] in ACCENTS and base.isascii():
    return rf"{{\{ACCENTS[marks[0]]}{{{base}}}}}"
  return rf"\texttt{{U+{ord(char):04X}}}"
