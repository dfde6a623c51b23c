// Starts the engine in this worker, in the build that this browser runs fastest: one multiplies and adds in one instruction
// (WebAssembly's relaxed SIMD), which not every browser has; the other is the same program without.
const PAGE = new URL("../", import.meta.url).href;
const ZERO = [65, 0, 253, 15];
const RELAXED_MADD = [253, 133, 2];

// Whether a function of these instructions, which gives a vector, is one to this browser.
const runs = (...instructions) => {
  const body = [0, ...instructions, 11];
  const code = [10, body.length + 2, 1, body.length, ...body];
  return WebAssembly.validate(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, ...code]));
};

const start = async (init, build, simd) => {
  const response = await fetch(`${PAGE}headlight-worker${build}_bg.wasm`);
  if (!response.ok) throw new Error(`the engine could not be fetched: ${response.status}`);
  self.headlightSimd = simd;
  await init({ module_or_path: response });
};

// What addresses are relative to: a worker of a sandboxed frame has none of its own.
self.headlightBase = PAGE;
const { default: init } = await import("../headlight-worker.js");
try {
  if (!runs(...ZERO, ...ZERO, ...ZERO, ...RELAXED_MADD)) throw new Error("no relaxed SIMD");
  await start(init, "-relaxed", "relaxed SIMD");
} catch (_) {
  await start(init, "", "SIMD");
}
