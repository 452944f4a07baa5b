"""The tables that the command prints, and the sentences that say what they are."""

from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table

from experiments.estimating.chips import GIB, Topology
from experiments.estimating.roofline import Efficiency
from experiments.estimating.step_facts import StepFacts
from experiments.estimating.variant_estimate import VariantEstimate

NAMES = {"compute": "compute", "hbm": "HBM", "interconnect": "interconnect"}
NO = "-"
LEFT = ("fits", "bound by", "smallest slice", "array", "line of code")
MIB = 2**20
SHORT = 1e-3  # seconds of a step, below which latencies are most of it


def compiled(rows: Sequence[VariantEstimate], topology: Topology) -> Table:
  """Returns the table of what was counted and compiled, for one device and step."""
  table = _table(
    f"Compiled for {topology.name}, {topology.chips} chips",
    *("variant", "fits", "GiB needed", "GiB left", "GiB arguments", "parameters"),
    *("TFLOP/step", "HBM GB", "sent MB by kind"),
  )
  for row in rows:
    program, traffic = row.compiled, row.compiled.traffic
    table.add_row(
      row.name,
      "yes" if program.fits else "no",
      f"{program.peak_bytes / GIB:.2f}",
      f"{(program.hbm_bytes - program.peak_bytes) / GIB:.2f}",
      NO if program.argument_bytes is None else f"{program.argument_bytes / GIB:.2f}",
      f"{row.work.parameters:,}",
      f"{row.work.flops / 1e12:,.3g}",
      f"{traffic.hbm / 1e9:,.3g}" if traffic else NO,
      _kinds(row),
    )
  return table


def _kinds(row: VariantEstimate) -> str:
  """Returns the bytes that a device sends in a step, by the kind of collective."""
  if row.compiled.traffic is None:
    return NO
  kinds = row.compiled.traffic.collectives.items()
  return ", ".join(f"{kind} {each.sent / 1e6:,.0f}" for kind, each in kinds) or "none"


def step_facts(rows: Sequence[VariantEstimate], topology: Topology) -> Table:
  """Returns the table of what decides whether a compiled step is a fast one."""
  table = _table(
    f"Facts of a step compiled for {topology.name}",
    *("variant", "products, copies, other", "kernels", "GB of large copies"),
    *("sent beside products", "float32 products", "MiB of logits", "MiB undonated"),
    *("host", "float64"),
  )
  for row in rows:
    found = row.compiled.facts
    figures = [NO] * 9
    if found:
      shares = [f"{found.share(kind):.0%}" for kind in ("products", "copies", "other")]
      figures = [", ".join(shares), f"{found.kernels:.0f}", f"{found.copied_gb:.3g}"]
      figures += [_beside(found), f"{found.float32:.0%}", f"{found.logits / MIB:,.0f}"]
      figures += [f"{found.undonated / MIB:,.1f}"]
      figures += [str(len(each)) for each in (found.host, found.float64)]
    table.add_row(row.name, *figures)
  return table


def _beside(found: StepFacts) -> str:
  """Returns the share of each collective's bytes that is sent beside products."""
  kinds = found.overlap.items()
  return ", ".join(f"{kind} {each.share:.0%}" for kind, each in kinds) or "none"


def large_copies(rows: Sequence[VariantEstimate]) -> Table:
  """Returns the table of copies and transposes of large arrays."""
  table = _table(
    "Copies and transposes of arrays above 16 MiB",
    *("variant", "array", "line of code", "times a step", "GB"),
  )
  for row in rows:
    for each in row.compiled.facts.copies if row.compiled.facts else ():
      figures = f"{each.times:,.0f}", f"{each.gb:,.3g}"
      table.add_row(row.name, each.array, each.line or NO, *figures)
  return table


def estimated(rows: Sequence[VariantEstimate], topology: Topology) -> Table:
  """Returns the table of estimates."""
  table = _table(
    f"Estimated for {topology.name}: nothing here was measured",
    *("variant", "compute ms", "HBM ms", "interconnect ms", "step ms", "bound by"),
    *("tokens/s", "chip-hours", "cost", "smallest slice"),
  )
  for row in rows:
    found = row.time
    figures = [NO] * 7
    if found:
      parts = (found.compute, found.hbm, found.interconnect, found.seconds)
      figures = [f"{1e3 * x:,.3g}" for x in parts]
      figures += [NAMES[found.bound], f"{found.tokens_per_s:,.3g}"]
      figures += [f"{found.chip_hours:,.3g}"]
    cost = NO if row.cost is None else f"{row.cost:,.2f}"
    smallest = row.smallest or ("none" if row.searched else NO)
    table.add_row(row.name, *figures, cost, smallest)
  return table


def _table(title: str, *names: str) -> Table:
  table = Table(title=title, title_justify="left")
  for number, name in enumerate(names):
    left = number == 0 or name in LEFT
    table.add_column(name, justify="left" if left else "right")
  return table


def notes(
  rows: Sequence[VariantEstimate],
  topology: Topology,
  efficiency: Efficiency,
  versions: Mapping[str, str],
) -> Iterator[str]:
  """Yields a sentence for each thing that the tables rest on, or leave out."""
  chip = topology.chip
  yield (
    f"Compiled: the training steps of a run, by libtpu {versions['libtpu']} with jax"
    f" {versions['jax']}; GiB are those of one device, which has"
    f" {chip.hbm_bytes.value / GIB:.2f}. HBM GB and sent MB are of one step on one"
    " device, read from the compiled program: loops count as often as they run, a"
    " ring's bytes for collectives, no padding."
  )
  if loops := max((_open_loops(row) for row in rows), default=0):
    yield (
      f"{loops} loops run as often as the data decide (attention leaves out masked"
      " tiles): they count once."
    )
  yield (
    "Facts: products, copies and other are shares of the compiler's own estimate of"
    " cycles, which has none of kernels. Sent beside products: by collectives under way"
    " while a product, a kernel or a loop of them runs. Undonated: results that get"
    " memory of their own. Host and float64: instructions that wait for the host, and"
    " that have numbers of 64 bits. --facts lists the large copies."
  )
  yield (
    "Counted: parameters of one seed; FLOPs of one step of all seeds, with dense"
    " attention, without recomputation. Compute ms is of those executed, what"
    " model.remat recomputes included."
  )
  yield (
    f"Estimated: a step takes as long as the slowest of compute, HBM and interconnect,"
    f" at {efficiency.compute:.0%}, {efficiency.hbm:.0%} and"
    f" {efficiency.interconnect:.0%} of the chip's peaks (--efficiency), the others"
    " beside it. Chip-hours are of training alone: no scoring, compiling, saving or"
    " waiting for data."
  )
  yield (
    "Left out: programs that score; and the size of data on the devices, for which"
    " small shapes stand. A text of train.text=auto counts as streamed."
  )
  if any(row.time and row.time.seconds < SHORT for row in rows):
    yield (
      "Steps of less than a millisecond take longer: starting operations and"
      " collectives counts nothing here."
    )
  if idle := _idle(rows):
    yield idle
  yield from _sources(topology)


def _open_loops(row: VariantEstimate) -> int:
  return row.compiled.traffic.open_loops if row.compiled.traffic else 0


def _idle(rows: Sequence[VariantEstimate]) -> str:
  """Returns a sentence where a mesh leaves devices of the slice idle, or ""."""
  works = [row.work for row in rows if row.work.idle]
  if not works:
    return ""
  return (
    f"{works[0].idle} of {works[0].in_slice} devices are idle, and paid for:"
    " --config.mesh.data=-1 uses all."
  )


def _sources(topology: Topology) -> Iterator[str]:
  """Yields the chip's figures with their sources."""
  chip = topology.chip
  yield (
    f"A {chip.name} chip: {chip.flops.value / 1e12:,.0f} TFLOP/s in bfloat16,"
    f" {chip.hbm_bandwidth.value / 1e9:,.0f} GB/s of HBM,"
    f" {chip.ici_bandwidth.value / 1e9:,.0f} GB/s of links in both directions"
    f" ({chip.flops.source}); {chip.hbm_bytes.value / GIB:.2f} GiB of HBM"
    f" ({chip.hbm_bytes.source})."
  )


def total(rows: Sequence[VariantEstimate]) -> str:
  """Returns a sentence on all variants together."""
  there = [row for row in rows if row.time]
  hours = sum(row.time.chip_hours for row in there if row.time)
  costs = [row.cost for row in there if row.cost is not None]
  paid = f", {sum(costs):,.2f} at {rows[0].price:g} an hour" if costs else ""
  return (
    f"{len(there)} of {len(rows)} variants fit; training them takes an estimated"
    f" {hours:,.3g} chip-hours{paid}."
  )
