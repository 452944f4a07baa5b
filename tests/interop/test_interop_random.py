"""Random configs of all families, as HuggingFace's own code computed them.

Each is equal or refused in one sentence, never wrong; `fuzz.py` beside the numbers in
`third_party/transformers` recorded them.
"""

import collections

import numpy as np
import pytest
from recorded_models import NEAR, cases, error, outputs, shapes, write

from transformer_jax import interop

FUZZ, LOGITS = cases("fuzz")
KINDS = sorted({case.partition("/")[0] for case in FUZZ})
LEAST = 2  # of the cases of a family are equal; most words of some are refused


def verdict(folder, case):
  """Returns "equal", "wrong" or "refused"."""
  config, tensors = FUZZ[case]["config"], FUZZ[case].get("tensors")
  try:
    write(folder, config, tensors or shapes(config))
    loaded = interop.load(folder, core="dense")
  except ValueError:
    return "refused"
  found = outputs(loaded, *config["architectures"])
  return "equal" if error(found, LOGITS[case]) < NEAR else "wrong"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_random_configs_are_equal_or_refused(tmp_path, kind):
  verdicts = {c: verdict(tmp_path, c) for c in FUZZ if c.startswith(f"{kind}/")}
  wrong = [case for case, found in verdicts.items() if found == "wrong"]
  assert not wrong, {case: FUZZ[case]["config"] for case in wrong}
  assert collections.Counter(verdicts.values())["equal"] >= LEAST


@pytest.mark.parametrize("case", ["roberta/10", "mistral/2", "gemma2/0", "gpt2/4"])
def test_some_random_configs_are_equal(tmp_path, case):
  assert verdict(tmp_path, case) == "equal"


def test_another_number_is_called_wrong(tmp_path, monkeypatch):
  monkeypatch.setitem(LOGITS, "gpt2/0", LOGITS["gpt2/0"] * np.float32(1.001))
  assert verdict(tmp_path, "gpt2/0") in ("wrong", "refused")
