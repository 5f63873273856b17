// The panels beside the chart: what the model says now, what became of its calls, the model in service, latencies,
// and how each part is. They only draw; `app.js` tells them what there is.

import { add, age, clock, count, decimal, dress, duration, leader, micros, percent, share, signed, write } from "./format.js";

const $ = (id) => document.getElementById(id);
const CALLS_SHOWN = 40;
const RATES_KEPT = 60;            // one a second
const SIGN = { up: "▲", down: "▼", flat: "■" };
const OUTCOME = { hit: "✓ hit", miss: "✕ miss", flat: "– flat", open: "… open" };
// Half decades from 1 us to 10 s.
const LATENCY_FROM_US = 1, LATENCY_DECADES = 7;

/** The head of the chart: the newest prediction of the symbol that is shown. */
export function drawQuote(item, price, halted, serverMs) {
  $("quote").hidden = !item;
  if (!item) return;
  const side = leader(item);
  write($("q-symbol"), item.symbol);
  write($("q-price"), price);
  write($("q-bps"), `${signed(item.expected_return_bps)} bps`);
  dress($("q-bps"), side);
  write($("q-horizon"), `expected in ${duration(item.horizon_ns)}`);
  for (const [id, p] of [["q-down", item.p_down], ["q-flat", item.p_flat], ["q-up", item.p_up]]) write($(id), `${percent(p)} %`);
  $("q-bar").style.setProperty("--d", item.p_down.toFixed(3));
  $("q-bar").style.setProperty("--u", item.p_up.toFixed(3));
  write($("q-flag"), halted ? "halted" : item.warming ? "warming up" : "");
  dress($("q-flag"), halted ? "flag halted" : "flag");
  write($("q-seq"), `#${count(item.seq)} · ${item.model.slice(0, 8)} · ${age(serverMs - item.published_ns / 1e6)} old`);
}

/** Newest calls and what became of them: the chart's markers in words. */
export function drawCalls(calls, { hits, misses }) {
  const moved = hits + misses;
  write($("calls-score"), moved ? `${hits} of ${moved} that moved: ${share(hits / moved)}` : "none settled yet");
  const rows = calls.slice(0, CALLS_SHOWN);
  const body = $("calls");
  while (body.rows.length > rows.length) body.deleteRow(-1);
  while (body.rows.length < rows.length) for (const row = body.insertRow(); row.cells.length < 5;) row.insertCell();
  rows.forEach((call, index) => {
    const [time, side, expected, realised, outcome] = body.rows[index].cells;
    write(time, clock(call.time * 1000));
    write(side, `${SIGN[call.side]} ${percent(call.probability)} %`);
    dress(side, call.side);
    write(expected, signed(call.expected_return_bps));
    write(realised, signed(call.return_bps));
    write(outcome, OUTCOME[call.outcome]);
    dress(outcome, call.outcome);
  });
  $("calls-empty").hidden = rows.length > 0;
}

/** What the chart says of the bar under the pointer. */
export function drawLegend(legend) {
  const node = $("legend");
  if (!legend) { write(node, ""); return; }
  const { time, open, high, low, close, call, lean } = legend;
  const called = call ? ` · called ${SIGN[call.side]} ${percent(call.probability)} % ${OUTCOME[call.outcome]}` : "";
  const leaning = lean === undefined ? "" : ` · lean ${signed(lean * 100, 0)} %`;
  write(node, `${time}  O ${open}  H ${high}  L ${low}  C ${close}${leaning}${called}`);
}

/** How many symbols lean which way. */
export function drawBreadth(items) {
  const tally = { down: 0, flat: 0, up: 0 };
  for (const item of items) tally[leader(item)]++;
  const all = Math.max(1, items.length);
  $("breadth").style.setProperty("--d", (tally.down / all).toFixed(3));
  $("breadth").style.setProperty("--u", (tally.up / all).toFixed(3));
  for (const side of ["down", "flat", "up"]) write($(`b-${side}`), String(tally[side]));
}

// ---- the engine --------------------------------------------------------------------------------------------------

const rates = [];
let before = null;

/** Figures of a heartbeat. */
export function drawBeat(beat) {
  const seconds = before ? (beat.server_ns - before.server_ns) / 1e9 : 0;
  const perSecond = (name) => (seconds > 0 ? Math.max(0, (beat[name] - before[name]) / seconds) : undefined);
  const rate = perSecond("received"), total = beat.stages_us?.total ?? {};
  before = beat;
  if (rate !== undefined) { rates.push(rate); if (rates.length > RATES_KEPT) rates.shift(); }
  const top = Math.max(1, ...rates);
  $("spark").setAttribute("points",
    rates.map((r, i) => `${120 - (rates.length - 1 - i) * 2},${(21 - (r / top) * 20).toFixed(1)}`).join(" "));
  write($("f-rate"), rate === undefined ? "–" : count(Math.round(rate)));
  write($("f-symbols"), count(beat.symbols));
  write($("f-clients"), count(beat.clients));
  write($("f-total"), `${micros(total.p50)} / ${micros(total.p99)}`);
  drawStages(beat.stages_us ?? {});
}

const across = (us) => Math.min(1, Math.max(0, Math.log10(Math.max(us, LATENCY_FROM_US) / LATENCY_FROM_US) / LATENCY_DECADES));

function drawStages(stages) {
  const body = $("stages"), named = Object.entries(stages);
  while (body.rows.length < named.length) {
    const row = body.insertRow();
    add(row, "th").scope = "row";
    while (row.cells.length < 5) row.insertCell();
    add(row.cells[1], "div", "range");
  }
  while (body.rows.length > named.length) body.deleteRow(-1);
  named.forEach(([name, stage], index) => {
    const [head, range, ...cells] = body.rows[index].cells;
    write(head, name.replaceAll("_", " "));
    const bar = range.firstElementChild;
    bar.hidden = stage.p50 === undefined;
    bar.style.setProperty("--from", across(stage.p50 ?? 1).toFixed(3));
    bar.style.setProperty("--to", across(stage["p99.9"] ?? 1).toFixed(3));
    bar.style.setProperty("--mark", across(stage.p99 ?? 1).toFixed(3));
    ["p50", "p99", "p99.9"].forEach((quantile, at) => write(cells[at], micros(stage[quantile])));
  });
}

/**
 * How each part is.
 *
 * @param {{name: string, state: "ok"|"bad"|"away"|"unknown", text: string}[]} parts
 */
export function drawHealth(parts) {
  const list = $("health");
  while (list.children.length > parts.length) list.lastElementChild.remove();
  while (list.children.length < parts.length) {
    const item = add(list, "li");
    for (const className of ["dot", "part", "what"]) add(item, "span", className);
  }
  parts.forEach(({ name, state, text }, index) => {
    const item = list.children[index];
    dress(item, state);
    write(item.children[0], { ok: "●", bad: "▲", away: "✕", unknown: "○" }[state]);
    item.children[0].setAttribute("aria-label", state);
    write(item.children[1], name);
    write(item.children[2], text);
    item.title = text;
  });
  const bad = parts.filter(({ state }) => state === "bad" || state === "away").length;
  write($("health-sum"), bad ? `${bad} of ${parts.length} need a look` : parts.length ? "all well" : "");
  dress($("health-sum"), bad ? "bad" : "good");
}

// ---- the model ---------------------------------------------------------------------------------------------------

const hitRates = [];

/** Scores of the model in service, beside what knows nothing of the features. */
export function drawModel(details) {
  const { recent } = details, baseline = Math.max(recent.fallback_hit_rate ?? 0.5, recent.majority_hit_rate ?? 0.5);
  $("model-none").hidden = true;
  $("model-facts").hidden = false;
  write($("m-name"), `${details.name ?? ""} ${details.model.slice(0, 8)}`);
  write($("m-hit"), share(recent.hit_rate));
  dress($("m-hit"), recent.hit_rate === null ? "" : recent.hit_rate > baseline ? "good" : "worse");
  write($("m-moved"), `of ${count(recent.moved)} moves in the last hours`);
  const bars = [["model", recent.hit_rate], ["fallback", recent.fallback_hit_rate], ["commoner side", recent.majority_hit_rate]];
  bars.forEach(([name, rate], index) => {
    const row = $("m-bars").children[index];
    write(row.children[0], name);
    row.children[1].style.setProperty("--at", Math.min(1, Math.max(0, ((rate ?? 0.5) - 0.3) / 0.4)).toFixed(3));
    write(row.children[2], share(rate));
  });
  if (recent.hit_rate !== null && recent.hit_rate !== hitRates.at(-1)) hitRates.push(recent.hit_rate);
  const facts = [
    ["net of costs, a position", `${signed(recent.net_bps)} bps`],
    ["log loss / fallback's", `${decimal(recent.log_loss_beside_fallback, 3)} / ${decimal(recent.fallback_log_loss, 3)}`],
    ["information coefficient", decimal(recent.ic, 3)],
    ["outcomes", count(recent.outcomes)],
  ];
  for (const [other, trial] of Object.entries(details.trials ?? {})) {
    // How far on the way to where the model is taken out of service, on the scale that evidence adds up on.
    const way = Math.min(1, Math.max(0, Math.log(trial.e_value) / Math.log(trial.threshold)));
    facts.push([`case for the ${other === "previous" ? "one before" : other}`, share(way, 0), way >= 0.5]);
  }
  for (const [answer, psi] of Object.entries(details.drift ?? {})) {
    if (psi > 0.25) facts.push([`drift of ${answer.replaceAll("_", " ")}`, `PSI ${decimal(psi, 2)}`, true]);
  }
  drawFacts($("m-facts"), facts);
}

/** Pairs of a name and what it is; a third says that it is bad. */
export function drawFacts(list, facts) {
  while (list.children.length > facts.length * 2) list.lastElementChild.remove();
  while (list.children.length < facts.length * 2) { add(list, "dt"); add(list, "dd"); }
  facts.forEach(([name, value, bad], index) => {
    write(list.children[index * 2], name);
    write(list.children[index * 2 + 1], value);
    dress(list.children[index * 2 + 1], bad ? "bad" : "");
  });
}
