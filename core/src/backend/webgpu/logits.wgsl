// What a metric reads off rows of logits, so that no logit has to leave the device.

struct Ask {
    d_vocab: u32,
    // 0: log-probability of a token; 1: its logit; 2: its logit minus another's; 3: KL of a clean row's distribution to this one's.
    kind: u32,
    a_start: u32,
    b_start: u32,
    versus: u32,
}

@group(0) @binding(0) var<uniform> ask: Ask;
// The rows.
@group(0) @binding(1) var<storage, read> a: array<f32>;
// Clean rows, where they are asked for.
@group(0) @binding(2) var<storage, read> b: array<f32>;
// For each row its token, or its clean row.
@group(0) @binding(3) var<storage, read> asked: array<u32>;
@group(0) @binding(4) var<storage, read_write> out3: array<f32>;

// `exp(-x) - 1 + x`, also where that is a difference of nearly equal numbers.
fn excess(x: f32) -> f32 {
    if abs(x) < 0.25 {
        return x * x * (0.5 - x * (1.0 / 6.0 - x * (1.0 / 24.0 - x * (1.0 / 120.0 - x / 720.0))));
    }
    return exp(-x) - 1.0 + x;
}

// A row a workgroup.
@compute @workgroup_size(256)
fn read_logits(@builtin(workgroup_id) row: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let start = ask.a_start + row.x * ask.d_vocab;
    let asks = asked[row.x];
    if ask.kind == 1u || ask.kind == 2u {
        if lane == 0u {
            out3[row.x] = a[start + asks];
            if ask.kind == 2u {
                out3[row.x] -= a[start + ask.versus];
            }
        }
        return;
    }
    let is_kl = ask.kind == 3u;
    let clean = ask.b_start + select(0u, asks * ask.d_vocab, is_kl);
    var most = vec2<f32>(-3.0e38);
    for (var i = lane; i < ask.d_vocab; i += 256u) {
        var logits = vec2<f32>(a[start + i]);
        if is_kl {
            logits.y = b[clean + i];
        }
        most = max(most, logits);
    }
    most = max_of_lanes(lane, 256u, most);
    var sum = vec2<f32>();
    for (var i = lane; i < ask.d_vocab; i += 256u) {
        var logits = vec2<f32>(a[start + i]);
        if is_kl {
            logits.y = b[clean + i];
        }
        sum += exp(logits - most);
    }
    let log_sum = log(sum_of_lanes(lane, 256u, sum));
    if !is_kl {
        if lane == 0u {
            out3[row.x] = (a[start + asks] - most.x) - log_sum.x;
        }
        return;
    }
    // `Σ p (x + exp(-x) - 1)` with `x = ln p - ln q`: what is added to `p x` sums to 0, and no term is negative.
    var kl = 0.0;
    for (var i = lane; i < ask.d_vocab; i += 256u) {
        let logprob = (vec2<f32>(a[start + i], b[clean + i]) - most) - log_sum;
        kl += exp(logprob.y) * excess(logprob.y - logprob.x);
    }
    let total = sum_of_lanes(lane, 256u, vec2<f32>(kl, 0.0));
    if lane == 0u {
        out3[row.x] = total.x;
    }
}
