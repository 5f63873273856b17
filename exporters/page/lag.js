// How the API is, and how far each consumer group is behind: asked every few seconds while somebody looks.

import { count } from "./format.js";

const EVERY_MS = 3000;

export class Lag {
  #api; #alerts; #groups = []; #trouble = null; #asked = false;

  constructor(api, alerts) { this.#api = api; this.#alerts = alerts; }

  start() {
    this.#ask();
    setInterval(() => { if (!document.hidden) this.#ask(); }, EVERY_MS);
  }

  async #ask() {
    let trouble = null;
    try {
      this.#groups = (await this.#api.get("/lag")).data;
    } catch (error) {
      if (error.name !== "ApiError") throw error;
      trouble = error.message;
      this.#groups = [];
    }
    if (trouble && trouble !== this.#trouble) this.#alerts.add("warn", "api", `API: ${trouble}`);
    if (!trouble && this.#trouble) this.#alerts.add("info", "api back", "the API answers again");
    this.#trouble = trouble;
    this.#asked = true;
  }

  /** For `drawHealth`. */
  get parts() {
    if (!this.#asked) return [{ name: "api", state: "unknown", text: "asking" }];
    const api = { name: "api", state: this.#trouble ? "away" : "ok", text: this.#trouble ?? "answers" };
    return [api, ...this.#groups.map(({ group, blocks }) => ({ name: group, state: "ok", text: `${count(blocks)} blocks behind` }))];
  }
}
