// Edits of activations and of attention: what happens to which rows is data. At a neutral setting no bit changes.

struct RowEdit {
    row_len: u32,
    first_column: u32,
    n_columns: u32,
    n_rows: u32,
    // 0: times alpha; 1: replaced by a row each; 2: all replaced by one row; 3: freed of a direction, `alpha` times.
    kind: u32,
    alpha: f32,
    b_start: u32,
}

@group(0) @binding(0) var<uniform> edit: RowEdit;
// Rows that are edited.
@group(0) @binding(1) var<storage, read> rows: array<u32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> x: array<f32>;

// A row a workgroup.
@compute @workgroup_size(64)
fn edit_rows(@builtin(workgroup_id) row: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let start = rows[row.x] * edit.row_len + edit.first_column;
    // The row times the direction, and the direction times itself.
    var dot = vec2<f32>();
    if edit.kind == 3u {
        for (var i = lane; i < edit.n_columns; i += 64u) {
            let d = b[edit.b_start + i];
            dot = fma(vec2<f32>(x[start + i], d), vec2<f32>(d), dot);
        }
    }
    dot = sum_of_lanes(lane, 64u, dot);
    let factor = edit.alpha * dot.x / dot.y;
    for (var i = lane; i < edit.n_columns; i += 64u) {
        switch edit.kind {
            case 0u: {
                // Zero is zero, whatever was there.
                x[start + i] = select(x[start + i] * edit.alpha, 0.0, edit.alpha == 0.0);
            }
            case 1u: {
                x[start + i] = b[edit.b_start + row.x * edit.n_columns + i];
            }
            case 2u: {
                x[start + i] = b[edit.b_start + i];
            }
            default: {
                x[start + i] -= factor * b[edit.b_start + i];
            }
        }
    }
}

struct AttentionEdit {
    n_tokens: u32,
    // Where the head's rows begin.
    start: u32,
    first_query: u32,
    // 0: divided; 1: towards own position; 2: towards every position alike; 3: towards the first; 4: towards the one before;
    // 5: replaced by rows of `b`.
    kind: u32,
    number: f32,
}

@group(0) @binding(0) var<uniform> attention: AttentionEdit;

// A query a workgroup; `rows` are queries of the block.
@compute @workgroup_size(64)
fn edit_attention(@builtin(workgroup_id) row: vec3<u32>, @builtin(local_invocation_id) at: vec3<u32>) {
    let query = attention.first_query + rows[row.x];
    let start = attention.start + rows[row.x] * attention.n_tokens;
    for (var key = at.x; key < attention.n_tokens; key += 64u) {
        if attention.kind == 5u {
            x[start + key] = b[row.x * attention.n_tokens + key];
        } else if key <= query {
            if attention.kind == 0u {
                x[start + key] /= attention.number;
            } else {
                var wanted = 0.0;
                switch attention.kind {
                    case 1u: {
                        wanted = f32(key == query);
                    }
                    case 2u: {
                        wanted = 1.0 / f32(query + 1u);
                    }
                    case 3u: {
                        wanted = f32(key == 0u);
                    }
                    default: {
                        wanted = f32(key + 1u == query || (query == 0u && key == 0u));
                    }
                }
                x[start + key] = (1.0 - attention.number) * x[start + key] + attention.number * wanted;
            }
        }
    }
}

struct Fill {
    n: u32,
    bits: u32,
}

@group(0) @binding(0) var<uniform> fill: Fill;
@group(0) @binding(2) var<storage, read_write> filled: array<f32>;

// Puts one number, given by its bits, at some places.
@compute @workgroup_size(64)
fn fill_at(@builtin(global_invocation_id) at: vec3<u32>) {
    if at.x < fill.n {
        filled[rows[at.x]] = bitcast<f32>(fill.bits);
    }
}
