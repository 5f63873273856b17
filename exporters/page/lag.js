// How the API and the servers behind it are, and how far each consumer group is behind: asked every few seconds.

import { count } from "./format.js";

const EVERY_MS = 3000;
// A group commits about once a second; so many blocks are more than that at any rate.
const MUCH_BLOCKS = 5000;
const BOOKMARKS = "tickloom-source"; // where sources go on after a restart: they consume nothing
const LANES = "tickloom";         // the group of the workers; the others are named after it

export class Lag {
  #api; #alerts; #groups = []; #servers = []; #trouble = null; #asked = false;

  /**
   * @param {import("./api.js").Api} api
   * @param {import("./alerts.js").Alerts} alerts told when the API goes away and comes back
   */
  constructor(api, alerts) { this.#api = api; this.#alerts = alerts; }

  start() {
    this.#ask();
    setInterval(() => { if (!document.hidden) this.#ask(); }, EVERY_MS);
  }

  async #ask() {
    let trouble = null, servers = {}, groups = [];
    try {
      servers = await this.#ready();
      if (servers.kafka?.status === "ok") groups = await this.#lags();
    } catch (error) {
      if (error.name !== "ApiError") throw error;
      trouble = error.message;
    }
    this.#servers = Object.entries(servers);
    this.#groups = groups;
    this.#asked = true;
    if (trouble && trouble !== this.#trouble) this.#alerts.add("warn", "api", `API: ${trouble}`);
    if (!trouble && this.#trouble) this.#alerts.add("info", "api back", "the API answers again");
    this.#trouble = trouble;
  }

  /** The servers behind the API; it says 503 where none of them answers, and still which. */
  async #ready() {
    try { return (await this.#api.get("/ready")).parts; } catch (error) {
      if (error.body?.parts) return error.body.parts;
      throw error;
    }
  }

  /** Not for every token, and Kafka may go away between the two questions. */
  async #lags() {
    try { return summed((await this.#api.get("/lag")).data); } catch (error) {
      if (error.name !== "ApiError") throw error;
      return [];
    }
  }

  /** For `drawHealth`. */
  get parts() {
    if (!this.#asked) return [{ name: "api", state: "unknown", text: "asking" }];
    const api = { name: "api", state: this.#trouble ? "away" : "ok", text: this.#trouble ?? "answers" };
    const servers = this.#servers.filter(([, { status }]) => status !== "not set").map(([name, { status, problem }]) =>
      ({ name, state: status === "ok" ? "ok" : "away", text: problem ?? "answers" }));
    const groups = this.#groups.map(([group, blocks]) => ({
      name: group === LANES ? "lanes" : `→ ${group.replace(`${LANES}-`, "")}`,
      state: blocks > MUCH_BLOCKS ? "bad" : "ok", text: `${count(blocks)} blocks behind`,
    }));
    return [api, ...servers, ...groups];
  }
}

/** Of the workers, and of each way out: it may have a group for each topic that it reads. */
function summed(rows) {
  const sums = new Map();
  for (const { group, lag_blocks: blocks } of rows) {
    const name = group.split("-").slice(0, 2).join("-");
    if (name !== BOOKMARKS) sums.set(name, (sums.get(name) ?? 0) + blocks);
  }
  return [...sums].sort();
}
