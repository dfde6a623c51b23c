// Lets the page that embeds Headlight steer it by postMessage. Loaded by an embed alone.
//
// In:  {headlight: 1, id, method, args: [...]}     from window.parent, and with ?origins= only from those origins
// Out: {headlight: 1, id, ok: true, value}         or {headlight: 1, id, ok: false, error: {code, message, recoverable, detail}}
//      {headlight: 1, event, value}                resize {height}, hello, ready, state, view, error
//
// With ?engine=host the view computes on an engine that its parent shares among several views, where it gives one:
// Out: {headlight: 1, event: "engine"}             the view begins to compute, or has lost its engine
// In:  {headlight: 1, engine: "wait"}              one will come, or "none"
//      {headlight: 1, engine: "here"}              with a port to it
//      {headlight: 1, engine: "none"}              the view starts one of its own
//      {headlight: 1, engine: "lost"}              the one that came is gone
//
// Whatever else arrives is not answered. Arguments are copied as JSON, so that no object of a stranger's gets in.
(() => {
  "use strict";
  const METHODS = new Set([
    "models", "load", "tokenize", "run", "patterns", "detect", "detectors", "sweep", "controls", "patch", "dla", "lens",
    "ov", "generate", "script", "bench", "cancel", "state", "setState", "link", "ready", "start",
  ]);
  const MAX_LETTERS = 1 << 20;
  const MAX_DEPTH = 32;
  const MAX_NODES = 200_000;
  const MAX_ARGS = 2;
  const MAX_PENDING = 64;
  const host = window.parent;
  if (host === window) return;

  const listed = new URLSearchParams(location.search).get("origins");
  const origins = listed === null ? null : new Set(listed.split(",").filter(Boolean));
  let nPending = 0;

  // To every origin that may listen: a browser delivers it only where it is that of the parent.
  const tell = (event, value) => {
    for (const origin of origins ?? ["*"]) {
      try {
        host.postMessage({ headlight: 1, event, value }, origin);
      } catch (_) {}
    }
  };

  const failure = (code, message) => Object.assign(new Error(message), { code, recoverable: true, detail: null });

  // Neither deep nor large, and no cycle; counted, because one object may be there many times.
  const isSmall = (root) => {
    let nLeft = MAX_NODES;
    const walk = (value, depth) => {
      nLeft -= 1;
      if (nLeft < 0 || depth > MAX_DEPTH) return false;
      if (typeof value !== "object" || value === null) return true;
      return Object.values(value).every((inner) => walk(inner, depth + 1));
    };
    return walk(root, 0);
  };

  const copied = (args) => {
    if (args === undefined) return [];
    if (!Array.isArray(args) || args.length > MAX_ARGS) throw failure("bad_request", "args is a list of at most two");
    let text;
    try {
      text = isSmall(args) ? JSON.stringify(args) : undefined;
    } catch (_) {}
    if (text === undefined) throw failure("bad_request", "the arguments are not plain JSON");
    if (text.length > MAX_LETTERS) throw failure("bad_request", "the arguments are too large");
    return JSON.parse(text);
  };

  const installed = new Promise((resolve) => {
    if (window.headlight) resolve(window.headlight);
    else window.addEventListener("headlight-installed", () => resolve(window.headlight), { once: true });
  });
  const startButton = () => document.querySelector('[data-testid="embed-start"]');

  const answer = async (method, args) => {
    if (typeof method !== "string" || !METHODS.has(method)) {
      throw failure("unknown_method", "headlight has no such method");
    }
    const given = copied(args);
    if (method === "start") {
      startButton()?.click();
      await installed;
      return null;
    }
    // What waits for the reader's click would wait for ever.
    if (!window.headlight && startButton()) throw failure("not_started", "the view waits for its reader; call start()");
    const api = await installed;
    return method === "ready" ? api.ready : api[method](...given);
  };

  window.addEventListener("message", async (event) => {
    if (event.source !== host || (origins && !origins.has(event.origin))) return;
    const data = event.data;
    if (typeof data !== "object" || data === null || data.headlight !== 1) return;
    if (typeof data.engine === "string") return engine.hear(data.engine, event.ports[0]);
    const { id } = data;
    if (!(Number.isSafeInteger(id) || (typeof id === "string" && id.length <= 64))) return;
    const origin = event.origin === "null" ? "*" : event.origin;
    const reply = (message) => {
      try {
        host.postMessage({ headlight: 1, id, ...message }, origin);
      } catch (_) {}
    };
    if (nPending >= MAX_PENDING) {
      const error = { code: "busy", message: "too many calls at a time", recoverable: true, detail: null };
      return reply({ ok: false, error });
    }
    nPending += 1;
    try {
      reply({ ok: true, value: await answer(data.method, data.args) });
    } catch (error) {
      const { code = "failed", message, recoverable = true, detail = null } = error ?? {};
      reply({ ok: false, error: { code, message: String(message), recoverable, detail } });
    } finally {
      nPending -= 1;
    }
  });

  // What the page calls to get a port, null for none; `onlost` is the page's.
  const ENGINE_WAIT_MS = 2000;
  const engine = {
    onlost: null,
    resolve: null,
    timer: 0,
    ask() {
      return new Promise((resolve) => {
        engine.resolve = resolve;
        // A parent that knows nothing of engines does not answer.
        engine.timer = setTimeout(() => engine.settle(null), ENGINE_WAIT_MS);
        tell("engine", null);
      });
    },
    settle(port) {
      clearTimeout(engine.timer);
      engine.resolve?.(port);
      engine.resolve = null;
    },
    hear(word, port) {
      if (word === "wait") clearTimeout(engine.timer);
      else if (word === "here" && engine.resolve && port) engine.settle(port);
      else if (word === "none" || engine.resolve) engine.settle(null);
      else if (word === "lost") engine.onlost?.();
    },
  };
  window.offerEngine?.(engine);

  // The height that the view wants; its host may give it.
  const measure = () => tell("resize", { height: Math.ceil(document.getElementById("app").getBoundingClientRect().height) });
  const watch = () => {
    new ResizeObserver(measure).observe(document.getElementById("app"));
    tell("hello", { version: 1 });
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", watch, { once: true });
  else watch();

  installed.then((api) => {
    for (const name of ["state", "view", "error"]) api.on(name, (value) => tell(name, value));
    api.ready.then((info) => tell("ready", info), () => {});
  });
})();
