"""Kernels are compared with `dense` before `auto` uses one; each failure is faked."""

import dataclasses
import functools
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging

from experiments.configs import base
from experiments.runner import build, cost
from experiments.setup.validate import resolve
from transformer_jax import hosts
from transformer_jax.attention import BoundVariant, attentions
from transformer_jax.attention.cores import Core, auto, cores
from transformer_jax.attention.cores.context import Context
from transformer_jax.attention.cores.dense import Dense
from transformer_jax.attention.cores.self_check import outcomes, scheme_of, trial
from transformer_jax.axes import Dims
from transformer_jax.positions import Bound, bind, coords, positions

L, H, K = 128, 2, 8
AT, DIMS = coords.consecutive(1, L), Dims(V=8, D=H * K, H=H, F=0, L=L)


@dataclasses.dataclass(frozen=True)
class Faulty(Core):
  """Dense attention with a fault of a kind."""

  fault: str = ""

  def attend(self, q_BLHK, k_BMGK, v_BMGE, context):
    dense = functools.partial(cores.build("dense").attend, context=context)
    if self.fault == "does not compile":
      raise NotImplementedError("no rule for gather")
    if self.fault == "memory":
      raise RuntimeError("RESOURCE_EXHAUSTED: 70 MiB of vmem were asked for")
    if self.fault == "nan":
      return dense(q_BLHK, k_BMGK, v_BMGE) * jnp.nan
    if self.fault == "values":
      return dense(q_BLHK, k_BMGK, v_BMGE).at[0, 3].mul(1.2)
    if self.fault == "tail":  # the last tile, where values are small
      return dense(q_BLHK, k_BMGK, v_BMGE).at[:, -12:].set(0)
    if self.fault == "causal":  # another kernel where a text fills its row
      at, place_L = context.q_at, jnp.arange(q_BLHK.shape[1])
      alone = jnp.all((at.order_BL == place_L) & (at.horizon_BL == place_L))
      factor = jnp.where(alone, 1.5, 1.0).astype(v_BMGE.dtype)
      return dense(q_BLHK, k_BMGK, v_BMGE) * factor
    if self.fault == "gradient":
      k_BMGK = scaled_gradient(k_BMGK)
    if "bias" in self.fault:
      factor = 0.96 if self.fault == "bias, slightly" else 0.8
      own = context.position.params.items()
      params = {n: scaled_gradient(x, factor) for n, x in own}
      position = Bound(context.position.encoding, params)
      dense = functools.partial(
        cores.build("dense").attend,
        context=dataclasses.replace(context, position=position),
      )
    return dense(q_BLHK, k_BMGK, v_BMGE)


def scaled_gradient(x, factor=0.8):
  return x + (factor - 1) * (x - jax.lax.stop_gradient(x))


@pytest.fixture(autouse=True)
def accelerator(monkeypatch):
  """Makes this CPU an accelerator, of which the interpreted kernel is the kernel."""
  monkeypatch.setattr(auto, "KERNELS", {"cpu": ("pallas_tpu",)})
  for name in ("_outcomes", "_subjects"):
    monkeypatch.setattr(outcomes, name, {})
  monkeypatch.setattr(auto, "_chosen", {})


@pytest.fixture
def faulty(monkeypatch):
  """Puts a faulty core in the place of the kernel, and counts its checks."""
  checks = []

  def put(fault):
    build = cores.build
    one = Faulty(fault)
    kernel = lambda name: one if name == "pallas_tpu" else build(name)
    monkeypatch.setattr(cores, "build", kernel)
    names = lambda core: "pallas_tpu" if core is one else type(core).__name__.lower()
    monkeypatch.setattr(cores, "name_of", names)
    run = trial.trial
    count = lambda *args: checks.append(args) or run(*args)
    monkeypatch.setattr(trial, "trial", count)
    return checks

  return put


def call(encoding="t5", variant="multihead", dtype=np.float32, M=L, G=H):
  """Returns the arguments of `Core.attend`, small and random."""
  encoding, variant = positions.build(encoding), attentions.build(variant)
  random, key = np.random.default_rng(0), jax.random.key(0)
  position = bind(encoding, encoding.init(key, DIMS), DIMS)
  bound = BoundVariant(variant, variant.init(key, DIMS))
  q, k, v = (
    random.normal(size=(2, n, heads, K)).astype(dtype)
    for n, heads in ((L, H), (M, G), (M, G))
  )
  return q, k, v, Context(AT, coords.consecutive(1, M), position, K**-0.5, bound)


def attend(args):
  return jax.jit(cores.build("auto").attend)(*args)


def chosen(args):
  """Returns the core that `auto` takes for a call, and the refusals, as recorded."""
  attend(args)
  encoding, variant = args[3].position.encoding, args[3].variant.variant
  return auto.serving(cores.build("auto"), encoding, variant, False, L)


def test_a_kernel_that_equals_dense_is_used():
  args = call()
  np.testing.assert_allclose(
    attend(args), cores.build("dense").attend(*args), atol=1e-5
  )
  core, refused = chosen(args)
  assert (cores.name_of(core), refused) == ("pallas_tpu", {})


@pytest.mark.parametrize(
  ("fault", "says"),
  [
    ("values", "wrong output, causal texts: off by 0"),
    ("gradient", "wrong gradient of k, causal texts: off by 0.2"),
    ("bias", "wrong gradient of params/table_HN, causal texts: off by 0.2"),
    ("does not compile", "did not compile: NotImplementedError: no rule for gather"),
    ("memory", "did not compile: RuntimeError: RESOURCE_EXHAUSTED: 70 MiB"),
    ("nan", "wrong output, causal texts: not finite"),
  ],
)
def test_a_kernel_with_a_fault_is_not_used_and_the_record_says_why(
  fault, says, faulty, monkeypatch
):
  lines = []
  monkeypatch.setattr(logging, "warning", lambda text, *args: lines.append(text % args))
  checks = faulty(fault)
  core, refused = chosen(call())
  assert isinstance(core, Dense) and says in refused["pallas_tpu"]
  assert (
    len(lines) == 1 and "pallas_tpu for t5 and multihead is not used on" in lines[0]
  )
  assert says in lines[0]
  chosen(call())
  assert len(checks) == 1, "one check for a process"


@pytest.mark.parametrize(
  ("fault", "says"),
  [
    ("tail", "wrong output, causal texts: off by 1"),
    ("causal", "wrong output, causal texts: off by 0.5"),
    ("bias", "wrong gradient of params/table_HN, causal texts: off by 0."),
    ("bias, slightly", "wrong gradient of params/table_HN, causal texts: off by 0.04"),
  ],
)
def test_half_precision_hides_no_fault(fault, says, faulty):
  faulty(fault)
  assert says in chosen(call(dtype=jnp.bfloat16))[1]["pallas_tpu"]


def test_the_check_is_of_the_real_types_heads_and_remainders():
  args = call("alibi", dtype=jnp.bfloat16, G=1)
  scheme = scheme_of(cores.build("pallas_tpu"), *args)
  assert scheme.dtypes == ("bfloat16",) * 3 and scheme.dims.G == 1
  other = scheme_of(cores.build("pallas_tpu"), *call("alibi", M=L + 3))
  assert (other.L, other.M) == (L, L + 3) and other != scheme
  assert trial.trial(scheme, jax.devices()[0]) is None
  assert trial.trial(other, jax.devices()[0]) is None


@pytest.fixture
def cache(tmp_path):
  """The folder of compiled programs."""
  jax.config.update("jax_compilation_cache_dir", str(tmp_path))
  yield tmp_path / outcomes.FOLDER
  jax.config.update("jax_compilation_cache_dir", None)


def test_smaller_tiles_follow_where_large_ones_fail_and_only_there(faulty, monkeypatch):
  small = "pallas_tpu(block=128)"
  monkeypatch.setattr(auto, "KERNELS", {"cpu": ("pallas_tpu", small)})
  given = call()
  asked = given[3].position.encoding, given[3].variant.variant, False, L
  faulty("memory")
  core, refused = auto.choose(*asked, call=given)
  assert core.block == 128 and "RESOURCE_EXHAUSTED" in refused["pallas_tpu"]
  whole = positions.build("cope"), given[3].variant.variant, False, L
  assert small not in auto.choose(*whole)[1]


@pytest.mark.parametrize(("ratio", "reason"), [(3.0, None), (9.0, "takes 9.0 times")])
def test_a_slow_kernel_is_not_used_although_it_is_right(ratio, reason, monkeypatch):
  def seconds(self):
    return ratio if "Faulty" in self.of else 1.0

  def noted(self, core, *args):
    self.of = type(core).__name__
    begin(self, core, *args)

  begin = trial.BothPasses.__init__
  monkeypatch.setattr(trial.BothPasses, "__init__", noted)
  monkeypatch.setattr(trial.BothPasses, "seconds", seconds)
  device = types.SimpleNamespace(platform="tpu")
  scheme = scheme_of(Faulty(), *call())
  arrays = trial.check_inputs.make(scheme)
  sides = [trial.BothPasses(c, scheme, arrays) for c in (Faulty(), Dense())]
  said = trial._too_slow(*sides, device)
  assert said is None if reason is None else reason in said
  cpu = types.SimpleNamespace(platform="cpu")
  assert trial._too_slow(*sides, cpu) is None  # interpreted


def test_both_passes_are_timed_and_are_those_that_are_compared():
  scheme = scheme_of(Dense(), *call())
  passes = trial.BothPasses(Dense(), scheme, trial.check_inputs.make(scheme))
  assert [*passes.numbers()][0] == "output, causal texts" and passes.seconds() > 0


def test_outcomes_are_kept_beside_the_compiled_programs(faulty, cache, monkeypatch):
  checks, scheme = faulty("values"), scheme_of(Faulty("values"), *call())
  monkeypatch.setattr(outcomes, "outside", lambda cls: False)  # Faulty is of this file
  reason = outcomes.failure(scheme)
  outcomes._outcomes.clear()
  assert outcomes.failure(scheme) == reason and len(checks) == 1
  (path,) = cache.iterdir()
  assert json.loads(path.read_text())["failure"] == reason
  path.write_text("{half")  # a full disk
  outcomes._outcomes.clear()
  assert outcomes.failure(scheme) == reason and len(checks) == 2


def test_a_check_that_ended_its_process_is_not_tried_again(faulty, cache, monkeypatch):
  checks, scheme = faulty(""), scheme_of(Faulty(""), *call("none"))
  monkeypatch.setattr(outcomes, "outside", lambda cls: False)
  path = outcomes._path(scheme, jax.devices()[0])
  mark = path.with_suffix(".running")
  path.parent.mkdir()
  gone = {"host": outcomes.socket.gethostname(), "pid": 2**30}
  mark.write_text(json.dumps(gone | {"try": 2}))
  reason = outcomes.failure(scheme)
  assert (
    f"ended its process 2 times when it was checked; delete {mark} to try" in reason
  )
  assert not checks and not path.exists()
  mark.unlink()  # as it says
  outcomes._outcomes.clear()
  assert outcomes.failure(scheme) is None and len(checks) == 1
  # One that was killed once, or a check of a process beside this one, is tried again.
  for other in (gone | {"try": 1}, gone | {"pid": outcomes.os.getpid(), "try": 2}):
    path.unlink()
    mark.write_text(json.dumps(other))
    outcomes._outcomes.clear()
    assert outcomes.failure(scheme) is None
  assert len(checks) == 3 and not mark.exists()


def test_classes_of_a_users_own_are_checked_by_each_process(cache):
  scheme = scheme_of(Faulty(""), *call("none"))
  assert outcomes._path(scheme, jax.devices()[0]) is None


def test_a_failure_in_one_process_counts_for_all(monkeypatch):
  class Two(hosts.ProcessGroup):
    names = ("a", "b")

    def exchange(self, label, value, error=None):
      return [value, "wrong output: off by 1"]

  monkeypatch.setattr(hosts, "group", Two)
  core, refused = chosen(call("none"))
  assert refused == {"pallas_tpu": "wrong output: off by 1"}


def test_without_a_kernel_few_scores_take_dense_and_many_take_tiles(monkeypatch):
  assert cores.name_of(chosen(call("cope"))[0]) == "dense"
  assert auto._scores_are_few((2, 1024, 8, 64), (2, 1024, 8, 64))
  assert not auto._scores_are_few((8, 8192, 16, 64), (8, 8192, 16, 64))


def test_short_queries_take_dense_without_a_check(faulty):
  checks = faulty("")
  q, k, v, context = call("none")
  parts = context.position.encoding, context.variant.variant
  core, refused = auto.choose(*parts, False, 1, (q[:, -1:], k, v, context))
  assert isinstance(core, Dense) and not checks
  assert refused["pallas_tpu"] == "1 queries do not fill a tile"


def test_programs_for_a_device_that_is_not_here_take_the_kernel(faulty, monkeypatch):
  checks = faulty("values")
  monkeypatch.setattr(outcomes, "here", lambda: None)
  assert outcomes.failure(scheme_of(Faulty("values"), *call("none"))) is None
  assert not checks


def test_the_record_of_a_run_has_the_reason(faulty):
  faulty("gradient")
  overrides = {"model.position": "alibi", "model.heads": H, "model.width": H * K}
  arch = build.build(resolve(base.get_config(), overrides)).trainer.model.arch
  attend(call("alibi"))
  used, refused = cost.cores_used(arch, [L])
  assert used == "auto: dense" and "wrong gradient of k" in refused["pallas_tpu"]


def test_a_run_records_its_own_cores_and_not_those_of_the_run_before(faulty):
  faulty("values")
  args = call("none")
  refused = chosen(args)[1]
  assert refused
  auto.start_record()
  subject = args[3].position.encoding, args[3].variant.variant
  core, refused = auto.serving(cores.build("auto"), *subject, False, L)
  assert cores.name_of(core) == "pallas_tpu" and not refused, "what is not asked yet"


def test_variants_are_checked_too():
  scheme = scheme_of(cores.build("pallas_tpu"), *call("none", "sinks + window(40)"))
  assert scheme.variant_params == (("sink_H", (H,), "float32"),)
  assert trial.trial(scheme, jax.devices()[0]) is None
