// The chart of one symbol: candles, what was called in each and what became of it, and which way the model leans.
// History comes from the API, once, and what became of calls every few seconds; everything else from the feed.

import {
  CandlestickSeries, CrosshairMode, HistogramSeries, LineSeries, LineStyle, createChart, createSeriesMarkers,
} from "./vendor/lightweight-charts.mjs";
import { clock, leader, percent, priceText, signed } from "./format.js";

export const INTERVAL_S = { "1s": 1, "1m": 60, "1h": 3600 };
const HISTORY_BARS = 600;
const MOST_BARS = 2400;           // in memory: then the oldest half goes
const DRAW_EVERY_MS = 200;        // each time the whole canvas is painted
const OUTCOMES_EVERY_MS = 3000;
const RETRY_MS = 5000;
const LATE_S = 15;                // from a horizon to its outcome in the database
const SPACING_PX = 9;

const COLOUR = {
  up: "#56b4e9", down: "#e69f00", dim: "#8390a2", text: "#dbe2ec", line: "#1c2430", ground: "#0a0d13",
  hit: "#7fd1ae", miss: "#ff6b6b", flat: "#8390a2", open: "#c9d3e0",
};
const LEAN = { up: "rgb(86 180 233 / .55)", down: "rgb(230 159 0 / .55)" };
/** Told apart without colour as well: by shape, and by the side of the candle that they are on. */
const SHAPE = { hit: { up: "arrowUp", down: "arrowDown" }, miss: "square", flat: "circle", open: "circle" };

export class Chart {
  #api; #chart; #candles; #lean; #ahead; #markers; #symbol = null; #interval = "1s"; #decimals = 2;
  #bars = []; #leans = new Map(); #calls = new Map(); #horizonNs = 0; #newest = null;
  #shown = 0; #drawnMs = 0; #askedMs = 0; #failedMs = 0; #dirty = new Set(); #hovered = null;
  /** Where what could not be had is told: {bars, leans, calls}, each a reason or null. */
  troubles = { bars: null, leans: null, calls: null };

  /**
   * @param {HTMLElement} node to fill
   * @param {import("./api.js").Api} api
   * @param {() => void} onChange after what the chart says has changed, see `legend` and `summary`
   */
  constructor(node, api, onChange) {
    this.#api = api;
    this.onChange = onChange;
    this.#chart = createChart(node, {
      autoSize: true,
      layout: {
        background: { color: COLOUR.ground }, textColor: COLOUR.dim, fontSize: 11,
        // Its link is a style of its own, which this page's policy forbids; the page's foot has it.
        attributionLogo: false,
        panes: { separatorColor: COLOUR.line, separatorHoverColor: COLOUR.line, enableResize: true },
      },
      grid: { vertLines: { color: "#121822" }, horzLines: { color: "#121822" } },
      crosshair: { mode: CrosshairMode.Normal },
      timeScale: {
        timeVisible: true, secondsVisible: true, borderColor: COLOUR.line, barSpacing: SPACING_PX, rightOffset: 3,
      },
      rightPriceScale: { borderColor: COLOUR.line, scaleMargins: { top: 0.12, bottom: 0.12 } },
      localization: { timeFormatter: (s) => `${new Date(s * 1000).toISOString().slice(0, 19).replace("T", " ")} UTC` },
    });
    this.#candles = this.#chart.addSeries(CandlestickSeries, {
      upColor: COLOUR.up, downColor: COLOUR.down, wickUpColor: COLOUR.up, wickDownColor: COLOUR.down,
      borderVisible: false, priceLineColor: COLOUR.dim,
    });
    this.#ahead = this.#chart.addSeries(LineSeries, {
      lineWidth: 2, lineStyle: LineStyle.Dotted, priceLineVisible: false, lastValueVisible: false,
      crosshairMarkerVisible: false, autoscaleInfoProvider: () => null,
    });
    this.#lean = this.#chart.addSeries(HistogramSeries, {
      priceFormat: { type: "custom", formatter: (x) => `${signed(x * 100, 0)} %`, minMove: 0.01 },
      priceLineVisible: false, base: 0,
      autoscaleInfoProvider: (original) => {
        const found = original();
        const most = Math.max(0.1, Math.abs(found?.priceRange?.minValue ?? 0), Math.abs(found?.priceRange?.maxValue ?? 0));
        return { priceRange: { minValue: -most, maxValue: most } };
      },
    }, 1);
    this.#chart.panes()[0].setStretchFactor(4);
    this.#chart.panes()[1].setStretchFactor(1);
    this.#markers = createSeriesMarkers(this.#candles, []);
    this.#chart.subscribeCrosshairMove(({ time }) => { this.#hovered = time ?? null; this.onChange(); });
  }

  get interval() { return this.#interval; }
  get symbol() { return this.#symbol; }
  get bars() { return this.#bars; }
  /** Bars with what was called in them, newest first. */
  get calls() { return [...this.#calls.values()].sort((a, b) => b.time - a.time); }

  /** Show a symbol from its history on. */
  show(symbol, interval, decimals) {
    this.#shown++;
    this.#symbol = symbol;
    this.#interval = interval;
    this.#bars = [];
    this.#leans.clear();
    this.#calls.clear();
    this.#newest = null;
    this.#ahead.setData([]);
    this.troubles = { bars: null, leans: null, calls: null };
    this.#decimals = -1;
    this.setDecimals(decimals);
    this.#chart.applyOptions({ timeScale: { secondsVisible: INTERVAL_S[interval] < 60 } });
    this.#redraw();
    this.#load();
  }

  /** Ask the API again for everything: the feed was away meanwhile. */
  reload() {
    if (!this.#symbol) return;
    this.#shown++;
    const last = this.#bars.at(-1);
    if (last) last.partial = true;
    this.#load();
  }

  setDecimals(decimals) {
    if (decimals === this.#decimals) return;
    this.#decimals = decimals;
    this.#candles.applyOptions({ priceFormat: { type: "price", precision: decimals, minMove: 10 ** -decimals } });
  }

  toNow() { this.#chart.timeScale().scrollToRealTime(); }
  move(bars) { this.#chart.timeScale().scrollToPosition(this.#chart.timeScale().scrollPosition() + bars, false); }
  zoom(factor) {
    const options = this.#chart.timeScale().options();
    this.#chart.applyOptions({ timeScale: { barSpacing: Math.min(60, Math.max(2, options.barSpacing * factor)) } });
  }

  // ---- history -----------------------------------------------------------------------------------------------------

  async #load() {
    const shown = this.#shown, symbol = this.#symbol;
    this.#askedMs = performance.now();
    const ours = (take) => (answer) => { if (shown === this.#shown) take(answer); };
    const query = { symbol, order: "desc", limit: HISTORY_BARS };
    await this.#try("bars", shown, this.#api.get(`/bars/${this.#interval}`, query).then(ours(({ data }) => {
      this.#merge(data.reverse().map((bar) => ({ ...bar, time: Date.parse(bar.bar_time) / 1000 })));
    })));
    if (shown !== this.#shown || !this.#bars.length) return;
    const from = iso(this.#bars[0].time);
    await Promise.all([
      this.#try("leans", shown, this.#ask("predictions_by_bar", from).then(ours((rows) => this.#takeLeans(rows)))),
      this.#try("calls", shown, this.#ask("calls_by_bar", from).then(ours((rows) => this.#takeCalls(rows)))),
    ]);
  }

  /** What became of the newest calls. */
  async #loadCalls() {
    const shown = this.#shown, seconds = INTERVAL_S[this.#interval], last = this.#bars.at(-1);
    this.#askedMs = performance.now();
    if (!last) return;
    // Whole bars: a call that is clearest in the half of one may not be so in all of it.
    const from = iso(last.time - seconds * Math.ceil((this.#horizonNs / 1e9 + LATE_S) / seconds + 2));
    await this.#try("calls", shown, this.#ask("calls_by_bar", from).then((rows) => {
      if (shown === this.#shown) this.#takeCalls(rows);
    }));
  }

  async #ask(name, from) {
    const query = { symbol: this.#symbol, seconds: INTERVAL_S[this.#interval], from };
    return (await this.#api.get(`/queries/${name}`, query)).data;
  }

  async #try(part, shown, asking) {
    let trouble = null;
    try { await asking; } catch (error) {
      if (error.name !== "ApiError") throw error;
      trouble = error.message;
      this.#failedMs = performance.now();
    }
    if (shown !== this.#shown) return;
    this.troubles[part] = trouble;
    this.onChange();
  }

  #merge(bars) {
    const known = new Map(this.#bars.map((bar) => [bar.time, bar]));
    for (const bar of bars) {
      const ours = known.get(bar.time);
      if (!ours) known.set(bar.time, { time: bar.time, open: bar.open, high: bar.high, low: bar.low, close: bar.close });
      else if (ours.partial) {
        const high = Math.max(bar.high, ours.high), low = Math.min(bar.low, ours.low);
        Object.assign(ours, { open: bar.open, high, low, partial: false });
      }
    }
    this.#bars = [...known.values()].sort((a, b) => a.time - b.time);
    this.#redraw();
  }

  #takeLeans(rows) {
    for (const row of rows) {
      const time = Date.parse(row.time) / 1000;
      if (!this.#leans.has(time)) this.#leans.set(time, row.p_up - row.p_down);
    }
    this.#redraw();
  }

  #takeCalls(rows) {
    for (const row of rows) {
      const time = Date.parse(row.time) / 1000;
      this.#calls.set(time, { ...row, time });
    }
    this.#dirty.add("markers");
    this.onChange();
  }

  // ---- live --------------------------------------------------------------------------------------------------------

  /** Take predictions of the symbol, in order. */
  onPredictions(items) {
    const seconds = INTERVAL_S[this.#interval];
    for (const item of items) {
      const time = Math.floor(item.event_ns / 1e9 / seconds) * seconds, price = item.ref_price, last = this.#bars.at(-1);
      this.#horizonNs = item.horizon_ns;
      if (!last || time > last.time) {
        // The first may have begun before us.
        this.#bars.push({ time, open: price, high: price, low: price, close: price, partial: !last });
        this.#trim();
      } else if (time === last.time) {
        last.high = Math.max(last.high, price);
        last.low = Math.min(last.low, price);
        last.close = price;
      } else continue;  // older than what is drawn: its bar comes as a whole
      this.#leans.set(time, item.p_up - item.p_down);
      this.#noteCall(time, item);
      this.#newest = item;
      this.#dirty.add("last");
    }
  }

  /** The clearest call of a bar counts until it is known what became of it. */
  #noteCall(time, item) {
    const side = leader(item);
    if (side === "flat") return;
    const probability = side === "up" ? item.p_up : item.p_down, known = this.#calls.get(time);
    if (known && (known.outcome !== "open" || known.probability >= probability)) return;
    const { expected_return_bps: expected, seq, ref_price: price } = item;
    this.#calls.set(time, { time, side, probability, expected_return_bps: expected, return_bps: null, outcome: "open", seq, price });
    this.#dirty.add("markers");
  }

  /** Take final bars of the symbol, of `seconds` each. */
  onBars(items, seconds) {
    const ours = INTERVAL_S[this.#interval];
    for (const item of items) {
      const start = item.start_ns / 1e9, time = Math.floor(start / ours) * ours;
      const bar = this.#bars.findLast((one) => one.time <= time);
      if (seconds > ours || !bar) continue;
      if (bar.time !== time) {
        if (seconds < ours) continue;
        this.#bars.push({ time, open: item.open, high: item.high, low: item.low, close: item.close });
        this.#bars.sort((one, other) => one.time - other.time);
        this.#dirty.add("all");
      } else if (seconds === ours) {
        Object.assign(bar, { open: item.open, high: item.high, low: item.low, close: item.close, partial: false });
        this.#dirty.add(bar === this.#bars.at(-1) ? "last" : "all");
      } else {
        bar.high = Math.max(bar.high, item.high);
        bar.low = Math.min(bar.low, item.low);
        this.#dirty.add("last");
      }
    }
  }

  #trim() {
    if (this.#bars.length <= MOST_BARS) return;
    this.#bars = this.#bars.slice(-MOST_BARS / 2);
    for (const map of [this.#leans, this.#calls]) {
      for (const time of map.keys()) if (time < this.#bars[0].time) map.delete(time);
    }
    this.#dirty.add("all");
  }

  // ---- drawing -----------------------------------------------------------------------------------------------------

  /** Hand to the chart what has changed; it paints by itself, once a frame. */
  draw(now) {
    if (!this.#symbol || now - this.#drawnMs < DRAW_EVERY_MS) return;
    this.#drawnMs = now;
    const failed = Object.values(this.troubles).some((trouble) => trouble !== null);
    if (failed && now - this.#failedMs > RETRY_MS && now - this.#askedMs > RETRY_MS) this.#load();
    else if (now - this.#askedMs > OUTCOMES_EVERY_MS && !document.hidden) this.#loadCalls();
    if (!this.#dirty.size) return;
    if (this.#dirty.has("all")) this.#redraw();
    else {
      if (this.#dirty.has("last")) this.#drawLast();
      if (this.#dirty.has("markers")) this.#drawMarkers();
    }
    this.#dirty.clear();
    this.onChange();
  }

  #drawLast() {
    // Several bars may have begun since the last frame.
    const drawn = this.#candles.data().at(-1)?.time ?? -Infinity;
    for (const bar of this.#bars.slice(-8)) {
      if (bar.time < drawn) continue;
      this.#candles.update(bar);
      this.#lean.update(this.#leanAt(bar.time));
    }
    this.#drawAhead();
  }

  #leanAt(time) {
    const value = this.#leans.get(time);
    return value === undefined ? { time } : { time, value, color: value >= 0 ? LEAN.up : LEAN.down };
  }

  #redraw() {
    this.#candles.setData(this.#bars);
    this.#lean.setData(this.#bars.map((bar) => this.#leanAt(bar.time)));
    this.#drawAhead();
    this.#drawMarkers();
    this.onChange();
  }

  /** A dotted line to where the price is expected to be at the horizon, where that is further than a bar. */
  #drawAhead() {
    const last = this.#bars.at(-1), seconds = INTERVAL_S[this.#interval], item = this.#newest;
    const steps = Math.round(this.#horizonNs / 1e9 / seconds);
    if (!last || !item || steps < 1 || steps > 120) { this.#ahead.setData([]); return; }
    const target = item.ref_price * (1 + item.expected_return_bps / 1e4);
    const points = [{ time: last.time, value: last.close }];
    for (let step = 1; step < steps; step++) points.push({ time: last.time + step * seconds });
    points.push({ time: last.time + steps * seconds, value: target });
    this.#ahead.applyOptions({ color: COLOUR[leader(item)] ?? COLOUR.dim });
    this.#ahead.setData(points);
  }

  #drawMarkers() {
    const first = this.#bars[0]?.time ?? Infinity;
    const times = new Set(this.#bars.map((bar) => bar.time));
    const markers = [];
    for (const call of this.#calls.values()) {
      if (call.time < first || !times.has(call.time)) continue;
      const shape = SHAPE[call.outcome];
      markers.push({
        time: call.time, position: call.side === "up" ? "belowBar" : "aboveBar", color: COLOUR[call.outcome],
        shape: shape[call.side] ?? shape, size: call.outcome === "hit" ? 1 : call.outcome === "miss" ? 0.7 : 0.4,
      });
    }
    this.#markers.setMarkers(markers.sort((a, b) => a.time - b.time));
  }

  // ---- in words ----------------------------------------------------------------------------------------------------

  /** What the legend says: of the bar under the pointer, else of the newest. */
  get legend() {
    const bar = this.#bars.find((one) => one.time === this.#hovered) ?? this.#bars.at(-1);
    if (!bar) return null;
    const at = (x) => priceText(x, this.#decimals);
    return {
      time: clock(bar.time * 1000), open: at(bar.open), high: at(bar.high), low: at(bar.low), close: at(bar.close),
      rises: bar.close >= bar.open, call: this.#calls.get(bar.time) ?? null, lean: this.#leans.get(bar.time),
    };
  }

  /** How many calls were right of those that moved, over what is shown. */
  get score() {
    let hits = 0, misses = 0;
    for (const { outcome } of this.#calls.values()) {
      if (outcome === "hit") hits++; else if (outcome === "miss") misses++;
    }
    return { hits, misses };
  }

  /** The chart for those who do not see it. */
  get summary() {
    const bar = this.#bars.at(-1), { hits, misses } = this.score;
    if (!bar) return `${this.#symbol}: no bars yet`;
    const lean = this.#leans.get(bar.time), leaning = lean === undefined ? "" :
      `, the model leans ${lean >= 0 ? "up" : "down"} by ${percent(Math.abs(lean))} %`;
    return `${this.#symbol}, bars of ${this.#interval}, last ${priceText(bar.close, this.#decimals)}${leaning}; ` +
      `the clearest calls: ${hits} right, ${misses} wrong`;
  }
}

const iso = (s) => new Date(s * 1000).toISOString();
