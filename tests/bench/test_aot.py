"""Compilation for TPUs: the table of its figures, and programs of its cases."""

import dataclasses
import json
import subprocess

from experiments.bench import aot
from experiments.bench.aot_programs import Case

FIGURES = {
  "moved_bytes": 1.1e9,
  "around_fast_bytes": 3e7,
  "ideal_bytes": 1.2e8,
  "temporary_bytes": 2**20,
  "peak_bytes": 3 * 2**20,
  "compile_seconds": 9.7,
  "commit": "1a2b3c4",
}


def test_figures_of_compilation_make_a_table(tmp_path):
  cases = [Case("v5e", 4, 2048, name, "pallas_tpu") for name in ("t5", "none", "cope")]
  cases.append(Case("v5e", 4, 2048, "none", "splash"))
  splash = FIGURES | {"moved_bytes": 2.2e9, "temporary_bytes": 2**21}
  found = [FIGURES, FIGURES, {"refused": "whole rows"}, splash]
  pairs = zip(cases, found, strict=True)
  results = {aot.key(case): dataclasses.asdict(case) | more for case, more in pairs}
  lines = aot.table(results).splitlines()
  figures = "1.10 | 0.03 | 0.12 | 2.20 | 0.50 | 1.0 | 2.0 | 3 | 10 | 1a2b3c4"
  assert lines[2:] == [
    f"| `cope` | v5e | 4 x 2,048 | refused: whole rows |{'  |' * 9}",
    f"| `none` | v5e | 4 x 2,048 | {figures} |",
    f"| `t5` | v5e | 4 x 2,048 | {figures} |",
  ]
  path = tmp_path / "results.json"
  assert aot.read(path) == {}
  path.write_text(json.dumps(results))
  assert aot.table(aot.read(path)).splitlines() == lines


def test_each_chip_and_length_has_splash_attention_beside_the_encodings():
  planned = [*aot.plan(["v5e", "v6e"], [2048, 8192], [])]
  assert {(c.B, c.L) for c in planned} == {(4, 2048), (1, 8192)}
  splash = [c for c in planned if c.core == "splash"]
  assert len(splash) == 4
  assert {c.encoding for c in planned if c.chip == "v6e"} == {*aot.FEW}


def test_a_compiler_that_ends_its_process_is_a_line_of_the_table(monkeypatch):
  said = "W0000 slow\nF1122 10:58 1 emitter.cc:418] Check failed: 1 == 2 (1 vs. 2) \n"
  ended = subprocess.CompletedProcess([], -6, stdout="", stderr=said)
  monkeypatch.setattr(aot.subprocess, "run", lambda *args, **kwargs: ended)
  case = Case("v5p", 4, 2048, "t5", "dense")
  found = aot.apart(case)
  assert found == {
    "failed": "the compiler ended its process: Check failed: 1 == 2 (1 vs. 2)"
  }
  assert "Check failed" in aot.table({"": dataclasses.asdict(case) | found})
