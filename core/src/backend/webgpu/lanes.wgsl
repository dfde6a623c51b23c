// Sums and maxima over the threads of a workgroup, of two numbers each; every thread gets them. For one number the other is as good.

var<workgroup> lanes: array<vec2<f32>, 256>;

fn sum_of_lanes(lane: u32, n_lanes: u32, value: vec2<f32>) -> vec2<f32> {
    lanes[lane] = value;
    workgroupBarrier();
    for (var n = n_lanes / 2u; n > 0u; n /= 2u) {
        if lane < n {
            lanes[lane] += lanes[lane + n];
        }
        workgroupBarrier();
    }
    let sum = lanes[0];
    workgroupBarrier();
    return sum;
}

fn max_of_lanes(lane: u32, n_lanes: u32, value: vec2<f32>) -> vec2<f32> {
    lanes[lane] = value;
    workgroupBarrier();
    for (var n = n_lanes / 2u; n > 0u; n /= 2u) {
        if lane < n {
            lanes[lane] = max(lanes[lane], lanes[lane + n]);
        }
        workgroupBarrier();
    }
    let most = lanes[0];
    workgroupBarrier();
    return most;
}
