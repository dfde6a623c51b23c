// <headlight-view>: a view of Headlight in any page. One file, no dependencies, nothing global but the element.
//
//   <script type="module" src="https://…/embed/headlight-view.js"></script>
//   <headlight-view link="#1.…" title="Induction heads" prompt="0" readonly start="click" height="640"></headlight-view>
//
// Attributes (all optional):
//   link      what stands behind # in a link to the view; a whole link does too. Left out: the page as it opens.
//   src       address of the Headlight page; left out: the folder above this script's
//   prompt tokens output ablation map pattern inspector plots lesson
//             0 hides a part, 1 shows it, left out: as the link says
//   readonly  the reader looks but does not change
//   start     "click": a still frame with a Start button; nothing is fetched before the click. Else it loads when it comes
//             near the visible part of the page
//   theme     "light" or "dark"; left out: the reader's
//   backend   "auto", "cpu" or "webgpu": where to compute; left out: as the link says
//   width     CSS pixels or per cent; left out: as wide as its place
//   height    CSS pixels until the view tells its own; with fixed, always
//   min-height, max-height   what the view's own height is held to: 120 and 2400 when left out
//   fixed     the height never changes; the view scrolls inside
//   title     what the frame is called, for readers of screens
//   poster    a picture shown until the view begins, and in place of it where it cannot run
//   timeout   seconds until a frame that does not answer is given up: 30 when left out
//   downloads lets an assignment save its answers as files
//   engine    "own": an engine for this view alone; left out: one for all views of the same Headlight on the page
//
// Events: headlight-ready (detail: the model), headlight-state (detail: the view as JSON), headlight-view (detail: the run's
// report), headlight-error (detail: {code, message, recoverable, detail}).
//
// Methods, all asynchronous: start(), ready(), state(), setState(json), link(), run(…) and every other method of
// window.headlight; see headlight.d.ts. A method waits until the frame has loaded; it does not begin by itself what waits
// for a click: call start() first.
//
// The frame is sandboxed: its scripts run in an origin of their own, without storage, and can reach neither this page nor
// its cookies. Views share an engine: a model that several of them show is fetched and kept once, in one more frame, not seen,
// which comes with the first view that computes and goes with the last.

const PARTS = ["prompt", "tokens", "output", "ablation", "map", "pattern", "inspector", "plots", "lesson"];
const METHODS = [
  "models", "load", "tokenize", "run", "patterns", "detect", "detectors", "sweep", "controls", "patch", "dla", "lens", "ov",
  "generate", "bench", "cancel", "state", "setState", "ready",
];
const EVENTS = new Set(["ready", "state", "view", "error"]);
const DEFAULT_PAGE = new URL("../", import.meta.url).href;
const DEFAULT_HEIGHT = 480;

const STYLE = `
  :host { display: block; }
  :host([hidden]) { display: none; }
  .box { position: relative; overflow: hidden; }
  iframe { display: block; width: 100%; border: 0; }
  .still { display: grid; gap: 12px; place-content: center; justify-items: center; box-sizing: border-box; padding: 16px;
    border: 1px solid #8884; border-radius: 8px; font: 15px/1.4 system-ui, sans-serif; text-align: center; }
  .still img { max-width: 100%; max-height: 100%; object-fit: contain; }
  .still p { margin: 0; }
  button { padding: 8px 20px; border: 1px solid currentColor; border-radius: 6px; background: none; color: inherit;
    font: inherit; font-weight: 600; cursor: pointer; }
`;

// A sheet of its own: a style element would need the page's Content-Security-Policy to allow it.
const SHEET = new CSSStyleSheet();
SHEET.replaceSync(STYLE);

const headlightError = ({ code, message, recoverable = true, detail = null }) =>
  Object.assign(new Error(message), { code, recoverable, detail });

/** The engine of every view of one Headlight on this page: a sandboxed frame that is not seen, with a worker in it. */
class SharedEngine {
  static #all = new Map();
  static #WAIT_MS = 20_000;

  /** The one behind the Headlight page at this address, if it was started. */
  static at(page) {
    return SharedEngine.#all.get(page);
  }

  static of(page) {
    return SharedEngine.at(page) ?? new SharedEngine(page);
  }

  #page;
  #frame = document.createElement("iframe");
  #isReady = false;
  #views = new Map();
  #nextNumber = 1;
  #timer = setTimeout(() => this.#end("none"), SharedEngine.#WAIT_MS);
  #receive = ({ source, data }) => {
    if (source !== this.#frame.contentWindow || data?.headlight !== 1) return;
    if (data.event === "engine-lost") this.#end(this.#isReady ? "lost" : "none");
    if (data.event !== "engine-ready" || this.#isReady) return;
    this.#isReady = true;
    clearTimeout(this.#timer);
    for (const view of this.#views.values()) this.#give(view);
  };

  constructor(page) {
    this.#page = page;
    SharedEngine.#all.set(page, this);
    window.addEventListener("message", this.#receive);
    this.#frame.hidden = true;
    this.#frame.title = "Headlight's engine";
    this.#frame.setAttribute("sandbox", "allow-scripts");
    this.#frame.src = new URL("embed/engine.html", page).href;
    // Beside the body, whose contents belong to the page's own scripts.
    document.documentElement.append(this.#frame);
  }

  /** Gives a view's window a port, now or as soon as the engine listens. */
  connect(view, target) {
    this.#disconnect(view);
    const connection = { number: this.#nextNumber++, target };
    this.#views.set(view, connection);
    target.postMessage({ headlight: 1, engine: "wait" }, "*");
    if (this.#isReady) this.#give(connection);
  }

  /** A view is gone, or begins anew. The engine goes with the last. */
  leave(view) {
    this.#disconnect(view);
    if (this.#views.size === 0) this.#end();
  }

  #give({ number, target }) {
    const { port1, port2 } = new MessageChannel();
    this.#frame.contentWindow.postMessage({ headlight: 1, connect: number }, "*", [port1]);
    target.postMessage({ headlight: 1, engine: "here" }, "*", [port2]);
  }

  #disconnect(view) {
    const connection = this.#views.get(view);
    if (!connection) return;
    this.#views.delete(view);
    this.#frame.contentWindow?.postMessage({ headlight: 1, disconnect: connection.number }, "*");
  }

  #end(word) {
    clearTimeout(this.#timer);
    SharedEngine.#all.delete(this.#page);
    window.removeEventListener("message", this.#receive);
    this.#frame.remove();
    // Each then asks for another one, or starts its own.
    const views = word ? [...this.#views.values()] : [];
    this.#views.clear();
    for (const { target } of views) target.postMessage({ headlight: 1, engine: word }, "*");
  }
}

class HeadlightView extends HTMLElement {
  static observedAttributes = ["link", "src", "theme", "backend", "readonly", "title", ...PARTS];

  #root = this.attachShadow({ mode: "open" });
  #frame = null;
  #observer = null;
  #timer = 0;
  #calls = new Map();
  #nextId = 1;
  #isLoaded = false;
  #enginePage = null;
  #waiting = [];
  #receive = (event) => this.#take(event);

  connectedCallback() {
    window.addEventListener("message", this.#receive);
    this.#showStill(this.#waitsForClick ? "start" : "wait");
    if (this.#waitsForClick) return;
    if (!("IntersectionObserver" in window)) return this.#load();
    this.#observer = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) this.#load();
    }, { rootMargin: "200px" });
    this.#observer.observe(this);
  }

  disconnectedCallback() {
    window.removeEventListener("message", this.#receive);
    this.#end({ code: "closed", message: "the view was taken off the page" });
  }

  attributeChangedCallback(name, before, after) {
    if (before === after || !this.#frame) return;
    if (name === "title") this.#frame.title = this.title || "Headlight";
    else this.#navigate();
  }

  /** Loads the frame now, seen or not, and begins to compute. */
  async start() {
    this.#load();
    await this.#loaded();
    return this.#call("start", []);
  }

  /** The address of the view on a page of its own, with its numbers. */
  async link() {
    await this.#loaded();
    return this.#call("link", []);
  }

  get #waitsForClick() {
    return this.getAttribute("start") === "click";
  }

  get #sharesEngine() {
    return this.getAttribute("engine") !== "own";
  }

  get #page() {
    const page = new URL(this.getAttribute("src") || DEFAULT_PAGE, document.baseURI);
    if (page.protocol !== "https:" && page.protocol !== "http:") throw new TypeError("src is no web address");
    return page;
  }

  get #fragment() {
    const link = this.getAttribute("link") ?? "";
    return link.includes("#") ? link.slice(link.indexOf("#")) : link && `#${link}`;
  }

  /** The page by itself: where a reader goes when the frame cannot run. */
  get #outside() {
    const page = this.#page;
    page.hash = this.#fragment;
    return page.href;
  }

  get #address() {
    const page = this.#page;
    const query = new URLSearchParams({ embed: "1" });
    for (const part of PARTS) {
      const value = this.getAttribute(part);
      if (value !== null) query.set(part, value === "0" || value === "false" ? "0" : "1");
    }
    if (this.hasAttribute("readonly") && this.getAttribute("readonly") !== "0") query.set("readonly", "1");
    const theme = this.getAttribute("theme");
    if (theme === "light" || theme === "dark") query.set("theme", theme);
    const backend = this.getAttribute("backend");
    if (["auto", "cpu", "webgpu"].includes(backend)) query.set("backend", backend);
    if (this.#sharesEngine) query.set("engine", "host");
    // Who may steer it: this page. A page that is itself sandboxed has no origin to name.
    if (window.origin !== "null") query.set("origins", window.origin);
    page.search = query;
    page.hash = this.#fragment;
    return page.href;
  }

  #number(name, otherwise) {
    const value = Number.parseFloat(this.getAttribute(name));
    return Number.isFinite(value) && value > 0 ? value : otherwise;
  }

  #box() {
    const box = document.createElement("div");
    box.className = "box";
    const width = /^\d+(\.\d+)?(%|px)?$/.exec(this.getAttribute("width") ?? "100%")?.[0] ?? "100%";
    box.style.width = /[%x]$/.test(width) ? width : `${width}px`;
    box.style.maxWidth = "100%";
    box.style.height = `${this.#number("height", DEFAULT_HEIGHT)}px`;
    return box;
  }

  #show(...inside) {
    this.#root.adoptedStyleSheets = [SHEET];
    const box = this.#box();
    box.append(...inside);
    this.#root.replaceChildren(box);
    return box;
  }

  /** A picture or a title, and the way on: a Start button, nothing yet, or a link where the view cannot run. */
  #showStill(kind, why = "") {
    const still = document.createElement("div");
    still.className = "still";
    still.style.height = "100%";
    const poster = this.getAttribute("poster");
    if (poster) {
      const image = document.createElement("img");
      image.src = poster;
      image.alt = this.title || "A still picture of the view";
      still.append(image);
    } else if (this.title) {
      const title = document.createElement("p");
      title.textContent = this.title;
      still.append(title);
    }
    if (kind === "start") {
      const button = document.createElement("button");
      button.textContent = "Start";
      button.addEventListener("click", () => this.#load());
      still.append(button);
    }
    if (kind === "failed") {
      const told = document.createElement("p");
      told.textContent = `${why} `;
      const link = document.createElement("a");
      link.href = this.#outside;
      link.target = "_blank";
      link.rel = "noopener";
      link.textContent = "Open it in Headlight";
      told.append(link);
      still.append(told);
    }
    this.#show(still);
  }

  #load() {
    if (this.#frame || !this.isConnected) return;
    this.#observer?.disconnect();
    if (typeof WebAssembly !== "object") {
      return this.#fail({ code: "no_wasm", message: "This browser cannot run the view." });
    }
    const frame = document.createElement("iframe");
    frame.title = this.title || "Headlight";
    const downloads = this.hasAttribute("downloads") ? " allow-downloads" : "";
    frame.setAttribute("sandbox", `allow-scripts allow-popups allow-popups-to-escape-sandbox${downloads}`);
    frame.style.height = "100%";
    this.#frame = frame;
    this.#navigate();
    this.#show(frame);
  }

  #navigate() {
    this.#leaveEngine();
    this.#isLoaded = false;
    this.#frame.src = this.#address;
    clearTimeout(this.#timer);
    const message = "The view did not start here.";
    this.#timer = setTimeout(() => this.#fail({ code: "timeout", message }), this.#number("timeout", 30) * 1000);
  }

  #fail(error) {
    this.#end(error);
    this.#showStill("failed", error.message);
    this.#dispatch("error", { recoverable: false, detail: null, ...error });
  }

  #end(error) {
    clearTimeout(this.#timer);
    this.#observer?.disconnect();
    this.#leaveEngine();
    this.#frame?.remove();
    this.#frame = null;
    this.#isLoaded = false;
    const calls = [...this.#calls.values()];
    this.#calls.clear();
    for (const { reject } of [...calls, ...this.#waiting.splice(0)]) reject(headlightError(error));
  }

  #connectEngine() {
    if (!this.#sharesEngine) return this.#frame.contentWindow.postMessage({ headlight: 1, engine: "none" }, "*");
    this.#enginePage = this.#page.href;
    SharedEngine.of(this.#enginePage).connect(this, this.#frame.contentWindow);
  }

  #leaveEngine() {
    SharedEngine.at(this.#enginePage)?.leave(this);
    this.#enginePage = null;
  }

  #dispatch(name, detail) {
    this.dispatchEvent(new CustomEvent(`headlight-${name}`, { detail, bubbles: true, composed: true }));
  }

  #loaded() {
    return new Promise((resolve, reject) => {
      if (this.#isLoaded) resolve();
      else this.#waiting.push({ resolve, reject });
    });
  }

  async _call(method, args) {
    await this.#loaded();
    return this.#call(method, args);
  }

  #call(method, args) {
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      this.#calls.set(id, { resolve, reject });
      // The frame's origin is its own and has no name; the window that gets it is named by the frame.
      this.#frame.contentWindow.postMessage({ headlight: 1, id, method, args: JSON.parse(JSON.stringify(args)) }, "*");
    });
  }

  #take(event) {
    // A sandboxed frame's origin is "null"; what makes it ours is that it is our frame's window.
    if (!this.#frame || event.source !== this.#frame.contentWindow) return;
    if (event.origin !== "null" && event.origin !== this.#page.origin) return;
    const data = event.data;
    if (typeof data !== "object" || data === null || data.headlight !== 1) return;
    if (typeof data.event === "string") return this.#hear(data.event, data.value);
    const call = this.#calls.get(data.id);
    if (!call) return;
    this.#calls.delete(data.id);
    if (data.ok === true) call.resolve(data.value);
    else call.reject(headlightError(data.error ?? { code: "protocol", message: "the view answered something else" }));
  }

  #hear(name, value) {
    if (name === "hello") {
      clearTimeout(this.#timer);
      this.#isLoaded = true;
      for (const { resolve } of this.#waiting.splice(0)) resolve();
    } else if (name === "resize") {
      this.#resize(value?.height);
    } else if (name === "engine") {
      this.#connectEngine();
    } else if (EVENTS.has(name)) {
      this.#dispatch(name, value);
    }
  }

  #resize(height) {
    if (this.hasAttribute("fixed") || !Number.isFinite(height)) return;
    const least = this.#number("min-height", 120);
    const most = this.#number("max-height", 2400);
    const box = this.#root.querySelector(".box");
    if (box) box.style.height = `${Math.min(Math.max(height, least), most)}px`;
  }
}

for (const method of METHODS) {
  HeadlightView.prototype[method] = function (...args) {
    return this._call(method, args);
  };
}

if (!customElements.get("headlight-view")) customElements.define("headlight-view", HeadlightView);

export { HeadlightView };
