// Links to views of Headlight, from JavaScript: an ES module without dependencies, for browsers and for Node 18 and later.
//
//   import { urlOf, stateOf } from "./headlight-link.js";
//   const url = await urlOf("https://…/headlight/", { prompt: "The cat", head: "L1H0" });
//   const state = await stateOf(url);
//
// A state is what headlight.state() gives: JSON without what is at its default (see State in headlight.d.ts). Nothing is
// checked here; the page refuses what is no view.

const VERSION = "1";
const MAX_LETTERS = 1 << 17;
const MAX_BYTES = 1 << 20;

const through = (bytes, transform) => new Response(new Blob([bytes]).stream().pipeThrough(transform));

/** The state as it stands behind #; empty for a state that is all defaults. */
export async function fragmentOf(state) {
  if (Object.keys(state).length === 0) return "";
  const bytes = new TextEncoder().encode(JSON.stringify(state));
  const packed = await through(bytes, new CompressionStream("deflate-raw")).arrayBuffer();
  let letters = "";
  for (const byte of new Uint8Array(packed)) letters += String.fromCharCode(byte);
  return `${VERSION}.${btoa(letters).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`;
}

/** A link to the page with this state; flags such as {embed: 1, map: 0} make it the address of a frame. */
export async function urlOf(page, state, flags = {}) {
  const url = new URL(page);
  for (const [name, value] of Object.entries(flags)) url.searchParams.set(name, value);
  url.hash = await fragmentOf(state);
  return url.href;
}

/** The state of a link, or of what stands behind its #. */
export async function stateOf(link) {
  const fragment = link.includes("#") ? link.slice(link.indexOf("#") + 1) : /^[a-z]+:/.test(link) ? "" : link;
  if (fragment === "") return {};
  if (fragment.length > MAX_LETTERS) throw new RangeError("this link is too long to be one of Headlight's");
  const [version, packed] = fragment.split(".");
  if (version !== VERSION || packed === undefined) throw new TypeError("this link is of a version that is not known here");
  const letters = atob(packed.replaceAll("-", "+").replaceAll("_", "/"));
  const bytes = Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
  const reader = through(bytes, new DecompressionStream("deflate-raw")).body.getReader();
  const pieces = [];
  let nBytes = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    nBytes += value.length;
    if (nBytes > MAX_BYTES) throw new RangeError("this link unpacks to more than any view holds");
    pieces.push(value);
  }
  return JSON.parse(await new Blob(pieces).text());
}
