// A client of the feed (docs/feed.md) for browsers: reconnects, resumes, and says what is missing. No dependencies.
//
//   const feed = new Feed("ws://127.0.0.1:8765/feed", { token: "..." });
//   feed.on("gap", ({ channel, symbol, after, before }) => ...);
//   for await (const item of feed.subscribe("prediction", ["BTC*"], { mode: "full" })) ...
//   feed.subscribe("bar.1s", ["BTCUSDT"], { mode: "full", onItems: (items) => ... });
//
// In mode `full` every item of a symbol comes once and in order, over any number of lost connections; where that
// cannot be, `gap` or `reset` says so before the item that comes next.

const SCHEMA_VERSION = 1;
const OPEN_WITHIN_MS = 10_000;
const DEAD_AFTER_BEATS = 5;
const RETRY_FIRST_MS = 500, RETRY_LONGEST_MS = 10_000;
const LEAVE_WITHIN_MS = 250;      // after `going_away`: spread a little, so that not all come at once
const BURST = 10, SEND_EVERY_MS = 100; // the gateway closes above 20 messages a second
const MAX_CATCH_UPS = 8;          // of one client at once
const MAX_RESUME_CHARS = 48_000;  // of the 64 KiB that a request may have
const MAX_QUEUED = 65_536;        // items that wait for a slow reader of an iterator
const UNAUTHORISED = 4401, FORBIDDEN = 4403;

/** What the gateway, or this client, refused; `code` is one of docs/feed.md, or "slow_reader". */
export class FeedError extends Error {
  constructor(code, message) { super(message); this.name = "FeedError"; this.code = code; }
}

/**
 * One connection to the feed, kept up as long as anything is subscribed.
 *
 * Events, by `on(name, handler)`:
 * - `state`: {state, code, reason, retryMs}; state is idle, connecting, live, away (comes back by itself after
 *   retryMs), token (set `feed.token`, then it goes on) or closed;
 * - `gap`: {channel, symbol, after, before}: what lies between these two seqs is missing, and will not come;
 * - `reset`: {channel, symbols, reason}: could not be resumed; a snapshot begins these symbols anew;
 * - `resumed`: {channel, seqs}: all that was missed has come;
 * - `epoch`: {channel, epoch}: numbers begin anew;
 * - `heartbeat`, `warning`, `going_away`, `feature_names`, and what else is no data: as the gateway sent it;
 * - `error`: a FeedError, of a request or of the connection.
 */
export class Feed {
  #urls; #turn = 0; #token; #handlers = new Map(); #channels = new Map(); #nextId = 1;
  #socket = null; #state = "idle"; #tries = 0; #retry = 0; #heardMs = 0; #beatMs = 1000; #limits = null;
  #outbox = []; #allowed = BURST; #pump = 0; #watch = 0; #leaving = false; #clockMs = 0; #offered = null; #ended = new AbortController();
  #catchUps = new Map(); #waiting = [];  // symbols to come, by request; and requests that wait for one to be done

  /**
   * @param {string|string[]} url ws://HOST:PORT/feed; of several, the next is tried where one is lost.
   * @param {{token?: string|(() => string|null|Promise<string|null>)}} [options] a function is called whenever a
   *   token is asked for, also shortly before one expires.
   */
  constructor(url, { token = null } = {}) {
    this.#urls = [url].flat();
    this.#token = token;
    const back = () => { if (this.#state === "away") this.#connect(); };
    globalThis.addEventListener?.("online", back, { signal: this.#ended.signal });
  }

  get state() { return this.#state; }
  /** Channels that this gateway has and the token grants; null before it has said so. */
  get channels() { return this.#offered; }
  /** The gateway's clock, in ms since 1970 UTC. */
  get serverMs() { return Date.now() + this.#clockMs; }

  /** Use another token from now on; connects again if that is what was missing. */
  set token(token) {
    this.#token = token;
    if (this.#state === "token") this.#connect();
    else if (this.#state === "live") this.#show();
  }

  /** Call `handler` at each event of a name; returns a function that ends it. */
  on(name, handler) {
    if (!this.#handlers.has(name)) this.#handlers.set(name, new Set());
    this.#handlers.get(name).add(handler);
    return () => this.#handlers.get(name).delete(handler);
  }

  /**
   * Follow symbols of a channel. Of several subscriptions that fit a symbol, that with its own name says how it is
   * followed, else that with the longest prefix; its items go to all of them.
   *
   * @param {string} channel prediction, tick, bar.1s, bar.1m, halt, status, model, ...
   * @param {string[]} symbols names, prefixes such as "BTC*", or "*"
   * @param {{mode?: "latest"|"full"|"throttle", throttleMs?: number, onItems?: (items: object[]) => void}} [options]
   * @returns {Subscription} to iterate over (`for await`), unless onItems is given. Items are those of docs/feed.md
   *   with `snapshot`: whether what was known of the symbol counts no more.
   */
  subscribe(channel, symbols, { mode = "latest", throttleMs, onItems } = {}) {
    if (this.#state === "closed") throw new FeedError("closed", "this feed was closed; make another");
    const at = this.#channel(channel);
    const actions = { close: () => this.#unsubscribe(at, subscription), change: () => this.#follow(at, subscription) };
    const subscription = new Subscription(channel, symbols, mode, throttleMs, onItems, actions);
    this.#follow(at, subscription);
    if (this.#state === "idle") this.#connect();
    return subscription;
  }

  /** End the connection and all subscriptions. */
  close() {
    const subscriptions = [...this.#channels.values()].flatMap((at) => at.subscriptions);
    this.#channels.clear();
    for (const subscription of subscriptions) subscription.end();
    this.#ended.abort();
    this.#drop();
    this.#say({ state: "closed" });
  }

  // ---- the connection ----------------------------------------------------------------------------------------------

  #connect() {
    clearTimeout(this.#retry);
    this.#leaving = false;
    this.#say({ state: "connecting" });
    let socket;
    try {
      socket = new WebSocket(this.#urls[this.#turn % this.#urls.length]);
    } catch (error) {  // not a URL, or one that this page may not connect to
      this.#say({ state: "closed", reason: error.message });
      this.#emit("error", new FeedError("bad_url", error.message));
      return;
    }
    this.#socket = socket;
    this.#heardMs = performance.now();
    socket.onmessage = ({ data }) => {
      if (socket !== this.#socket) return;
      this.#heardMs = performance.now();
      let message;
      try { message = JSON.parse(data); } catch (error) { this.#lost(0, `not a feed: ${error.message}`); return; }
      this.#take(message);
    };
    socket.onclose = ({ code, reason }) => { if (socket === this.#socket) this.#lost(code, reason); };
    clearInterval(this.#watch);
    this.#watch = setInterval(() => this.#look(), 500);
  }

  /** A peer that vanished leaves a socket that looks open: heartbeats tell. */
  #look() {
    const allowedMs = this.#state === "live" ? DEAD_AFTER_BEATS * this.#beatMs : OPEN_WITHIN_MS;
    if (performance.now() - this.#heardMs > allowedMs) this.#lost(0, `nothing was heard for ${allowedMs / 1000} s`);
  }

  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    clearInterval(this.#watch);
    clearTimeout(this.#pump);
    clearTimeout(this.#retry);
    this.#pump = 0;
    this.#outbox = [];
    this.#waiting = [];
    this.#catchUps.clear();
    this.#allowed = BURST;
    socket?.close();
  }

  #lost(code, reason) {
    this.#drop();
    if (![...this.#channels.values()].some((at) => at.subscriptions.length)) { this.#say({ state: "idle" }); return; }
    if ((code === UNAUTHORISED || code === FORBIDDEN) && typeof this.#token !== "function") {
      this.#say({ state: "token", code, reason });
      return;
    }
    this.#turn++;
    // Twice as long each time, and spread, so that a thousand pages do not come back at once.
    const longestMs = Math.min(RETRY_LONGEST_MS, RETRY_FIRST_MS * 2 ** this.#tries++);
    const retryMs = this.#leaving ? Math.random() * LEAVE_WITHIN_MS : longestMs * (0.5 + Math.random() / 2);
    this.#say({ state: "away", code, reason, retryMs });
    this.#retry = setTimeout(() => this.#connect(), retryMs);
  }

  /** Show the token; where there is none, wait for one. */
  async #show() {
    const socket = this.#socket;
    let token = null, reason = "this feed needs a token";
    try {
      token = typeof this.#token === "function" ? await this.#token() : this.#token;
    } catch (error) {
      reason = `the token could not be had: ${error.message}`;
    }
    if (socket !== this.#socket) return;
    if (token) this.#send({ op: "auth", id: 0, token });
    else if (this.#state !== "live") { this.#drop(); this.#say({ state: "token", code: UNAUTHORISED, reason }); }
  }

  #send(message) {
    if (message.resume && this.#catchUps.size >= MAX_CATCH_UPS) { this.#waiting.push(message); return; }
    if (message.resume) this.#catchUps.set(message.id, new Set(Object.keys(message.resume.seqs)));
    this.#outbox.push(message);
    this.#flush();
  }

  #flush() {
    while (this.#outbox.length && this.#allowed > 0) {
      this.#allowed--;
      this.#socket.send(JSON.stringify(this.#outbox.shift()));
    }
    if (this.#allowed < BURST && !this.#pump) {
      this.#pump = setTimeout(() => { this.#pump = 0; this.#allowed++; this.#flush(); }, SEND_EVERY_MS);
    }
  }

  #say(news) {
    this.#state = news.state;
    this.#emit("state", { code: 0, reason: "", retryMs: 0, ...news });
  }

  #emit(name, event) {
    for (const handler of this.#handlers.get(name) ?? []) guarded(handler, event);
  }

  // ---- subscriptions -----------------------------------------------------------------------------------------------

  #channel(name) {
    if (!this.#channels.has(name)) this.#channels.set(name, new Channel(name));
    return this.#channels.get(name);
  }

  #follow(at, subscription) {
    // The last of several for the same name counts, here as there.
    at.subscriptions = [...at.subscriptions.filter((other) => other !== subscription), subscription];
    at.reroute();
    if (this.#state === "live") this.#ask(at, subscription, {});
  }

  #ask(at, subscription, seqs) {
    const { id, channel, symbols, mode, throttleMs } = subscription;
    this.#cancel(at, id);
    subscription.id = this.#nextId++;
    const request = { op: "subscribe", id: subscription.id, channel, symbols, mode };
    if (mode === "throttle") request.throttle_ms = throttleMs;
    if (at.epoch && Object.keys(seqs).length) request.resume = { epoch: at.epoch, seqs };
    at.asked++;
    this.#send(request);
  }

  /** What an earlier request of a subscription asked for comes no more. */
  #cancel(at, id) {
    const count = this.#waiting.length;
    this.#waiting = this.#waiting.filter((message) => message.id !== id);
    if (this.#waiting.length < count) at.asked--;
    this.#caughtUp(id);
  }

  #unsubscribe(at, subscription) {
    if (!at.subscriptions.includes(subscription)) return;
    at.subscriptions = at.subscriptions.filter((other) => other !== subscription);
    at.reroute();
    if (this.#state !== "live") return;
    this.#cancel(at, subscription.id);
    const sharing = at.subscriptions.filter((other) => other.symbols.some((name) => subscription.symbols.includes(name)));
    const symbols = subscription.symbols.filter((name) => !sharing.some((other) => other.symbols.includes(name)));
    if (symbols.length) this.#send({ op: "unsubscribe", id: 0, channel: at.name, symbols });
    for (const other of sharing) this.#ask(at, other, {});
  }

  // ---- what the gateway says ---------------------------------------------------------------------------------------

  #take(message) {
    switch (message.type) {
      case "hello": this.#hello(message); break;
      case "auth_required": case "auth_expiring": this.#show(); break;
      case "heartbeat": this.#beat(message); break;
      case "subscribed": this.#channel(message.channel).asked--; break;
      case "error": this.#refused(message); break;
      case "epoch": this.#channel(message.channel).begin(message.epoch); this.#emit("epoch", message); break;
      case "resumed": this.#caughtUp(message.id); this.#emit("resumed", message); break;
      case "reset": this.#reset(message); break;
      case "going_away": this.#leaving = true; this.#emit("going_away", message); break;
      case "warning": this.#emit("warning", message); break;
      default: this.#data(message);
    }
  }

  #hello({ schema_version: version, heartbeat_ms: beatMs, limits, server_ns: serverNs, channels }) {
    if (version !== SCHEMA_VERSION) {
      this.close();
      this.#emit("error", new FeedError("schema", `the gateway speaks version ${version}, and this client ${SCHEMA_VERSION}`));
      return;
    }
    this.#beatMs = beatMs;
    this.#limits = limits;
    this.#offered = channels;
    this.#clockMs = serverNs / 1e6 - Date.now();
    this.#say({ state: "live" });
    for (const at of this.#channels.values()) {
      at.asked = 0;
      for (const subscription of at.subscriptions) {
        this.#ask(at, subscription, subscription.mode === "full" ? at.resumable(subscription.symbols, limits) : {});
      }
    }
  }

  #beat(message) {
    this.#tries = 0;
    this.#clockMs = message.server_ns / 1e6 - Date.now();
    for (const [name, seqs] of Object.entries({ prediction: message.seqs, ...message.channels })) {
      const gaps = this.#channels.get(name)?.behind(seqs) ?? [];
      for (const gap of gaps) this.#emit("gap", gap);
    }
    this.#emit("heartbeat", message);
  }

  #refused({ id, code, message }) {
    const error = new FeedError(code, message);
    for (const at of this.#channels.values()) {
      const subscription = at.subscriptions.find((one) => one.id === id);
      if (!subscription) continue;
      at.asked--;
      at.subscriptions = at.subscriptions.filter((other) => other !== subscription);
      at.reroute();
      subscription.end(error);
    }
    this.#caughtUp(id);
    this.#emit("error", error);
  }

  #reset(message) {
    const at = this.#channel(message.channel);
    for (const symbol of message.symbols) at.forget(symbol);
    const missing = this.#catchUps.get(message.id);
    for (const symbol of message.symbols) missing?.delete(symbol);
    if (missing?.size === 0) this.#caughtUp(message.id);  // one that was reset whole gets no `resumed`
    this.#emit("reset", message);
  }

  #caughtUp(id) {
    if (this.#catchUps.delete(id) && this.#waiting.length) this.#send(this.#waiting.shift());
  }

  #data(message) {
    const isSnapshot = message.type === "snapshot";
    const at = this.#channels.get(isSnapshot ? message.channel : message.type);
    const items = message.predictions ?? message.bars ?? message.events ?? message.ticks ?? message.features;
    if (!at || !items) { this.#emit(message.type, message); return; }
    at.epoch = message.epoch;
    const fresh = items.filter((item) => {
      item.snapshot = isSnapshot;
      const gap = at.accept(item);
      if (gap) this.#emit("gap", gap);
      return gap !== null;
    });
    if (fresh.length) at.deliver(fresh);
  }
}

/** What is followed of a channel, and how far each symbol has come. */
class Channel {
  constructor(name) {
    this.name = name;
    this.epoch = null;
    this.subscriptions = [];
    this.asked = 0;           // requests that are not answered yet
    // By symbol: the last seq; whether it comes without gaps, or will once all requests are answered; to whom it goes.
    this.routes = new Map();
  }

  begin(epoch) { this.epoch = epoch; this.routes.clear(); }

  forget(symbol) { this.routes.delete(symbol); }

  reroute() {
    for (const [symbol, route] of this.routes) {
      const { full, to } = this.#find(symbol);
      if (to.length) Object.assign(route, { full: full && route.full, wanted: full, to });
      else this.routes.delete(symbol);
    }
  }

  #find(symbol) {
    const to = [];
    let best = -1, full = false;
    for (const subscription of this.subscriptions) {
      const rank = rankOf(subscription.symbols, symbol);
      if (rank < 0) continue;
      to.push(subscription);
      // The later of two for the same name took the place of the earlier.
      if (rank >= best) { best = rank; full = subscription.mode === "full"; }
    }
    return { full, to };
  }

  #route(symbol) {
    let route = this.routes.get(symbol);
    if (!route) {
      const { full, to } = this.#find(symbol);
      this.routes.set(symbol, route = { seq: 0, full: false, wanted: full, to });
    }
    return route;
  }

  /** Note an item. Returns null where it was there already, a gap where items before it are missing, else undefined. */
  accept(item) {
    const route = this.#route(item.symbol), last = route.seq;
    if (last && item.seq <= last && !item.snapshot) return null;
    const follows = item.prev === undefined ? item.seq === last + 1 : item.prev === last;
    const isGap = route.full && last > 0 && (item.snapshot ? item.seq !== last : !follows);
    route.seq = item.seq;
    route.full ||= route.wanted && this.asked === 0;
    return isGap ? { channel: this.name, symbol: item.symbol, after: last, before: item.seq } : undefined;
  }

  /** Gaps of symbols of which a heartbeat says that there was more than has come. */
  behind(seqs) {
    const gaps = [];
    for (const [symbol, seq] of Object.entries(seqs)) {
      const route = this.routes.get(symbol);
      if (!route?.full || !route.seq || seq <= route.seq) continue;
      gaps.push({ channel: this.name, symbol, after: route.seq, before: seq + 1 });
      route.seq = seq;
    }
    return gaps;
  }

  /** The last seq of each symbol that these names decide on, as many as fit into a request. */
  resumable(names, limits) {
    const seqs = {};
    let room = Math.min(MAX_RESUME_CHARS, limits.inbound_bytes - 16_384), count = limits.named_symbols;
    for (const [symbol, { seq, full, to }] of this.routes) {
      const others = to.flatMap((subscription) => subscription.symbols);
      if (!seq || !full || rankOf(names, symbol) < rankOf(others, symbol)) continue;
      room -= symbol.length + 22;
      if (room < 0 || count-- <= 0) break;  // the rest begins with a snapshot, and that is told as a gap
      seqs[symbol] = seq;
    }
    return seqs;
  }

  deliver(items) {
    for (const subscription of this.subscriptions) {
      const all = this.subscriptions.length === 1 && subscription.symbols.includes("*");
      const mine = all ? items : items.filter((item) => this.routes.get(item.symbol).to.includes(subscription));
      if (mine.length) subscription.deliver(mine);
    }
  }
}

/** What `Feed.subscribe` returns. */
export class Subscription {
  #actions; #onItems; #queue = []; #read = 0; #newest = new Map(); #wake = null; #over = false; #error = null;

  constructor(channel, symbols, mode, throttleMs, onItems, actions) {
    Object.assign(this, { id: null, channel, symbols: [...symbols], mode, throttleMs });
    this.#onItems = onItems;
    this.#actions = actions;
  }

  /** Change how it is followed. */
  change({ mode, throttleMs }) {
    if (mode === this.mode && throttleMs === this.throttleMs) return;
    this.mode = mode;
    this.throttleMs = throttleMs;
    this.#actions.change();
  }

  /** Follow these symbols no more. */
  close() { this.#actions.close(); this.end(); }

  /** @internal */
  end(error = null) { this.#over = true; this.#error = error; this.#wake?.(); }

  /** @internal */
  deliver(items) {
    if (this.#onItems) { guarded(this.#onItems, items); return; }
    if (this.mode === "full") for (const item of items) this.#queue.push(item);
    else for (const item of items) this.#conflate(item);
    if (this.#queue.length - this.#read > MAX_QUEUED) {
      this.#queue = [];
      this.#read = 0;
      this.#actions.close();
      this.end(new FeedError("slow_reader", `${MAX_QUEUED} items waited to be read; read faster, or use mode "latest"`));
    }
    this.#wake?.();
  }

  #conflate(item) {
    const waits = this.#newest.get(item.symbol);
    if (waits) {
      item.skipped = (item.skipped ?? 0) + (waits.skipped ?? 0) + 1;
      item.snapshot ||= waits.snapshot;
    }
    this.#newest.set(item.symbol, item);
  }

  #next() {
    if (this.#read >= MAX_QUEUED / 4 || this.#read === this.#queue.length) {
      this.#queue.splice(0, this.#read);
      this.#read = 0;
    }
    if (this.#queue.length) return this.#queue[this.#read++];
    for (const [symbol, item] of this.#newest) { this.#newest.delete(symbol); return item; }
    return null;
  }

  /** Items one by one. Of `latest` and `throttle` those that wait are conflated, and count what they skip. */
  async *[Symbol.asyncIterator]() {
    try {
      while (true) {
        const item = this.#next();
        if (item) { yield item; continue; }
        if (this.#error) throw this.#error;
        if (this.#over) return;
        await new Promise((resolve) => { this.#wake = resolve; });
        this.#wake = null;
      }
    } finally {
      this.close();
    }
  }
}

/** How well names fit a symbol: its own name above prefixes, and those by their length; -1 for not at all. */
function rankOf(names, symbol) {
  let best = -1;
  for (const name of names) {
    if (name === symbol) return Infinity;
    if (name.endsWith("*") && symbol.startsWith(name.slice(0, -1))) best = Math.max(best, name.length);
  }
  return best;
}

/** A handler that throws is reported as any other error of the page, and harms nothing here. */
function guarded(handler, argument) {
  try { handler(argument); } catch (error) { globalThis.reportError ? reportError(error) : console.error(error); }
}
