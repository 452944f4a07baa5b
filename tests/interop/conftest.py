"""Models of equal architecture are traced once: thousands of folders are read."""

import pytest

from transformer_jax.interop import hf_family


@pytest.fixture(scope="package", autouse=True)
def shapes_are_traced_once():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(hf_family, "shapes", traced_once(hf_family.shapes))
    yield


def traced_once(shapes):
  traced = {}

  def cached(arch):
    # By its text: a list in it, from a word of the wrong kind, has no hash.
    key = repr(arch)
    if key not in traced:
      traced[key] = shapes(arch)
    return traced[key]

  return cached
