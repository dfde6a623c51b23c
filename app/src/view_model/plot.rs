//! Where a pattern's cells lie on its canvas: one geometry for drawing, for the pointer and for the crosshair.

/// Up to this many tokens the axes carry their texts.
const MAX_LABELLED_TOKENS: usize = 28;
/// Room for a token's text, CSS pixels.
const LABEL_PX: f64 = 66.0;

/// Below this many device pixels a difference of one between cells shows.
const SMALL_CELL_PX: f64 = 5.0;

/// A square of cells on a square canvas, CSS pixels: queries downwards, keys to the right.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Plot {
    /// Tokens along either axis.
    pub n_tokens: usize,
    /// Left edge of key 0; also the room under the last query. 0 without axis texts.
    pub margin: f64,
    /// Edge of a cell.
    pub cell: f64,
}

impl Plot {
    /// The geometry of `n_tokens` on a canvas of `size` CSS pixels at `dpr` device pixels each. Small cells are a
    /// whole number of device pixels, lest some look twice as wide as others; large ones fill the canvas.
    pub fn new(n_tokens: usize, size: f64, dpr: f64) -> Self {
        let margin = if n_tokens <= MAX_LABELLED_TOKENS { LABEL_PX.min(size / 4.0) } else { 0.0 };
        let room = (size - margin) * dpr / n_tokens.max(1) as f64;
        let cell = if (1.0..SMALL_CELL_PX).contains(&room) { room.floor() } else { room };
        Self { n_tokens, margin, cell: cell / dpr }
    }

    /// Edge of the whole square of cells.
    pub fn extent(&self) -> f64 {
        self.cell * self.n_tokens as f64
    }

    /// The cell (query, key) under a point of the canvas, if it is one that attention can reach.
    pub fn cell_at(&self, x: f64, y: f64) -> Option<(usize, usize)> {
        if self.cell <= 0.0 || x < self.margin || y < 0.0 {
            return None;
        }
        let (key, query) = (((x - self.margin) / self.cell) as usize, (y / self.cell) as usize);
        (query < self.n_tokens && key <= query).then_some((query, key))
    }
}

/// The cell one arrow key away; the first arrow lands on the last query's own position.
pub fn step_cell(from: Option<(usize, usize)>, key_name: &str, n_tokens: usize) -> Option<(usize, usize)> {
    let last = n_tokens.checked_sub(1)?;
    let is_step = ["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "Home", "End"].contains(&key_name);
    if !is_step {
        return None;
    }
    let Some((query, key)) = from.filter(|&(query, _)| query < n_tokens) else {
        return Some((last, last));
    };
    let (query, key) = match key_name {
        "ArrowUp" => (query.saturating_sub(1), key),
        "ArrowDown" => ((query + 1).min(last), key),
        "ArrowLeft" => (query, key.saturating_sub(1)),
        "ArrowRight" => (query, key + 1),
        "Home" => (query, 0),
        _ => (query, query),
    };
    Some((query, key.min(query)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_cells_are_whole_device_pixels_and_all_fit() {
        for n_tokens in [1, 2, 17, 28, 29, 100, 460, 500] {
            for dpr in [1.0, 1.5, 2.0] {
                let plot = Plot::new(n_tokens, 460.0, dpr);
                assert!(plot.margin + plot.extent() <= 460.0 + 1e-6, "{plot:?}");
                let device = plot.cell * dpr;
                let is_small = (1.0..SMALL_CELL_PX).contains(&device);
                assert!(!is_small || (device - device.round()).abs() < 1e-9, "{plot:?}");
            }
        }
    }

    #[test]
    fn a_point_finds_its_cell_and_the_future_has_none() {
        let plot = Plot::new(100, 400.0, 1.0);
        assert_eq!(plot.cell_at(4.0 * 3.0 + 1.0, 4.0 * 7.0 + 1.0), Some((7, 3)));
        assert_eq!(plot.cell_at(4.0 * 8.0, 4.0 * 7.0), None);
        assert_eq!(plot.cell_at(-1.0, 5.0), None);
        assert_eq!(Plot::default().cell_at(1.0, 1.0), None);
    }

    #[test]
    fn arrows_stay_on_or_below_the_diagonal() {
        assert_eq!(step_cell(None, "ArrowUp", 5), Some((4, 4)));
        assert_eq!(step_cell(Some((4, 4)), "ArrowRight", 5), Some((4, 4)));
        assert_eq!(step_cell(Some((4, 4)), "ArrowUp", 5), Some((3, 3)));
        assert_eq!(step_cell(Some((3, 1)), "ArrowLeft", 5), Some((3, 0)));
        assert_eq!(step_cell(Some((9, 1)), "ArrowLeft", 5), Some((4, 4)));
        assert_eq!(step_cell(Some((3, 1)), "Tab", 5), None);
        assert_eq!(step_cell(None, "ArrowUp", 0), None);
    }
}
