"""What runs must share before the report judges one by the other."""

import pytest
from fake_sweep import TEXT, edit, read_page, write_sweep

from experiments.reporting import comparisons, method, score_tables, summary
from experiments.reporting.page import write_report

FEW = {label: TEXT[label] for label in ("none", "alibi", "rope")}
LENGTHS = (64, 128, 256, 512)


@pytest.fixture
def sweep(tmp_path):
  return write_sweep(tmp_path, {"text": ("bits_per_byte", FEW)})


def targets(*prints, examples=32):
  """Returns what a run records of its targets, one fingerprint for each length."""
  each = {"examples": examples, "targets": 64 * examples}
  return {
    str(n): {"fingerprint": p, **each} for n, p in zip(LENGTHS, prints, strict=True)
  }


def verdicts(workdir):
  found = comparisons.find(workdir)
  return {row.label: row.verdict for row in found.at("text", 512)}


INPUTS = {
  "data": ({"data": {"fingerprint": "1b2c"}}, "the data changed between its runs"),
  "tokenizer": (
    {"data": {"fingerprint": "9f2c41aa", "vocabulary": "77"}},
    "the tokenizer of None changed",
  ),
  "weights": (
    {"start": {"folder": "bert", "weights": "77"}},
    "the weights in bert changed",
  ),
  "code": ({"own_code": {"fade.py": "77"}}, "fade.py changed"),
  "cores": (
    {"cores": 2},
    "the number of CPU cores changed between its runs (1 in none and alibi, 2 in rope)",
  ),
  "cores of an older run": (
    {"cores": None, "device": "cpu: AMD EPYC 7B13, 16 cores"},
    "the number of CPU cores changed between its runs (1 in none and alibi, 16 in",
  ),
  "cores of a continued run": (
    {"before": [{"cores": 2}]},
    "the number of CPU cores changed between its runs (1 in none and alibi, 2+1 in",
  ),
  "seeds": (
    {"seeds_apart": True},
    "how seeds are trained changed between its runs (together in none and alibi,"
    " apart in rope)",
  ),
}


def change_inputs(sweep, changes):
  """Changes an input of one of three runs; checks that there were verdicts before."""
  for run in ("text-00", "text-01"):
    same = {"data": {"fingerprint": "9f2c41aa", "vocabulary": "aa"}}
    same |= {"cores": 1}
    same |= {"start": {"folder": "bert", "weights": "aa"}, "own_code": {"fade.py": "a"}}
    edit(sweep, run, **same)
  edit(sweep, "text-02", **same)
  assert {*verdicts(sweep).values()} == {"baseline", "better", "worse"}
  edit(sweep, "text-02", **changes)


@pytest.mark.parametrize("name", INPUTS)
def test_what_changed_between_runs_is_the_first_line_and_no_verdict(sweep, name):
  changes, says = INPUTS[name]
  change_inputs(sweep, changes)
  lead, cure = summary.answer(comparisons.find(sweep), "text")
  assert lead.startswith(f"No verdict: {says}") and "rope" in lead
  assert "another --workdir" in cure
  assert {*verdicts(sweep).values()} == {"baseline", "not compared"}
  compared = comparisons.find(sweep).comparisons
  assert all(c.p is None and c.difference.count == 0 for c in compared)
  assert all(c.estimate.mean is not None for c in compared)


@pytest.mark.usefixtures("undrawn")
def test_a_page_without_a_verdict_says_so_and_names_no_best(sweep):
  change_inputs(sweep, INPUTS["data"][0])
  text = write_report(sweep).read_text()
  assert text.index("No verdict: ") < text.index("<main>")
  assert "best" not in text[: text.index("<main>")]


def test_variants_may_have_tokenizers_and_weights_of_their_own(sweep):
  for n, label in enumerate(FEW):
    data = {"fingerprint": "9f2c41aa", "vocabulary": label}
    edit(sweep, f"text-{n:02d}", data=data, start={"folder": label, "weights": label})
    edit(sweep, f"text-{n:02d}", "config.json", task=f"tokens({label})")
    edit(sweep, f"text-{n:02d}", targets=targets("a", "a", "a", "a"))
  assert verdicts(sweep)["alibi"] == "better"


def test_only_equal_targets_are_judged(sweep):
  edit(sweep, "text-00", targets=targets("a", "a", "a", "a"))
  edit(sweep, "text-01", targets=targets("a", "a", "a", "a"))
  edit(sweep, "text-02", targets=targets("a", "a", "a", "b", examples=16))
  assert verdicts(sweep) == {
    "none": "baseline",
    "alibi": "better",
    "rope": "not compared",
  }
  found = comparisons.find(sweep)
  (rope,) = [row for row in found.at("text", 512) if row.label == "rope"]
  assert (
    rope.reason == "scored on other targets than none" and not rope.difference.count
  )
  assert {row.verdict for row in found.at("text", 64)} >= {"better"}
  lead, more = summary.answer(found, "text")
  assert lead.startswith("At 8x the training length alibi is best: 2.7")
  assert "rope: scored on other targets than alibi and none." in more
  (line, *_) = method.method(found)
  assert "In text variants are scored on different targets: only equal" in line
  (budget,) = method.budgets(found)
  assert "scored on 16 to 32 examples with 1,024 to 2,048 target tokens" in budget


def test_runs_that_recorded_no_targets_are_compared_by_their_settings(sweep):
  for n in range(3):
    edit(sweep, f"text-{n:02d}", "config.json", task="copy(scored=4)")
  assert verdicts(sweep)["alibi"] == "better"
  (line, *_) = method.method(comparisons.find(sweep))
  assert "In text some runs did not record their targets: they are compared" in line
  edit(sweep, "text-01", "config.json", task="copy(scored=2)")
  edit(sweep, "text-02", "config.json", **{"evaluate.examples": 16})
  assert verdicts(sweep) == {
    "none": "baseline",
    "alibi": "not compared",
    "rope": "not compared",
  }
  lead, more = summary.answer(comparisons.find(sweep), "text")
  assert lead.startswith("No verdict. At 8x the training length alibi and rope: scored")
  assert "best" not in lead + more


SAME = "In text every length of every variant is scored on the same target tokens"
OWN = "In text all variants are scored on the same targets, and each length has its own"


@pytest.mark.parametrize(
  "prints,says", [("aaaa", SAME), ("abcd", OWN)], ids=["same", "own"]
)
def test_whether_lengths_share_their_targets_is_proved_not_claimed(sweep, prints, says):
  for n in range(3):
    edit(sweep, f"text-{n:02d}", targets=targets(*prints))
  (line, *_) = method.method(comparisons.find(sweep))
  assert says in line
  assert verdicts(sweep)["alibi"] == "better"


@pytest.mark.usefixtures("undrawn")
def test_a_column_is_a_length_where_runs_were_trained_at_others(sweep):
  edit(sweep, "text-02", train_length=128)
  found = comparisons.find(sweep)
  header = score_tables.length_tables(found, "text")[0].header
  assert header[1:] == tuple(f"length {n}" for n in LENGTHS)
  assert score_tables.main_table(found, "text").header[4] == "length 512 mean"
  lead, more = summary.answer(found, "text")
  assert lead.startswith("At length 512 alibi is best")
  assert "1x" not in lead + more and "the training length" not in lead + more
  write_report(sweep)
  assert "8x" not in str(read_page(sweep).tables["lengths_text_bits_per_byte_mean"])


def test_seeds_lost_by_none_are_not_ranked_with_more(sweep):
  few = [{"seed": s, "length": 512, "measure": "bits_per_byte", "value": 1.0 + s / 9}
         for s in (0, 1)]  # fmt: skip
  edit(sweep, "text-02", seeds=[0, 1], scores=few)
  lead, more = summary.answer(comparisons.find(sweep), "text")
  assert lead.startswith("At 8x the training length alibi is best")
  assert "rope: other seeds than alibi and none." in more


def test_what_no_test_can_see_is_said(sweep):
  for n, batch_size in enumerate((4, 4, 16)):
    edit(sweep, f"text-{n:02d}", "config.json", **{"evaluate.batch_size": batch_size})
  assert verdicts(sweep)["alibi"] == "better"
  edit(sweep, "text-01", device="cpu x4", mesh={"data": 2})
  edit(sweep, "text-02", versions={"jax": "0.11.0", "flax": "0.12.8"})
  for n, flags in enumerate(({}, {"XLA_FLAGS": "--fast"}, {})):
    edit(sweep, f"text-{n:02d}", environment=flags)
  (note,) = [
    n
    for n in score_tables.main_table(comparisons.find(sweep), "text").notes
    if "last digits" in n
  ]
  assert "evaluate.batch_size (4: none and alibi; 16: rope)" in note
  assert "device (cpu x2: none and rope; cpu x4: alibi)" in note and "mesh" not in note
  assert "versions (jax 0.10.2: none and alibi; jax 0.11.0: rope)" in note
  assert "environment (XLA_FLAGS None: none and rope; XLA_FLAGS --fast: alibi)" in note


def test_runs_of_several_processes_are_marked(sweep):
  def notes():
    return " ".join(score_tables.main_table(comparisons.find(sweep), "text").notes)

  assert "processes" not in notes()
  edit(sweep, "text-02", processes=4)
  assert "processes (1: none and alibi; 4: rope)" in notes()
