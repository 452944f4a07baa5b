"""Writes folders that look as if a sweep had been there, for tests of the report."""

import html.parser
import itertools
import json

import numpy as np

TEXT = {
  "none": (3.07, 3.20, 3.30, 3.42),
  "sinusoidal": (2.82, 3.30, 3.74, 4.16),
  "learned": (2.80, None, None, None),
  "t5": (2.76, 2.90, 3.11, 3.36),
  "alibi": (2.73, 2.731, 2.736, 2.74),
  "rope": (2.49, 2.81, 3.25, 3.74),
}
COPY = {
  "none": (0.61, 0.32, 0.18, 0.09),
  "sinusoidal": (0.99, 0.21, 0.08, 0.04),
  "learned": (0.98, None, None, None),
  "t5": (0.995, 0.81, 0.55, 0.31),
  "alibi": (0.97, 0.90, 0.71, 0.44),
  "rope": (1.0, 0.62, 0.24, 0.07),
}
HEADLINES = {
  "bits_per_byte": [("bits_per_byte", "lower")],
  "accuracy": [("accuracy", "higher"), ("exact_match", "higher")],
}


def write_sweep(workdir, content, seeds=(0, 1, 2), lengths=(64, 128, 256, 512), **plan):
  """Writes {group: (headline, {label: means by length})} as a finished sweep."""
  rng, runs = np.random.default_rng(0), []
  for group, (headline, variants) in content.items():
    for label, means in variants.items():
      run = {"id": f"{group}-{len(runs):02d}", "label": label, "group": group}
      runs.append(run)
      write_run(workdir, run, HEADLINES[headline], means, seeds, lengths, rng)
  plan = {
    "question": "Which positional encoding reads further than it was trained?",
    "config": "experiments/configs/quickstart.py",
    "command": "python -m experiments.sweep --config=experiments/configs/quickstart.py",
    "baseline": "none",
    "groups": list(content),
    "runs": runs,
  } | plan
  (workdir / "sweep.json").write_text(json.dumps(plan))
  return workdir


def write_run(workdir, run, measures, means, seeds, lengths, rng):
  """Writes the folder of one finished run; draws its noise from rng in this order."""
  folder = workdir / "runs" / run["id"]
  folder.mkdir(parents=True)
  made = {
    "seeds": list(seeds),
    "measures": [{"name": name, "better": better} for name, better in measures],
    "train_length": lengths[0],
    "lengths": list(lengths),
    "scores": made_scores(measures, means, seeds, lengths, rng),
    "undefined": undefined(run["label"], means, lengths),
  }
  status = {"state": "finished", "attempts": 1, "error": None, "step": 400}
  config = {"model.position": run["label"], "model.width": 64, "train.steps": 400}
  contents = {"result": run | made | facts(run["label"]), "status": status}
  for name, content in (contents | {"config": config}).items():
    (folder / f"{name}.json").write_text(json.dumps(content))
  floor = (means[0] if measures[0][1] == "lower" else 0.8 - means[0] / 2) * 0.69
  (folder / "metrics.jsonl").write_text("".join(made_log(floor, seeds, rng)))


def made_scores(measures, means, seeds, lengths, rng):
  """Returns scores around the means; what is easy for a seed is so at all lengths."""
  scores, easy = [], rng.normal(0, 0.015, len(seeds))
  cells = itertools.product(measures, (("mean", 0.0), ("last_quarter", -0.06)))
  for (measure, better), (part, shift) in cells:
    for length, mean in zip(lengths, means, strict=False):
      for i, seed in enumerate(seeds):
        value = None
        if mean is not None:
          value = mean + shift + easy[i] + rng.normal(0, 0.015)
          if better == "higher":
            value = float(np.clip(value, 0, 1)) ** (4 if "exact" in measure else 1)
        score = {"seed": seed, "length": length, "measure": measure}
        scores.append(score | {"part": part, "value": value})
  return scores


def undefined(label, means, lengths):
  """Returns {length: reason} of the lengths without a mean."""
  reason = f"{label}: table ends at position {lengths[0] - 1}"
  pairs = zip(lengths, means, strict=False)
  return {str(length): reason for length, mean in pairs if mean is None}


def facts(label):
  """Returns what else a result has: cost, device, versions."""
  command = "python -m experiments.run --config=experiments/configs/quickstart.py"
  return {
    "diverged": {},
    "parameters": 115_712,
    "position_parameters": 8192 if label == "learned" else 0,
    "flops_per_token": 731_904.0,
    "peak_bytes": 61_341_696,
    "tokens_per_s": 145_210.7,
    "seconds": {"compile": 3.21, "train": 16.9, "evaluate": 2.4},
    "core": "dense",
    "core_refusals": {"pallas": "no accelerator on this machine"},
    "device": "cpu x2",
    "versions": {"jax": "0.10.2", "flax": "0.12.8"},
    "commit": "43be540",
    "data": {"fingerprint": "9f2c41aa", "files": 612},
    "command": f"{command} --config.model.position='{label}'",
  }


def made_log(floor, seeds, rng):
  """Yields the lines of metrics.jsonl: losses that fall to a floor."""
  for step in range(40, 401, 40):
    for seed in seeds:
      loss = floor + 2.6 * np.exp(-step / 90) + rng.normal(0, 0.015)
      yield json.dumps({"step": step, "seed": seed, "loss": loss}) + "\n"


def edit(workdir, run, name="result.json", **changes):
  path = workdir / "runs" / run / name
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))


QUICKSTART = {"text": ("bits_per_byte", TEXT), "copy": ("accuracy", COPY)}


def many_variants(count):
  """Returns {label: means} of made variants, for sweeps of hundreds of runs."""
  rng = np.random.default_rng(1)
  means = {"none": TEXT["none"]}
  for n in range(count - 1):
    start, slope = rng.uniform(2.4, 3.2), rng.uniform(0, 0.5)
    label = f"randomized(rope(base={1000 + 10 * n}.0), max_positions={512 + n})"
    means[label] = tuple(start + slope * step for step in range(4))
  return means


class Page(html.parser.HTMLParser):
  """Collects what a page is made of; tags must close in order."""

  VOID = {"meta", "br", "img", "link", "input", "hr", "wbr"}

  def __init__(self, text):
    super().__init__()
    self.tags, self.open, self.loads, self.tables = [], [], [], {}
    self.feed(text)
    assert not self.open, f"never closed: {self.open}"

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    self.tags.append((tag, attrs))
    self.open += [] if tag in self.VOID else [tag]
    self.loads += [v for k, v in attrs.items() if k in ("src", "href", "xlink:href")]
    if tag == "table":
      self.table = self.tables.setdefault(attrs["id"], [])
    if tag == "tr":
      self.table.append([])
    if tag in ("td", "th"):
      self.table[-1].append("")

  def handle_startendtag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    self.loads += [v for k, v in attrs if k in ("src", "href", "xlink:href")]

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open and self.open[-1] in ("td", "th"):
      self.table[-1][-1] += data


def read_page(workdir):
  return Page((workdir / "report.html").read_text())
