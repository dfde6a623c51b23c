// `y[r, o] = Σ_i x[r, i] w[o, i]`, and rows of `w` as they are; `w` as f32 or in blocks of 4 or 8 bits.
//
// A workgroup makes a tile of 64 rows (16, where there are few) and 64 outputs: 16 inputs at a time stand in workgroup memory,
// where every value serves 64 sums. A thread has 4 x 4 of these, 16 apart, so that neighbours read and write neighbouring values.

struct Product {
    n_rows: u32,
    n_in: u32,
    // Outputs of this part of the matrix, and where they begin among all outputs.
    n_out: u32,
    first_out: u32,
    y_row_len: u32,
    x_start: u32,
    // What a code stands for: `(code - zero) * scale + minimum`.
    zero: f32,
}

// How weights are stored: 0 as f32, 4 or 8 in blocks of 32 with so many words of codes.
override N_WORDS: u32 = 0u;
// Whether there are 16 rows at most: the tile then has as many.
override FEW: bool = false;

@group(0) @binding(0) var<uniform> product: Product;
@group(0) @binding(1) var<storage, read> x: array<f32>;
// f32 by their bits, or blocks: scale and minimum, by their bits, then codes.
@group(0) @binding(2) var<storage, read> w: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

const TILE: u32 = 64u;
const DEPTH: u32 = 16u;
// A row of a tile with one value more, so that a column lies in different banks.
const STRIDE: u32 = 65u;

var<workgroup> x_tile: array<f32, 1040>;
var<workgroup> w_tile: array<f32, 1040>;

fn load_x(first_row: u32, first_in: u32, n_rows: u32, thread: u32) {
    let input = thread % DEPTH;
    for (var row = thread / DEPTH; row < n_rows; row += 16u) {
        var value = 0.0;
        if first_row + row < product.n_rows && first_in + input < product.n_in {
            value = x[product.x_start + (first_row + row) * product.n_in + first_in + input];
        }
        x_tile[input * STRIDE + row] = value;
    }
}

fn load_f32(first_out: u32, first_in: u32, thread: u32) {
    let input = thread % DEPTH;
    for (var row = thread / DEPTH; row < TILE; row += 16u) {
        var value = 0.0;
        if first_out + row < product.n_out && first_in + input < product.n_in {
            value = bitcast<f32>(w[(first_out + row) * product.n_in + first_in + input]);
        }
        w_tile[input * STRIDE + row] = value;
    }
}

// Half a block of each of 64 rows, a word a thread: 4 codes.
fn load_blocks(first_out: u32, first_in: u32, thread: u32) {
    let row = thread / 4u;
    let word = thread % 4u;
    let half = (first_in / DEPTH) % 2u;
    var scale = 0.0;
    var minimum = 0.0;
    var codes = 0u;
    if first_out + row < product.n_out && first_in < product.n_in {
        let start = ((first_out + row) * (product.n_in / 32u) + first_in / 32u) * (2u + N_WORDS);
        scale = bitcast<f32>(w[start]);
        minimum = bitcast<f32>(w[start + 1u]);
        if N_WORDS == 4u {
            codes = (w[start + 2u + word] >> (4u * half)) & 0x0f0f0f0fu;
        } else {
            codes = w[start + 2u + half * 4u + word];
        }
    }
    let at = word * 4u * STRIDE + row;
    w_tile[at] = (f32(codes & 255u) - product.zero) * scale + minimum;
    w_tile[at + STRIDE] = (f32((codes >> 8u) & 255u) - product.zero) * scale + minimum;
    w_tile[at + 2u * STRIDE] = (f32((codes >> 16u) & 255u) - product.zero) * scale + minimum;
    w_tile[at + 3u * STRIDE] = (f32(codes >> 24u) - product.zero) * scale + minimum;
}

fn store(row: u32, first_out: u32, column: u32, sums: vec4<f32>) {
    if row >= product.n_rows {
        return;
    }
    let start = row * product.y_row_len + product.first_out + first_out + column;
    let left = product.n_out - min(product.n_out, first_out + column);
    if left > 0u {
        y[start] = sums.x;
    }
    if left > 16u {
        y[start + 16u] = sums.y;
    }
    if left > 32u {
        y[start + 32u] = sums.z;
    }
    if left > 48u {
        y[start + 48u] = sums.w;
    }
}

@compute @workgroup_size(16, 16)
fn matmul(@builtin(workgroup_id) tile: vec3<u32>, @builtin(local_invocation_id) at: vec3<u32>) {
    let thread = at.y * 16u + at.x;
    let n_rows = select(TILE, 16u, FEW);
    let first_row = tile.y * n_rows;
    let first_out = tile.x * TILE;
    var sums_0 = vec4<f32>();
    var sums_1 = vec4<f32>();
    var sums_2 = vec4<f32>();
    var sums_3 = vec4<f32>();
    for (var first = 0u; first < product.n_in; first += DEPTH) {
        load_x(first_row, first, n_rows, thread);
        if N_WORDS == 0u {
            load_f32(first_out, first, thread);
        } else {
            load_blocks(first_out, first, thread);
        }
        workgroupBarrier();
        for (var k = 0u; k < DEPTH * STRIDE; k += STRIDE) {
            let b = vec4<f32>(w_tile[k + at.x], w_tile[k + at.x + 16u], w_tile[k + at.x + 32u], w_tile[k + at.x + 48u]);
            sums_0 = fma(vec4<f32>(x_tile[k + at.y]), b, sums_0);
            if !FEW {
                sums_1 = fma(vec4<f32>(x_tile[k + at.y + 16u]), b, sums_1);
                sums_2 = fma(vec4<f32>(x_tile[k + at.y + 32u]), b, sums_2);
                sums_3 = fma(vec4<f32>(x_tile[k + at.y + 48u]), b, sums_3);
            }
        }
        workgroupBarrier();
    }
    store(first_row + at.y, first_out, at.x, sums_0);
    if !FEW {
        store(first_row + at.y + 16u, first_out, at.x, sums_1);
        store(first_row + at.y + 32u, first_out, at.x, sums_2);
        store(first_row + at.y + 48u, first_out, at.x, sums_3);
    }
}

struct Rows {
    n_in: u32,
    // Rows of this part of the matrix.
    first_row: u32,
    n_rows: u32,
    zero: f32,
}

@group(0) @binding(0) var<uniform> rows: Rows;
@group(0) @binding(1) var<storage, read> ids: array<u32>;

// Rows of `w` by number: a value a thread, a row of `y` a row of workgroups.
@compute @workgroup_size(64)
fn gather(@builtin(global_invocation_id) at: vec3<u32>) {
    let id = ids[at.y];
    if at.x >= rows.n_in || id < rows.first_row || id >= rows.first_row + rows.n_rows {
        return;
    }
    let row = id - rows.first_row;
    let out = at.y * rows.n_in + at.x;
    if N_WORDS == 0u {
        y[out] = bitcast<f32>(w[row * rows.n_in + at.x]);
    } else {
        let start = (row * (rows.n_in / 32u) + at.x / 32u) * (2u + N_WORDS);
        let half = (at.x / 16u) % 2u;
        let word = (at.x % 16u) / 4u;
        var codes = 0u;
        if N_WORDS == 4u {
            codes = (w[start + 2u + word] >> (4u * half)) & 0x0f0f0f0fu;
        } else {
            codes = w[start + 2u + half * 4u + word];
        }
        let code = (codes >> (8u * (at.x % 4u))) & 255u;
        y[out] = (f32(code) - rows.zero) * bitcast<f32>(w[start]) + bitcast<f32>(w[start + 1u]);
    }
}
