// The features of the newest tick that the feed had them of: value, and how unusual it is for this symbol.

import { add, decimal, write } from "./format.js";

const MEMORY = 0.02;              // weight of a new value: the usual is that of the last 50 or so
const WARM = 20;                  // values before anything can be called unusual
const MOST_SIGMAS = 4;

export class Features {
  #list; #empty; #sum; #usual = new Map(); #item = null; #nodes = new Map(); #told = new Map(); #seen = 0; #dirty = false;

  constructor(list, empty, sum) { this.#list = list; this.#empty = empty; this.#sum = sum; }

  /** What the features are called, in words. */
  name(features) { for (const { name, unit, formula } of features) this.#told.set(name, `${formula} (${unit})`); }

  /** Another symbol, or none: `reason` is why there is nothing. */
  clear(reason) {
    this.#usual.clear();
    this.#nodes.clear();
    this.#list.replaceChildren();
    this.#item = null;
    this.#seen = 0;
    this.#sum.textContent = "";
    this.#empty.hidden = false;
    this.#empty.textContent = reason;
  }

  take(items) {
    for (const item of items) {
      this.#seen++;
      for (const [name, value] of Object.entries(item.values)) {
        const usual = this.#usual.get(name);
        if (!usual) { this.#usual.set(name, { mean: value, variance: 0 }); continue; }
        const off = value - usual.mean, weight = Math.max(MEMORY, 1 / this.#seen);
        usual.mean += weight * off;
        usual.variance = (1 - weight) * (usual.variance + weight * off * off);
      }
      this.#item = item;
    }
    this.#dirty = true;
  }

  draw() {
    if (!this.#dirty || !this.#item) return;
    this.#dirty = false;
    this.#empty.hidden = true;
    const entries = Object.entries(this.#item.values);
    write(this.#sum, `${entries.length}, of tick ${this.#item.seq}`);
    for (const [name, value] of entries) {
      const node = this.#nodes.get(name) ?? this.#make(name), { mean, variance } = this.#usual.get(name);
      const sigmas = variance > 0 && this.#seen >= WARM ? (value - mean) / Math.sqrt(variance) : 0;
      write(node.value, decimal(value, Math.abs(value) < 10 ? 3 : 1));
      node.bar.style.setProperty("--z", (Math.max(-1, Math.min(1, sigmas / MOST_SIGMAS))).toFixed(2));
    }
  }

  #make(name) {
    const label = add(this.#list, "dt", "", name), value = add(this.#list, "dd");
    label.title = this.#told.get(name) ?? name;
    const bar = add(value, "i", "sigma"), node = { value: add(value, "span"), bar };
    this.#nodes.set(name, node);
    return node;
  }
}
