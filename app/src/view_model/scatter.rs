//! Score against effect: where each head's dot stands, and whether the two go together.

use headlight_core::ids::HeadId;
use headlight_core::report::HeadScores;

use super::measure::score_of;

/// A head's dot, in 0 to 1 of each axis, y upwards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dot {
    /// The head.
    pub head: HeadId,
    /// Along the axis of scores.
    pub x: f32,
    /// Along the axis of effects.
    pub y: f32,
    /// The score.
    pub score: f32,
    /// The effect.
    pub effect: f32,
}

/// A plot of dots.
#[derive(Clone, Debug, PartialEq)]
pub struct Scatter {
    /// One a head.
    pub dots: Vec<Dot>,
    /// Least and largest score.
    pub scores: (f32, f32),
    /// Least and largest effect; 0 is within.
    pub effects: (f32, f32),
    /// Spearman's rank correlation of score and effect's size.
    pub rank_correlation: f32,
}

/// The plot of the heads that have both; `None` with fewer than three.
pub fn scatter(scores: &HeadScores, effects: &[Vec<f32>]) -> Option<Scatter> {
    let heads = effects.iter().enumerate().flat_map(|(layer, row)| {
        row.iter().enumerate().map(move |(head, &effect)| (HeadId::new(layer, head), effect))
    });
    let both: Vec<(HeadId, f32, f32)> = heads
        .filter(|(_, effect)| !effect.is_nan())
        .filter_map(|(head, effect)| Some((head, score_of(scores, head)?, effect)))
        .collect();
    if both.len() < 3 {
        return None;
    }
    let range = |values: &mut dyn Iterator<Item = f32>, start: f32| {
        values.fold((start, start), |(low, high), value| (low.min(value), high.max(value)))
    };
    let xs = range(&mut both.iter().map(|dot| dot.1), both[0].1);
    let ys = range(&mut both.iter().map(|dot| dot.2), 0.0);
    let along =
        |value: f32, (low, high): (f32, f32)| if high > low { (value - low) / (high - low) } else { 0.5 };
    let dots = both.iter().map(|&(head, score, effect)| {
        let (x, y) = (along(score, xs), along(effect, ys));
        Dot { head, x, y, score, effect }
    });
    let dots: Vec<Dot> = dots.collect();
    let score_ranks = ranks(&dots.iter().map(|dot| dot.score).collect::<Vec<_>>());
    let effect_ranks = ranks(&dots.iter().map(|dot| dot.effect.abs()).collect::<Vec<_>>());
    Some(Scatter {
        dots,
        scores: xs,
        effects: ys,
        rank_correlation: correlation(&score_ranks, &effect_ranks),
    })
}

/// Ranks from 0; equal values share the mean of theirs.
fn ranks(values: &[f32]) -> Vec<f32> {
    let below = |value: f32| values.iter().filter(|&&other| other < value).count() as f32;
    let equal = |value: f32| values.iter().filter(|&&other| other == value).count() as f32;
    values.iter().map(|&value| below(value) + (equal(value) - 1.0) / 2.0).collect()
}

/// Pearson's correlation; 0 where one of the two does not vary.
fn correlation(a: &[f32], b: &[f32]) -> f32 {
    let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let sum = |x: &[f32], mx: f32, y: &[f32], my: f32| -> f32 {
        x.iter().zip(y).map(|(x, y)| (x - mx) * (y - my)).sum()
    };
    let spread = (sum(a, mean_a, a, mean_a) * sum(b, mean_b, b, mean_b)).sqrt();
    if spread > 0.0 { sum(a, mean_a, b, mean_b) / spread } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_stand_within_the_axes_and_ranks_correlate() {
        let scores = HeadScores {
            target: "induction".to_owned(),
            scores: vec![vec![0.1, 0.2], vec![0.4, 0.9]],
            n_rows: 3,
        };
        let found = scatter(&scores, &[vec![0.0, -0.1], vec![-0.5, -4.0]]).expect("four heads");
        assert_eq!(found.effects, (-4.0, 0.0));
        assert!((found.rank_correlation - 1.0).abs() < 1e-6, "{}", found.rank_correlation);
        let last = found.dots[3];
        assert_eq!((last.head, last.x, last.y), (HeadId::new(1, 1), 1.0, 0.0));
        let part = scatter(&scores, &[vec![0.0, f32::NAN], vec![1.0, -2.0]]).expect("three heads");
        assert_eq!(part.dots.len(), 3);
        assert_eq!(scatter(&scores, &[vec![0.0, 1.0]]), None);
    }
}
