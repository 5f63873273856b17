// What a person should know of: lost connections, gaps, halts, refused ticks, models that go. Newest first.

import { add, clock, count, dress, write } from "./format.js";

const MOST = 100;
const SAME_MS = 60_000;           // the same thing again within this is counted, not repeated
const SIGN = { bad: "▲", warn: "◆", info: "●" };

export class Alerts {
  #list; #said; #sum; #entries = []; #unread = 0; #dirty = false;

  /**
   * @param {HTMLElement} list
   * @param {HTMLElement} said a live region: what is bad is told there as well
   * @param {HTMLElement} sum how many there are
   */
  constructor(list, said, sum) { this.#list = list; this.#said = said; this.#sum = sum; }

  /** Called when something is to be drawn. */
  onDirty = () => {};

  /**
   * @param {"bad"|"warn"|"info"} level
   * @param {string} key what it is about: the same key again is counted
   * @param {string} text in words
   * @param {number} [many] how many of them
   */
  add(level, key, text, many = 1, ms = Date.now()) {
    const same = this.#entries.find((entry) => entry.key === key && ms - entry.ms < SAME_MS);
    if (same) {
      same.many += many;
      same.text = text;
      same.ms = ms;
      this.#entries = [same, ...this.#entries.filter((entry) => entry !== same)];
    } else {
      this.#entries = [{ level, key, text, many, ms }, ...this.#entries].slice(0, MOST);
      if (level !== "info") this.#unread++;
      if (level === "bad") this.#said.textContent = text;
    }
    this.#dirty = true;
    this.onDirty();
  }

  draw() {
    if (!this.#dirty) return;
    this.#dirty = false;
    while (this.#list.children.length > this.#entries.length) this.#list.lastElementChild.remove();
    while (this.#list.children.length < this.#entries.length) {
      const item = add(this.#list, "li");
      for (const className of ["dot", "when", "what", "many"]) add(item, "span", className);
    }
    this.#entries.forEach(({ level, text, many, ms }, index) => {
      const item = this.#list.children[index];
      dress(item, level);
      write(item.children[0], SIGN[level]);
      item.children[0].setAttribute("aria-label", level);
      write(item.children[1], clock(ms));
      write(item.children[2], text);
      write(item.children[3], many > 1 ? `×${count(many)}` : "");
    });
    const bad = this.#entries.filter(({ level }) => level === "bad").length;
    write(this.#sum, this.#entries.length ? `${this.#entries.length}${bad ? `, ${bad} bad` : ""}` : "none");
    dress(this.#sum, bad ? "bad" : "dim");
  }
}
