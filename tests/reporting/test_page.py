"""The page: read as HTML everywhere, and looked at in a browser where there is one.

What needs no browser is asserted without one; Chromium adds what only a layout shows.
"""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from fake_sweep import read_page

from experiments.reporting import comparisons, style

CHROMIUM = next(
  filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
  None,
)
browser = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium on the PATH")


def test_the_answer_comes_first_and_is_the_verdicts(quick):
  text = (quick / "report.html").read_text()
  body = re.sub(r"<[^>]+>", "", text[text.index("<body>") :])
  best = "text: At 8x the training length alibi is best: 2.7"
  assert body.index("Which positional encoding") < body.index(best)
  assert body.index(best) < body.index("All lengths")
  assert "Undefined there: learned." in body
  assert "Worse than none: sinusoidal and rope." in body
  found = comparisons.find(quick)
  (alibi,) = [row for row in found.at("text", 512) if row.label == "alibi"]
  assert f"{abs(alibi.difference.mean):.3f} better than none" in body


def test_page_is_whole_and_loads_nothing(quick):
  page = read_page(quick)
  assert all(load.startswith("#") for load in page.loads)
  assert not {"link", "iframe", "img"} & {tag for tag, _ in page.tags}
  assert [attrs for tag, attrs in page.tags if tag == "script"] == [{}]
  text = (quick / "report.html").read_text()
  assert not re.search(r"url\((?!#)|@import", text)
  ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
  assert len(ids) == len(set(ids)), "figures must not share ids"
  assert set(ids) >= {load[1:] for load in page.loads}
  drawn = [attrs.get("class") for tag, attrs in page.tags if tag == "svg"]
  assert drawn.count(None) == 7 and drawn.count("losses") == 12
  assert set(page.tables) >= {"main_text", "main_copy", "cost", "trouble"}
  assert set(page.tables) >= {
    f"lengths_copy_{m}_mean" for m in ("accuracy", "exact_match")
  }
  assert "lengths_text_bits_per_byte_last_quarter" in page.tables
  (row,) = [row for row in page.tables["main_text"] if row[0] == "learned"]
  assert row[3:] == ["▲ better", "undefined", "–", "undefined"]
  assert "learned at 8x undefined: table ends at position 63." in text
  assert len({len(row) for row in page.tables["cost"]}) == 1


def test_every_run_can_be_repeated_from_the_page(quick):
  text = html.unescape((quick / "report.html").read_text())
  for path in quick.glob("runs/*/result.json"):
    assert json.loads(path.read_text())["command"] in text


def visit(page, tmp_path, *arguments):
  """Opens a page in headless Chromium, cut off from every network."""
  command = [
    CHROMIUM,
    *"--headless --no-sandbox --disable-gpu --no-first-run --disable-sync".split(),
    *"--disable-background-networking --disable-component-update".split(),
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--hide-scrollbars",
    f"--user-data-dir={tmp_path / 'profile'}",
    *arguments,
    page.as_uri(),
  ]
  done = subprocess.run(command, capture_output=True, timeout=120)
  assert done.returncode == 0, done.stderr.decode()
  return done.stdout.decode()


# The page's policy runs its own script alone. This one is added to a copy without the
# policy, to ask for the layout; the copy stands in a frame, because no browser window
# is as narrow as a phone.
MEASURE = """<script>
document.querySelectorAll("details").forEach((run) => { run.open = true; });
const width = (node) => node.getBoundingClientRect().width;
const height = (node) => node.getBoundingClientRect().height;
parent.document.body.dataset.layout = JSON.stringify({
  page: document.documentElement.scrollWidth,
  window: window.innerWidth,
  figures: [...document.querySelectorAll("svg:not(.losses)")].map(
    (f) => [width(f), height(f)]),
  tables: Object.fromEntries([...document.querySelectorAll("table[id]")].map(
    (t) => [t.id, height(t)])),
});
</script></body>"""


@browser
@pytest.mark.parametrize("width", [390, pytest.param(1100, marks=pytest.mark.slow)])
def test_layout_in_chromium(quick, tmp_path, width):
  text = re.sub(r"<meta http-equiv[^>]*>", "", (quick / "report.html").read_text())
  text = text.replace("<summary>", f"<summary>{'a long label ' * 9}")
  frame = html.escape(text.replace("</body>", MEASURE))
  copy = tmp_path / "page.html"
  size = f"width:{width}px;height:900px;border:0"
  copy.write_text(f'<body><iframe srcdoc="{frame}" style="{size}"></iframe></body>')
  dom = visit(copy, tmp_path, "--window-size=1200,900", "--dump-dom")
  layout = json.loads(html.unescape(re.search(r'data-layout="([^"]*)"', dom)[1]))
  assert layout["window"] == width
  assert layout["page"] <= width, "the page itself must not scroll sideways"
  assert len(layout["figures"]) == 7
  assert all(w > 300 and h > 150 for w, h in layout["figures"])
  assert set(layout["tables"]) == set(read_page(quick).tables)
  assert all(h > 40 for h in layout["tables"].values())


@browser
@pytest.mark.parametrize(
  "scheme,paper", [pytest.param(1, "#fefefe", marks=pytest.mark.slow), (0, "#15181c")]
)
def test_colours_in_chromium(quick, tmp_path, scheme, paper):
  import matplotlib.colors
  import matplotlib.image

  shot = tmp_path / "page.png"
  visit(
    quick / "report.html",
    tmp_path,
    f"--blink-settings=preferredColorScheme={scheme}",
    "--window-size=900,3000",
    f"--screenshot={shot}",
  )
  pixels = np.round(matplotlib.image.imread(shot)[..., :3] * 255).astype(int)

  def share(color):
    wanted = np.round(np.array(matplotlib.colors.to_rgb(color)) * 255)
    return (np.abs(pixels - wanted).max(-1) <= 2).mean()

  assert pixels.shape == (3000, 900, 3)
  assert share(paper) > 0.5
  colors = style.COLORS if scheme else style.ON_DARK
  for color in colors[:5]:
    assert share(color) > 1e-4, f"{color} of a curve is not on the page"


@browser
def test_the_page_may_load_nothing(quick, tmp_path):
  """The policy that the page carries lets no script run but the page's own."""
  text = (quick / "report.html").read_text()
  bait = '<script>document.title = "ran"</script></body>'
  copy = tmp_path / "page.html"
  copy.write_text(text.replace("</body>", bait))
  dom = visit(copy, tmp_path, "--dump-dom")
  assert "<title>ran</title>" not in dom
  assert "<title>Which positional encoding" in dom
  assert '<section id="compare">' in dom, "the page's own script has run"
