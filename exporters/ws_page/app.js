// The page of the feed: subscribes to the newest prediction of every symbol, ten times a second, and to the status.
const byId = (id) => document.getElementById(id);
const body = byId("predictions").tBodies[0];
const rows = new Map(); // symbol -> its row and what it shows
const changed = new Set(); // symbols to draw in the next frame
const STALE_S = 10;
let socket, retryMs = 250, lastHeardMs = 0, serverAheadMs = 0;

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/feed`);
  socket.onmessage = (event) => { lastHeardMs = Date.now(); receive(JSON.parse(event.data)); };
  socket.onclose = (event) => {
    if (event.code === 4401) { sessionStorage.removeItem("token"); return askForToken(); }
    say(event.code === 1001 ? "gateway restarting" : "reconnecting", false);
    setTimeout(connect, retryMs * (0.5 + Math.random()));
    retryMs = Math.min(retryMs * 2, 5000);
  };
}

function send(request) { socket.send(JSON.stringify(request)); }

function subscribe() {
  send({ op: "subscribe", id: 1, channel: "prediction", symbols: ["*"], mode: "latest", every_ms: 100 });
  send({ op: "subscribe", id: 2, channel: "status" });
}

function receive(message) {
  switch (message.type) {
    case "hello":
      serverAheadMs = message.server_ns / 1e6 - Date.now();
      if (!message.token_needed) return subscribe();
      if (!sessionStorage.getItem("token")) return askForToken();
      return send({ op: "auth", id: 0, token: sessionStorage.getItem("token") });
    case "authorised": byId("login").hidden = true; return subscribe();
    case "snapshot": retryMs = 250; say("live", true); message.predictions.forEach(take); return;
    case "prediction": return take(message);
    case "reset":
      if (message.reason === "epoch") { rows.forEach((row) => row.tr.remove()); rows.clear(); }
      return;
    case "status": return showStatus(message);
    case "going_away": return say("gateway stopping", false);
    case "error": return say(message.message, false);
  }
}

function askForToken() {
  say("token needed", false);
  byId("login").hidden = false;
  byId("token").focus();
}

byId("login").onsubmit = (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", byId("token").value);
  byId("token").value = "";
  if (socket.readyState === WebSocket.OPEN) send({ op: "auth", id: 0, token: sessionStorage.getItem("token") });
  else connect();
};

function say(text, live) {
  byId("state").textContent = text;
  byId("state").classList.toggle("live", live);
}

function take(prediction) {
  let row = rows.get(prediction.symbol);
  if (!row) rows.set(prediction.symbol, (row = makeRow(prediction.symbol)));
  row.prediction = prediction;
  if (changed.size === 0) requestAnimationFrame(draw);
  changed.add(prediction.symbol);
}

function makeRow(symbol) {
  const tr = document.createElement("tr");
  tr.tabIndex = 0;
  tr.hidden = !matches(symbol);
  const cells = ["", "n", "bar", "n", "n quiet", "n seq"].map((name) => {
    const td = tr.appendChild(document.createElement("td"));
    td.className = name;
    return td;
  });
  cells[0].textContent = symbol;
  const split = cells[2].appendChild(document.createElement("div"));
  split.className = "split";
  split.setAttribute("role", "img");
  const parts = ["d", "f", "u"].map((name) => {
    const part = split.appendChild(document.createElement("i"));
    part.className = name;
    return part;
  });
  const after = [...rows.keys()].filter((other) => other > symbol).sort()[0];
  body.insertBefore(tr, after ? rows.get(after).tr : null);
  byId("empty").hidden = true;
  return { tr, cells, split, parts, price: NaN };
}

const percent = (share) => `${Math.round(share * 100)}%`;

function priceText(price) {
  return price.toFixed(price >= 1000 ? 2 : price >= 10 ? 3 : 5);
}

function draw() {
  for (const symbol of changed) {
    const row = rows.get(symbol);
    if (!row) continue;
    const p = row.prediction;
    if (p.ref_price !== row.price) {
      row.cells[1].textContent = priceText(p.ref_price);
      row.cells[1].classList.remove("flash");
      void row.cells[1].offsetWidth; // starts the animation again
      row.cells[1].classList.add("flash");
      row.price = p.ref_price;
    }
    row.parts[0].style.width = `${p.p_down * 100}%`;
    row.parts[2].style.width = `${p.p_up * 100}%`;
    row.parts[0].textContent = p.p_down >= 0.15 ? percent(p.p_down) : "";
    row.parts[2].textContent = p.p_up >= 0.15 ? percent(p.p_up) : "";
    row.split.setAttribute("aria-label", `down ${percent(p.p_down)}, flat ${percent(p.p_flat)}, up ${percent(p.p_up)}`);
    const expected = p.expected_return_bps;
    row.cells[3].textContent = (expected >= 0 ? "+" : "−") + Math.abs(expected).toFixed(2);
    row.cells[3].className = `n ${expected > 0 ? "pos" : expected < 0 ? "neg" : ""}`;
    row.cells[5].textContent = p.seq.toLocaleString("en");
    row.tr.classList.toggle("warming", (p.flags & 1) === 1);
  }
  changed.clear();
}

function age(seconds) {
  if (seconds < 0.95) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  return seconds < 3600 ? `${Math.floor(seconds / 60)} min` : `${Math.floor(seconds / 3600)} h`;
}

setInterval(() => {
  const nowMs = Date.now() + serverAheadMs;
  for (const row of rows.values()) {
    if (!row.prediction || row.tr.hidden) continue;
    const seconds = (nowMs - row.prediction.published_ns / 1e6) / 1000;
    row.cells[4].textContent = age(seconds);
    row.tr.classList.toggle("stale", seconds > STALE_S);
  }
  if (socket.readyState === WebSocket.OPEN && lastHeardMs && Date.now() - lastHeardMs > 5000) {
    say("no heartbeat", false);
    socket.close();
  }
}, 250);

function fill(table, lines) {
  table.tBodies[0].replaceChildren(...lines.map((line) => {
    const tr = document.createElement("tr");
    line.forEach((text, index) => {
      const td = tr.appendChild(document.createElement("td"));
      td.textContent = text;
      if (index) td.className = "n";
    });
    return tr;
  }));
}

function showStatus(status) {
  serverAheadMs = status.server_ns / 1e6 - Date.now();
  const figures = { "predictions/s": status.predictions_per_s, symbols: status.symbols, clients: status.clients, missing: status.missing };
  byId("figures").replaceChildren(...Object.entries(figures).map(([name, value]) => {
    const pair = document.createElement("div");
    pair.appendChild(document.createElement("dt")).textContent = name;
    pair.appendChild(document.createElement("dd")).textContent = value.toLocaleString("en");
    return pair;
  }));
  const micros = (value) => (value === undefined ? "–" : Math.round(value).toLocaleString("en"));
  fill(byId("stages"), Object.entries(status.stages_us).map(([name, figures]) =>
    [name.replaceAll("_", " ").replace(" to ", " → "), micros(figures.p50), micros(figures.p99), micros(figures["p99.9"])]));
  fill(byId("sinks"), Object.entries(status.sink_lag_blocks).map(([name, lag]) =>
    [name, lag === null ? "not running" : lag === 0 ? "up to date" : `${lag.toLocaleString("en")} blocks behind`]));
  const problems = Object.entries(status.problems);
  byId("problems").replaceChildren(...(problems.length ? problems : [["", "none"]]).map(([part, why]) => {
    const li = document.createElement("li");
    li.textContent = part ? `${part}: ${why}` : why;
    li.className = part ? "" : "none";
    return li;
  }));
}

const matches = (symbol) => symbol.toLowerCase().includes(byId("filter").value.trim().toLowerCase());
byId("filter").oninput = () => rows.forEach((row, symbol) => { row.tr.hidden = !matches(symbol); });

connect();
