"""Rematerialization: what a layer keeps for its backward pass, by name of the policy.

Chen et al., 2016. https://arxiv.org/abs/1604.06174
"""

from collections.abc import Callable
from typing import Any

from transformer_jax.spec import nearest

NONE, FULL = "none", "full"
# Names of jax.checkpoint_policies that take no arguments. `nothing_saveable` is `full`.
SAVEABLE = (
  *("dots_saveable", "dots_with_no_batch_dims_saveable"),
  *("everything_saveable", "nothing_saveable"),
)
POLICIES = (NONE, FULL, *SAVEABLE)
# Name of what products of tokens with weights return. They have gradients of their own,
# in which policies see no product: those that keep products keep this name.
PRODUCT = "product"
KEEP_PRODUCTS = ("dots_saveable", "dots_with_no_batch_dims_saveable")
# Values of before there were names; a flag has them as texts.
FORMER = {False: NONE, True: FULL, "False": NONE, "True": FULL}
FORMER |= {"false": NONE, "true": FULL}


def policy_name(value: Any) -> Any:
  """Returns the name of a policy, also of a former value, True or False.

  >>> policy_name(True), policy_name("dots_saveable")
  ('full', 'dots_saveable')

  Raises ValueError where there is no such policy.
  """
  named = FORMER.get(value, value) if isinstance(value, bool | str) else value
  if named not in POLICIES:
    near = nearest(value, POLICIES) if isinstance(value, str) else ""
    raise ValueError(f"remat is {value!r}.{near} Write one of {', '.join(POLICIES)}")
  return named


def policy(name: str) -> Callable[..., bool] | None:
  """Returns the policy of `jax.checkpoint` of a name; None: nothing is kept."""
  import jax

  policies = jax.checkpoint_policies
  found = getattr(policies, name) if name in SAVEABLE else None
  if name in KEEP_PRODUCTS:
    products = policies.save_only_these_names(PRODUCT)
    return policies.save_from_both_policies(found, products)
  return found
