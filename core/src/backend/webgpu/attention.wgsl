// Causal attention in its steps, over a block of queries: scores, softmax, mixing, and the sums that detectors read. Weights
// lie as `[lane, head, query, key_pos]`.

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

// Four values from one on, those beyond the first `n` 0.
fn four_of_a(start: u32, n: u32) -> vec4<f32> {
    var value = vec4<f32>();
    if n >= 4u {
        value = vec4<f32>(a[start], a[start + 1u], a[start + 2u], a[start + 3u]);
    } else {
        if n > 0u {
            value.x = a[start];
        }
        if n > 1u {
            value.y = a[start + 1u];
        }
        if n > 2u {
            value.z = a[start + 2u];
        }
    }
    return value;
}

fn four_of_b(start: u32, step: u32, n: u32) -> vec4<f32> {
    var value = vec4<f32>();
    if n > 0u {
        value.x = b[start];
    }
    if n > 1u {
        value.y = b[start + step];
    }
    if n > 2u {
        value.z = b[start + 2u * step];
    }
    if n > 3u {
        value.w = b[start + 3u * step];
    }
    return value;
}

// `most - least`, or 0 where that is less.
fn left(most: u32, least: u32) -> u32 {
    return most - min(most, least);
}

fn store_score(head: u32, query: u32, key: u32, sum: f32) {
    if query < block.n_queries && key < block.n_tokens {
        var score = sum / sqrt(f32(block.d_head));
        if key > block.first_query + query {
            score = bitcast<f32>(block.minus_infinity);
        }
        out2[(head * block.n_queries + query) * block.n_tokens + key] = score;
    }
}

fn store_scores(head: u32, query: u32, key: u32, sums: vec4<f32>) {
    store_score(head, query, key, sums.x);
    store_score(head, query, key + 16u, sums.y);
    store_score(head, query, key + 32u, sums.z);
    store_score(head, query, key + 48u, sums.w);
}

// `q·k / sqrt(d_head)`: a small tile of queries by keys of a head a workgroup.
@compute @workgroup_size(16, 8)
fn attn_scores(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) at: vec3<u32>) {
    let lane = group.z / block.n_heads;
    let head = group.z % block.n_heads;
    let kv_head = head / (block.n_heads / block.n_kv_heads);
    let first_query = group.y * 32u;
    let first_key = group.x * 64u;
    let thread = at.y * 16u + at.x;
    let first_row = lane * (block.n_tokens - block.n_past) + block.first_query - block.n_past;
    // Position of the tile's last query: tiles of later keys alone need no product.
    let last = block.first_query + min(first_query + 31u, block.n_queries - 1u);
    var sums = mat4x4<f32>();
    if first_key <= last {
        for (var first = 0u; first < block.d_head; first += 32u) {
            let i = first + thread % SMALL_DEPTH * 4u;
            for (var row = thread / SMALL_DEPTH; row < 32u; row += 16u) {
                let query = first_query + row;
                let start = block.a_start + ((first_row + query) * block.n_heads + head) * block.d_head + i;
                let n = select(0u, left(block.d_head, i), query < block.n_queries);
                tile[row * SMALL_STRIDE + thread % SMALL_DEPTH] = four_of_a(start, n);
            }
            for (var row = thread / SMALL_DEPTH; row < 64u; row += 16u) {
                let key = first_key + row;
                let key_row = lane * block.n_tokens + key;
                let start = block.b_start + (key_row * block.n_kv_heads + kv_head) * block.d_head + i;
                let n = select(0u, left(block.d_head, i), key < block.n_tokens);
                tile[SMALL_SECOND + row * SMALL_STRIDE + thread % SMALL_DEPTH] = four_of_b(start, 1u, n);
            }
            workgroupBarrier();
            sums = add_small_tile(at.xy, sums);
            workgroupBarrier();
        }
    }
    let query = first_query + at.y;
    store_scores(group.z, query, first_key + at.x, sums[0]);
    store_scores(group.z, query + 8u, first_key + at.x, sums[1]);
    store_scores(group.z, query + 16u, first_key + at.x, sums[2]);
    store_scores(group.z, query + 24u, first_key + at.x, sums[3]);
}

fn store_mixed(lane: u32, head: u32, query: u32, i: u32, sums: vec4<f32>) {
    if query >= block.n_queries {
        return;
    }
    let start = ((lane * block.n_queries + query) * block.n_heads + head) * block.d_head;
    if i < block.d_head {
        out2[start + i] = sums.x;
    }
    if i + 16u < block.d_head {
        out2[start + i + 16u] = sums.y;
    }
    if i + 32u < block.d_head {
        out2[start + i + 32u] = sums.z;
    }
    if i + 48u < block.d_head {
        out2[start + i + 48u] = sums.w;
    }
}

// `Σ_key pattern·v`: a small tile of queries by dimensions of a head a workgroup.
@compute @workgroup_size(16, 8)
fn mix_values(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) at: vec3<u32>) {
    let lane = group.z / block.n_heads;
    let head = group.z % block.n_heads;
    let kv_head = head / (block.n_heads / block.n_kv_heads);
    let first_query = group.y * 32u;
    let thread = at.y * 16u + at.x;
    let i = group.x * 64u + thread % 64u;
    let step = block.n_kv_heads * block.d_head;
    let n_keys = block.first_query + min(first_query + 32u, block.n_queries);
    var sums = mat4x4<f32>();
    for (var first = 0u; first < n_keys; first += 32u) {
        let key = first + thread % SMALL_DEPTH * 4u;
        for (var row = thread / SMALL_DEPTH; row < 32u; row += 16u) {
            let query = first_query + row;
            let start = block.a_start + (group.z * block.n_queries + query) * block.n_tokens + key;
            let n = select(0u, left(n_keys, key), query < block.n_queries);
            tile[row * SMALL_STRIDE + thread % SMALL_DEPTH] = four_of_a(start, n);
        }
        // Four keys of a dimension.
        for (var k = thread / 64u; k < SMALL_DEPTH; k += 2u) {
            let key = first + k * 4u;
            let start = block.b_start + (lane * block.n_tokens + key) * step + kv_head * block.d_head + i;
            let n = select(0u, left(n_keys, key), i < block.d_head);
            tile[SMALL_SECOND + thread % 64u * SMALL_STRIDE + k] = four_of_b(start, step, n);
        }
        workgroupBarrier();
        sums = add_small_tile(at.xy, sums);
        workgroupBarrier();
    }
    let query = first_query + at.y;
    let first_i = group.x * 64u + at.x;
    store_mixed(lane, head, query, first_i, sums[0]);
    store_mixed(lane, head, query + 8u, first_i, sums[1]);
    store_mixed(lane, head, query + 16u, first_i, sums[2]);
    store_mixed(lane, head, query + 24u, first_i, sums[3]);
}

@group(0) @binding(2) var<storage, read_write> out1: array<f32>;

// Below it a score is a masked one: its weight is 0 by definition, not by arithmetic with infinities.
const MASKED: f32 = -3.0e38;

// A row a workgroup; keys after the query get 0.
@compute @workgroup_size(64)
fn softmax(@builtin(workgroup_id) row: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let start = (row.y * block.n_queries + row.x) * block.n_tokens;
    let n_keys = block.first_query + row.x + 1u;
    var most = MASKED;
    for (var key = lane; key < n_keys; key += 64u) {
        most = max(most, a[block.a_start + start + key]);
    }
    most = max_of_lanes(lane, 64u, vec2<f32>(most)).x;
    var sum = 0.0;
    for (var key = lane; key < n_keys; key += 64u) {
        let score = a[block.a_start + start + key];
        var weight = 0.0;
        if !(score <= MASKED) {
            weight = exp(score - most);
        }
        out1[start + key] = weight;
        sum += weight;
    }
    let scale = 1.0 / sum_of_lanes(lane, 64u, vec2<f32>(sum)).x;
    for (var key = lane; key < block.n_tokens; key += 64u) {
        if key < n_keys {
            out1[start + key] *= scale;
        } else {
            out1[start + key] = 0.0;
        }
    }
}

// `-Σ p ln p` of each row, a row a workgroup.
@compute @workgroup_size(64)
fn entropies(@builtin(workgroup_id) row: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let out = row.y * block.n_queries + row.x;
    let start = block.a_start + out * block.n_tokens;
    var sum = 0.0;
    for (var key = lane; key < block.first_query + row.x + 1u; key += 64u) {
        let p = a[start + key];
        if p > 0.0 {
            sum -= p * log(p);
        }
    }
    let total = sum_of_lanes(lane, 64u, vec2<f32>(sum)).x;
    if lane == 0u {
        out1[out] = total;
    }
}

// For each head the sum over a block's rows, of one number each.
@compute @workgroup_size(64)
fn sum_of_rows(@builtin(workgroup_id) head: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var row = lane; row < block.n_queries; row += 64u) {
        sum += a[block.a_start + head.x * block.n_queries + row];
    }
    let total = sum_of_lanes(lane, 64u, vec2<f32>(sum)).x;
    if lane == 0u {
        out1[head.x] = total;
    }
}

// For each head the key with the largest weight in one row, the first among equals, as a number.
@compute @workgroup_size(64)
fn argmax_keys(@builtin(workgroup_id) head: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let start = block.a_start + (head.x * block.n_queries + block.extra) * block.n_tokens;
    var best = 0u;
    var most = MASKED;
    for (var key = lane; key < block.n_tokens; key += 64u) {
        let weight = a[start + key];
        if weight > most {
            most = weight;
            best = key;
        }
    }
    lanes[lane] = vec2<f32>(most, f32(best));
    workgroupBarrier();
    for (var n = 32u; n > 0u; n /= 2u) {
        if lane < n {
            let own = lanes[lane];
            let other = lanes[lane + n];
            if other.x > own.x || (other.x == own.x && other.y < own.y) {
                lanes[lane] = other;
            }
        }
        workgroupBarrier();
    }
    if lane == 0u {
        out1[head.x] = lanes[0].y;
    }
}

// Cells of a block that a target names, `query in the block * n_tokens + key`.
@group(0) @binding(2) var<storage, read> cells: array<u32>;

// For each head the weight on the target's cells.
@compute @workgroup_size(64)
fn target_mass(@builtin(workgroup_id) head: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let start = block.a_start + head.x * block.n_queries * block.n_tokens;
    var sum = 0.0;
    for (var i = lane; i < block.extra; i += 64u) {
        sum += a[start + cells[i]];
    }
    let total = sum_of_lanes(lane, 64u, vec2<f32>(sum)).x;
    if lane == 0u {
        out2[head.x] = total;
    }
}
