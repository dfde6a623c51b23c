// Kernels that treat each row or value alone: norm, sums, the gated nonlinearity, rotary embedding, means over rows.

struct Values {
    n: u32,
    // Threads of a row of workgroups, where one dimension does not hold them all.
    n_across: u32,
    a_start: u32,
    b_start: u32,
}

@group(0) @binding(0) var<uniform> values: Values;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> out2: array<f32>;

@compute @workgroup_size(256)
fn add(@builtin(global_invocation_id) at: vec3<u32>) {
    let i = at.y * values.n_across + at.x;
    if i < values.n {
        out2[i] = a[values.a_start + i] + b[values.b_start + i];
    }
}

@compute @workgroup_size(256)
fn subtract(@builtin(global_invocation_id) at: vec3<u32>) {
    let i = at.y * values.n_across + at.x;
    if i < values.n {
        out2[i] = a[values.a_start + i] - b[values.b_start + i];
    }
}

// `silu(gate) * linear`.
@compute @workgroup_size(256)
fn swiglu(@builtin(global_invocation_id) at: vec3<u32>) {
    let i = at.y * values.n_across + at.x;
    if i < values.n {
        let gate = a[values.a_start + i];
        // From -88 on the exponential is not finite, and the quotient 0 to f32's precision.
        let silu = select(gate / (1.0 + exp(-gate)), 0.0, gate < -88.0);
        out2[i] = silu * b[values.b_start + i];
    }
}

struct Rows {
    row_len: u32,
    a_start: u32,
    b_start: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> rows: Rows;

// `x / sqrt(mean(x²) + eps) * gain`, a row a workgroup.
@compute @workgroup_size(64)
fn rms_norm(@builtin(workgroup_id) row: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let start = row.x * rows.row_len;
    var sum = 0.0;
    for (var i = lane; i < rows.row_len; i += 64u) {
        let value = a[rows.a_start + start + i];
        sum = fma(value, value, sum);
    }
    let scale = 1.0 / sqrt(sum_of_lanes(lane, 64u, vec2<f32>(sum)).x / f32(rows.row_len) + rows.eps);
    for (var i = lane; i < rows.row_len; i += 64u) {
        out2[start + i] = a[rows.a_start + start + i] * scale * b[rows.b_start + i];
    }
}

struct Turn {
    n_pairs: u32,
    n_heads: u32,
    d_head: u32,
    // Positions of each lane.
    first_position: u32,
    n_positions: u32,
    x_start: u32,
    n_across: u32,
}

@group(0) @binding(0) var<uniform> turn: Turn;

// Turns dimension `i` with `i + d_head/2` by the angle whose cosine and sine `b` has, `[pos, i, 2]`; rows are `[lane, pos, head]`.
@compute @workgroup_size(256)
fn rope(@builtin(global_invocation_id) at: vec3<u32>) {
    let pair = at.y * turn.n_across + at.x;
    if pair >= turn.n_pairs {
        return;
    }
    let half = turn.d_head / 2u;
    let i = pair % half;
    let head = pair / half;
    let position = turn.first_position + head / turn.n_heads % turn.n_positions;
    let cosine = b[(position * half + i) * 2u];
    let sine = b[(position * half + i) * 2u + 1u];
    let first = head * turn.d_head + i;
    let x = a[turn.x_start + first];
    let y = a[turn.x_start + first + half];
    out2[first] = x * cosine - y * sine;
    out2[first + half] = y * cosine + x * sine;
}

struct Mean {
    row_len: u32,
    first_row: u32,
    n_rows: u32,
    first_column: u32,
    n_columns: u32,
    a_start: u32,
}

@group(0) @binding(0) var<uniform> mean: Mean;
@group(0) @binding(2) var<storage, read_write> out1: array<f32>;

// Mean over rows of some columns, a column a thread.
@compute @workgroup_size(64)
fn mean_of_rows(@builtin(global_invocation_id) at: vec3<u32>) {
    if at.x >= mean.n_columns {
        return;
    }
    var sum = 0.0;
    for (var row = mean.first_row; row < mean.first_row + mean.n_rows; row++) {
        sum += a[mean.a_start + row * mean.row_len + mean.first_column + at.x];
    }
    out1[at.x] = sum / f32(mean.n_rows);
}
