"""The page in use, in a browser: sorting, filters, seeds by keyboard, two runs."""

import html
import json
import re

import pytest
from test_page import browser, visit

# Added to a copy without the policy, after the page's own script.
USE = """<script>
const out = {};
const one = (selector) => document.querySelector(selector);
const names = () => [...one("#main_text").tBodies[0].rows].map(
  (r) => r.cells[0].textContent);
const press = (key) => document.activeElement.dispatchEvent(
  new KeyboardEvent("keydown", { key, bubbles: true }));
const write = (input, text) => {
  input.value = text;
  input.dispatchEvent(new Event("input", { bubbles: true }));
};
const button = one("#main_text thead th:nth-child(5) button");
button.click();
out.up = [names(), button.parentElement.getAttribute("aria-sort")];
button.click();
out.down = [names(), button.parentElement.getAttribute("aria-sort")];
const stops = [...one("#main_text").querySelectorAll("[tabindex='0']")];
stops[0].focus();
out.stops = stops.length;
out.tip = one("#tip").hidden ? null : one("#tip").textContent;
out.described = document.activeElement.getAttribute("aria-describedby");
press("ArrowDown");
const line = document.activeElement.parentElement;
out.next = [line.cells[0].textContent, one("#tip").textContent];
press("Escape");
out.hidden = one("#tip").hidden;
const runs = one("#all-runs input");
write(runs, "copy rope");
const left = document.querySelectorAll(".runs details:not([hidden]) summary");
out.filtered = [...left].map((x) => x.textContent.split("·")[0].trim());
out.count = one("#all-runs output").textContent;
const [first, second] = document.querySelectorAll("#compare select");
first.value = "5";
first.dispatchEvent(new Event("change"));
second.value = "0";
second.dispatchEvent(new Event("change"));
out.tables = [...document.querySelectorAll("#compare > div > .scroll table")].map((t) =>
  [...t.rows].map((r) => [...r.cells].map((c) => c.textContent)));
out.sides = [...document.querySelectorAll("#compare .versus h3")].map(
  (x) => x.textContent);
const ids = [...document.querySelectorAll("[id]")].map((x) => x.id);
out.repeated = ids.filter((id, n) => ids.indexOf(id) !== n);
document.body.dataset.out = JSON.stringify(out);
</script></body>"""


@pytest.fixture(scope="module")
def used(quick, tmp_path_factory):
  """What the page shows after it was used."""
  folder = tmp_path_factory.mktemp("used")
  text = re.sub(r"<meta http-equiv[^>]*>", "", (quick / "report.html").read_text())
  copy = folder / "page.html"
  copy.write_text(text.replace("</body>", USE))
  dom = visit(copy, folder, "--dump-dom")
  return json.loads(html.unescape(re.search(r'data-out="([^"]*)"', dom)[1]))


@browser
def test_tables_sort_by_number_with_what_has_none_last(used):
  order = ["alibi", "t5", "none", "rope", "sinusoidal", "learned"]
  assert used["up"] == [order, "ascending"]
  assert used["down"] == [order[4::-1] + order[5:], "descending"]


@browser
def test_a_table_is_one_stop_of_the_tab_key_and_arrows_show_the_seeds(used):
  assert used["stops"] == 1 and used["described"] == "tip"
  assert re.fullmatch(r"seed 0 \d\.\d{3}, seed 1 \d\.\d{3}, seed 2 \S+", used["tip"])
  variant, seeds = used["next"]
  assert variant != "none" and seeds.startswith("seed 0 ") and seeds != used["tip"]
  assert used["hidden"]


@browser
def test_runs_are_filtered_by_words(used):
  assert used["filtered"] == ["rope"] and used["count"] == "1 of 12"


@browser
def test_two_runs_stand_side_by_side_with_their_difference(used):
  settings, scores = used["tables"]
  assert settings == [
    ["setting", "rope", "none"],
    ["model.position", "rope", "none"],
  ]
  assert scores[0] == ["score", "seed 0", "seed 1", "seed 2", "mean"]
  assert scores[1][0] == "bits per byte at 1x" and scores[1][4].startswith("−0.5")
  assert [side.split(" · ")[0] for side in used["sides"]] == ["rope", "none"]
  assert used["repeated"] == [], "copies keep no id"
