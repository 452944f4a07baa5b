"use strict";
// The page is complete without this: it sorts and filters tables, shows the values
// behind a cell, and sets two runs side by side.
const all = (selector, from = document) => [...from.querySelectorAll(selector)];
const make = (tag, values = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), values);
  node.append(...children);
  return node;
};

// A cell begins with a number in the report's own writing: −0.152 ± 0.020, 115,008.
const numeric = (text) => {
  const found = text.replace(/−/g, "-").replace(/,(?=\d{3})/g, "").match(/^[+-]?\d[\d.]*(e[+-]?\d+)?/);
  return found ? parseFloat(found[0]) : NaN;
};
const compare = (a, b) => {
  const [x, y] = [numeric(a), numeric(b)];
  if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
  return Number.isNaN(x) ? a.localeCompare(b) : x - y;
};

function sortable(table) {
  const heads = all("thead th", table);
  heads.forEach((head, column) => {
    const button = make("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const body = table.tBodies[0];
      const key = (row) => row.cells[column].textContent.trim();
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        const missing = Number.isNaN(numeric(x)) !== Number.isNaN(numeric(y));
        return missing || !down ? compare(x, y) : compare(y, x);
      });
      body.append(...rows);
    });
  });
}

function filter(label, items, text) {
  const input = make("input", { type: "search" });
  const count = make("output");
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = items().filter((item) => {
      const found = text(item).toLowerCase();
      item.hidden = !words.every((word) => found.includes(word));
      return !item.hidden;
    });
    count.textContent = words.length ? `${shown.length} of ${items().length}` : "";
  });
  return make("div", { className: "tools" }, make("label", {}, label, input), count);
}

for (const table of all("table.sort")) {
  sortable(table);
  if (table.tBodies[0].rows.length > 8) {
    const rows = () => [...table.tBodies[0].rows];
    table.parentElement.before(filter("Filter by words in a row", rows, (row) => row.textContent));
  }
}

// Values by seed: on hover, and by keyboard with the arrow keys within a table.
const tip = make("div", { id: "tip", role: "tooltip", hidden: true });
document.body.append(tip);
let shown = null;
function hide() {
  if (shown) shown.removeAttribute("aria-describedby");
  tip.hidden = true;
  shown = null;
}
function show(cell) {
  if (cell.title) {
    cell.dataset.hint = cell.title;
    cell.removeAttribute("title");
  }
  if (shown === cell) return;
  hide();
  tip.textContent = cell.dataset.hint;
  tip.hidden = false;
  cell.setAttribute("aria-describedby", "tip");
  const [at, size] = [cell.getBoundingClientRect(), tip.getBoundingClientRect()];
  tip.style.left = `${Math.max(4, Math.min(at.left, innerWidth - size.width - 4))}px`;
  const above = at.top - size.height - 4;
  tip.style.top = `${above > 0 ? above : at.bottom + 4}px`;
  shown = cell;
}
const HINTED = "td[title], td[data-hint]";
const hinted = (event) => event.target.closest && event.target.closest(HINTED);
document.addEventListener("pointerover", (event) => (hinted(event) ? show(hinted(event)) : hide()));
document.addEventListener("focusin", (event) => (hinted(event) ? show(hinted(event)) : hide()));
document.addEventListener("scroll", hide, true);
for (const table of all("table")) {
  const first = table.querySelector(HINTED);
  if (first) first.tabIndex = 0;
}
const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hide();
  const cell = hinted(event);
  if (!cell || !MOVES[event.key]) return;
  const [down, right] = MOVES[event.key];
  const rows = all("tbody tr:not([hidden])", cell.closest("table"));
  let [row, column] = [rows.indexOf(cell.parentElement), cell.cellIndex];
  do {
    row += down;
    column += right;
  } while (rows[row]?.cells[column] && !rows[row].cells[column].matches(HINTED));
  const next = rows[row]?.cells[column];
  if (!next) return;
  event.preventDefault();
  cell.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
});

// Runs: a filter, links that open a card, and two side by side.
const cards = all(".runs details");
if (cards.length > 8) {
  const name = (card) => card.querySelector("summary").textContent;
  document.querySelector(".runs").before(filter("Filter runs by name, group or state", () => cards, name));
}
const reveal = () => {
  const card = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (card && card.matches("details")) card.open = true;
};
addEventListener("hashchange", reveal);
reveal();

const section = document.getElementById("compare");
if (section && cards.length > 1) {
  section.hidden = false;
  all("[data-compare]").forEach((item) => (item.hidden = false));
  const choice = (label, index) => {
    const options = cards.map((card, n) => make("option", { value: n }, card.querySelector("summary").textContent.trim().replace(/\s+/g, " ")));
    const select = make("select", {}, ...options);
    select.selectedIndex = index;
    select.addEventListener("change", draw);
    return [make("label", {}, label, select), select];
  };
  const [one, first] = choice("Run", 0);
  const [other, second] = choice("beside", 1);
  const place = make("div");
  section.append(make("div", { className: "tools" }, one, other), place);

  const config = (card) => JSON.parse(card.dataset.config);
  const scores = (card) => new Map(all("table.scores tbody tr", card).map((row) => [row.cells[0].textContent, all("td", row).map((cell) => numeric(cell.textContent))]));
  const heads = (card) => all("table.scores thead th", card).slice(1).map((head) => head.textContent);
  const grid = (caption, head, rows) => {
    const table = make("table", {}, make("caption", {}, caption));
    table.append(make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col" }, text)))));
    table.append(make("tbody", {}, ...rows.map(([name, ...cells]) => make("tr", {}, make("th", { scope: "row" }, name), ...cells.map((cell) => make("td", {}, cell))))));
    return make("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: caption }, table);
  };
  const short = (value) => (value === undefined ? "–" : typeof value === "string" ? value : JSON.stringify(value));
  const fixed = (value) => (value > 0 ? "+" : "") + value.toFixed(3).replace("-", "−");

  function draw() {
    const [a, b] = [cards[first.value], cards[second.value]];
    const [ours, theirs] = [config(a), config(b)];
    const keys = [...new Set([...Object.keys(ours), ...Object.keys(theirs)])].sort();
    const differing = keys.filter((key) => JSON.stringify(ours[key]) !== JSON.stringify(theirs[key]));
    const names = [a, b].map((card) => card.dataset.label);
    const parts = [grid("Settings that differ", ["setting", ...names], differing.map((key) => [key, short(ours[key]), short(theirs[key])]))];
    if (!differing.length) parts[0] = make("p", {}, "All settings are equal.");
    const [mine, yours] = [scores(a), scores(b)];
    const seeds = heads(a).filter((seed) => heads(b).includes(seed));
    const at = (card, seed) => heads(card).indexOf(seed);
    const rows = [...mine.keys()].filter((name) => yours.has(name)).map((name) => {
      const gaps = seeds.map((seed) => mine.get(name)[at(a, seed)] - yours.get(name)[at(b, seed)]);
      const valid = gaps.filter((gap) => !Number.isNaN(gap));
      const mean = valid.reduce((sum, gap) => sum + gap, 0) / valid.length;
      return [name, ...[...gaps, mean].map((gap) => (Number.isNaN(gap) ? "–" : fixed(gap)))];
    });
    if (rows.length && a !== b) {
      parts.push(grid(`${names[0]} minus ${names[1]}, seed by seed`, ["score", ...seeds, "mean"], rows));
      parts.push(make("p", { className: "note" }, "Exploratory: no verdict belongs to this difference."));
    }
    const sides = [a, b].map((card, n) => {
      const copy = card.querySelector(".body").cloneNode(true);
      all("[id]", copy).forEach((node) => node.removeAttribute("id"));
      all("[aria-label]", copy).forEach((node) => (node.ariaLabel = `${["left", "right"][n]}: ${node.ariaLabel}`));
      const title = make("h3", {}, card.querySelector("summary").textContent.trim().replace(/\s+/g, " "));
      return make("div", {}, title, copy);
    });
    place.replaceChildren(...parts, make("div", { className: "versus" }, ...sides));
  }
  draw();
}
