// What products share: tiles in workgroup memory, rows of both factors as `[row, input / 4]`. A row is one longer than that, so
// that a column lies in different banks. Small tiles are 32 rows by 64 columns, made by 16 by 8 threads, and hold 32 inputs at a
// time; a thread makes 4 rows of 4 columns, 8 and 16 apart, so that neighbours read and write neighbouring values.

const SMALL_DEPTH: u32 = 8u;
const SMALL_STRIDE: u32 = 9u;
// Where the rows of the second factor begin.
const SMALL_SECOND: u32 = 288u;

var<workgroup> tile: array<vec4<f32>, 960>;

// Four inputs of a row times those of four columns; `b` has a vector for each input.
fn add_products(a: vec4<f32>, b: mat4x4<f32>, sums: vec4<f32>) -> vec4<f32> {
    var all = fma(vec4<f32>(a.x), b[0], sums);
    all = fma(vec4<f32>(a.y), b[1], all);
    all = fma(vec4<f32>(a.z), b[2], all);
    return fma(vec4<f32>(a.w), b[3], all);
}

// Sums of a thread's 4 rows, and what a small tile adds to them.
fn add_small_tile(at: vec2<u32>, sums: mat4x4<f32>) -> mat4x4<f32> {
    var sums_0 = sums[0];
    var sums_1 = sums[1];
    var sums_2 = sums[2];
    var sums_3 = sums[3];
    let row = at.y * SMALL_STRIDE;
    let column = SMALL_SECOND + at.x * SMALL_STRIDE;
    for (var k = 0u; k < SMALL_DEPTH; k++) {
        let b = transpose(mat4x4<f32>(
            tile[column + k],
            tile[column + 16u * SMALL_STRIDE + k],
            tile[column + 32u * SMALL_STRIDE + k],
            tile[column + 48u * SMALL_STRIDE + k],
        ));
        sums_0 = add_products(tile[row + k], b, sums_0);
        sums_1 = add_products(tile[row + 8u * SMALL_STRIDE + k], b, sums_1);
        sums_2 = add_products(tile[row + 16u * SMALL_STRIDE + k], b, sums_2);
        sums_3 = add_products(tile[row + 24u * SMALL_STRIDE + k], b, sums_3);
    }
    return mat4x4<f32>(sums_0, sums_1, sums_2, sums_3);
}

