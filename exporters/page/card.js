// The card of the model in service, over the page: what the registry and its evaluation say of it.

import { add, count, decimal, duration, share } from "./format.js";

const RATES = ["accuracy", "balanced_accuracy", "majority_accuracy", "hit_rate"];

/**
 * Show a model.
 *
 * @param {HTMLDialogElement} dialog
 * @param {import("./api.js").Api} api
 * @param {string} model its id, 16 hexadecimal digits
 */
export async function showCard(dialog, api, model) {
  const body = dialog.querySelector(".body");
  body.replaceChildren();
  add(body, "p", "dim", "asking the API…");
  if (!dialog.open) dialog.showModal();
  try {
    fill(body, await api.get(`/models/${model}`), api.url(`/models/${model}/card`), api.token !== null);
  } catch (error) {
    if (error.name !== "ApiError") throw error;
    body.replaceChildren();
    add(body, "p", "bad", error.message);
  }
}

function fill(body, told, cardUrl, needsToken) {
  body.replaceChildren();
  add(body, "p", "lead", told.version ?? `${told.name} ${told.model}`);
  const facts = [
    ["model", told.model],
    ["roles", told.roles?.join(", ") || "none"],
    ["horizon", told.horizon_ns ? duration(told.horizon_ns) : "–"],
    ["published", told.published_time ? `${told.published_time.slice(0, 19).replace("T", " ")} UTC by ${told.published_by}` : "with the package"],
  ];
  section(body, "", facts);
  section(body, "As it was trained, on data that it had not seen", Object.entries(told.metrics ?? {}).map(([name, value]) =>
    [name.replaceAll("_", " "), RATES.includes(name) ? share(value) : Number.isInteger(value) ? count(value) : decimal(value, 4)]));
  section(body, "What happened to it", (told.history ?? []).map(({ time, champion, by, reason }) =>
    [time?.slice(0, 19).replace("T", " ") ?? "", `${champion}, by ${by}: ${reason}`]));
  if (!told.has_card) { add(body, "p", "dim", "it has no card: `tickloom models evaluate` makes one"); return; }
  if (needsToken) { add(body, "p", "dim", `the whole card, beside six baselines, is at ${cardUrl}, with the token`); return; }
  const link = add(body, "a", "", "The whole card, beside six baselines");
  link.href = cardUrl;
  link.target = "_blank";
  link.rel = "noopener";
}

function section(body, title, facts) {
  if (!facts.length) return;
  if (title) add(body, "h3", "", title);
  const list = add(body, "dl", "facts");
  for (const [name, value] of facts) { add(list, "dt", "", name); add(list, "dd", "", value); }
}
