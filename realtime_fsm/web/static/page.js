"use strict";
/* The status page. It holds what the server told (`told`, `changes`), and draws it; every address is relative. */

const GLYPHS = { disconnected: "○", connecting: "◔", connected: "●", reconnecting: "◑", failed: "✗", fallback: "◆" };
const DEAF_AFTER = 40;  // seconds without anything: more than two heartbeats of the stream
const MOST_ROWS = 200;
const GAP = "\u00a0";  // a number and its unit stay in one line
const LEAST_WINDOW = 120, MOST_WINDOW = 3600;  // seconds that the outages are shown of
const IDLE = {
  retry: "Nothing waits to be retried now.",
  fallback: "The fallback cannot be forced now.",
  release: "There is no forced fallback to release.",
  pause: "There is nothing to pause.",
  resume: "It is not paused.",
};
const DONE = {
  retry: "Trying now.",
  fallback: "The fallback is forced, until you release it.",
  release: "The fallback is released: the socket is looked for again.",
  pause: "Paused. Messages wait until you resume.",
  resume: "Connecting again.",
};

const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

let told = null;          // the last view
let toldAt = 0;           // when it came, on performance.now()
let skew = 0;             // the server's clock minus this one's, seconds
let changes = [];
let wait = null;          // {until, whole}: the running wait, on performance.now()
let lastId = "";
let source = null;
let heardAt = 0;
let reopening = 0;
let token = "";
let drawnDiagram = null;

/* Words. */

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 9.95) return `${seconds.toFixed(1)}${GAP}s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole}${GAP}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}${GAP}min ${whole % 60}${GAP}s`;
  return `${Math.floor(whole / 3600)}${GAP}h ${Math.floor((whole % 3600) / 60)}${GAP}min`;
}

function milliseconds(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const ms = seconds * 1000;
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)}${GAP}ms`;
}

const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour12: false });
const count = (n, one, many) => `${n} ${n === 1 ? one : many}`;
const elapsed = () => (performance.now() - toldAt) / 1000;
const serverNow = () => Date.now() / 1000 + skew;

function write(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

function shape(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) {
    const title = document.createElementNS(SVG, "title");
    title.textContent = text;
    element.append(title);
  }
  return element;
}

/* What is drawn when news come. */

function draw() {
  drawState();
  drawLatency();
  drawFigures();
  drawOutages();
  drawButtons();
  mark();
  tick();
}

function drawState() {
  const name = told.status.toUpperCase();
  byId("now").dataset.severity = told.severity;
  write("glyph", GLYPHS[told.status] || "·");
  write("state-name", told.forced ? `${name} (forced)` : name);
  const words = told.words;
  write("says", words.says);
  write("next", words.next);
  write("advice", words.advice);
  write("server", told.server ? `to ${told.server}` : "");
  document.title = `${GLYPHS[told.status] || ""} ${name} – connection status`;
  byId("attempt-fact").hidden = told.attempt === null;
  if (told.attempt) write("attempt", told.attempt.number + (told.attempt.most === null ? "" : ` of ${told.attempt.most}`));
  const unwell = told.health.deaf || (told.is_live && told.health.degraded);
  byId("unwell").hidden = !unwell;
  write("unwell", unwell ? `Not as it should be: ${told.health.reasons.join(" ")}` : "");
  byId("kept-fact").hidden = told.is_live || !told.outbox.waiting;
  write("kept", count(told.outbox.waiting, "message", "messages"));
  byId("wait-fact").hidden = wait === null;
  byId("cause-fact").hidden = told.cause === null;
  if (told.cause) write("cause", `${told.cause.kind}: ${told.cause.message}`);
  const note = told.notes.length ? told.notes[told.notes.length - 1].text : "";
  byId("note").hidden = !note;
  write("note", note);
}

function drawLatency() {
  const { samples, last, p50, p95, p99 } = told.latency;
  write("latency-last", milliseconds(last));
  write("latency-p50", milliseconds(p50));
  write("latency-p95", milliseconds(p95));
  write("latency-p99", milliseconds(p99));
  const svg = byId("spark");
  svg.replaceChildren(shape("line", { x1: 0, x2: 240, y1: 55, y2: 55 }));
  if (!samples.length) return;
  const top = Math.max(...samples) * 1.1 || 1;
  const step = 240 / Math.max(samples.length - 1, 1);
  const y = (seconds) => (54 - 50 * seconds / top).toFixed(2);
  const points = samples.length === 1 ? `0,${y(samples[0])} 240,${y(samples[0])}`
    : samples.map((seconds, n) => `${(n * step).toFixed(2)},${y(seconds)}`).join(" ");
  svg.append(shape("polyline", { points }));
  const words = `The last ${count(samples.length, "round trip", "round trips")}, at most ${milliseconds(Math.max(...samples))}`;
  svg.setAttribute("aria-label", words);
}

function drawFigures() {
  const { outbox, counts, failures } = told;
  const flight = outbox.in_flight ? `, ${outbox.in_flight} of them under way` : "";
  write("outbox-depth", `${outbox.waiting}${flight}`);
  write("durable", outbox.is_durable ? "on disk" : "in memory");
  write("accepted", String(counts.accepted));
  write("delivered", String(counts.delivered));
  const ends = Object.entries(counts.undelivered);
  const lost = ends.reduce((sum, [, n]) => sum + n, 0);
  write("undelivered", lost ? `${lost} (${ends.map(([end, n]) => `${n} ${end}`).join(", ")})` : "0");
  write("received", String(counts.received));
  write("connections", String(counts.connections));
  write("losses", String(counts.losses));
  const rate = failures.rate === null ? "–"
    : `${Math.round(failures.rate * 100)} % (${failures.failed} of the last ${failures.attempts})`;
  write("failure-rate", rate);
  const causes = Object.entries(failures.causes).sort((a, b) => b[1] - a[1]);
  byId("causes").replaceChildren(...causes.map(([kind, n]) => {
    const item = document.createElement("li");
    item.textContent = `${kind}: ${n}`;
    return item;
  }));
}

function drawOutages() {
  const now = serverNow();
  const first = changes.length ? changes[0].at : now;
  const span = Math.min(MOST_WINDOW, Math.max(LEAST_WINDOW, now - first));
  const from = now - span;
  const x = (at) => Math.max(0, Math.min(600, 600 * (at - from) / span));
  const svg = byId("bands");
  svg.replaceChildren(
    shape("rect", { class: "unknown", x: 0, y: 0, width: x(first).toFixed(2), height: 28 }),
    shape("rect", { class: "calm", x: x(first).toFixed(2), y: 0, width: (600 - x(first)).toFixed(2), height: 28 }));
  const seen = told.outages.filter((outage) => (outage.ended_at ?? now) > from);
  let total = 0, longest = 0;
  for (const outage of seen) {
    const end = outage.ended_at ?? now;
    const lasted = Math.max(0, end - outage.began_at);
    total += lasted;
    longest = Math.max(longest, lasted);
    const left = Math.min(598, x(outage.began_at));
    const width = Math.max(2, x(end) - left);
    const words = `${clock(outage.began_at)}, ${duration(lasted)}: ${outage.reason}`;
    const dark = outage.polled_from === null ? width : Math.min(width, x(outage.polled_from) - left);
    svg.append(shape("rect", { class: "outage", x: left.toFixed(2), y: 2, width: dark.toFixed(2), height: 24 }, words));
    if (dark < width) {
      const rest = { class: "polled", x: (left + dark).toFixed(2), y: 14, width: (width - dark).toFixed(2), height: 12 };
      svg.append(shape("rect", rest, `${words}; data came by polling from ${clock(outage.polled_from)}`));
    }
  }
  const lasts = seen.length && seen[seen.length - 1].ended_at === null ? " One lasts." : "";
  const text = seen.length
    ? `${count(seen.length, "outage", "outages")}, ${duration(total)} altogether; the longest ${duration(longest)}.${lasts}`
    : "None in this time.";
  write("outages-text", text);
  write("bands-from", `${duration(span)} ago`);
  if (svg.getAttribute("aria-label") !== text) svg.setAttribute("aria-label", text);
}

function drawButtons() {
  for (const button of document.querySelectorAll("[data-action]")) {
    const name = button.dataset.action;
    button.setAttribute("aria-disabled", String(!told.may[name]));
    if (name !== "pause" && name !== "resume") continue;
    const hide = !told.may[name];
    const focused = document.activeElement === button;
    button.hidden = hide;
    if (hide && focused) document.querySelector(`[data-action="${name === "pause" ? "resume" : "pause"}"]`).dataset.wanted = "yes";
  }
  const wanted = document.querySelector("[data-wanted]");
  if (wanted && !wanted.hidden) {  // the keyboard stays where it was, when one button becomes the other
    delete wanted.dataset.wanted;
    wanted.focus();
  }
}

/* The diagram. */

const narrow = window.matchMedia("(max-width: 60rem)");

async function fetchDiagram() {
  const wanted = narrow.matches ? "diagram-tb.svg" : "diagram-lr.svg";
  if (wanted === drawnDiagram) return;
  drawnDiagram = wanted;
  try {
    const response = await fetch(wanted);
    if (!response.ok) throw new Error(String(response.status));
    const text = await response.text();
    if (wanted !== drawnDiagram) return;
    const picture = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
    byId("diagram").replaceChildren(document.importNode(picture, true));
    mark();
  } catch {
    drawnDiagram = null;  // it comes with the next opening of the stream
    byId("diagram").textContent = "The diagram could not be fetched.";
  }
}

function mark() {
  const svg = document.querySelector("#diagram svg");
  if (!svg || told === null) return;
  for (const old of svg.querySelectorAll(".current, .taken")) old.classList.remove("current", "taken");
  svg.querySelector(`#state-${told.status}`)?.classList.add("current");
  const last = changes[changes.length - 1];
  if (!last) return;
  svg.querySelector(`#edge-${last.previous}-${last.trigger}-${last.current}`)?.classList.add("taken");
  svg.querySelector(`#edge-${last.previous}-${last.trigger} > .stem`)?.classList.add("taken");
  write("diagram-text", `Now in ${told.status}; it came from ${last.previous} by ${last.trigger}.`);
}

/* The timeline. */

function cell(kind, text) {
  const element = document.createElement("td");
  element.setAttribute("role", "cell");  // a narrow page lays the table out as blocks, which takes the roles away
  element.className = kind;
  element.textContent = text;
  return element;
}

function row(change) {
  const element = document.createElement("tr");
  element.setAttribute("role", "row");
  element.dataset.severity = { failed: "error", reconnecting: "warning", fallback: "warning" }[change.current] || "info";
  element.dataset.epoch = String(change.epoch);
  const state = cell("state", "");
  const glyph = document.createElement("span");
  glyph.className = "glyph";
  glyph.setAttribute("aria-hidden", "true");
  glyph.textContent = GLYPHS[change.current] || "·";
  state.append(glyph, ` ${change.current}`);
  const then = change.retry_in === null ? "" : `attempt ${change.attempt} after ${duration(change.retry_in)}`;
  element.append(cell("time", clock(change.at)), state, cell("why", change.reason), cell("then", then));
  return element;
}

function remark(note) {
  const element = document.createElement("tr");
  element.setAttribute("role", "row");
  element.className = "remark";
  const why = cell("why", note.text);
  why.colSpan = 3;
  element.append(cell("time", clock(note.at)), why);
  return element;
}

function drawTimeline() {
  const notes = told === null ? [] : told.notes;
  const rows = [...changes.map((change) => [change.at, row(change)]), ...notes.map((note) => [note.at, remark(note)])];
  rows.sort((a, b) => b[0] - a[0] || Number(b[1].dataset.epoch || 0) - Number(a[1].dataset.epoch || 0));
  byId("timeline").replaceChildren(...rows.slice(0, MOST_ROWS).map(([, element]) => element));
}

async function copy() {
  const text = JSON.stringify({ server: told?.server, changes, notes: told?.notes }, null, 2);
  try {
    await navigator.clipboard.writeText(text);
    write("copied", `Copied ${count(changes.length, "change", "changes")}.`);
  } catch {  // no secure context, or not allowed
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    byId("copy").focus();
    write("copied", copied ? `Copied ${count(changes.length, "change", "changes")}.` : "The browser does not allow copying.");
  }
}

/* What passes by itself. */

function tick() {
  if (told === null) return;
  write("since", told.since === null ? "–" : duration(Math.max(0, serverNow() - told.since)));
  const age = told.outbox.waiting ? told.outbox.oldest_age + elapsed() : 0;
  write("outbox-age", told.outbox.waiting ? duration(age) : "–");
  if (wait === null) return;
  const left = Math.max(0, (wait.until - performance.now()) / 1000);
  write("countdown", left > 0 ? `in ${duration(left)}` : "now");
  byId("wait").max = wait.whole;
  byId("wait").value = Math.max(0, wait.whole - left);
}

/* The stream. */

function take(view) {
  const previous = told;
  told = view;
  toldAt = performance.now();
  skew = view.at - Date.now() / 1000;
  const left = view.next_attempt_in;
  wait = left === null ? null : { until: toldAt + left * 1000, whole: Math.max(view.wait || 0, left, 0.1) };
  draw();
  if (!previous || JSON.stringify(previous.notes) !== JSON.stringify(view.notes)) drawTimeline();
}

function heard(event) {
  heardAt = performance.now();
  if (event.lastEventId) lastId = event.lastEventId;
  setLink("live", "Live");
}

function setLink(kind, text) {
  byId("link").dataset.link = kind;
  document.body.classList.toggle("stale", kind === "lost");
  write("link-text", text);
}

const LOST = "This page has lost touch with the program. What it shows may be old; it keeps trying.";

function open() {
  clearTimeout(reopening);
  source?.close();
  heardAt = performance.now();
  source = new EventSource(lastId ? `events?after=${encodeURIComponent(lastId)}` : "events");
  source.addEventListener("snapshot", (event) => {
    const data = JSON.parse(event.data);
    heard(event);
    changes = data.changes;
    take(data.view);
    drawTimeline();
    fetchDiagram();
  });
  source.addEventListener("change", (event) => {
    heard(event);
    const change = JSON.parse(event.data);
    const last = changes[changes.length - 1];
    if (last && change.epoch <= last.epoch) return;
    changes.push(change);
    if (changes.length > MOST_ROWS) changes.shift();
    drawTimeline();
  });
  source.addEventListener("view", (event) => { heard(event); take(JSON.parse(event.data)); });
  source.addEventListener("beat", heard);
  source.addEventListener("error", () => {
    setLink("lost", LOST);
    if (source.readyState === EventSource.CLOSED) reopen();  // it would not come back by itself
  });
}

function reopen() {
  clearTimeout(reopening);
  reopening = setTimeout(open, 2000 + 1000 * Math.random());
}

function watch() {
  if (source !== null && performance.now() - heardAt > DEAF_AFTER * 1000) {
    setLink("lost", LOST);
    open();
  }
}

/* The buttons. */

function answer(text, bad) {
  byId("answer").dataset.kind = bad ? "bad" : "good";
  write("answer", text);
}

async function act(button) {
  const name = button.dataset.action;
  if (button.getAttribute("aria-disabled") === "true") {
    answer(IDLE[name], false);
    return;
  }
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  try {
    const response = await fetch(`actions/${name}`, { method: "POST", headers });
    const body = await response.json();
    if (response.ok) answer(DONE[name], false);
    else answer(body.error, true);
    if (response.status === 401) {
      token = "";
      byId("token-form").hidden = false;
      byId("token").focus();
    }
  } catch {
    answer("The program did not answer. Nothing may have been done.", true);
  }
}

for (const button of document.querySelectorAll("[data-action]")) button.addEventListener("click", () => act(button));
byId("copy").addEventListener("click", copy);
byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value;
  byId("token").value = "";
  byId("token-form").hidden = true;
  answer("The token will be shown with what you ask for next.", false);
});
narrow.addEventListener("change", fetchDiagram);
setInterval(tick, 200);
setInterval(() => { if (told !== null) drawOutages(); }, 1000);
setInterval(watch, 1000);
open();
