"""A spec calls classes of its registry's base only; files of others name no modules."""

import json
import sys

import pytest
from absl import flags as absl_flags
from registries import REGISTRIES

from experiments import inference
from experiments.configs import base
from experiments.runner import pretrained
from experiments.setup import flags, validate
from experiments.setup.registries import registries
from transformer_jax import spec
from transformer_jax.data.base import tasks
from transformer_jax.positions import PositionalEncoding, positions
from transformer_jax.spec import Registry, SpecError, trusted

# ml_collections loads config files by a method that Python means to remove.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

BY_KIND = {registry.kind: registry for registry in REGISTRIES}
each_registry = pytest.mark.parametrize("kind", BY_KIND)


@pytest.fixture
def trap(tmp_path, monkeypatch):
  """Puts a module on the path whose import, function and classes leave files."""
  code = f"""
import pathlib
from transformer_jax.positions.rope import Rope
HERE = pathlib.Path({str(tmp_path)!r})
HERE.joinpath("imported").touch()
def call(*args):
  HERE.joinpath("called").touch()
class Stranger:
  def __init__(self):
    HERE.joinpath("called").touch()
class Own(Rope):
  pass
"""
  (tmp_path / "a_trap.py").write_text(code)
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setattr(trusted, "_trusted", set())
  yield tmp_path
  sys.modules.pop("a_trap", None)


def hostile(folder, **values):
  """Writes the config of somebody else's run."""
  flat = validate.flatten(base.get_config()) | {k.replace("__", "."): v
                                              for k, v in values.items()}  # fmt: skip
  (folder / "config.json").write_text(json.dumps(flat))
  return folder


@each_registry
def test_every_registered_class_has_the_base(kind):
  registry = BY_KIND[kind]
  assert registry.base is not object
  assert all(issubclass(cls, registry.base) for cls in registry.values())


def test_every_registry_of_the_project_is_tried():
  import gc

  gc.unfreeze()  # conftest.py hides imported objects from the collector
  ours = {id(x) for x in gc.get_objects() if type(x) is Registry
          and x.base.__module__.startswith("transformer_jax.")}  # fmt: skip
  gc.freeze()
  assert ours == {id(registry) for registry in REGISTRIES}


@each_registry
@pytest.mark.parametrize("name", ["call", "Stranger", "HERE"])
def test_what_is_no_class_of_the_base_is_never_called(trap, kind, name):
  with pytest.raises(SpecError, match=f"'a_trap:{name}' must inherit transformer_jax"):
    BY_KIND[kind].build(f"a_trap:{name}" + "()" * (name != "Stranger"))
  assert not (trap / "called").exists()


@each_registry
def test_only_the_base_is_registered(kind):
  with pytest.raises(SpecError, match="must inherit"):
    BY_KIND[kind].register("stranger")(dict)
  assert "stranger" not in BY_KIND[kind]


NESTED = ["randomized(os:system('touch {}'))",
          "by_layer((rope, os:system('touch {}')))",
          "tupe(plus=os:system('touch {}'))", "every(rope, os:system('touch {}'))",
          "randomized('os:system(\"touch {}\")')"]  # fmt: skip


@pytest.mark.parametrize("written", NESTED)
def test_nothing_is_called_inside_of_arguments(tmp_path, written):
  with pytest.raises(SpecError, match="'os:system' must inherit"):
    positions.build(written.format(tmp_path / "called"))
  assert not (tmp_path / "called").exists()


@each_registry
def test_a_file_of_others_imports_nothing(trap, kind):
  with spec.registered_only("their/config.json"):
    with pytest.raises(
      SpecError, match="their/config.json names the .*--allow=a_trap:"
    ):
      BY_KIND[kind].build("a_trap:Own")
  assert not (trap / "imported").exists() and "a_trap" not in sys.modules


@pytest.mark.parametrize(
  "written",
  ["tokens(source='stdlib', tokenizer='{}')", "pairs({})", "blanks(pairs({}))",
   "spans(source='stdlib', tokenizer='{}')", "prefixed({})",
   "translation(source='stdlib', tokenizer='{}')",
   "classification(source='stdlib', tokenizer='{}')"],
)  # fmt: skip
def test_a_file_of_others_imports_nothing_inside_of_a_task(trap, written):
  with spec.registered_only("their/config.json"):
    with pytest.raises(SpecError, match="--allow=a_trap:Own"):
      tasks.build(written.format("a_trap:Own"))
  assert not (trap / "imported").exists()


@pytest.mark.parametrize("key", registries())
def test_the_config_of_others_imports_nothing(trap, key):
  several = isinstance(validate.flatten(base.get_config())[key], tuple)
  folder = hostile(trap, **{key: ["a_trap:Own()"] if several else "a_trap:Own()"})
  with pytest.raises(
    validate.ConfigError, match="not registered here.*--allow=a_trap:O"
  ):
    inference.of_run(folder)
  with pytest.raises(ValueError, match="not registered here.*--allow=a_trap:Own"):
    pretrained._load(folder)
  assert not (trap / "imported").exists()


def test_what_only_training_needed_may_be_gone(tmp_path):
  """A fine-tuned run is used where the folder that it started from is not."""
  gone = {"train__init_from": str(tmp_path / "gone"), "train__steps": 80}
  folder = hostile(tmp_path, train__schedule="cosine(warmup=100)", **gone)
  theirs, _ = inference.of_run(folder)
  assert theirs.train.init_from == gone["train__init_from"]


def test_the_user_may_name_the_class_again(trap):
  folder = hostile(trap, model__position="randomized(a_trap:Own(base=7.0))")
  words = ["command", "--config=experiments/configs/quickstart.py"]
  values = absl_flags.FlagValues()
  argv = flags.config_first([*words, "--allow=a_trap:Own"])
  flags.define(argv, values)
  request = flags.parse(argv, values)
  assert "--allow=a_trap:Own" in request.command("run")
  _, experiment = inference.of_run(folder)
  assert experiment.trainer.model.arch.position.encoding.base == 7.0


def test_what_the_users_own_config_names_is_allowed(trap):
  assert isinstance(positions.build("a_trap:Own"), PositionalEncoding)
  with spec.registered_only("their/config.json"):
    assert positions.build("a_trap:Own(3.0)").base == 3.0
    with pytest.raises(SpecError, match="--allow=a_trap:Stranger"):
      positions.build("a_trap:Stranger")


@pytest.mark.parametrize("name", ["a_trap", "a_trap:", "os;system:x", "a b:C"])
def test_allow_takes_a_module_and_a_class(name):
  with pytest.raises(SpecError, match="--allow=.*write module:Class"):
    spec.trust([name])


@pytest.mark.parametrize(
  ("written", "says"),
  [
    ("x" * 20_001, "20001 characters; write 20000 or less"),
    ("randomized(" * 90 + "rope" + ")" * 90, "nested more than 60 levels"),
    ("+".join(["rope"] * 100), "nested more than 60 levels"),
    ("(" * 5000, "cannot read"),
    ("-" * 15_000 + "1", "cannot read"),
    ("rope(9" + "9" * 5000 + ")", "cannot read"),
    ("rope\0", "cannot read"),
    ("rope(**{'base': 1})", "name each argument"),
    ("rope({[]: 1})", "neither a literal nor a spec"),
    ("rope()()", "unknown positional encoding"),
    ("rope(lambda: 0)", "neither a literal nor a spec"),
    ("a:b:c", "cannot read"),
    ("os.__import__.path.__import__.join()", "has no"),
  ],
)  # fmt: skip
def test_any_text_is_a_spec_or_one_sentence(written, says):
  with pytest.raises(SpecError, match=says):
    positions.build(written)


def test_a_text_in_quotes_stays_as_it_is():
  assert tasks.build("text(source='folder with a:b in it')").source[-9:] == "a:b in it"
