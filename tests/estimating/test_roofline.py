"""Time and cost of a step against figures computed by hand; the search for a slice."""

import dataclasses

import pytest

from experiments.estimating.chips import CHIPS, Topology, family, topology
from experiments.estimating.compiler import Compiled, exhausted
from experiments.estimating.roofline import Efficiency, step_time
from experiments.estimating.smallest import smallest
from experiments.estimating.traffic import Collective, Traffic
from experiments.estimating.training_work import TrainingWork
from experiments.setup.validate import ConfigError

WORK = TrainingWork(
  parameters=10,
  flops=16 * 197e12,
  executed=2 * 16 * 197e12,  # two seconds of 16 chips at their peak
  tokens=1000,
  steps=900,
  seeds=3,
  devices=16,
  in_slice=16,
)
MOVED = Traffic(819e9, {"all-reduce": Collective(1, 200e9)}, 0)  # a second each
FITS = Compiled(peak_bytes=1, hbm_bytes=2, argument_bytes=1, traffic=MOVED)
ALL = Efficiency(1.0, 1.0, 1.0)
V5E = topology("v5e:4x4")


def test_a_step_takes_as_long_as_its_slowest_part():
  found = step_time(WORK, FITS, V5E, ALL)
  assert (found.compute, found.hbm, found.interconnect) == (2.0, 1.0, 1.0)
  assert found.bound == "compute" and found.seconds == 2.0
  assert found.tokens_per_s == 500
  assert found.chip_hours == 16 * 2 * 900 / 3600


@pytest.mark.parametrize(
  "efficiency, bound, seconds",
  [
    (Efficiency(0.5, 1.0, 1.0), "compute", 4.0),
    (Efficiency(1.0, 0.25, 1.0), "hbm", 4.0),
    (Efficiency(1.0, 1.0, 0.1), "interconnect", 10.0),
  ],
)
def test_shares_of_the_peaks_decide_what_bounds_a_step(efficiency, bound, seconds):
  found = step_time(WORK, FITS, V5E, efficiency)
  assert (found.bound, found.seconds) == (bound, pytest.approx(seconds))


def test_idle_chips_compute_nothing_and_are_paid_for():
  idle = dataclasses.replace(WORK, devices=4)
  found = step_time(idle, FITS, V5E, ALL)
  assert found.compute == 8.0
  assert found.chip_hours == 16 * 8 * 900 / 3600


def test_devices_that_share_a_chip_share_its_peaks():
  halves = dataclasses.replace(WORK, devices=32, in_slice=32)
  found = step_time(halves, FITS, V5E, ALL)
  assert (found.compute, found.hbm, found.interconnect) == (2.0, 2.0, 2.0)


def test_what_does_not_fit_has_no_time():
  large = dataclasses.replace(FITS, traffic=None)
  assert not large.fits and step_time(WORK, large, V5E, ALL) is None


def test_every_figure_of_a_chip_has_its_source():
  for chip in CHIPS.values():
    names = [
      f.name for f in dataclasses.fields(chip) if f.name not in ("name", "slices")
    ]
    for name in names:
      figure = getattr(chip, name)
      assert figure.value > 0
      assert figure.source.startswith(("https://docs.cloud.google.com/", "libtpu "))
    sizes = [each.chips for each in family(chip)]
    assert sizes == sorted(sizes)


def test_chips_of_the_slices_named_in_the_documentation():
  names = ("v5e:2x2", "v5e:4x4", "v5e:16x16", "v5p:4x4x4", "v6e:4x4")
  assert [topology(name).chips for name in names] == [4, 16, 256, 64, 16]


def test_a_slice_that_does_not_exist_is_refused_with_the_nearest_names():
  with pytest.raises(ConfigError) as error:
    topology("v5p:4x4x5")
  said = str(error.value)
  assert said.startswith("--topology=v5p:4x4x5: there is no such slice. Did you mean")
  assert "v5p:4x4x4" in said and "v5e" not in said
  with pytest.raises(ConfigError, match="Write one of v5e:1x1, .*v6e:16x16"):
    topology("")


@pytest.mark.parametrize(
  "message, gib",
  [
    (
      "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO"
      " temporaries (18.51G) exceeds available HBM (15.75G).",
      (18.51, 15.75),
    ),
    ("RESOURCE_EXHAUSTED: XLA:TPU ... Used 34.70G of 15.75G hbm.", (34.70, 15.75)),
    ("temporaries (1.19T) exceeds available HBM (95.74G)", (1.19 * 1024, 95.74)),
    ("INVALID_ARGUMENT: Topology layout is not divisible", None),
  ],
)
def test_the_compiler_s_message_says_how_much_memory_is_missing(message, gib):
  found = exhausted(message)
  if gib is None:
    assert found is None
  else:
    assert [x / 2**30 for x in found] == pytest.approx(gib)


SHAPES = CHIPS["v5e"].slices


@pytest.mark.parametrize("asked", SHAPES)
@pytest.mark.parametrize("least", [*SHAPES, None])
@pytest.mark.parametrize("unusable", [(), ("2x4", "8x8"), SHAPES[:3]])
def test_the_smallest_slice_is_found_with_few_compilations(asked, least, unusable):
  first = SHAPES.index(least) if least else len(SHAPES)
  unusable = set(unusable) - {asked}
  tried = []

  def fits(each: Topology):
    if each.shape in unusable:
      return None
    tried.append(each.shape)
    return SHAPES.index(each.shape) >= first

  found = smallest(Topology(CHIPS["v5e"], asked), fits)
  want = [shape for shape in SHAPES[first:] if shape not in unusable]
  assert (found.shape if found else None) == (want[0] if want else None)
  assert tried[0] == asked and len(tried) == len({*tried}) <= 4
