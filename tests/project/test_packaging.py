"""The lock file is complete, the import contracts bite, the devices are simulated."""

import configparser
import pathlib
import shutil
import subprocess
import sys

import jax
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[2]
NEVER = {"tensorflow", "tensorflow-cpu", "torch", "tf-nightly"}

# For each contract of setup.cfg, a file and a line that breaks this one alone.
LIBRARY = "transformer_jax"
VIOLATIONS = {
  "Imports point one way": (
    f"{LIBRARY}/positions/__init__.py",
    "import transformer_jax.attention",
  ),
  "Data knows where tokens are": (
    f"{LIBRARY}/data/__init__.py",
    "import transformer_jax.attention",
  ),
  "Only transformer_jax.models imports flax": (
    f"{LIBRARY}/training/__init__.py",
    "import flax.linen",
  ),
  "Nobody imports TensorFlow": (
    f"{LIBRARY}/attention/__init__.py",
    "def late():\n  import pickle",
  ),
  "Commands use the rooms of experiments": (
    "experiments/setup/plan.py",
    "def late():\n  import experiments.runner.build",
  ),
  "Attention cores use variants": (
    f"{LIBRARY}/attention/variants/base.py",
    "import transformer_jax.attention.cores.base",
  ),
  "Each attention core owns its parts": (
    f"{LIBRARY}/attention/cores/ring.py",
    "import transformer_jax.attention.cores.blockwise.flash",
  ),
  "Tasks read files by readers": (
    f"{LIBRARY}/data/sources/base.py",
    "import transformer_jax.data.readers.tfds",
  ),
  "Kinds of tasks know the algorithmic": (
    f"{LIBRARY}/data/tasks/algorithmic/copy.py",
    "import transformer_jax.data.tasks.wrappers.base",
  ),
}


def lines(text: str) -> list[str]:
  stripped = (line.partition("#")[0].strip() for line in text.splitlines())
  return [line for line in stripped if line]


def locked() -> dict[str, list[Requirement]]:
  """Returns the pins of each package: newer ones may need a newer Python."""
  pins = {}
  for line in lines((ROOT / "requirements.lock").read_text()):
    pin = Requirement(line)
    pins.setdefault(canonicalize_name(pin.name), []).append(pin)
  return pins


def asked() -> list[Requirement]:
  config = configparser.ConfigParser()
  config.read(ROOT / "setup.cfg")
  core = config["options"]["install_requires"]
  dev = config["options.extras_require"]["dev"]
  return [Requirement(line) for line in lines(core + dev)]


@pytest.mark.parametrize("wanted", asked(), ids=lambda wanted: wanted.name)
def test_every_dependency_is_pinned_to_a_version_it_allows(wanted):
  pins = locked()[canonicalize_name(wanted.name)]
  for pin in pins:
    (exact,) = pin.specifier
    assert exact.operator == "=="
    assert wanted.specifier.contains(exact.version)
  for python in ("3.11", "3.12", "3.13"):
    place = {"python_version": python, "python_full_version": f"{python}.0"}
    chosen = [p for p in pins if p.marker is None or p.marker.evaluate(place)]
    assert len(chosen) == 1, (python, chosen)


def test_the_lock_names_no_address_and_no_other_framework():
  text = (ROOT / "requirements.lock").read_text()
  assert "://" not in text and "--" not in text
  assert not NEVER & set(locked())


def lint_imports(folder: pathlib.Path) -> subprocess.CompletedProcess:
  command = "from importlinter.cli import lint_imports_command as c; c()"
  return subprocess.run(
    [sys.executable, "-c", command, "--no-cache", "--no-logo"],
    cwd=folder,
    capture_output=True,
    text=True,
    timeout=120,
  )


def test_every_import_contract_fails_when_it_is_violated(tmp_path):
  shutil.copy(ROOT / "setup.cfg", tmp_path)
  for package in ("transformer_jax", "experiments"):
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / package, tmp_path / package, ignore=ignore)
  kept = lint_imports(tmp_path)
  assert kept.returncode == 0, kept.stdout
  for name, line in VIOLATIONS.values():
    with open(tmp_path / name, "a") as file:
      file.write(f"\n{line}\n")
  broken = [x for x in lint_imports(tmp_path).stdout.splitlines() if "BROKEN" in x]
  assert len(broken) == len(VIOLATIONS)
  for name in VIOLATIONS:
    assert any(line.startswith(name) for line in broken), name


def test_tests_see_eight_devices_of_the_cpu():
  assert [device.platform for device in jax.devices()] == ["cpu"] * 8
