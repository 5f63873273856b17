// The watch list: every symbol's newest prediction. Only rows in sight exist; they have a fixed height and are reused.

import { add, age, decimalsOf, dress, leader, percent, priceText, signed, write } from "./format.js";

const ROW_PX = 28, ROW_PX_PHONE = 34;
const SPARK_POINTS = 60;          // one a second
const RESORT_MS = 1000;           // rows that swap places faster than this cannot be read
const FLASH_MS = 350;
const STALE_MS = 10_000;
const VALUE = {
  symbol: (row) => row.symbol, price: (row) => row.item.ref_price, up: (row) => row.item.p_up - row.item.p_down,
  bps: (row) => row.item.expected_return_bps, age: (row) => -row.item.published_ns,
};
const NARROW = matchMedia("(max-width: 760px)");
const STILL = matchMedia("(prefers-reduced-motion: reduce)");

export class Watch {
  #grid; #scroller; #space; #onSelect; #rows = new Map(); #order = []; #slots = []; #filter = "";
  #sort = { key: "symbol", down: false }; #sortedMs = -Infinity; #dirty = true; #halted = new Set();
  selected = null;

  /**
   * @param {HTMLElement} grid with a row of heads, and an element of class `scroller`
   * @param {(symbol: string) => void} onSelect
   */
  constructor(grid, onSelect) {
    this.#grid = grid;
    this.#onSelect = onSelect;
    this.#scroller = grid.querySelector(".scroller");
    this.#space = add(this.#scroller, "div", "space");
    this.#space.setAttribute("role", "presentation");
    this.#scroller.addEventListener("scroll", () => { this.#dirty = true; this.onDirty(); }, { passive: true });
    new ResizeObserver(() => { this.#dirty = true; this.onDirty(); }).observe(this.#scroller);
    for (const head of grid.querySelectorAll("[data-key]")) {
      head.firstElementChild.addEventListener("click", () => this.sortBy(head.dataset.key));
    }
    this.#showSort();
  }

  /** Called when something is to be drawn. */
  onDirty = () => {};

  get size() { return this.#rows.size; }
  get shown() { return this.#order.length; }
  get items() { return [...this.#rows.values()].map((row) => row.item); }
  item(symbol) { return this.#rows.get(symbol)?.item; }
  decimals(symbol) { return this.#rows.get(symbol)?.decimals ?? 2; }

  /** Take predictions in. */
  put(items) {
    for (const item of items) {
      let row = this.#rows.get(item.symbol);
      if (!row) {
        row = { symbol: item.symbol, item, decimals: 2, spark: [], changed: true, sparked: 0, rose: 0, flashMs: 0 };
        this.#rows.set(item.symbol, row);
        this.#sortedMs = -Infinity;
      } else if (item.ref_price !== row.item.ref_price) {
        row.rose = Math.sign(item.ref_price - row.item.ref_price);
        row.flashMs = performance.now() + FLASH_MS;
      }
      row.decimals = Math.max(row.decimals, Math.min(6, decimalsOf(item.ref_price)));
      row.item = item;
      row.changed = true;
    }
  }

  /** Forget everything: the feed numbers anew. */
  clear() { this.#rows.clear(); this.#order = []; this.#sortedMs = -Infinity; this.#dirty = true; }

  halt(symbol, isHalted) {
    if (isHalted) this.#halted.add(symbol); else this.#halted.delete(symbol);
    const row = this.#rows.get(symbol);
    if (row) row.changed = true;
  }

  isHalted(symbol) { return this.#halted.has(symbol); }

  /** A point for each sparkline; once a second. */
  sample() {
    for (const row of this.#rows.values()) {
      row.spark.push(row.item.ref_price);
      if (row.spark.length > SPARK_POINTS) row.spark.shift();
      row.sparked++;
    }
  }

  filterBy(text) { this.#filter = text.trim().toUpperCase(); this.#sortedMs = -Infinity; this.#scroller.scrollTop = 0; }

  sortBy(key) {
    const down = this.#sort.key === key ? !this.#sort.down : !["symbol", "age"].includes(key);
    this.#sort = { key, down };
    this.#sortedMs = -Infinity;
    this.#showSort();
    this.onDirty();
  }

  sortByNext() {
    const keys = Object.keys(VALUE);
    this.sortBy(keys[(keys.indexOf(this.#sort.key) + 1) % keys.length]);
  }

  #showSort() {
    for (const head of this.#grid.querySelectorAll("[data-key]")) {
      const how = this.#sort.down ? "descending" : "ascending";
      head.setAttribute("aria-sort", head.dataset.key === this.#sort.key ? how : "none");
    }
  }

  /** Select the symbol so many rows further down. */
  move(by) {
    if (!this.#order.length) return;
    const at = this.#order.findIndex((row) => row.symbol === this.selected);
    const to = Math.max(0, Math.min(this.#order.length - 1, at < 0 ? 0 : at + by));
    this.select(this.#order[to].symbol);
  }

  get page() { return Math.max(1, Math.floor(this.#scroller.clientHeight / this.#rowPx) - 1); }

  select(symbol) {
    if (symbol !== this.selected) { this.selected = symbol; this.#onSelect(symbol); }
    const at = this.#order.findIndex((row) => row.symbol === symbol), px = this.#rowPx;
    if (at >= 0) {
      const top = this.#scroller.scrollTop, height = this.#scroller.clientHeight;
      if (at * px < top) this.#scroller.scrollTop = at * px;
      else if ((at + 1) * px > top + height) this.#scroller.scrollTop = (at + 1) * px - height;
    }
    this.#dirty = true;
    this.onDirty();
  }

  get #rowPx() { return NARROW.matches ? ROW_PX_PHONE : ROW_PX; }

  /** Write what changed of the rows in sight; one call a frame. */
  draw(now, serverMs) {
    if (now - this.#sortedMs > RESORT_MS) this.#arrange(now);
    const px = this.#rowPx, first = Math.floor(this.#scroller.scrollTop / px);
    const seen = Math.ceil(this.#scroller.clientHeight / px) + 1;
    while (this.#slots.length < seen) this.#slots.push(this.#makeSlot());
    for (let number = 0; number < this.#slots.length; number++) {
      const index = first + number, row = number < seen ? this.#order[index] : undefined;
      // By the index, so that a slot keeps its row while others scroll by.
      const slot = this.#slots[index % this.#slots.length];
      this.#drawSlot(slot, row, index, px, now, serverMs);
    }
    this.#dirty = false;
  }

  #drawSlot(slot, row, index, px, now, serverMs) {
    if (!row) {
      if (slot.row) { slot.node.hidden = true; slot.row = null; }
      return;
    }
    const other = slot.row !== row;
    if (other || slot.index !== index || slot.px !== px) {
      slot.node.hidden = false;
      slot.node.style.transform = `translateY(${index * px}px)`;
      slot.node.setAttribute("aria-rowindex", index + 2);
      slot.row = row;
      slot.index = index;
      slot.px = px;
    }
    if (other || this.#dirty) {
      const isSelected = row.symbol === this.selected;
      slot.node.setAttribute("aria-selected", isSelected);
      if (isSelected) this.#grid.setAttribute("aria-activedescendant", slot.node.id);
    }
    if (other || row.changed) this.#drawItem(slot, row);
    row.changed = false;
    const flashes = row.flashMs > now && !STILL.matches;
    dress(slot.price, flashes ? (row.rose > 0 ? "number rose" : "number fell") : "number");
    const ageMs = serverMs - row.item.published_ns / 1e6;
    if (other || now - slot.agedMs > 240) {
      slot.agedMs = now;
      write(slot.age, age(ageMs));
      slot.node.classList.toggle("stale", ageMs > STALE_MS);
    }
    if (other || slot.sparked !== row.sparked) { slot.sparked = row.sparked; drawSpark(slot.spark, row.spark); }
  }

  #drawItem(slot, row) {
    const item = row.item, side = leader(item), halted = this.#halted.has(row.symbol);
    write(slot.symbol, row.symbol);
    write(slot.flag, halted ? "halted" : item.warming ? "warming" : "");
    dress(slot.flag, halted ? "flag halted" : "flag");
    write(slot.price, priceText(item.ref_price, row.decimals));
    write(slot.down, percent(item.p_down));
    write(slot.up, percent(item.p_up));
    dress(slot.down, side === "down" ? "down lead" : "dim");
    dress(slot.up, side === "up" ? "up lead" : "dim");
    slot.bar.style.setProperty("--d", item.p_down.toFixed(3));
    slot.bar.style.setProperty("--u", item.p_up.toFixed(3));
    write(slot.bps, signed(item.expected_return_bps));
    dress(slot.bps, `number ${side}`);
  }

  #arrange(now) {
    this.#sortedMs = now;
    const value = VALUE[this.#sort.key], sign = this.#sort.down ? -1 : 1;
    const wanted = [...this.#rows.values()].filter((row) => row.symbol.toUpperCase().includes(this.#filter));
    wanted.sort((a, b) => {
      const x = value(a), y = value(b);
      return x < y ? -sign : x > y ? sign : a.symbol < b.symbol ? -1 : 1;
    });
    if (wanted.length !== this.#order.length) {
      this.#grid.setAttribute("aria-rowcount", wanted.length + 1);
      this.#space.style.height = `${wanted.length * this.#rowPx}px`;
    }
    this.#order = wanted;
  }

  #makeSlot() {
    const node = add(this.#space, "div", "row");
    node.id = `row-${this.#slots.length}`;
    node.setAttribute("role", "row");
    node.hidden = true;
    node.addEventListener("click", () => { if (slot.row) this.select(slot.row.symbol); });
    const cell = (className) => {
      const one = add(node, "span", className);
      one.setAttribute("role", "gridcell");
      return one;
    };
    const name = cell("name"), sparkCell = cell("spark"), price = cell("number"), odds = cell("odds");
    sparkCell.setAttribute("aria-hidden", "true");
    const slot = {
      node, row: null, index: -1, px: 0, agedMs: 0, sparked: -1, symbol: add(name, "b"), flag: add(name, "i", "flag"),
      spark: add(sparkCell, "canvas"), price, down: add(odds, "span"), bar: add(odds, "div", "bar"),
      up: add(odds, "span"), bps: cell("number"), age: cell("number dim age"),
    };
    return slot;
  }
}

/** A line of the last minute's prices, in the colour of where it went. */
function drawSpark(canvas, prices) {
  const ratio = devicePixelRatio || 1, width = 56, height = 18;
  if (canvas.width !== width * ratio) { canvas.width = width * ratio; canvas.height = height * ratio; }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  if (prices.length < 2) return;
  let low = Infinity, high = -Infinity;
  for (const price of prices) { low = Math.min(low, price); high = Math.max(high, price); }
  const span = high - low || 1, step = (width - 2) / (SPARK_POINTS - 1), left = width - 1 - step * (prices.length - 1);
  pen.beginPath();
  prices.forEach((price, i) => pen.lineTo(left + i * step, height - 2 - ((price - low) / span) * (height - 4)));
  const change = prices.at(-1) - prices[0];
  pen.strokeStyle = change > 0 ? "#56b4e9" : change < 0 ? "#e69f00" : "#8390a2";
  pen.lineWidth = 1.25;
  pen.stroke();
}
