"use strict";
// Progress of a sweep that runs, asked for again and again. A report that was written
// meanwhile replaces the page at once where nobody reads it, else when asked to.
{
  const EVERY = 2000; // milliseconds between questions
  const panel = document.getElementById("live");
  const part = (name) => document.getElementById(`live-${name}`);
  const node = (tag, text = "", kind = "") => {
    const made = document.createElement(tag);
    made.textContent = text;
    made.className = kind;
    return made;
  };
  const words = (seconds) => {
    const whole = Math.round(seconds);
    const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
    if (hours) return `${hours} h ${String(minutes).padStart(2, "0")} min`;
    return minutes ? `${minutes} min ${String(whole % 60).padStart(2, "0")} s` : `${whole} s`;
  };
  const line = (...cells) => {
    const row = node("tr");
    row.append(...cells);
    return row;
  };
  const named = (run) => {
    const name = node("th", `${run.label} `);
    name.scope = "row";
    name.append(node("span", `· ${run.group}`, "soft"));
    return name;
  };
  const fill = (name, rows) => {
    part(name).hidden = !rows.length;
    part(name).querySelector("tbody").replaceChildren(...rows);
  };

  function runningRow(run) {
    const at = run.steps ? `${run.step} of ${run.steps}` : `${run.step}`;
    const step = node("td", run.phase === "training" ? at : `${at}, ${run.phase}`);
    if (run.steps) {
      const bar = Object.assign(document.createElement("progress"), { max: run.steps, value: run.step });
      bar.setAttribute("aria-label", `steps of ${run.label}`);
      step.append(bar);
    }
    const loss = node("td", run.loss === null ? "–" : run.loss.toFixed(3));
    const left = run.late_s ? node("td", `no sign for ${words(run.late_s)}`, "late") : node("td", run.left_s === null ? "–" : words(run.left_s));
    return line(named(run), step, loss, left, node("td", [run.host, run.pid].filter(Boolean).join(", process ")));
  }

  function show(now) {
    const numbers = { done: now.done, running: now.running.length, failed: now.failed.length, stopped: now.stopped, waiting: now.waiting };
    const some = Object.entries(numbers).filter(([, number]) => number);
    const known = now.planned !== null;
    const ended = known && !numbers.running && !numbers.stopped && !numbers.waiting;
    part("done").textContent = !known ? "No sweep here yet" : ended && !numbers.failed ? `All ${now.planned} runs are done` : `${now.done} of ${now.planned} runs are done`;
    part("left").textContent = !known ? "the page waits for its sweep.json" : ended ? "" : now.left_s === null ? `time left unknown: ${now.left_by}` : `about ${words(now.left_s)} left, ${now.left_by}`;
    part("bar").replaceChildren(...some.map(([name, number]) => Object.assign(node("div", "", name), { style: `flex:${number}` })));
    part("bar").setAttribute("aria-label", some.map(([name, number]) => `${number} ${name}`).join(", ") || "no run is known yet");
    part("counts").replaceChildren(...some.map(([name, number]) => node("li", `${number} ${name}`, name)));
    fill("running", now.running.map(runningRow));
    fill("failed", now.failed.map((run) => line(named(run), node("td", run.reason), node("td", run.attempts))));
  }

  // A reader keeps the place: nothing moves under a page that is in use.
  let touched = false;
  for (const event of ["pointerdown", "keydown", "wheel", "touchstart"]) {
    addEventListener(event, () => (touched = true), { passive: true });
  }
  const STATE = "live-report";
  function renew() {
    const open = [...document.querySelectorAll("details[open][id]")].map((card) => card.id);
    sessionStorage.setItem(STATE, JSON.stringify({ y: scrollY, open }));
    location.reload();
  }
  const before = JSON.parse(sessionStorage.getItem(STATE) || "null");
  sessionStorage.removeItem(STATE);
  if (before) {
    for (const card of before.open.map((id) => document.getElementById(id))) if (card) card.open = true;
    scrollTo({ top: before.y, behavior: "instant" });
  }
  part("new").querySelector("button").addEventListener("click", renew);

  const clock = () => new Date().toLocaleTimeString();
  let seen = clock();
  async function ask() {
    try {
      const answer = await fetch("progress.json", { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.status);
      const now = await answer.json();
      show(now);
      seen = clock();
      part("sign").className = "soft";
      part("sign").textContent = now.report_note || `live, ${seen}`;
      const fresh = String(now.report) !== panel.dataset.version;
      if (fresh && !touched && scrollY === 0) renew();
      else part("new").hidden = !fresh;
    } catch (error) {
      part("sign").className = "soft lost";
      part("sign").textContent = `the server has ended; this is of ${seen}`;
    }
    setTimeout(ask, EVERY);
  }
  ask();
}
