// The page: what comes over the feed and from the API only changes state; the screen is drawn from it, once a frame.

import { Alerts } from "./alerts.js";
import { Api, loadConfig } from "./api.js";
import { showCard } from "./card.js";
import { Chart, INTERVAL_S } from "./chart.js";
import { Features } from "./features.js";
import { Feed } from "./feed.js";
import { clock, count, priceText, write } from "./format.js";
import { Lag } from "./lag.js";
import { drawBeat, drawBreadth, drawCalls, drawHealth, drawLegend, drawModel, drawQuote } from "./panels.js";
import { Watch } from "./watch.js";

const $ = (id) => document.getElementById(id);
const THROTTLE_MS = 100;          // of the list: nobody reads faster
const HIDDEN_MS = 2000;           // while nobody looks
const DRAW_EVERY_MS = 30;
const ALARMING = { tripped: "bad", "rolled back": "bad", "rollback failed": "bad", rolled_back: "bad",
  rollback_failed: "bad", drifted: "warn", served: "info" };

let config, feed, api, lag, frozen = false, frameAsked = false, drawnMs = 0, drawnSlowlyMs = 0, awayUntilMs = 0;
let beat = null, model = null, following = [], all = null, wasAway = false, chartChanged = false;
const workers = new Map();        // what each last said of itself
const alerts = new Alerts($("alerts"), $("said"), $("alerts-sum"));
const features = new Features($("features"), $("features-empty"), $("features-sum"));
const watch = new Watch($("grid"), choose);
let chart;

// ---- drawing -------------------------------------------------------------------------------------------------------

function ask() {
  if (!frameAsked && !frozen) { frameAsked = true; requestAnimationFrame(draw); }
}

function draw(now) {
  frameAsked = false;
  if (now - drawnMs < DRAW_EVERY_MS) { ask(); return; }
  drawnMs = now;
  watch.draw(now, feed.serverMs);
  chart.draw(now);
  drawChosen();
  alerts.draw();
  if (now - drawnSlowlyMs > 250) { drawnSlowlyMs = now; drawSlowly(); }
}

function drawChosen() {
  const item = watch.item(watch.selected);
  drawQuote(item, item && priceText(item.ref_price, watch.decimals(item.symbol)), item && watch.isHalted(item.symbol), feed.serverMs);
}

/** What need not be newer than a quarter of a second. */
function drawSlowly() {
  drawBreadth(watch.items);
  features.draw();
  if (chartChanged) drawChart();
  drawHealth(health());
  write($("clock"), clock(feed.serverMs));
  const empty = watch.size === 0 || watch.shown === 0;
  $("empty").hidden = !empty;
  if (empty) write($("empty"), watch.size ? "no symbol has that in its name" : waitsFor());
  write($("shown"), watch.shown < watch.size ? `${watch.shown} of ${count(watch.size)}` : count(watch.size));
  const item = watch.item(watch.selected);
  if (item) {
    chart.setDecimals(watch.decimals(item.symbol));
    document.title = `${item.symbol} ${priceText(item.ref_price, watch.decimals(item.symbol))} · ${config.title}`;
  }
}

function waitsFor() {
  if (feed.state === "token") return "a token is needed";
  if (feed.state !== "live") return "waiting for the feed";
  return "the feed is there, and has no prediction yet: is a worker running, and a source?";
}

function onChart() { drawLegend(chart.legend); chartChanged = true; }

/** What the chart says in words. */
function drawChart() {
  chartChanged = false;
  drawCalls(chart.calls, chart.score);
  const troubles = [...new Set(Object.values(chart.troubles).filter((trouble) => trouble !== null))];
  $("chart-trouble").hidden = troubles.length === 0;
  write($("chart-trouble"), `no history: ${troubles.join("; ")}`);
  $("chart").setAttribute("aria-label", chart.summary);
}

// ---- health --------------------------------------------------------------------------------------------------------

function health() {
  const parts = [], live = feed.state === "live";
  const problems = Object.entries(beat?.problems ?? {});
  const why = problems.map(([part, words]) => `${part}: ${words}`).join("; ");
  parts.push({ name: "gateway", state: !live ? "away" : problems.length ? "bad" : "ok", text: !live ? feed.state : why || gatewayFigures() });
  parts.push(...lag.parts);
  for (const [name, said] of workers) {
    const refused = Object.keys(said.refused ?? {});
    parts.push({ name, state: refused.length ? "bad" : "ok", text: refused.length ? `refused ${refused.join(", ")}` : servedBy(said) });
  }
  return parts;
}

function gatewayFigures() {
  if (!beat) return "no heartbeat yet";
  const behind = Object.values(beat.lag_blocks ?? {}).reduce((sum, blocks) => sum + blocks, 0);
  const faults = [["missing", beat.missing], ["bad", beat.bad], ["slow clients closed", beat.slow_closes]]
    .filter(([, many]) => many > 0).map(([what, many]) => `${count(many)} ${what}`);
  return [`${count(behind)} blocks behind`, ...faults].join(", ");
}

function servedBy(said) {
  const served = Object.values(said.serving ?? said.partitions ?? {});
  return served.length ? `serves ${served.length} partitions` : "serves";
}

// ---- the feed ------------------------------------------------------------------------------------------------------

function onState({ state, reason, code, retryMs }) {
  awayUntilMs = state === "away" ? performance.now() + retryMs : 0;
  if (state === "away" && !wasAway) { wasAway = true; alerts.add("bad", "feed", `the feed is away: ${reason || `closed with ${code}`}`); }
  if (state === "live" && wasAway) { wasAway = false; alerts.add("info", "feed back", "the feed is back"); chart.reload(); }
  if (state === "live") followFeatures();
  $("token-form").hidden = state !== "token";
  if (state === "token") { sessionStorage.removeItem("token"); write($("token-why"), sentence(reason)); $("token").focus(); }
  document.body.classList.toggle("away", state !== "live");
  say();
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function say() {
  const live = feed?.state === "live";
  const wait = Math.max(0, Math.ceil((awayUntilMs - performance.now()) / 1000));
  const words = { away: `away, again in ${wait} s`, token: "token needed", connecting: "connecting", closed: "closed", idle: "connecting" };
  $("state").dataset.state = live && frozen ? "frozen" : feed?.state ?? "connecting";
  write($("state"), live ? (frozen ? "frozen" : "live") : words[feed?.state] ?? "connecting");
}

function onPredictions(items) {
  watch.put(items);
  if (!watch.selected && watch.size) chooseFirst();
  ask();
}

function onModel(items) {
  for (const { event, details, at_ns: ns } of items) {
    if (event === "champion" && details.version) {
      $("m-news").hidden = false;
      write($("m-news"), `${details.version} (${details.by}): ${details.reason}`);
      if (details.model_id !== model) alerts.add("info", `champion ${details.version}`, `${details.version} is promoted: ${details.reason}`, 1, ns / 1e6);
      showModel(details.model_id);
    } else if (event === "scores" && details.role === "champion") { showModel(details.model); drawModel(details); }
    else if (event === "worker") {
      if (details.removed) workers.delete(details.key.split("/")[1]); else workers.set(details.key.split("/")[1], details);
    } else if (ALARMING[event]) alerts.add(ALARMING[event], `${event} ${details.model}`, `model ${details.model.slice(0, 8)} ${event.replaceAll("_", " ")}: ${details.detail}`, 1, ns / 1e6);
  }
  ask();
}

function showModel(id) { model = id; $("card-open").hidden = false; }

function onStatus(items) {
  for (const { symbol, event, details, snapshot } of items) {
    // A snapshot is the newest of long ago; only what is news is told.
    if (snapshot || event !== "rejected") continue;
    alerts.add("warn", `rejected ${symbol} ${details.reason}`, `${symbol}: ticks refused, ${details.reason.replaceAll("_", " ")}`, details.ticks);
  }
  ask();
}

function onHalt(items) {
  for (const { symbol, event, snapshot, at_ns: ns } of items) {
    watch.halt(symbol, event === "halt");
    if (!snapshot || event === "halt") alerts.add(event === "halt" ? "warn" : "info", `${event} ${symbol}`, `${symbol}: ${event === "halt" ? "halted" : "trading resumed"}`, 1, ns / 1e6);
  }
  ask();
}

function follow() {
  all = feed.subscribe("prediction", ["*"], { mode: "throttle", throttleMs: THROTTLE_MS, onItems: onPredictions });
  feed.subscribe("model", ["*"], { mode: "full", onItems: onModel });
  feed.subscribe("status", ["*"], { mode: "full", onItems: onStatus });
  feed.subscribe("halt", ["*"], { mode: "full", onItems: onHalt });
  feed.on("state", onState);
  feed.on("heartbeat", (message) => { beat = message; drawBeat(message); ask(); });
  feed.on("epoch", ({ channel }) => { if (channel === "prediction") { watch.clear(); alerts.add("warn", "epoch", "another Kafka numbers everything from here on"); } });
  feed.on("gap", ({ channel, symbol, after, before }) => alerts.add("bad", `gap ${channel} ${symbol}`, `${symbol}: ${channel} between ${after} and ${before} is missing`));
  feed.on("reset", ({ channel, symbols, reason }) => alerts.add(channel === "prediction" ? "warn" : "info", `reset ${channel} ${reason}`, `${channel}: begins anew for ${symbols.length}, what was missed is not to be had (${reason})`));
  feed.on("going_away", () => alerts.add("info", "going", "the gateway stops; going to another"));
  feed.on("warning", ({ message }) => alerts.add("warn", "slow", `this page is too slow: ${message}`));
  feed.on("error", (error) => { if (error.code !== "unknown_channel") alerts.add("warn", `error ${error.code}`, `${error.code}: ${error.message}`); });
  feed.on("feature_names", ({ features: told }) => features.name(told));
}

// ---- what is chosen ------------------------------------------------------------------------------------------------

function chooseFirst() {
  const [symbol, interval] = decodeURIComponent(location.hash.slice(1)).split("/");
  const known = watch.items.map((item) => item.symbol).sort();
  watch.select(known.includes(symbol) ? symbol : known[0]);
  if (INTERVAL_S[interval]) setInterval_(interval);
}

function choose(symbol) {
  for (const subscription of following) subscription.close();
  const only = (take) => ({ mode: "full", onItems: (items) => { take(items); ask(); } });
  following = [
    feed.subscribe("prediction", [symbol], { mode: "latest", onItems: (items) => { chart.onPredictions(items); ask(); } }),
    feed.subscribe("bar.1s", [symbol], only((items) => chart.onBars(items, INTERVAL_S["1s"]))),
    feed.subscribe("bar.1m", [symbol], only((items) => chart.onBars(items, INTERVAL_S["1m"]))),
  ];
  followFeatures();
  show(symbol, chart.interval);
}

function followFeatures() {
  following.filter(({ channel }) => channel === "features").forEach((subscription) => subscription.close());
  following = following.filter(({ channel }) => channel !== "features");
  if (!watch.selected) return;
  if (!feed.channels?.includes("features")) { features.clear("this feed has no features"); return; }
  features.clear("none yet: workers publish them where TICKLOOM_FEATURES_EVERY_MS is set");
  following.push(feed.subscribe("features", [watch.selected], { mode: "latest", onItems: (items) => { features.take(items); ask(); } }));
}

function show(symbol, interval) {
  chart.show(symbol, interval, watch.decimals(symbol));
  history.replaceState(null, "", `#${encodeURIComponent(symbol)}/${interval}`);
  ask();
}

function setInterval_(interval) {
  for (const button of document.querySelectorAll("[data-interval]")) button.setAttribute("aria-pressed", button.dataset.interval === interval);
  if (watch.selected && interval !== chart.interval) show(watch.selected, interval);
}

// ---- keys and clicks -----------------------------------------------------------------------------------------------

function freeze() { frozen = !frozen; say(); ask(); }

function setFilter(text) { watch.filterBy(text); ask(); }

const KEYS = {
  ArrowDown: () => watch.move(1), ArrowUp: () => watch.move(-1), j: () => watch.move(1), k: () => watch.move(-1),
  PageDown: () => watch.move(watch.page), PageUp: () => watch.move(-watch.page),
  Home: () => watch.move(-Infinity), End: () => watch.move(Infinity),
  ArrowLeft: () => chart.move(-10), ArrowRight: () => chart.move(10), n: () => chart.toNow(),
  "+": () => chart.zoom(1.25), "=": () => chart.zoom(1.25), "-": () => chart.zoom(0.8), "−": () => chart.zoom(0.8),
  1: () => setInterval_("1s"), 2: () => setInterval_("1m"), 3: () => setInterval_("1h"),
  "/": () => { view("watch"); $("filter").focus(); }, s: () => watch.sortByNext(), m: () => openCard(),
  " ": freeze, "?": () => $("help").showModal(),
};

function openCard() { if (model) showCard($("card"), api, model); }

function view(name) {
  document.body.dataset.view = name;
  for (const button of document.querySelectorAll(".tabs button")) {
    if (button.dataset.view === name) button.setAttribute("aria-current", "true"); else button.removeAttribute("aria-current");
  }
}

function listen() {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") { $("filter").value = ""; $("filter").blur(); setFilter(""); return; }
    const typing = event.target instanceof HTMLInputElement, moves = event.key === "ArrowDown" || event.key === "ArrowUp";
    if (typing && !moves) { if (event.key === "Enter" && event.target === $("filter")) { watch.move(-Infinity); $("filter").blur(); } return; }
    if (event.target instanceof HTMLButtonElement && (event.key === " " || event.key === "Enter")) return;
    const action = KEYS[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
  $("filter").addEventListener("input", (event) => setFilter(event.target.value));
  $("help-open").addEventListener("click", () => $("help").showModal());
  $("card-open").addEventListener("click", openCard);
  for (const button of document.querySelectorAll("[data-interval]")) button.addEventListener("click", () => setInterval_(button.dataset.interval));
  for (const button of document.querySelectorAll(".tabs button")) button.addEventListener("click", () => { view(button.dataset.view); ask(); });
  $("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem("token", $("token").value);
    api.token = $("token").value;
    feed.token = $("token").value;
    $("token").value = "";
  });
  document.addEventListener("visibilitychange", () => {
    all.change({ mode: "throttle", throttleMs: document.hidden ? HIDDEN_MS : THROTTLE_MS });
    ask();
  });
}

// ---- the start -----------------------------------------------------------------------------------------------------

async function start() {
  config = await loadConfig((why) => { $("banner").hidden = false; write($("banner"), `the page waits for the API: ${why}`); });
  $("banner").hidden = true;
  write($("title"), config.title);
  document.title = config.title;
  const token = sessionStorage.getItem("token");
  api = new Api(config.api_url);
  api.token = token;
  lag = new Lag(api, alerts);
  chart = new Chart($("chart"), api, onChart);
  feed = new Feed(config.feed_url, { token });
  watch.onDirty = alerts.onDirty = ask;
  follow();
  listen();
  setInterval(() => { watch.sample(); ask(); }, 1000);
  // Ages and the clock move without messages.
  setInterval(() => { say(); ask(); }, 250);
  lag.start();
  ask();
}

start();
