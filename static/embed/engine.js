// The engine that the views on one page share, in a frame that is not seen: headlight-view.js makes one for all views of the same
// Headlight and gives each of them a port to its worker.
//
// In:  {headlight: 1, connect: number} with a port, {headlight: 1, disconnect: number}     from window.parent
// Out: {headlight: 1, event: "engine-ready"} once it listens, {headlight: 1, event: "engine-lost", value: why}
(() => {
  "use strict";
  const host = window.parent;
  if (host === window) return;
  const tell = (event, value = null) => host.postMessage({ headlight: 1, event, value }, "*");

  // A sandboxed frame may start only a script of its own making, which then imports the engine. Not from a blob, whose worker
  // would be no secure context and have no WebGPU.
  const entry = new URL("../worker/start.js", location.href).href;
  const script = `import(${JSON.stringify(entry)}).catch((error) => setTimeout(() => { throw error; }));`;
  let worker;
  try {
    worker = new Worker(`data:text/javascript,${encodeURIComponent(script)}`);
  } catch (error) {
    return tell("engine-lost", String(error));
  }
  worker.addEventListener("error", (event) => tell("engine-lost", event.message));
  // It speaks first; what is sent before is lost.
  worker.addEventListener("message", () => tell("engine-ready"), { once: true });

  window.addEventListener("message", ({ source, data, ports }) => {
    if (source !== host || typeof data !== "object" || data === null || data.headlight !== 1) return;
    const { connect, disconnect } = data;
    if (Number.isSafeInteger(connect) && ports.length === 1) worker.postMessage({ connect }, [ports[0]]);
    else if (Number.isSafeInteger(disconnect)) worker.postMessage({ disconnect });
  });
})();
