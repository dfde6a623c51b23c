//! Edits of activations and of attention. At a neutral setting (factor 1, strength 0) no bit changes.

use std::ops::Range;

use crate::backend::{AttentionEdit, AttnShape, RowEdit};

/// Edits some columns of some rows of `[row, row_len]`.
pub fn edit_rows(
    mut x: Vec<f32>,
    row_len: usize,
    rows: &[usize],
    columns: Range<usize>,
    edit: &RowEdit<Vec<f32>>,
) -> Vec<f32> {
    for (index, row) in rows.iter().enumerate() {
        let values = &mut x[row * row_len + columns.start..row * row_len + columns.end];
        match edit {
            // Zero is zero, whatever was there: 0 * NaN would not be.
            RowEdit::Scale(0.0) => values.fill(0.0),
            RowEdit::Scale(alpha) => values.iter_mut().for_each(|value| *value *= alpha),
            RowEdit::Replace(new) => values.copy_from_slice(&new[index * columns.len()..][..columns.len()]),
            RowEdit::Repeat(new) => values.copy_from_slice(new),
            RowEdit::ProjectOut { direction, strength } => project_out(values, direction, *strength),
        }
    }
    x
}

/// `x -= strength (x·d) d / |d|²`, the dot products in f64.
fn project_out(x: &mut [f32], direction: &[f32], strength: f32) {
    let dot =
        |a: &[f32]| -> f64 { a.iter().zip(direction).map(|(a, d)| f64::from(*a) * f64::from(*d)).sum() };
    let factor = (f64::from(strength) * dot(x) / dot(direction)) as f32;
    x.iter_mut().zip(direction).for_each(|(x, d)| *x -= factor * d);
}

/// Mean over rows of some columns of `[row, row_len]`.
pub fn mean_of_rows(x: &[f32], row_len: usize, rows: Range<usize>, columns: Range<usize>) -> Vec<f32> {
    let n_rows = rows.len() as f32;
    columns.map(|column| rows.clone().map(|row| x[row * row_len + column]).sum::<f32>() / n_rows).collect()
}

/// Edits one head's rows in `[head, query, key_pos]` of a block of queries.
pub fn edit_attention(
    mut weights: Vec<f32>,
    shape: AttnShape,
    queries: Range<usize>,
    head: usize,
    edit: &AttentionEdit,
    positions: Option<&[usize]>,
) -> Vec<f32> {
    let n_tokens = shape.n_tokens;
    let rows = &mut weights[head * queries.len() * n_tokens..(head + 1) * queries.len() * n_tokens];
    for (query, row) in queries.zip(rows.chunks_exact_mut(n_tokens)) {
        if positions.is_some_and(|positions| !positions.contains(&query)) {
            continue;
        }
        match edit {
            AttentionEdit::Divide(divisor) => row[..=query].iter_mut().for_each(|score| *score /= divisor),
            AttentionEdit::Mask(edges) => {
                let keys = edges.iter().filter(|edge| edge.0 == query).map(|edge| edge.1);
                keys.for_each(|key| row[key] = f32::NEG_INFINITY);
            }
            AttentionEdit::Towards(target, strength) => {
                let moved = row[..=query].iter_mut().enumerate();
                moved.for_each(|(key, p)| *p = (1.0 - strength) * *p + strength * target.weight(query, key));
            }
            AttentionEdit::Replace(pattern) => row.copy_from_slice(&pattern[query * n_tokens..][..n_tokens]),
        }
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::elementwise::softmax;
    use crate::hooks::PatternTarget;

    fn values(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 31 % 89) as f32 - 44.0) / 30.0).collect()
    }

    #[test]
    fn edits_touch_their_rows_and_columns_alone() {
        let x = values(5 * 7);
        let edited = edit_rows(x.clone(), 7, &[1, 3], 2..4, &RowEdit::Scale(0.0));
        for (i, (before, after)) in x.iter().zip(&edited).enumerate() {
            let inside = [1, 3].contains(&(i / 7)) && (2..4).contains(&(i % 7));
            assert_eq!(*after, if inside { 0.0 } else { *before }, "value {i}");
        }
        let replaced = edit_rows(x.clone(), 7, &[4, 0], 0..2, &RowEdit::Replace(vec![1.0, 2.0, 3.0, 4.0]));
        assert_eq!((&replaced[28..30], &replaced[..2]), (&[1.0, 2.0][..], &[3.0, 4.0][..]));
        assert_eq!(mean_of_rows(&[1.0, 5.0, 3.0, 7.0], 2, 0..2, 1..2), [6.0]);
    }

    #[test]
    fn what_is_projected_out_is_gone_and_neutral_settings_change_no_bit() {
        let (x, direction) = (values(6), vec![0.0, 2.0, 0.0, -1.0, 0.5, 0.0]);
        let project = |strength| RowEdit::ProjectOut { direction: direction.clone(), strength };
        let out = edit_rows(x.clone(), 6, &[0], 0..6, &project(1.0));
        let dot: f32 = out.iter().zip(&direction).map(|(x, d)| x * d).sum();
        assert!(dot.abs() < 1e-6, "{dot}");
        for neutral in [project(0.0), RowEdit::Scale(1.0), RowEdit::Replace(x.clone())] {
            assert_eq!(edit_rows(x.clone(), 6, &[0], 0..6, &neutral), x, "{neutral:?}");
        }
    }

    #[test]
    fn attention_is_moved_masked_and_cooled_at_its_head_and_queries() {
        let shape = AttnShape { n_heads: 2, n_kv_heads: 1, d_head: 2, n_past: 0, n_tokens: 3, n_lanes: 1 };
        let inf = f32::NEG_INFINITY;
        let one_head = [0.5, inf, inf, 0.5, -1.0, inf, 0.1, 0.2, 0.3];
        let scores = [one_head, one_head].concat();
        let neutral = [AttentionEdit::Divide(1.0), AttentionEdit::Mask(Vec::new())];
        for edit in &neutral {
            assert_eq!(edit_attention(scores.clone(), shape, 0..3, 1, edit, None), scores);
        }
        let masked = edit_attention(scores.clone(), shape, 0..3, 1, &AttentionEdit::Mask(vec![(2, 1)]), None);
        let pattern = softmax(&masked, 3, 0..3);
        assert_eq!((&masked[..9], pattern[9 + 7]), (&scores[..9], 0.0));
        assert!((pattern[9 + 6..].iter().sum::<f32>() - 1.0).abs() < 1e-6, "the row renormalises");
        let still = AttentionEdit::Towards(PatternTarget::First, 0.0);
        assert_eq!(edit_attention(pattern.clone(), shape, 0..3, 0, &still, None), pattern);
        let first = AttentionEdit::Towards(PatternTarget::First, 1.0);
        let moved = edit_attention(pattern.clone(), shape, 0..3, 0, &first, Some(&[2]));
        assert_eq!((&moved[..6], &moved[6..9]), (&pattern[..6], &[1.0, 0.0, 0.0][..]));
        let cold = edit_attention(scores, shape, 0..3, 0, &AttentionEdit::Divide(0.01), None);
        assert!(softmax(&cold, 3, 0..3)[8] > 0.99, "near 0 the largest score takes all");
    }
}
