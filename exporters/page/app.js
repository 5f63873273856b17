// The page: follows every symbol with mode `latest`. Messages only change the state below; the screen is drawn from it
// 30 times a second: only rows that are in sight, and of a row only what is different.
"use strict";

const $ = (id) => document.getElementById(id);
const still = matchMedia("(prefers-reduced-motion: reduce)");
const DEAD_MS = 5000;      // heartbeats come each second
const DRAW_EVERY_MS = 30;  // nobody reads faster
const FLASH_MS = 300;
const RESORT_MS = 1000;    // rows that swap places faster than this cannot be read
const STALE_MS = 10000;
const KEYS = ["symbol", "price", "up", "bps", "age", "seq", "model"];
const VALUE = {
  symbol: (row) => row.symbol, price: (row) => row.item.ref_price, up: (row) => row.item.p_up - row.item.p_down,
  bps: (row) => row.item.expected_return_bps, age: (row) => -row.item.published_ns, seq: (row) => row.item.seq,
  model: (row) => row.item.model,
};

const rows = new Map();    // by symbol
const changed = new Set(); // rows in sight to draw
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const row = rows.get(entry.target.dataset.symbol);
    if (row) { row.visible = entry.isIntersecting; if (row.visible) changed.add(row); }
  }
  ask();
}, { rootMargin: "100px" });
let sort = { key: "", down: false }, filter = "", frozen = false, clockMs = 0, sortedAt = 0, order = [];
let frameAsked = false, drawnAt = 0, beat = null, previousBeat = null, rates = [];

// ---- the connection ----------------------------------------------------------------------------------------------
let socket = null, heardAt = 0, tries = 0, retryAt = 0;

function connect() {
  retryAt = 0;
  say("connecting", "connecting");
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(`${scheme}//${location.host}/feed`);
  heardAt = performance.now();
  socket.onmessage = (event) => { heardAt = performance.now(); take(JSON.parse(event.data)); };
  socket.onclose = (event) => lost(event.code);
}

function send(message) { socket.send(JSON.stringify(message)); }

function lost(code) {
  socket = null;
  if (code === 4401) {
    sessionStorage.removeItem("token");
    $("token-form").hidden = false;
    $("token").focus();
    say("away", "token needed");
    return;
  }
  // 0.5 s, then twice as long each time up to 10 s; spread, so that a hundred pages do not come back at once.
  const wait = Math.min(10000, 500 * 2 ** tries++) * (0.75 + Math.random() / 2);
  retryAt = performance.now() + wait;
  setTimeout(connect, wait);
}

function take(message) {
  switch (message.type) {
    case "prediction": case "snapshot": case "model":
      for (const item of message.predictions ?? []) put(item);
      for (const event of message.events ?? []) takeModel(event.event, event.details);
      ask();
      break;
    case "heartbeat":
      clockMs = message.server_ns / 1e6 - Date.now();
      previousBeat = beat;
      beat = message;
      drawBeat();
      break;
    case "hello":
      tries = 0;
      clockMs = message.server_ns / 1e6 - Date.now();
      $("token-form").hidden = true;
      say("live", "live");
      send({ op: "subscribe", id: 1, channel: "prediction", symbols: ["*"], mode: "latest" });
      send({ op: "subscribe", id: 2, channel: "model", symbols: ["*"], mode: "full" });
      break;
    case "auth_required":
      if (sessionStorage.getItem("token")) send({ op: "auth", token: sessionStorage.getItem("token") });
      else socket.close(4401);
      break;
    case "epoch":
      seen.disconnect(); rows.clear(); changed.clear(); order = []; $("rows").replaceChildren(); ask();
      break;
    case "going_away":
      say("away", "the gateway stops");
      break;
  }
}

function say(state, text) {
  $("state").dataset.state = frozen && state === "live" ? "frozen" : state;
  $("state").textContent = frozen && state === "live" ? "frozen" : text;
  document.body.classList.toggle("away", state !== "live");
}

// ---- rows --------------------------------------------------------------------------------------------------------
function put(item) {
  let row = rows.get(item.symbol);
  if (!row) { row = makeRow(item); rows.set(item.symbol, row); sortedAt = 0; }
  row.item = item;
  if (row.visible) changed.add(row);
}

function makeRow(item) {
  const tr = document.createElement("tr");
  tr.setAttribute("role", "row");
  tr.dataset.symbol = item.symbol;
  seen.observe(tr);
  const cell = (name) => {
    const td = tr.appendChild(document.createElement("td"));
    td.className = name;
    td.setAttribute("role", "cell");
    return td;
  };
  const name = cell("name"), price = cell("number"), odds = cell(""), bps = cell("number");
  const age = cell("number dim"), seq = cell("number dim roomy"), model = cell("dim roomy");
  name.textContent = name.title = item.symbol;
  const warming = name.appendChild(document.createElement("i"));
  const box = odds.appendChild(document.createElement("div"));
  box.className = "odds";
  const down = box.appendChild(document.createElement("span")), bar = box.appendChild(document.createElement("div"));
  const up = box.appendChild(document.createElement("span"));
  bar.className = "bar";
  return { symbol: item.symbol, item, tr, warming, price, down, bar, up, bps, age, seq, model,
           shown: null, visible: false, decimals: 2, flashUntil: 0, texts: new Map() };
}

function write(row, node, text) {
  if (row.texts.get(node) !== text) { row.texts.set(node, text); node.textContent = text; }
}

function priceText(row, price) {
  // As many decimals as this symbol has ever shown, so that digits stay where they are; (bid + ask) / 2 may end in a
  // ...0000001 that is nobody's price.
  const text = String(Number(price.toFixed(6))), point = text.indexOf(".");
  if (point >= 0) row.decimals = Math.max(row.decimals, text.length - point - 1);
  return fixed[Math.min(row.decimals, 6)].format(price);
}

const fixed = [0, 1, 2, 3, 4, 5, 6].map((digits) =>
  new Intl.NumberFormat("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }));

const percent = (p) => String(Math.round(p * 100));

function drawRow(row, now) {
  const item = row.item, before = row.shown;
  const text = before && before.ref_price === item.ref_price ? row.texts.get(row.price) : priceText(row, item.ref_price);
  write(row, row.price, text);
  write(row, row.down, percent(item.p_down));
  write(row, row.up, percent(item.p_up));
  write(row, row.bps, signed(item.expected_return_bps));
  write(row, row.seq, fixed[0].format(item.seq));
  write(row, row.model, item.model.slice(0, 8));
  write(row, row.warming, item.warming ? "warming up" : "");
  row.bar.style.setProperty("--d", `${(item.p_down * 100).toFixed(1)}%`);
  row.bar.style.setProperty("--f", `${((item.p_down + item.p_flat) * 100).toFixed(1)}%`);
  const leader = lead(item);
  if (!before || lead(before) !== leader) {
    row.down.className = leader === "down" ? "down lead" : "dim";
    row.up.className = leader === "up" ? "up lead" : "dim";
    row.bps.className = "number " + leader;
  }
  if (before && before.ref_price !== item.ref_price && !still.matches) {
    row.price.className = item.ref_price > before.ref_price ? "number rose" : "number fell";
    row.flashUntil = now + FLASH_MS;
  }
  row.shown = item;
}

function lead(item) {
  if (item.p_flat >= item.p_up && item.p_flat >= item.p_down) return "flat";
  return item.p_up > item.p_down ? "up" : "down";
}

function signed(bps) { return (bps > 0 ? "+" : bps < 0 ? "−" : " ") + Math.abs(bps).toFixed(2); }

function ageText(ms) {
  if (ms < 1000) return `${Math.max(0, Math.round(ms / 10) * 10)} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 3600000) return `${Math.floor(ms / 60000)} min`;
  return ms < 172800000 ? `${Math.floor(ms / 3600000)} h` : `${Math.floor(ms / 86400000)} d`;
}

function ask() {
  if (!frameAsked && !frozen) { frameAsked = true; requestAnimationFrame(draw); }
}

function draw(now) {
  frameAsked = false;
  if (now - drawnAt < DRAW_EVERY_MS) { ask(); return; }
  drawnAt = now;
  for (const row of changed) drawRow(row, now);
  changed.clear();
  if (now - sortedAt > RESORT_MS) arrange(now);
  $("empty").hidden = order.length > 0;
}

function arrange(now) {
  sortedAt = now;
  const value = VALUE[sort.key], sign = sort.down ? -1 : 1;
  const wanted = [...rows.values()].filter((row) => row.symbol.toUpperCase().includes(filter));
  wanted.sort((a, b) => {
    const x = value(a), y = value(b);
    return x < y ? -sign : x > y ? sign : a.symbol < b.symbol ? -1 : 1;
  });
  if (wanted.length !== order.length || wanted.some((row, index) => row !== order[index])) {
    order = wanted;
    $("rows").replaceChildren(...order.map((row) => row.tr));
  }
  $("shown").textContent = filter ? `${order.length} of ${rows.size} symbols` : "";
  $("empty").textContent = rows.size ? `no symbol has “${filter}” in it` : "waiting for the first prediction";
}

// Ages move without messages; four times a second is as fast as they can be read.
function drawAges() {
  const serverMs = Date.now() + clockMs, now = performance.now();
  let down = 0, flat = 0, up = 0;
  for (const row of rows.values()) {
    if (row.visible) {
      const age = serverMs - row.item.published_ns / 1e6;
      write(row, row.age, ageText(age));
      row.tr.classList.toggle("stale", age > STALE_MS);
      if (row.flashUntil && row.flashUntil < now) { row.flashUntil = 0; row.price.className = "number"; }
    }
    const leader = lead(row.item);
    if (leader === "up") up++; else if (leader === "down") down++; else flat++;
  }
  const all = Math.max(1, down + flat + up);
  $("breadth").style.setProperty("--d", `${(down / all) * 100}%`);
  $("breadth").style.setProperty("--f", `${((down + flat) / all) * 100}%`);
  $("b-down").textContent = down; $("b-flat").textContent = flat; $("b-up").textContent = up;
}

// ---- figures of the heartbeat ------------------------------------------------------------------------------------
const count = (n) => (n === undefined ? "–" : fixed[0].format(n));

function micros(us) {
  if (us === undefined) return "–";
  if (us < 1000) return `${us < 10 ? us.toFixed(1) : Math.round(us)} µs`;
  if (us < 1e6) return `${(us / 1000).toFixed(us < 1e4 ? 2 : us < 1e5 ? 1 : 0)} ms`;
  return `${(us / 1e6).toFixed(1)} s`;
}

function drawBeat() {
  const seconds = previousBeat ? (beat.server_ns - previousBeat.server_ns) / 1e9 : 0;
  const perSecond = (name) => (seconds > 0 ? Math.max(0, (beat[name] - previousBeat[name]) / seconds) : undefined);
  const rate = perSecond("received"), total = beat.stages_us?.total ?? {};
  if (rate !== undefined) rates = [...rates.slice(-59), rate];
  const top = Math.max(1, ...rates);
  $("spark").setAttribute("points",
    rates.map((r, i) => `${120 - (rates.length - 1 - i) * 2},${(21 - (r / top) * 20).toFixed(1)}`).join(" "));
  $("f-rate").textContent = rate === undefined ? "–" : count(Math.round(rate));
  $("f-symbols").textContent = count(beat.symbols);
  $("f-clients").textContent = count(beat.clients);
  $("f-total").textContent = `${micros(total.p50)} / ${micros(total.p99)}`;
  drawStages(beat.stages_us ?? {});
  const lag = Object.values(beat.lag_blocks ?? {}).reduce((sum, blocks) => sum + blocks, 0);
  const sent = perSecond("sent"), skipped = perSecond("skipped");
  drawFacts([
    ["predictions read", count(beat.received)], ["sent to clients/s", sent === undefined ? "–" : count(Math.round(sent))],
    ["skipped by conflation/s", skipped === undefined ? "–" : count(Math.round(skipped))],
    ["behind Kafka, blocks", count(lag)], ["missing", count(beat.missing), beat.missing > 0],
    ["repeated, dropped", count(beat.duplicates)], ["bad", count(beat.bad), beat.bad > 0],
    ["slow clients closed", count(beat.slow_closes), beat.slow_closes > 0],
  ]);
  const problems = Object.entries(beat.problems ?? {}).map(([part, why]) => `${part}: ${why}`).join(" · ");
  $("alert").hidden = !problems;
  $("alert").textContent = problems;
}

function drawStages(stages) {
  const lines = Object.entries(stages).map(([name, s]) => {
    const tr = document.createElement("tr");
    for (const text of [name.replaceAll("_", " "), micros(s.p50), micros(s.p99), micros(s["p99.9"])]) {
      tr.appendChild(document.createElement("td")).textContent = text;
    }
    return tr;
  });
  $("stages").replaceChildren(...lines);
}

function pairs(facts) {
  return facts.flatMap(([name, value, bad]) => {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name; dd.textContent = value; dd.className = bad ? "bad" : "";
    return [dt, dd];
  });
}

function drawFacts(facts) { $("facts").replaceChildren(...pairs(facts)); }

// ---- the model in service: scores of what has come true ------------------------------------------------------------
const share = (x) => (x === null || x === undefined ? "–" : `${(x * 100).toFixed(1)} %`);
const nats = (x) => (x === null || x === undefined ? "–" : x.toFixed(4));

function takeModel(kind, details) {
  if (kind === "champion" && details.version) {
    $("m-news").hidden = false;
    $("m-news").textContent = `${details.version} (${details.by}): ${details.reason}`;
  }
  if (kind !== "scores" || details.role !== "champion") return;
  const recent = details.recent;
  $("model").hidden = false;
  $("m-name").textContent = `${details.name ?? ""} ${details.model.slice(0, 8)}`;
  $("m-hit").textContent = share(recent.hit_rate);
  $("m-hit").className = recent.hit_rate > Math.max(recent.fallback_hit_rate ?? 0.5, 0.5) ? "better" : "worse";
  $("m-fallback").textContent = share(recent.fallback_hit_rate);
  $("m-majority").textContent = share(recent.majority_hit_rate);
  $("m-moved").textContent = count(recent.moved);
  const facts = [
    ["outcomes", count(recent.outcomes)],
    ["log loss, fallback's", `${nats(recent.log_loss_beside_fallback)}, ${nats(recent.fallback_log_loss)}`],
    ["information coefficient", recent.ic === null ? "–" : recent.ic.toFixed(3)],
    ["net of costs, bps a position", recent.net_bps === null ? "–" : signed(recent.net_bps)],
  ];
  for (const [other, trial] of Object.entries(details.trials ?? {})) {
    // How far on the way to where the model is taken out of service, on the scale that evidence adds up on.
    const way = Math.max(0, Math.log(trial.e_value) / Math.log(trial.threshold));
    facts.push([`case for the ${other === "previous" ? "one before" : other}`, `${Math.min(100, Math.round(way * 100))} %`, way >= 0.5]);
  }
  $("m-facts").replaceChildren(...pairs(facts));
}

// ---- keys and clicks ---------------------------------------------------------------------------------------------
function sortBy(key) {
  sort = { key, down: sort.key === key ? !sort.down : !["symbol", "model", "age"].includes(key) };
  for (const th of document.querySelectorAll("#book th")) {
    if (th.dataset.key === key) th.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
    else th.removeAttribute("aria-sort");
  }
  sortedAt = 0;
  ask();
}

function freeze() {
  frozen = !frozen;
  if (socket?.readyState === WebSocket.OPEN) say("live", "live");
  ask();
}

function setFilter(text) { filter = text.trim().toUpperCase(); sortedAt = 0; ask(); }

for (const th of document.querySelectorAll("#book th")) {
  th.firstElementChild.addEventListener("click", () => sortBy(th.dataset.key));
}
$("filter").addEventListener("input", (event) => setFilter(event.target.value));
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value);
  $("token").value = "";
  connect();
});
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target instanceof HTMLInputElement;
  if (event.key === "Escape") { $("filter").value = ""; $("filter").blur(); setFilter(""); return; }
  if (typing) return;
  if (event.key === "/") { event.preventDefault(); $("filter").focus(); }
  else if (event.key === " " && !(event.target instanceof HTMLButtonElement)) { event.preventDefault(); freeze(); }
  else if (KEYS[event.key - 1]) sortBy(KEYS[event.key - 1]);
});
setInterval(() => { if (!frozen && !document.hidden) drawAges(); }, 250);
setInterval(() => {
  if (socket && performance.now() - heardAt > DEAD_MS) { socket.close(); }
  if (retryAt) say("away", `away, again in ${Math.max(0, Math.ceil((retryAt - performance.now()) / 1000))} s`);
}, 500);
if (matchMedia("(max-width: 760px)").matches) document.querySelectorAll("aside details").forEach((d) => { d.open = false; });
sortBy("symbol");
connect();
