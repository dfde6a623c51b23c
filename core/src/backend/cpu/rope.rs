//! Rotary position embedding (Su et al. 2021, RoFormer) on half-split pairs, as Llama checkpoints of Hugging Face
//! have them: dimension `i` turns with dimension `i + d_head/2`.

use std::ops::Range;

/// Turns every head of every row; position `p` by angles `p / theta^(2i/d_head)`. Shape `[lane, pos, head, d_head]`, each lane at
/// these positions.
pub fn rope(x: &[f32], n_heads: usize, d_head: usize, theta: f32, positions: Range<usize>) -> Vec<f32> {
    let (half, frequencies) = (d_head / 2, frequencies(d_head, theta));
    let mut out = x.to_vec();
    for (position, row) in positions.cycle().zip(out.chunks_exact_mut(n_heads * d_head)) {
        let turns = turns(position, &frequencies);
        for head in row.chunks_exact_mut(d_head) {
            let (first, second) = head.split_at_mut(half);
            for ((a, b), (sin, cos)) in first.iter_mut().zip(second).zip(&turns) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
    out
}

/// The angle between two neighbouring positions of each pair, `[d_head/2]`.
pub fn frequencies(d_head: usize, theta: f32) -> Vec<f32> {
    (0..d_head / 2).map(|i| f64::from(theta).powf(-((2 * i) as f64) / d_head as f64) as f32).collect()
}

/// Sine and cosine of each pair's angle at a position, `[d_head/2]`.
pub fn turns(position: usize, frequencies: &[f32]) -> Vec<(f32, f32)> {
    // The angle is rounded to f32 first, as PyTorch does: models were trained with that.
    let angles = frequencies.iter().map(|frequency| f64::from(position as f32 * frequency).sin_cos());
    angles.map(|(sin, cos)| (sin as f32, cos as f32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_depend_on_the_offset_alone() {
        let (q, k) = ([0.3, -0.7, 1.1, 0.2], [0.5, 0.9, -0.4, 0.8]);
        let turned = |x: [f32; 4], position: usize| {
            let rows: Vec<f32> = std::iter::repeat_n(x, position + 1).flatten().collect();
            rope(&rows, 1, 4, 100.0, 0..position + 1)[position * 4..].to_vec()
        };
        let score = |query_pos, key_pos| -> f32 {
            turned(q, query_pos).iter().zip(turned(k, key_pos)).map(|(q, k)| q * k).sum()
        };
        assert!((score(5, 2) - score(13, 10)).abs() < 1e-5);
        assert!((score(5, 2) - score(5, 3)).abs() > 1e-3);
        assert_eq!(turned(q, 0), q);
        assert_eq!(rope(&q, 1, 4, 100.0, 13..14), turned(q, 13), "a row knows its position");
    }
}
