// What edits cost on the page with the model that is loaded: from the gesture that switches one head of the middle layer off to the new
// numbers of the next token, and two sweeps over every head, each in seconds and in clean forward passes of 64 tokens.
(async () => {
  const N_TOKENS = 64, N_CLICKS = 4;
  const at = id => document.querySelector(`[data-testid="${id}"]`);
  const until = holds => new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`never came: ${holds}`)), 60000);
    const observer = new MutationObserver(() => look());
    const look = () => { if (holds()) { clearTimeout(late); observer.disconnect(); resolve(); } };
    observer.observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
    look();
  });
  const seconds = async work => {
    const start = performance.now();
    await work();
    return (performance.now() - start) / 1000;
  };
  const median = values => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];

  const pause = ms => new Promise(resolve => setTimeout(resolve, ms));

  let text = 'time', ids = [];
  while (ids.length < N_TOKENS) ({ ids } = await window.headlight.tokenize(text += ' time', {}));
  if (ids.length !== N_TOKENS) throw new Error(`the prompt has ${ids.length} tokens`);
  const { prefill } = await window.headlight.bench({ prefill: [N_TOKENS], repeats: 5 });
  const forward_s = N_TOKENS / prefill[0].tokens_per_s;
  const cost = seconds => ({ seconds, forwards: seconds / forward_s });

  at('prompt').value = text;
  at('prompt').dispatchEvent(new Event('input', { bubbles: true }));
  await until(() => at('token-count').textContent.startsWith(`${N_TOKENS} of`));
  const cells = [...document.querySelectorAll('[data-testid^="head-L"]')].map(cell => cell.dataset.testid);
  const n_layers = new Set(cells.map(cell => /head-L(\d+)H/.exec(cell)[1])).size;
  const of_middle = cells.filter(cell => cell.startsWith(`head-L${Math.floor(n_layers / 2)}H`));
  const clicks = [], passes = [];
  for (const cell of of_middle.slice(0, N_CLICKS)) {
    // What follows a view (its effects along the prompt, a detector's scores) would share the worker with the next one.
    await pause(2000);
    clicks.push(await seconds(async () => {
      at(cell).dispatchEvent(new MouseEvent('click', { bubbles: true, shiftKey: true }));
      await until(() => at('kl-nats'));
    }));
    // The worker's own time, without the way there and back and the drawing.
    passes.push(Number(/· (\d+) ms/.exec(at('token-count').textContent)?.[1] ?? 0) / 1000);
    await until(() => at('along'));
    at('ablations-clear').click();
    await until(() => !at('kl-nats'));
  }
  const sweep = (edit_positions, n_workers) =>
    window.headlight.sweep({ ids, edit: { kind: 'zero' }, edit_positions, metric: 'logprob', n_workers });
  const alone = await seconds(() => sweep(null, 1));
  // Worth it only where a sweep takes longer than another worker needs to load the model.
  const shared = forward_s > 0.1 ? await seconds(() => sweep(null, 2)) : null;
  return {
    n_tokens: N_TOKENS,
    forward_s,
    click_to_next_token: cost(median(clicks)),
    click_in_the_worker: cost(median(passes)),
    sweep_all_positions: cost(alone),
    // The second worker's loading included; the machine should have two cores to spare.
    sweep_all_positions_two_workers: shared && { ...cost(shared), speedup: alone / shared },
    sweep_last_position: cost(await seconds(() => sweep([N_TOKENS - 1], 1))),
  };
})()
