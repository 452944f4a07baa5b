"""Comparisons over looks: by hand, and as the simulation that calibrates them."""

import pathlib

import numpy as np
import pytest
from fake_sweep import TEXT, edit, read_page, write_sweep

from experiments import until_resolved
from experiments.calibration import (
  methods,
  seed_noise,
  sequential,
  sequential_rates,
  sequential_tables,
)
from experiments.reporting import (
  comparisons,
  length_curves,
  load,
  overview,
  sampling,
  score_tables,
  summary,
  verdicts,
)
from experiments.reporting.judgements import Column
from experiments.reporting.page import write_report
from experiments.reporting.sequential_column import SequentialColumn
from experiments.setup.looks import Looks, declared
from experiments.setup.primary import Comparisons
from transformer_jax.training.json_files import read_json

LABELS = ("none", "a", "b", "c", "d", "e")
LOOKS = Looks(tuple(range(6)), (3, 4, 6), (0.2, 0.3, 0.5))


def column(scores, looks=LOOKS, better="lower", **more):
  pairs = [(label, "none") for label in scores]
  each = looks.each if looks else ()
  return Column(scores, better, pairs, pairs[1:], best=True, looks=each, **more)


def judged(scores, **more):
  return verdicts.judge({0: column(scores, **more)}, "none")[0]


def made(seed=0, count=6, **means):
  rng = np.random.default_rng(seed)
  means = {"none": 3.0, **means}
  return {
    label: dict(enumerate(mean + rng.normal(0, 0.02, count)))
    for label, mean in means.items()
  }


def first(scores, count):
  return {label: dict([*x.items()][:count]) for label, x in scores.items()}


def test_the_p_value_is_the_smallest_of_a_look_over_its_share():
  scores = made(a=2.96, b=3.01)
  found = judged(scores).of
  for pair in (("a", "none"), ("b", "none")):
    alone = [
      judged(first(scores, n), looks=None).of[pair].p / weight
      for n, weight in ((3, 0.2), (4, 0.3), (6, 0.5))
    ]
    assert found[pair].p == pytest.approx(min([*alone, 1.0]), rel=1e-12)
    assert found[pair].p_holm >= found[pair].p
    # The difference is that of all seeds, and its interval not corrected.
    fixed = judged(scores, looks=None).of[pair]
    assert found[pair].difference == fixed.difference
  assert len({found[pair].p for pair in (("a", "none"), ("b", "none"))}) == 2


def test_later_seeds_take_nothing_back():
  scores = made(a=2.9, b=3.01)
  early = judged(first(scores, 3)).of["a", "none"]
  spoiled = {
    label: values | ({3: 5.0, 4: 1.0, 5: 9.0} if label == "a" else {})
    for label, values in scores.items()
  }
  late = judged(spoiled).of["a", "none"]
  assert early.verdict == late.verdict == "better" and late.p <= early.p
  # The claim is that of its look, whatever the difference has become.
  assert late.difference.mean > 0


def test_a_pair_has_the_looks_that_both_runs_have_reached():
  scores = made(a=2.98, b=2.98)
  scores["a"] = dict([*scores["a"].items()][:4])
  found = judged(scores).of
  assert found["a", "none"].seeds == (0, 1, 2, 3)
  for count in (3, 5):  # the fifth seed is in no look of three or four seeds
    part = scores | {"a": dict([*scores["a"].items()][:3]), "b": scores["b"]}
    part = first(part, count)
    three = judged(first(part, 3), looks=None).of["a", "none"].p
    assert judged(part).of["a", "none"].p == pytest.approx(min(1.0, three / 0.2))
  none = judged(first(scores, 2)).of["a", "none"]
  assert (none.verdict, none.reason) == (
    "did not resolve",
    "no look yet: the first is at 3 seeds",
  )


def test_seeds_that_would_resolve_are_those_of_a_later_look():
  scores = made(a=2.985, b=3.0)
  more = judged(first(scores, 4)).of["a", "none"].more
  fixed = judged(first(scores, 4), looks=None).of["a", "none"].more
  assert more.point > fixed.point  # half of the error at the last look
  assert judged(scores).of["a", "none"].more is None  # there is no later one


def test_equivalence_is_tested_at_each_look_too():
  scores = made(a=3.0, b=2.0)
  found = judged(scores, margin=0.5).of["a", "none"]
  assert found.verdict == "equivalent"
  alone = [
    judged(first(scores, n), looks=None, margin=0.5).of["a", "none"].p_equivalent / w
    for n, w in ((3, 0.2), (4, 0.3), (6, 0.5))
  ]
  assert found.p_equivalent == pytest.approx(min(alone), rel=1e-9, abs=0)


def test_the_best_is_told_by_differences_and_by_looks_that_it_led():
  scores = made(a=2.0, b=2.5, c=2.98)
  # Later seeds are easier for all: who stopped early has a worse mean, and leads.
  for label in ("none", "b", "c"):
    scores[label] |= {seed: scores[label][seed] - 1.5 for seed in (4, 5)}
  scores["a"] = dict([*scores["a"].items()][:4])
  assert np.mean([*scores["b"].values()]) < np.mean([*scores["a"].values()])
  assert judged(scores).leaders == ("a",)
  # A rival that was far ahead at one look is not beaten by that look.
  near = made(a=2.0, b=2.0)
  near["b"] |= {seed: near["b"][seed] - 0.5 for seed in (0, 1, 2)}
  near["b"] |= {seed: near["b"][seed] + 0.7 for seed in (3, 4, 5)}
  assert judged(near).leaders == ("a", "b")


def test_pending_comparisons_count_from_the_first():
  scores = made(a=2.9, b=3.0)
  alone = verdicts.judge({0: column(scores)}, "none")[0].of["a", "none"]
  later = verdicts.judge({0: column(scores)}, "none", pending=8)[0].of["a", "none"]
  assert later.p == alone.p
  assert later.p_holm == pytest.approx(min(1.0, alone.p_holm * 10 / 2))


def test_a_comparison_below_its_first_look_counts_too():
  scores = made(a=2.9, b=3.0)
  whole = judged(scores).of["a", "none"]
  part = judged(scores | {"b": {0: 3.0, 1: 3.1}}).of
  assert part["b", "none"].p_holm is None and part["b", "none"].more is None
  assert part["b", "none"].reason.startswith("no look yet")
  assert part["a", "none"].p_holm == pytest.approx(2 * part["a", "none"].p)
  assert whole.verdict == part["a", "none"].verdict == "better"


# The simulation, and the path that reports take.


def test_a_sweep_of_one_look_is_one_of_fixed_seeds():
  scores = seed_noise.NOISES["recorded"].draw(np.random.default_rng(0), (40, 4, 6, 3))
  ended = sequential.run(scores.scores_RCVS, (3,), (1.0,))
  _, adjusted = methods.METHODS["moderated"](scores.scores_RCVS)
  np.testing.assert_array_equal(ended.resolved_RCP, adjusted < 0.05)
  assert (ended.seeds_RGV == 3).all()


def test_the_error_holds_over_all_looks_and_without_shares_it_would_not():
  looks, noise = declared((0, 1, 2), 20), seed_noise.NOISES["equal"]
  found = sequential_rates.measure(noise, looks.counts, looks.weights, 300, 60)
  assert found.errors <= 5.5 and found.power[4.0] >= 95
  assert 3 < found.seeds[0.0] < 8 and 4 < found.seeds[4.0] < 8
  assert 100 < found.estimate[2.0] < 125  # biased away from zero
  every = (1.0,) * len(looks.counts)
  naive = sequential_rates.measure(noise, looks.counts, every, 300, 20, gives_up=False)
  assert naive.errors > 8 and naive.seeds[0.0] == pytest.approx(20, abs=0.5)


def test_tables_have_a_row_for_each_noise(monkeypatch):
  noises = {name: seed_noise.NOISES[name] for name in ("equal", "lost")}
  monkeypatch.setattr(sequential_tables, "NOISES", noises)
  monkeypatch.setattr(sequential_tables, "OF_SHARES", ("equal",))
  made = sequential_tables.tables(40)
  rows = {name: table.splitlines()[2:] for name, table in made.items()}
  assert [*map(len, rows.values())] == [2, 2, 1]
  assert rows["until"][1].startswith("| lost seeds | ")
  cells = [line.count(" | ") for line in (x[0] for x in rows.values())]
  assert cells == [5, 8, 4]


def folder_of(scores_CVS, seeds_GV):
  """Returns a sweep of two groups at two lengths, as if read from a folder."""
  runs = []
  for g in range(2):
    for v, label in enumerate(LABELS):
      seeds = range(seeds_GV[g, v])
      scores = [
        {"seed": s, "length": n, "measure": "bits", "part": "mean", "value": x}
        for n, c in ((64, 2 * g), (512, 2 * g + 1))
        for s, x in enumerate(scores_CVS[c, v, : len(seeds)])
      ]
      result = {"scores": scores, "seeds": [*seeds], "lengths": [64, 512]}
      result |= {"measures": [{"name": "bits", "better": "lower"}], "train_length": 64}
      group = ("text", "copy")[g]
      runs.append(
        load.LoadedRun(f"{group}-{v}", label, group, "finished", 0, result=result)
      )
  # Of named pairs nobody is called best, which costs the others something.
  pairs = Comparisons(contrasts=tuple((label, "none") for label in LABELS[1:]))
  folder, groups = pathlib.Path("no folder"), ("text", "copy")
  return load.Sweep(folder, "", "", "", "none", groups, tuple(runs), 0, pairs)


def report_of(scores_CVS, monkeypatch, most):
  """Returns the findings of a sweep that is judged until no run gets seeds, and these.

  The seeds are counted by group and variant.
  """
  seeds_GV = np.full((2, 6), 3)
  while True:
    sweep = folder_of(scores_CVS, seeds_GV)
    monkeypatch.setattr(load, "read", lambda _, sweep=sweep: sweep)
    found = comparisons.find("runs")
    counts = until_resolved.needs(found, most)
    if not counts:
      return found, seeds_GV
    for name, count in counts.items():
      group, _, v = name.partition("-")
      place = ("text", "copy").index(group), int(v)
      assert count > 3
      seeds_GV[place] = max(seeds_GV[place], count)


def keep_early_looks(monkeypatch):
  """Lets each look keep the p value of its time, as the simulation does.

  A report computes it again, with all runs that have its seeds by then.
  """
  kept, differences = {}, SequentialColumn.differences

  def at_their_time(column, pairs):
    of = str(column.column.scores["none"][0])  # another number in each column
    return {
      pair: [kept.setdefault((of, pair, n), x) for n, x in enumerate(contrasts)]
      for pair, contrasts in differences(column, pairs).items()
    }

  monkeypatch.setattr(SequentialColumn, "differences", at_their_time)


def decisions(kind, count, monkeypatch):
  """Yields of each report: runs with other seeds and claims than in its simulation."""
  looks, most = declared((0, 1, 2), 8), 8
  made = seed_noise.NOISES[kind].draw(np.random.default_rng(5), (count, 4, 6, most))
  scores = made.scores_RCVS
  unit = made.sd_RCV[0, 0, 0]  # of the baseline
  scores[:, 1, 1] -= 8 * unit  # one variant is better at the longest length
  scores[:, 2, 2:4] += 2.5 * unit
  ended = sequential.run(scores, looks.counts, looks.weights)
  monkeypatch.setattr(comparisons, "_looks", lambda sweep: looks)
  for r, scores_CVS in enumerate(scores):
    found, seeds_GV = report_of(scores_CVS, monkeypatch, most)
    claims = {
      (c.group, c.length, c.label)
      for c in found.comparisons
      if c.verdict in ("better", "worse")
    }
    expected = {
      (("text", "copy")[c // 2], (64, 512)[c % 2], LABELS[p + 1])
      for c, p in np.argwhere(ended.resolved_RCP[r])
    }
    assert len(claims) > 0
    yield int((seeds_GV != ended.seeds_RGV[r]).sum()), claims ^ expected


@pytest.mark.parametrize("kind", ["equal", "baseline"])
def test_the_simulation_takes_the_decisions_of_a_sweep(monkeypatch, kind):
  assert [*decisions(kind, 2, monkeypatch)] == [(0, set())] * 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["equal", "baseline"])
def test_the_simulation_takes_the_decisions_of_50_sweeps(monkeypatch, kind):
  keep_early_looks(monkeypatch)
  assert [*decisions(kind, 50, monkeypatch)] == [(0, set())] * 50


@pytest.mark.slow
def test_early_looks_that_are_computed_again_change_few_decisions(monkeypatch):
  others = [
    seeds for seeds, claims in decisions("equal", 50, monkeypatch) if not claims
  ]
  assert len(others) == 50 and sum(seeds > 0 for seeds in others) <= 1


# What a report says of it.

MEANS = {label: TEXT[label] for label in ("none", "alibi", "rope")}
MANY = declared((0, 1, 2), 6)


@pytest.fixture
def added(tmp_path):
  """A sweep in which rope stopped at three seeds, the others at six."""
  write_sweep(
    tmp_path,
    {"text": ("bits_per_byte", MEANS | {"near": (3.08, 3.2, 3.3, 3.43)})},
    seeds=range(6),
    looks=MANY.to_json(),
  )
  path = tmp_path / "runs/text-02"
  scores = [s for s in read_json(path / "result.json")["scores"] if s["seed"] < 3]
  edit(tmp_path, "text-02", scores=scores, seeds=[0, 1, 2])
  for n in range(4):
    edit(tmp_path, f"text-0{n}", seeds_apart=True)
  return tmp_path


def test_a_report_says_how_it_was_sampled(added):
  found = comparisons.find(added)
  sure = dict(overview.overview(found))["How sure is that?"]
  assert "3 to 6 seeds a variant" in sure[0]
  assert sure[1].startswith(
    "Seeds were added until resolved: looks were declared at 3, 4 and 6 seeds, which"
    " may spend 1.2, 1.5 and 2.3% of error, 5% together."
  )
  assert "comparisons resolved" in sure[1] and sure[1].endswith("the last look.")
  (what,) = dict(overview.overview(found))["What would make it surer?"]
  assert what.startswith("Verdicts have no look after 6 seeds.")
  assert sampling.late(found) not in sure


def test_before_the_first_look_nothing_is_said_to_be_resolved(added):
  edit(added, "text-00", "status.json", state="running")  # the baseline
  said = dict(overview.overview(comparisons.find(added)))
  assert said["How sure is that?"][1].endswith("No comparison is tested yet.")
  (what,) = said["What would make it surer?"]
  assert what == "The first look tells which comparisons get seeds."


def test_tables_and_page_treat_fewer_seeds_as_sound(added):
  found = comparisons.find(added)
  table = score_tables.main_table(found, "text")
  assert sampling.NOTE in table.notes
  assert not any("of 6 seeds" in cell for row in table.rows for cell in row)
  assert not any("seeds trained together" in note for note in table.notes)
  # Rope has the best difference from the baseline, and is no stranger for its seeds.
  lead, more = summary.answer(found, "text")
  assert "other seeds than" not in lead + more
  assert lead.startswith("At 8x the training length alibi is best")
  assert "At the training length rope is best" in more
  cells = [c for c in found.comparisons if c.label == "rope" and c.part == "mean"]
  assert all(c.complete and c.planned == 3 for c in cells)
  write_report(added)
  text = (added / "report.html").read_text()
  assert "looks were declared at 3, 4 and 6" in text and read_page(added).tables
  assert length_curves._seeds(found.of("text")) == "mean of 3 to 6 seeds"


def test_a_verdict_of_an_early_look_is_not_read_off_the_sign_of_all_seeds(added):
  plan = {"contrasts": [["alibi", "rope"]], "lengths": ["trained"]}
  edit(added, "..", "sweep.json", comparisons=Comparisons().to_json() | plan)
  scores = read_json(added / "runs/text-02/result.json")["scores"]
  later = [s | {"seed": s["seed"] + 3, "value": s["value"] + 9} for s in scores]
  edit(added, "text-02", scores=scores + later, seeds=[*range(6)])
  found = comparisons.find(added)
  (pair,) = [c for c in found.pairs if c.verdict == "worse"]
  assert pair.difference.mean < 0  # bits per byte
  said = "alibi is worse than rope by the verdict of an early look; over all seeds the"
  assert summary._pair(pair).startswith(f"{said} difference is −")


def test_seeds_to_add_are_counted_from_the_last_look(tmp_path):
  # Five seeds in common, and looks at 3, 4 and 6: the last one has had four.
  near = {"none": (3.07,), "near": (3.06,)}
  content, looks = {"text": ("bits_per_byte", near)}, MANY.to_json()
  write_sweep(tmp_path, content, seeds=range(5), lengths=(64,), looks=looks)
  found = comparisons.find(tmp_path)
  (unresolved,) = [c for c in found.comparisons if c.more]
  assert unresolved.difference.count == 5 and unresolved.more.low >= 2
  enough = 4 + unresolved.more.low
  assert sampling.outlook(found, enough).open == [unresolved]
  assert sampling.outlook(found, enough - 1).futile == [unresolved]


def test_without_looks_nothing_says_so(added):
  edit(added, "..", "sweep.json", looks=None)
  found = comparisons.find(added)
  assert found.looks is None and sampling.sentences(found) == []
  assert sampling.NOTE not in score_tables.main_table(found, "text").notes


def test_a_damaged_schedule_is_a_sentence_with_the_file(added):
  edit(added, "..", "sweep.json", looks={"seeds": [0]})
  with pytest.raises(load.ReportError, match="sweep.json: looks .* are no object with"):
    comparisons.find(added)
