// Other engines in Headlight's own page, where both run prompts of the same length in turn: a busy machine then slows both
// alike.

const at = path => new URL(path, import.meta.url).href;
const seconds = async work => {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
};
const median = values => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const largest = values => values.reduce((a, b) => Math.max(a, b), 0);

// A prompt as text and as ids: words that are one token each, because wllama takes nothing but text. What a forward pass costs
// does not depend on them.
const WORDS = ['time', 'people', 'water', 'house', 'light', 'music', 'paper', 'river', 'money', 'story', 'world'];
async function prompt_of(n_tokens) {
  const text = Array.from({ length: n_tokens }, (_, i) => WORDS[(i * i + 3 * i) % WORDS.length]).join(' ');
  const { ids } = await window.headlight.tokenize(text, { bos: 'off' });
  if (ids.length !== n_tokens) throw new Error(`the prompt has ${ids.length} tokens, not ${n_tokens}`);
  return { text, ids };
}

// Each engine gives `prefill(prompt)`, which resolves when the next token's logits are there, and `agree(prompt)`, how far its
// numbers are from Headlight's. All have one thread and no graphics device.
const engines = {
  async onnxruntime({ model, with_patterns }) {
    const dist = 'node_modules/onnxruntime-web/dist';
    const ort = await import(at(`${dist}/ort.wasm.bundle.min.mjs`));
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmPaths = { wasm: at(`${dist}/ort-wasm-simd-threaded.wasm`) };
    const options = { executionProviders: ['wasm'], graphOptimizationLevel: 'all' };
    const session = await ort.InferenceSession.create(at(model), options);
    const run = (ids, outputs) => {
      const feeds = { ids: new ort.Tensor('int64', BigInt64Array.from(ids, BigInt), [ids.length]) };
      return outputs ? session.run(feeds, outputs) : session.run(feeds);
    };
    return {
      prefill: ({ ids }) => run(ids, with_patterns ? undefined : ['logits']),
      async agree({ ids }) {
        const made = await run(ids);
        const { logits_top } = await window.headlight.run({ ids, bos: 'off', top: 50 });
        const of_logits = logits_top.map(({ id, logit }) => Math.abs(made.logits.data[id] - logit));
        const of_patterns = [];
        for (const [layer, head] of [[0, 0], [18, 6], [29, 8]]) {
          const { pattern } = await window.headlight.patterns({ ids, bos: 'off', head: `L${layer}H${head}` });
          const theirs = made[`pattern.${layer}`].data.subarray(head * ids.length ** 2);
          of_patterns.push(largest(pattern.flat().map((weight, i) => Math.abs(weight - theirs[i]))));
        }
        return { largest_difference_logits: largest(of_logits), largest_difference_patterns: largest(of_patterns) };
      },
    };
  },

  async wllama({ model, ...options }) {
    const esm = 'node_modules/@wllama/wllama/esm';
    const { Wllama } = await import(at(`${esm}/index.js`));
    const wllama = new Wllama({ default: at(`${esm}/wasm/wllama.wasm`) }, { suppressNativeLog: true });
    const file = await (await fetch(at(model))).blob();
    const one = { n_threads: 1, n_parallel: 1, n_gpu_layers: 0 };
    await wllama.loadModel([file], { n_ctx: 1024, n_batch: 512, n_ubatch: 512, ...one, ...options });
    const complete = async ({ text, ids }, more) => {
      const only_prefill = { max_tokens: 1, temperature: 0, cache_prompt: false };
      const made = await wllama.createCompletion({ prompt: text, ...only_prefill, ...more });
      // As the engine counts them: none taken from a cache, none added.
      const { prompt_n } = made.timings;
      if (prompt_n !== ids.length) throw new Error(`wllama took ${prompt_n} tokens, not ${ids.length}`);
      return made;
    };
    return {
      prefill: prompt => complete(prompt),
      async agree(prompt) {
        const made = await complete(prompt, { logprobs: 10 });
        const ours = await window.headlight.run({ ids: prompt.ids, bos: 'off', top: 1000 });
        const logprobs = new Map(ours.logits_top.map(({ id, logprob }) => [id, logprob]));
        const { top_logprobs } = made.choices[0].logprobs.content[0];
        const differences = top_logprobs.map(({ id, logprob }) => Math.abs(logprobs.get(id) - logprob));
        return { largest_difference_logprobs: largest(differences) };
      },
    };
  },
};

// Loads an engine; `measure` then compares it with the model that the page has.
export async function begin({ engine, ...options }) {
  await window.headlight.load({ model: 'smollm2-135m', backend: 'cpu' });
  const peer = await engines[engine](options);
  return {
    agree: async n_tokens => peer.agree(await prompt_of(n_tokens)),
    async measure(n_tokens, repeats) {
      const prompt = await prompt_of(n_tokens);
      // In exact f32 and in fast precision, seconds.
      const ours = async () => {
        const { prefill, prefill_fast } = await window.headlight.bench({ prefill: [n_tokens], repeats: 1 });
        return [prefill, prefill_fast].map(([{ tokens_per_s }]) => n_tokens / tokens_per_s);
      };
      const theirs = () => seconds(() => peer.prefill(prompt));
      // V8 optimises what has run a while.
      await ours();
      await theirs();
      const pairs = [];
      for (let i = 0; i < repeats; i += 1) pairs.push([...(await ours()), await theirs()]);
      const speed = way => n_tokens / median(pairs.map(pair => pair[way]));
      const ratios = way => pairs.map(pair => pair[2] / pair[way]);
      return {
        n_tokens,
        headlight_tokens_per_s: speed(0),
        headlight_fast_tokens_per_s: speed(1),
        tokens_per_s: speed(2),
        ratio: median(ratios(0)),
        ratios: ratios(0),
        fast_ratio: median(ratios(1)),
        fast_ratios: ratios(1),
      };
    },
  };
}
