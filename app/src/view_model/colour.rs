//! Every colour that stands for a number: one hue from 0 to 1, monotonic in lightness so that it survives greyscale
//! and colour blindness, in a light and a dark form. Colours of the page itself are in `static/styles`.

use super::lens::Scale;

/// Which palette the page wears.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Theme {
    /// Dark ink on light paper.
    #[default]
    Light,
    /// Light ink on dark paper.
    Dark,
}

/// An sRGB colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rgb(pub u8, pub u8, pub u8);

impl Rgb {
    /// `#rrggbb`.
    pub fn css(self) -> String {
        format!("#{:02x}{:02x}{:02x}", self.0, self.1, self.2)
    }

    /// WCAG relative luminance, 0 to 1.
    pub fn luminance(self) -> f32 {
        let linear = |byte: u8| {
            let c = f32::from(byte) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(self.0) + 0.7152 * linear(self.1) + 0.0722 * linear(self.2)
    }

    /// WCAG contrast ratio, 1 to 21.
    pub fn contrast(self, other: Self) -> f32 {
        let (a, b) = (self.luminance() + 0.05, other.luminance() + 0.05);
        a.max(b) / a.min(b)
    }

    /// Black or white ink, whichever reads better on this.
    pub fn ink(self) -> Self {
        // Anything softer than black falls below 4.5:1 on middle tones.
        let (dark, light) = (Self(0, 0, 0), Self(255, 255, 255));
        if self.contrast(dark) >= self.contrast(light) { dark } else { light }
    }
}

/// Stops of the scale as (lightness, chroma, hue in degrees) in OKLCH, evenly spaced over 0 to 1.
type Stops = [(f32, f32, f32); 5];

/// Amber: pale paper to deep brown.
const LIGHT: Stops = [
    (0.972, 0.012, 82.0),
    (0.890, 0.085, 80.0),
    (0.770, 0.140, 70.0),
    (0.580, 0.130, 58.0),
    (0.360, 0.088, 50.0),
];
/// Amber on black: an unlit room to a headlight.
const DARK: Stops = [
    (0.245, 0.008, 75.0),
    (0.380, 0.060, 68.0),
    (0.560, 0.110, 68.0),
    (0.760, 0.150, 76.0),
    (0.955, 0.080, 95.0),
];

/// Colour of a value from 0 to 1; values outside are clamped, NaN shows as 0.
pub fn heat(theme: Theme, value: f32) -> Rgb {
    let stops = match theme {
        Theme::Light => &LIGHT,
        Theme::Dark => &DARK,
    };
    let value = if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) };
    let along = value * (stops.len() - 1) as f32;
    let below = (along.floor() as usize).min(stops.len() - 2);
    let t = along - below as f32;
    let (from, to) = (stops[below], stops[below + 1]);
    let mix = |a: f32, b: f32| a + (b - a) * t;
    oklch(mix(from.0, to.0), mix(from.1, to.1), mix(from.2, to.2))
}

/// The hues of signed values at full strength, as (lightness, chroma, hue) in OKLCH: blue above 0, red below.
const SIGNED_LIGHT: [(f32, f32, f32); 2] = [(0.42, 0.15, 258.0), (0.46, 0.17, 28.0)];
const SIGNED_DARK: [(f32, f32, f32); 2] = [(0.80, 0.12, 252.0), (0.76, 0.14, 28.0)];

/// Colour of a value from -1 to 1: paper at 0, blue above, red below; clamped, NaN shows as 0.
pub fn signed(theme: Theme, value: f32) -> Rgb {
    let value = if value.is_nan() { 0.0 } else { value.clamp(-1.0, 1.0) };
    let (middle, [above, below]) = match theme {
        Theme::Light => (LIGHT[0], SIGNED_LIGHT),
        Theme::Dark => (DARK[0], SIGNED_DARK),
    };
    let (lightness, chroma, hue) = if value < 0.0 { below } else { above };
    let t = value.abs();
    oklch(middle.0 + (lightness - middle.0) * t, chroma * t, hue)
}

/// Colour of a score on its scale.
pub fn shade(theme: Theme, scale: Scale, score: f32) -> Rgb {
    match scale {
        Scale::UpTo(most) => heat(theme, score / most),
        Scale::SignedUpTo(most) => signed(theme, score / most),
    }
}

/// OKLCH to sRGB (Björn Ottosson 2020, "A perceptual color space for image processing"), clipped to the gamut.
fn oklch(lightness: f32, chroma: f32, hue_degrees: f32) -> Rgb {
    let (a, b) = (chroma * hue_degrees.to_radians().cos(), chroma * hue_degrees.to_radians().sin());
    let l = (lightness + 0.396_337_78 * a + 0.215_803_76 * b).powi(3);
    let m = (lightness - 0.105_561_346 * a - 0.063_854_17 * b).powi(3);
    let s = (lightness - 0.089_484_18 * a - 1.291_485_5 * b).powi(3);
    let byte = |linear: f32| {
        let c = linear.clamp(0.0, 1.0);
        let srgb = if c <= 0.003_130_8 { c * 12.92 } else { 1.055 * c.powf(1.0 / 2.4) - 0.055 };
        (srgb * 255.0).round() as u8
    };
    Rgb(
        byte(4.076_741_7 * l - 3.307_711_6 * m + 0.230_969_94 * s),
        byte(-1.268_438 * l + 2.609_757_4 * m - 0.341_319_38 * s),
        byte(-0.004_196_086_3 * l - 0.703_418_6 * m + 1.707_614_7 * s),
    )
}

/// The ground of an exported picture: the page's cards.
pub fn paper(theme: Theme) -> Rgb {
    match theme {
        Theme::Light => Rgb(0xff, 0xfe, 0xfb),
        Theme::Dark => Rgb(0x1c, 0x1a, 0x17),
    }
}

/// Ink of an exported picture's title.
pub fn ink(theme: Theme) -> Rgb {
    match theme {
        Theme::Light => Rgb(0x22, 0x1f, 0x1a),
        Theme::Dark => Rgb(0xf0, 0xec, 0xe3),
    }
}

/// Ink of the texts on a canvas, which sees no style sheet.
pub fn label_ink(theme: Theme) -> Rgb {
    match theme {
        Theme::Light => Rgb(0x5d, 0x57, 0x4c),
        Theme::Dark => Rgb(0xb9, 0xb2, 0xa4),
    }
}

/// Outline of the cells that the lens reads: no hue of the pattern's own scale.
pub fn target_ink(theme: Theme) -> Rgb {
    match theme {
        Theme::Light => Rgb(0x1f, 0x5f, 0xa8),
        Theme::Dark => Rgb(0x7d, 0xb4, 0xf0),
    }
}

/// A scale as a CSS gradient, its lowest value at the left, for legends.
pub fn scale_gradient(theme: Theme, scale: Scale) -> String {
    let value = |share: f32| match scale {
        Scale::UpTo(most) => share * most,
        Scale::SignedUpTo(most) => (2.0 * share - 1.0) * most,
    };
    let stops: Vec<String> = (0..=16).map(|i| shade(theme, scale, value(i as f32 / 16.0)).css()).collect();
    format!("linear-gradient(to right, {})", stops.join(", "))
}

/// The pixels of a pattern, RGBA, row by row: query on y, key on x; transparent where a key lies in the future.
pub fn pattern_pixels(pattern: &[Vec<f32>], theme: Theme) -> Vec<u8> {
    // The scale in 256 steps: half a million cells need no half million conversions.
    let scale: Vec<Rgb> = (0..256).map(|step| heat(theme, step as f32 / 255.0)).collect();
    let n = pattern.len();
    let mut pixels = vec![0; n * n * 4];
    for (query, row) in pattern.iter().enumerate() {
        for (key, &value) in row.iter().enumerate().take(query + 1) {
            let Rgb(r, g, b) = scale[(value.clamp(0.0, 1.0) * 255.0).round() as usize];
            let at = (query * n + key) * 4;
            pixels[at..at + 4].copy_from_slice(&[r, g, b, 255]);
        }
    }
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_is_monotonic_in_luminance_in_both_themes() {
        for (theme, rising) in [(Theme::Light, false), (Theme::Dark, true)] {
            let luminance: Vec<f32> = (0..=50).map(|i| heat(theme, i as f32 / 50.0).luminance()).collect();
            for pair in luminance.windows(2) {
                assert!(if rising { pair[1] > pair[0] } else { pair[1] < pair[0] }, "{theme:?} {pair:?}");
            }
        }
    }

    #[test]
    fn ends_of_the_scale_are_far_apart_and_ink_is_readable_everywhere() {
        for theme in [Theme::Light, Theme::Dark] {
            assert!(heat(theme, 0.0).contrast(heat(theme, 1.0)) > 7.0, "{theme:?}");
            for i in 0..=20 {
                let fill = heat(theme, i as f32 / 20.0);
                assert!(fill.contrast(fill.ink()) >= 4.5, "{theme:?} {fill:?}");
            }
        }
    }

    #[test]
    fn signed_values_leave_zero_in_two_hues_with_readable_ink() {
        for theme in [Theme::Light, Theme::Dark] {
            assert_eq!(signed(theme, 0.0), signed(theme, f32::NAN));
            let Rgb(red, _, blue) = signed(theme, 1.0);
            assert!(blue > red, "blue above");
            let Rgb(red, _, blue) = signed(theme, -1.0);
            assert!(red > blue, "red below");
            for i in -10..=10 {
                let fill = signed(theme, i as f32 / 10.0);
                assert!(fill.contrast(fill.ink()) >= 4.5, "{theme:?} {fill:?}");
            }
        }
        assert_eq!(shade(Theme::Light, Scale::UpTo(4.0), 2.0), heat(Theme::Light, 0.5));
    }

    #[test]
    fn values_off_the_scale_are_clamped() {
        assert_eq!(heat(Theme::Light, 7.0), heat(Theme::Light, 1.0));
        assert_eq!(heat(Theme::Dark, -1.0), heat(Theme::Dark, 0.0));
        assert_eq!(heat(Theme::Dark, f32::NAN), heat(Theme::Dark, 0.0));
    }

    #[test]
    fn a_pattern_is_opaque_up_to_the_diagonal_only() {
        let pixels = pattern_pixels(&[vec![1.0, 0.0], vec![0.25, 0.75]], Theme::Light);
        let alpha: Vec<u8> = pixels.chunks(4).map(|pixel| pixel[3]).collect();
        assert_eq!(alpha, [255, 0, 255, 255]);
    }
}
