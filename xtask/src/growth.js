// How time grows on the page with a prompt's length, with the layers that are swept and with the workers that share a sweep.
(async () => {
  const LENGTHS = [16, 32, 64, 128, 256, 512, 1024], LAYERS = [1, 2, 5, 10, 20, 30], N_WORKERS = [1, 2, 3, 4];
  const N_TOKENS = 64;
  const seconds = async work => {
    const start = performance.now();
    await work();
    return (performance.now() - start) / 1000;
  };
  await window.headlight.ready;
  const { n_layers } = await window.headlight.load({ model: 'smollm2-135m', backend: 'cpu' });
  const { prefill, prefill_fast } = await window.headlight.bench({ prefill: LENGTHS, repeats: 3 });
  const pass = ({ n_tokens, tokens_per_s }) => [n_tokens, n_tokens / tokens_per_s];
  let text = 'time', ids = [];
  while (ids.length < N_TOKENS) ({ ids } = await window.headlight.tokenize(text += ' time', {}));
  const sweep = request => seconds(() => window.headlight.sweep({ ids, metric: 'logprob', ...request }));
  const layers = { exact: [], fast: [] }, workers = { exact: [], fast: [] };
  for (const precision of ['exact', 'fast']) {
    for (const n of LAYERS) {
      // From the top, as a sweep goes.
      const of = Array.from({ length: n }, (_, i) => n_layers - 1 - i);
      layers[precision].push([n, await sweep({ layers: of, n_workers: 1, precision })]);
    }
    for (const n of N_WORKERS) workers[precision].push([n, await sweep({ n_workers: n, precision })]);
  }
  return { length: { exact: prefill.map(pass), fast: prefill_fast.map(pass) }, layers, workers };
})()
