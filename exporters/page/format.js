// Numbers as people read them.

const fixed = [0, 1, 2, 3, 4, 5, 6].map((digits) =>
  new Intl.NumberFormat("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }));

const given = (x) => x !== undefined && x !== null && Number.isFinite(x);

export const count = (n) => (given(n) ? fixed[0].format(n) : "–");
export const percent = (p) => String(Math.round(p * 100));
export const share = (x, digits = 1) => (given(x) ? `${fixed[digits].format(x * 100)} %` : "–");
export const decimal = (x, digits) => (given(x) ? fixed[digits].format(x) : "–");

/** With a sign of its own width, so that columns stay where they are. */
export function signed(x, digits = 2) {
  if (!given(x)) return "–";
  const text = fixed[digits].format(Math.abs(x));
  return (Number(text) === 0 ? " " : x > 0 ? "+" : "−") + text;
}

/** How many decimals a price has; (bid + ask) / 2 may end in a ...0000001 that is nobody's price. */
export function decimalsOf(price) {
  const text = String(Number(price.toFixed(6))), point = text.indexOf(".");
  return point < 0 ? 0 : text.length - point - 1;
}

export const priceText = (price, decimals) => (given(price) ? fixed[Math.min(decimals, 6)].format(price) : "–");

export function micros(us) {
  if (!given(us)) return "–";
  if (us < 1000) return `${us < 10 ? us.toFixed(1) : Math.round(us)} µs`;
  if (us < 1e6) return `${(us / 1000).toFixed(us < 1e4 ? 2 : us < 1e5 ? 1 : 0)} ms`;
  return `${(us / 1e6).toFixed(1)} s`;
}

export function age(ms) {
  if (!given(ms)) return "–";
  if (ms < 1000) return `${Math.max(0, Math.round(ms / 10) * 10)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} min`;
  return ms < 172_800_000 ? `${Math.floor(ms / 3_600_000)} h` : `${Math.floor(ms / 86_400_000)} d`;
}

export function duration(ns) {
  const s = ns / 1e9;
  if (s < 1) return `${Math.round(s * 1000)} ms`;
  return s < 120 ? `${Number(s.toFixed(1))} s` : `${Number((s / 60).toFixed(1))} min`;
}

/** hh:mm:ss in UTC. */
export const clock = (ms) => new Date(ms).toISOString().slice(11, 19);

/** What a probability says in one word; flat where that is the likeliest. */
export function leader({ p_down: down, p_flat: flat, p_up: up }) {
  if (flat >= up && flat >= down) return "flat";
  return up > down ? "up" : "down";
}

/** Set a node's text, if it is another: writing what is there already costs a layout all the same. */
export function write(node, text) {
  if (node.shownText !== text) { node.shownText = text; node.textContent = text; }
}

/** Set a node's class, if it is another. */
export function dress(node, name) {
  if (node.shownClass !== name) { node.shownClass = name; node.className = name; }
}

/** Make an element with a class, and put it into another. */
export function add(parent, tag, className = "", text = "") {
  const node = parent.appendChild(document.createElement(tag));
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}
