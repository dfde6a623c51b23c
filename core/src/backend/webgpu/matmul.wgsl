// `y[r, o] = Σ_i x[r, i] w[o, i]`, and rows of `w` as they are; `w` as f32, in 16 bits, or in blocks of 4 or 8 bits.

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

// How weights are stored: 0 as f32; 1 as bf16 and 2 as f16, two in a word; 4 or 8 in blocks of 32 with so many words of codes
// behind a word of scale and minimum.
override N_WORDS: u32 = 0u;
// Tiles of 128 rows by 64 outputs, where there are enough of them to occupy a device; otherwise small ones.
override IS_LARGE: bool = false;
// Rows of threads: 16 of large tiles, 8 of others.
override N_THREAD_ROWS: u32 = 8u;

@group(0) @binding(0) var<uniform> product: Product;
@group(0) @binding(1) var<storage, read> x4: array<vec4<f32>>;
// Numbers by their bits, or blocks: scale and minimum as f16, then codes.
@group(0) @binding(2) var<storage, read> w: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// An f16 by its bits: finite, but not always normal, which the function of the language need not respect.
fn half_of(bits: u32) -> f32 {
    let magnitude = bits & 0x7fffu;
    let normal = bitcast<f32>((magnitude << 13u) + 0x38000000u);
    let value = select(normal, f32(magnitude) * 0x1p-24f, magnitude < 0x400u);
    return select(value, -value, bits > 0x7fffu);
}

fn scale_and_minimum(word: u32) -> vec2<f32> {
    return vec2<f32>(half_of(word & 0xffffu), half_of(word >> 16u));
}

fn values_of(codes: u32, scale: vec2<f32>) -> vec4<f32> {
    let bytes = vec4<u32>(codes & 255u, (codes >> 8u) & 255u, (codes >> 16u) & 255u, codes >> 24u);
    return (vec4<f32>(bytes) - product.zero) * scale.x + scale.y;
}

fn pair_of(word: u32) -> vec2<f32> {
    if N_WORDS == 1u {
        return vec2<f32>(bitcast<f32>(word << 16u), bitcast<f32>(word & 0xffff0000u));
    }
    return unpack2x16float(word);
}

// Four weights that are not in blocks, from a whole four on.
fn four_at(start: u32) -> vec4<f32> {
    if N_WORDS == 0u {
        return bitcast<vec4<f32>>(vec4<u32>(w[start], w[start + 1u], w[start + 2u], w[start + 3u]));
    }
    return vec4<f32>(pair_of(w[start / 2u]), pair_of(w[start / 2u + 1u]));
}

// Where inputs stand in a tile.
struct Place {
    thread: u32,
    n_threads: u32,
    // Inputs that the tile holds, in fours.
    depth: u32,
    stride: u32,
    // Where rows of w begin.
    w_start: u32,
}

fn load_x(step: u32, place: Place, first_row: u32, first_in: u32) {
    let at = place.thread + step * place.n_threads;
    let row = at / place.depth;
    let input = first_in / 4u + at % place.depth;
    let row_len = product.n_in / 4u;
    var value = vec4<f32>();
    if first_row + row < product.n_rows && input < row_len {
        value = x4[product.x_start / 4u + (first_row + row) * row_len + input];
    }
    tile[row * place.stride + at % place.depth] = value;
}

// Four inputs, as numbers or as a word of 8-bit codes.
fn load_w(step: u32, place: Place, first_out: u32, first_in: u32) {
    let at = place.thread + step * place.n_threads;
    let row = at / place.depth;
    let input = first_in / 4u + at % place.depth;
    var value = vec4<f32>();
    if first_out + row < product.n_out && input * 4u < product.n_in {
        if N_WORDS < 4u {
            value = four_at((first_out + row) * product.n_in + input * 4u);
        } else {
            let start = ((first_out + row) * (product.n_in / 32u) + input / 8u) * (1u + N_WORDS);
            value = values_of(w[start + 1u + input % 8u], scale_and_minimum(w[start]));
        }
    }
    tile[place.w_start + row * place.stride + at % place.depth] = value;
}

// A word of 4-bit codes: inputs of both halves of a block, or of the half that the tile holds.
fn load_4_bit(step: u32, place: Place, first_out: u32, first_in: u32) {
    let at = place.thread + step * place.n_threads;
    let row = at / 4u;
    let word = at % 4u;
    var scale = vec2<f32>();
    var codes = 0u;
    if first_out + row < product.n_out {
        let start = ((first_out + row) * (product.n_in / 32u) + first_in / 32u) * 5u;
        scale = scale_and_minimum(w[start]);
        codes = w[start + 1u + word];
    }
    let to = place.w_start + row * place.stride + word;
    if IS_LARGE {
        tile[to] = values_of((codes >> (4u * ((first_in / 16u) % 2u))) & 0x0f0f0f0fu, scale);
    } else {
        tile[to] = values_of(codes & 0x0f0f0f0fu, scale);
        tile[to + 4u] = values_of((codes >> 4u) & 0x0f0f0f0fu, scale);
    }
}

// Four outputs of a row, 16 apart.
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

// Large tiles are made by 16 by 16 threads and hold 16 inputs at a time; a thread makes 8 rows. Sums are variables of their own,
// since some compilers keep an array of them in memory.
@compute @workgroup_size(16, N_THREAD_ROWS)
fn matmul(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) at: vec3<u32>) {
    // Not read out of `place`: one member of it differs by thread, and compilers then take all of them to.
    let depth = select(SMALL_DEPTH, 4u, IS_LARGE);
    var place: Place;
    place.thread = at.y * 16u + at.x;
    place.n_threads = select(128u, 256u, IS_LARGE);
    place.depth = depth;
    place.stride = select(SMALL_STRIDE, 5u, IS_LARGE);
    place.w_start = select(SMALL_SECOND, 640u, IS_LARGE);
    let first_row = group.y * select(32u, 128u, IS_LARGE);
    let first_out = group.x * 64u;
    var sums = mat4x4<f32>();
    var more_sums = mat4x4<f32>();
    for (var first = 0u; first < product.n_in; first += depth * 4u) {
        load_x(0u, place, first_row, first);
        load_x(1u, place, first_row, first);
        if N_WORDS == 4u {
            load_4_bit(0u, place, first_out, first);
            if !IS_LARGE {
                load_4_bit(1u, place, first_out, first);
            }
        } else {
            load_w(0u, place, first_out, first);
            if !IS_LARGE {
                load_w(1u, place, first_out, first);
                load_w(2u, place, first_out, first);
                load_w(3u, place, first_out, first);
            }
        }
        workgroupBarrier();
        if IS_LARGE {
            let row = at.y * 5u;
            let column = 640u + at.x * 5u;
            for (var k = 0u; k < 4u; k++) {
                let b = transpose(mat4x4<f32>(
                    tile[column + k],
                    tile[column + 80u + k],
                    tile[column + 160u + k],
                    tile[column + 240u + k],
                ));
                sums[0] = add_products(tile[row + k], b, sums[0]);
                sums[1] = add_products(tile[row + 80u + k], b, sums[1]);
                sums[2] = add_products(tile[row + 160u + k], b, sums[2]);
                sums[3] = add_products(tile[row + 240u + k], b, sums[3]);
                more_sums[0] = add_products(tile[row + 320u + k], b, more_sums[0]);
                more_sums[1] = add_products(tile[row + 400u + k], b, more_sums[1]);
                more_sums[2] = add_products(tile[row + 480u + k], b, more_sums[2]);
                more_sums[3] = add_products(tile[row + 560u + k], b, more_sums[3]);
            }
        } else {
            sums = add_small_tile(at.xy, sums);
        }
        workgroupBarrier();
    }
    let row = first_row + at.y;
    store(row, first_out, at.x, sums[0]);
    store(row + N_THREAD_ROWS, first_out, at.x, sums[1]);
    store(row + 2u * N_THREAD_ROWS, first_out, at.x, sums[2]);
    store(row + 3u * N_THREAD_ROWS, first_out, at.x, sums[3]);
    if IS_LARGE {
        store(row + 64u, first_out, at.x, more_sums[0]);
        store(row + 80u, first_out, at.x, more_sums[1]);
        store(row + 96u, first_out, at.x, more_sums[2]);
        store(row + 112u, first_out, at.x, more_sums[3]);
    }
}

@group(0) @binding(1) var<storage, read> x: array<f32>;

// The same in f32 for rows that are no whole fours: a thread an output, in the order of the tiles.
@compute @workgroup_size(16, 16)
fn matmul_any(@builtin(global_invocation_id) at: vec3<u32>) {
    if at.x >= product.n_out || at.y >= product.n_rows {
        return;
    }
    let x_row = product.x_start + at.y * product.n_in;
    let w_row = at.x * product.n_in;
    var sum = 0.0;
    for (var i = 0u; i < product.n_in; i++) {
        sum = fma(x[x_row + i], bitcast<f32>(w[w_row + i]), sum);
    }
    y[at.y * product.y_row_len + product.first_out + at.x] = sum;
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
    let number = row * rows.n_in + at.x;
    if N_WORDS == 0u {
        y[out] = bitcast<f32>(w[number]);
    } else if N_WORDS < 4u {
        y[out] = pair_of(w[number / 2u])[number % 2u];
    } else {
        let start = (row * (rows.n_in / 32u) + at.x / 32u) * (1u + N_WORDS);
        let half = (at.x / 16u) % 2u;
        let word = (at.x % 16u) / 4u;
        var codes = 0u;
        if N_WORDS == 4u {
            codes = (w[start + 1u + word] >> (4u * half)) & 0x0f0f0f0fu;
        } else {
            codes = w[start + 1u + half * 4u + word];
        }
        let code = (codes >> (8u * (at.x % 4u))) & 255u;
        let scale = scale_and_minimum(w[start]);
        y[out] = (f32(code) - rows.zero) * scale.x + scale.y;
    }
}
