"""Mixers as the papers write them: float64 NumPy, one token and head at a time.

Nothing here calls the project or JAX. Each function gets a mixer for its arguments, its
parameters and one text x_LD, and returns the layer's update of it. `MIXERS` names the
function of each.
"""

import numpy as np


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def silu(x):
  return x * sigmoid(x)


def softplus(x):
  return np.logaddexp(x, 0)


def unit(x):
  return x / np.sqrt(x @ x + 1e-6)


def rms(x, epsilon):
  return x / np.sqrt(np.mean(x**2) + epsilon)


def convolved(x_LE, taps_EN):
  """Returns sums over the newest tokens: taps[:, n] weighs the one n back."""
  out_LE = np.zeros_like(x_LE)
  for i in range(len(x_LE)):
    for n in range(min(taps_EN.shape[1], i + 1)):
      out_LE[i] += taps_EN[:, n] * x_LE[i - n]
  return out_LE


def found(p, start):
  """Returns the parameter whose name starts so, or None."""
  return next((x for name, x in p.items() if name.startswith(start)), None)


def layer(x, epsilon):
  return (x - np.mean(x)) / np.sqrt(np.var(x) + epsilon)


def delta_rule(mixer, p, x_LD, decay=None, gate=None, strengths=None, ends=("",)):
  """Returns the update; functions get a token and a head.

  decay      returns factors on the state's rows, before the first write
  gate       returns factors on the output
  strengths  returns what is erased of a key, and what is written of a value
  ends       of the names of keys and values, one for each write of a token
  """
  E = len(p["norm_gain_E"])
  H, K = found(p, f"value{ends[0]}_D").shape[1], found(p, f"key{ends[0]}_D").shape[2]
  out_LD = np.zeros_like(x_LD)

  def read(name, h):
    w_DHK, taps = found(p, f"{name}_D"), found(p, f"{name}_mix_")
    head = h // (H // w_DHK.shape[1])
    x_LK = x_LD @ w_DHK[:, head]
    return silu(x_LK if taps is None else convolved(x_LK, taps[head]))

  for h in range(H):
    state, q_LK = np.zeros((K, E)), read("query", h)
    writes = [(read(f"key{end}", h), read(f"value{end}", h)) for end in ends]
    for i, x_D in enumerate(x_LD):
      if decay is not None:
        state = state * np.reshape(decay(x_D, h), (-1, 1))
      for end, (k_LK, v_LE) in zip(ends, writes, strict=True):
        k = unit(k_LK[i])
        if strengths is None:
          beta = sigmoid(x_D @ p[f"strength{end}_DH"][:, h]) * (1 + mixer.negative)
          state = state + beta * np.outer(k, v_LE[i] - k @ state)
        else:
          erase, write = strengths(x_D, h)
          state = state + np.outer(k, write * v_LE[i] - (erase * k) @ state)
      o = rms((unit(q_LK[i]) / np.sqrt(K)) @ state, mixer.epsilon) * p["norm_gain_E"]
      out_LD[i] += (o if gate is None else o * gate(x_D, h)) @ p["out_HED"][h]
  return out_LD


def delta_net(mixer, p, x_LD):
  return delta_rule(mixer, p, x_LD)


def of_gated_delta(p):
  """Returns the decay and the gate of Gated DeltaNet."""

  def decay(x_D, h):
    step = x_D @ p["decay_DH"][:, h] + p["step_shift_H"][h]
    return np.exp(-np.exp(p["log_rate_H"][h]) * softplus(step))

  return decay, lambda x_D, h: silu(x_D @ p["gate_DHE"][:, h])


def gated_delta(mixer, p, x_LD):
  return delta_rule(mixer, p, x_LD, *of_gated_delta(p))


def delta_product(mixer, p, x_LD):
  ends = [f"_{n}" for n in range(mixer.writes)]
  parts = of_gated_delta(p) if mixer.gated else ()
  return delta_rule(mixer, p, x_LD, *parts, ends=ends)


def of_kda(mixer, p):
  """Returns the decay and the gate of Kimi Delta Attention."""

  def decay(x_D, h):
    step_K = x_D @ p["decay_in_DW"] @ p["decay_out_WHK"][:, h] + p["step_shift_HK"][h]
    return np.exp(-np.exp(p["log_rate_H"][h]) * softplus(step_K))

  def gate(x_D, h):
    gate_E = x_D @ p["gate_in_DW"] @ p["gate_out_WHE"][:, h]
    return sigmoid(gate_E) if mixer.output_gate == "sigmoid" else silu(gate_E)

  return decay, gate


def kda(mixer, p, x_LD):
  return delta_rule(mixer, p, x_LD, *of_kda(mixer, p))


def gated_delta2(mixer, p, x_LD):
  def strengths(x_D, h):
    erase_K = sigmoid(x_D @ p["erase_DHK"][:, h]) * (1 + mixer.negative)
    return erase_K, sigmoid(x_D @ p["write_DHE"][:, h])

  return delta_rule(mixer, p, x_LD, *of_kda(mixer, p), strengths)


def added(mixer, p, x_LD, decay, turn=lambda x, i: x):
  """Returns the update of a state to which tokens add, and which decays.

  decay  of a token and a head: factors on the state's rows
  turn   of a query or a key, and its position
  """
  _, H, K = p["key_DHK"].shape
  out_LD = np.zeros_like(x_LD)
  for h in range(H):
    state = 0
    for i, x_D in enumerate(x_LD):
      q, k = (turn(x_D @ p[name][:, h], i) for name in ("query_DHK", "key_DHK"))
      write = np.outer(k, x_D @ p["value_DHE"][:, h])
      state = state * np.reshape(decay(x_D, h), (-1, 1)) + write
      o = q @ state / np.sqrt(K)
      if mixer.norm == "layer":
        o = layer(o, mixer.epsilon) * p["norm_gain_HE"][h] + p["norm_shift_HE"][h]
      else:
        o = rms(o, mixer.epsilon) * p["norm_gain_HE"][h]
      out_LD[i] += (o * silu(x_D @ p["gate_DHE"][:, h])) @ p["out_HED"][h]
  return out_LD


def gla(mixer, p, x_LD):
  def decay(x_D, h):
    gate_K = x_D @ p["decay_in_DW"] @ p["decay_out_WHK"][:, h] + p["decay_shift_HK"][h]
    return sigmoid(gate_K) ** (1 / mixer.slowness)

  return added(mixer, p, x_LD, decay)


def retention(mixer, p, x_LD):
  def turn(x_K, i):
    if not mixer.rotate:
      return x_K
    K = len(x_K)
    theta = mixer.base ** (-2 * np.arange(K // 2) / K)
    z = (x_K[::2] + 1j * x_K[1::2]) * np.exp(1j * i * theta)
    return np.stack([z.real, z.imag], axis=-1).ravel()

  return added(mixer, p, x_LD, lambda x_D, h: 1 - 2.0 ** (-5 - h), turn)


def mamba2(mixer, p, x_LD):
  _, H, E = p["value_DHE"].shape
  G, K = p["read_DGK"].shape[1:]
  out_LD, y_LHE = np.zeros_like(x_LD), np.zeros((len(x_LD), H, E))

  def part(name, axes, n):
    x = x_LD @ p[f"{name}_D{axes}"][:, n]
    if mixer.bias:
      x = x + p[f"{name}_in_shift_{axes}"][n]
    return x

  def conv(name, axes, n):
    x, taps = part(name, axes, n), p.get(f"{name}_mix_{axes}N")
    x = x if taps is None else convolved(x, taps[n])
    return silu(x + p[f"{name}_mix_shift_{axes}"][n] if mixer.shift else x)

  for h in range(H):
    g, state = h // (H // G), np.zeros((E, K))
    x, b, c = conv("value", "HE", h), conv("write", "GK", g), conv("read", "GK", g)
    step = softplus(part("step", "H", h) + p["step_shift_H"][h])
    step = np.clip(step, mixer.least_step, mixer.largest_step or np.inf)
    z = silu(part("gate", "HE", h))
    for i in range(len(x_LD)):
      decay = np.exp(-np.exp(p["log_rate_H"][h]) * step[i])
      state = decay * state + step[i] * np.outer(x[i], b[i])
      y_LHE[i, h] = state @ c[i] + p["skip_H"][h] * x[i]
      y_LHE[i, h] *= z[i] if mixer.gate_first else 1
  parts = mixer.norm_groups or G
  for i in range(len(x_LD)):
    whole = [rms(y, mixer.epsilon) for y in np.split(y_LHE[i].ravel(), parts)]
    y_HE = np.reshape(np.concatenate(whole), (H, E)) * p["norm_gain_HE"]
    for h in range(H):
      z = 1 if mixer.gate_first else silu(part("gate", "HE", h))[i]
      out_LD[i] += (y_HE[h] * z) @ p["out_HED"][h]
    out_LD[i] += p["out_shift_D"] if mixer.bias else 0
  return out_LD


def rwkv7(mixer, p, x_LD):
  _, H, E = p["value_DHE"].shape
  out_LD = np.zeros_like(x_LD)
  before_LD = np.concatenate([np.zeros_like(x_LD[:1]), x_LD[:-1]])
  for h in range(H):
    state = np.zeros((E, p["key_DHK"].shape[2]))
    for i, x_D in enumerate(x_LD):
      mixed = lambda name, i=i, x_D=x_D: x_D + (before_LD[i] - x_D) * p[f"{name}_mix_D"]
      r, k = (mixed(n) @ p[f"{n}_DHK"][:, h] for n in ("query", "key"))
      v = mixed("value") @ p["value_DHE"][:, h]
      low = np.tanh(mixed("decay") @ p["decay_in_DW"]) @ p["decay_out_WHK"][:, h]
      w = np.exp(-np.exp(-0.5) * sigmoid(low + p["decay_shift_HK"][h]))
      low = mixed("rate") @ p["rate_in_DW"] @ p["rate_out_WHK"][:, h]
      a = sigmoid(low + p["rate_shift_HK"][h])
      u = unit(k * p["removed_HK"][h])
      k = k * (1 + (a - 1) * p["replaced_HK"][h])
      # The paper's state has values first: S (diag(w) - u^T (a u)) + v^T k.
      state = state @ (np.diag(w) - np.outer(u, a * u)) + np.outer(v, k)
      o = layer(state @ r, mixer.epsilon) * p["norm_gain_HE"][h] + p["norm_shift_HE"][h]
      o = o + np.sum(r * k * p["bonus_HK"][h]) * v
      gate = sigmoid(mixed("gate") @ p["gate_in_DW"]) @ p["gate_out_WHE"][:, h]
      out_LD[i] += (o * gate) @ p["out_HED"][h]
  return out_LD


def gated_conv(mixer, p, x_LD):
  def enter(name):
    return x_LD @ p[f"{name}_DF"] + p.get(f"{name}_shift_F", 0)

  mixed_LF = convolved(enter("write") * enter("value"), p["mix_FN"])
  read_LF = enter("read") * (mixed_LF + p.get("mix_shift_F", 0))
  return read_LF @ p["out_FD"] + p.get("out_shift_D", 0)


def gelu(x):
  return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def rg_lru(mixer, p, x_LD):
  out_LD = np.zeros_like(x_LD) + p.get("out_shift_D", 0)
  for h in range(p["rate_HE"].shape[0]):
    shift = {n: p.get(f"{n}_shift_HE", np.zeros((h + 1, 1)))[h] for n in SHIFTED}
    value_LE = x_LD @ p["value_DHE"][:, h] + shift["value"]
    gate_LE = gelu(x_LD @ p["gate_DHE"][:, h] + shift["gate"])
    if "mix_HEN" in p:
      value_LE = convolved(value_LE, p["mix_HEN"][h])
    state = None
    for i, x in enumerate(value_LE + shift["mix"]):
      r = sigmoid(x @ p["recurrence_HKE"][h] + shift["recurrence"])
      take = sigmoid(x @ p["input_HKE"][h] + shift["input"])
      a = np.exp(-8 * r * softplus(p["rate_HE"][h]))
      new = take * x
      state = new if state is None else a * state + np.sqrt(1 - a**2) * new
      out_LD[i] += (state * gate_LE[i]) @ p["out_HED"][h]
  return out_LD


SHIFTED = "value", "gate", "mix", "recurrence", "input"
MIXERS = {
  "delta_net": delta_net,
  "delta_product": delta_product,
  "gated_delta": gated_delta,
  "gated_delta2": gated_delta2,
  "gated_conv": gated_conv,
  "gla": gla,
  "kda": kda,
  "mamba2": mamba2,
  "retention": retention,
  "rg_lru": rg_lru,
  "rwkv7": rwkv7,
}
