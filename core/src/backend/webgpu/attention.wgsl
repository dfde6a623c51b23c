// Causal attention in its steps, over a block of queries: scores, softmax, mixing, and the sums that detectors read. Weights
// lie as `[head, query, key_pos]`.

struct Block {
    n_heads: u32,
    n_kv_heads: u32,
    d_head: u32,
    n_past: u32,
    n_tokens: u32,
    // The block's queries, by position.
    first_query: u32,
    n_queries: u32,
    a_start: u32,
    b_start: u32,
    // Bits of what a number that a formula cannot name stands for: minus infinity.
    minus_infinity: u32,
    // Of a reduction: values, or the row that is asked for.
    extra: u32,
}

@group(0) @binding(0) var<uniform> block: Block;
@group(0) @binding(1) var<storage, read> a: array<f32>;

@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> out2: array<f32>;

var<workgroup> a_tile: array<f32, 272>;
var<workgroup> b_tile: array<f32, 272>;

// `q·k / sqrt(d_head)`: a tile of 16 queries and 16 keys of a head a workgroup.
@compute @workgroup_size(16, 16)
fn attn_scores(@builtin(workgroup_id) tile: vec3<u32>, @builtin(local_invocation_id) at: vec3<u32>) {
    let head = tile.z;
    let kv_head = head / (block.n_heads / block.n_kv_heads);
    let query = tile.y * 16u + at.y;
    let key = tile.x * 16u + at.x;
    let key_row = tile.x * 16u + at.y;
    // Position of the tile's last query: tiles of later keys alone need no product.
    let last = block.first_query + min(tile.y * 16u + 15u, block.n_queries - 1u);
    var sum = 0.0;
    if tile.x * 16u <= last {
        for (var first = 0u; first < block.d_head; first += 16u) {
            let i = first + at.x;
            var q = 0.0;
            var k = 0.0;
            if i < block.d_head && query < block.n_queries {
                let row = block.first_query + query - block.n_past;
                q = a[block.a_start + (row * block.n_heads + head) * block.d_head + i];
            }
            if i < block.d_head && key_row < block.n_tokens {
                k = b[block.b_start + (key_row * block.n_kv_heads + kv_head) * block.d_head + i];
            }
            a_tile[at.y * 17u + at.x] = q;
            b_tile[at.y * 17u + at.x] = k;
            workgroupBarrier();
            for (var j = 0u; j < 16u; j++) {
                sum = fma(a_tile[at.y * 17u + j], b_tile[at.x * 17u + j], sum);
            }
            workgroupBarrier();
        }
    }
    if query < block.n_queries && key < block.n_tokens {
        var score = sum / sqrt(f32(block.d_head));
        if key > block.first_query + query {
            score = bitcast<f32>(block.minus_infinity);
        }
        out2[(head * block.n_queries + query) * block.n_tokens + key] = score;
    }
}

// `Σ_key pattern·v`: a tile of 16 queries and 16 dimensions of a head a workgroup.
@compute @workgroup_size(16, 16)
fn mix_values(@builtin(workgroup_id) tile: vec3<u32>, @builtin(local_invocation_id) at: vec3<u32>) {
    let head = tile.z;
    let kv_head = head / (block.n_heads / block.n_kv_heads);
    let query = tile.y * 16u + at.y;
    let i = tile.x * 16u + at.x;
    let n_keys = block.first_query + min(tile.y * 16u + 16u, block.n_queries);
    var sum = 0.0;
    for (var first = 0u; first < n_keys; first += 16u) {
        var p = 0.0;
        var v = 0.0;
        if first + at.x < n_keys && query < block.n_queries {
            p = a[block.a_start + (head * block.n_queries + query) * block.n_tokens + first + at.x];
        }
        if first + at.y < n_keys && i < block.d_head {
            v = b[block.b_start + ((first + at.y) * block.n_kv_heads + kv_head) * block.d_head + i];
        }
        a_tile[at.y * 17u + at.x] = p;
        b_tile[at.y * 17u + at.x] = v;
        workgroupBarrier();
        for (var j = 0u; j < 16u; j++) {
            sum = fma(a_tile[at.y * 17u + j], b_tile[j * 17u + at.x], sum);
        }
        workgroupBarrier();
    }
    if query < block.n_queries && i < block.d_head {
        out2[(query * block.n_heads + head) * block.d_head + i] = sum;
    }
}

@group(0) @binding(2) var<storage, read_write> out1: array<f32>;

var<workgroup> lanes: array<f32, 64>;

fn sum_of_lanes(lane: u32, value: f32) -> f32 {
    lanes[lane] = value;
    workgroupBarrier();
    for (var n = 32u; n > 0u; n /= 2u) {
        if lane < n {
            lanes[lane] += lanes[lane + n];
        }
        workgroupBarrier();
    }
    let sum = lanes[0];
    workgroupBarrier();
    return sum;
}

fn max_of_lanes(lane: u32, value: f32) -> f32 {
    lanes[lane] = value;
    workgroupBarrier();
    for (var n = 32u; n > 0u; n /= 2u) {
        if lane < n {
            lanes[lane] = max(lanes[lane], lanes[lane + n]);
        }
        workgroupBarrier();
    }
    let most = lanes[0];
    workgroupBarrier();
    return most;
}

// Below it a score is a masked one: its weight is 0 by definition, not by arithmetic with infinities.
const MASKED: f32 = -3.0e38;

// A row a workgroup; keys after the query get 0.
@compute @workgroup_size(64)
fn softmax(@builtin(workgroup_id) row: vec3<u32>, @builtin(local_invocation_id) at: vec3<u32>) {
    let start = (row.y * block.n_queries + row.x) * block.n_tokens;
    let n_keys = block.first_query + row.x + 1u;
    var most = MASKED;
    for (var key = at.x; key < n_keys; key += 64u) {
        most = max(most, a[block.a_start + start + key]);
    }
    most = max_of_lanes(at.x, most);
    var sum = 0.0;
    for (var key = at.x; key < n_keys; key += 64u) {
        let score = a[block.a_start + start + key];
        var weight = 0.0;
        if !(score <= MASKED) {
            weight = exp(score - most);
        }
        out1[start + key] = weight;
        sum += weight;
    }
    let scale = 1.0 / sum_of_lanes(at.x, sum);
    for (var key = at.x; key < block.n_tokens; key += 64u) {
        if key < n_keys {
            out1[start + key] *= scale;
        } else {
            out1[start + key] = 0.0;
        }
    }
}

// For each head `-Σ p ln p` over the block.
@compute @workgroup_size(64)
fn entropy_sum(@builtin(workgroup_id) head: vec3<u32>, @builtin(local_invocation_id) at: vec3<u32>) {
    let n = block.n_queries * block.n_tokens;
    var sum = 0.0;
    for (var i = at.x; i < n; i += 64u) {
        let p = a[block.a_start + head.x * n + i];
        if p > 0.0 {
            sum -= p * log(p);
        }
    }
    let total = sum_of_lanes(at.x, sum);
    if at.x == 0u {
        out1[head.x] = total;
    }
}

var<workgroup> keys: array<u32, 64>;

// For each head the key with the largest weight in one row, the first among equals, as a number.
@compute @workgroup_size(64)
fn argmax_keys(@builtin(workgroup_id) head: vec3<u32>, @builtin(local_invocation_id) at: vec3<u32>) {
    let start = block.a_start + (head.x * block.n_queries + block.extra) * block.n_tokens;
    var best = 0u;
    var most = MASKED;
    for (var key = at.x; key < block.n_tokens; key += 64u) {
        let weight = a[start + key];
        if weight > most {
            most = weight;
            best = key;
        }
    }
    lanes[at.x] = most;
    keys[at.x] = best;
    workgroupBarrier();
    for (var n = 32u; n > 0u; n /= 2u) {
        if at.x < n {
            let other = lanes[at.x + n];
            let is_first = other == lanes[at.x] && keys[at.x + n] < keys[at.x];
            if other > lanes[at.x] || is_first {
                lanes[at.x] = other;
                keys[at.x] = keys[at.x + n];
            }
        }
        workgroupBarrier();
    }
    if at.x == 0u {
        out1[head.x] = f32(keys[0]);
    }
}

// Cells of a block that a target names, `query in the block * n_tokens + key`.
@group(0) @binding(2) var<storage, read> cells: array<u32>;

// For each head the weight on the target's cells.
@compute @workgroup_size(64)
fn target_mass(@builtin(workgroup_id) head: vec3<u32>, @builtin(local_invocation_id) at: vec3<u32>) {
    let start = block.a_start + head.x * block.n_queries * block.n_tokens;
    var sum = 0.0;
    for (var i = at.x; i < block.extra; i += 64u) {
        sum += a[start + cells[i]];
    }
    let total = sum_of_lanes(at.x, sum);
    if at.x == 0u {
        out2[head.x] = total;
    }
}
