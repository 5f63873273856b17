// What the REST API knows: history, models, lag. Every answer may fail, and says why in plain words.

export class ApiError extends Error {
  constructor(status, message, body = null) { super(message); this.name = "ApiError"; this.status = status; this.body = body; }
}

const TIMEOUT_MS = 15_000;

export class Api {
  #base;
  /** Bearer token, as the feed's. */
  token = null;

  constructor(base) { this.#base = base; }

  url(path) { return `${this.#base}${path}`; }

  /**
   * @param {string} path below the API's root, as "/bars"
   * @param {object} [query] parameters; those that are null are left out
   * @returns what was answered, from JSON
   * @throws {ApiError} with the API's own words, or why there were none
   */
  async get(path, query = {}) {
    const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined);
    const headers = { Accept: "application/json" };
    if (this.token) headers.Authorization = `Bearer ${this.token}`;
    let answer;
    try {
      answer = await fetch(`${this.#base}${path}?${new URLSearchParams(given)}`, {
        headers, signal: AbortSignal.timeout(TIMEOUT_MS),
      });
    } catch (error) {
      throw new ApiError(0, error.name === "TimeoutError" ? "the API does not answer" : "the API cannot be reached");
    }
    const body = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new ApiError(answer.status, body.detail ?? body.title ?? `the API answered ${answer.status}`, body);
    return body;
  }
}

/** The page's configuration; tried again until the API answers. */
export async function loadConfig(onWait) {
  for (let tries = 0; ; tries++) {
    try {
      const answer = await fetch("config.json", { signal: AbortSignal.timeout(TIMEOUT_MS) });
      if (answer.ok) return await answer.json();
      onWait(`the API answered ${answer.status}`);
    } catch {
      onWait("the API cannot be reached");
    }
    await new Promise((resolve) => setTimeout(resolve, Math.min(10_000, 500 * 2 ** tries)));
  }
}
