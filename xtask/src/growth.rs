//! How time grows with length, layers and workers, measured on the page in Chromium and drawn as `tests/bench/growth.svg`.

use std::path::Path;

use anyhow::{Context, anyhow};
use plotters::prelude::*;
use serde_json::Value;

use crate::browser::{Browser, BrowserOptions};
use crate::paths;
use crate::server::{Serving, serve_dir};
use crate::shell::say;

/// Measures.
const SCRIPT: &str = include_str!("growth.js");
/// Size of each plot.
const SIZE: (u32, u32) = (360, 300);
/// Key, title and horizontal axis of each plot.
const PLOTS: [(&str, &str, &str); 3] = [
    ("length", "One pass over a prompt", "tokens"),
    ("layers", "Sweep of the top layers, 64 tokens", "layers swept"),
    ("workers", "Sweep of 270 heads, 64 tokens", "workers"),
];
/// Key and colour of each line.
const LINES: [(&str, RGBColor); 2] = [("exact", RGBColor(29, 78, 137)), ("fast", RGBColor(201, 112, 16))];

/// Measures, draws and prints the numbers as JSON.
pub async fn growth() -> anyhow::Result<()> {
    let address = serve_dir(&paths::dist(), Serving::default()).await?;
    let browser = Browser::start(BrowserOptions::default()).await?;
    browser.client.goto(&format!("http://{address}/")).await?;
    let measured = browser.eval(SCRIPT).await;
    browser.close().await?;
    let measured = measured?;
    let svg = paths::root().join("tests/bench/growth.svg");
    draw(&measured, &svg).with_context(|| format!("{} cannot be drawn", svg.display()))?;
    say(&format!("{} is drawn anew", svg.display()));
    println!("{}", serde_json::to_string_pretty(&measured)?);
    Ok(())
}

fn draw(measured: &Value, svg: &Path) -> anyhow::Result<()> {
    let area = SVGBackend::new(svg, (SIZE.0 * PLOTS.len() as u32, SIZE.1)).into_drawing_area();
    area.fill(&WHITE).map_err(|error| anyhow!("{error}"))?;
    for (area, plot) in area.split_evenly((1, PLOTS.len())).iter().zip(PLOTS) {
        draw_plot(area, measured, plot).map_err(|error| anyhow!("{error}"))?;
    }
    area.present().map_err(|error| anyhow!("{error}"))
}

/// The points of a line, `(x, seconds)`.
fn points(measured: &Value, plot: &str, line: &str) -> Vec<(f64, f64)> {
    let points = measured[plot][line].as_array().into_iter().flatten();
    points.filter_map(|point| point[0].as_f64().zip(point[1].as_f64())).collect()
}

fn draw_plot(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    measured: &Value,
    (key, title, axis): (&str, &str, &str),
) -> Result<(), Box<dyn std::error::Error>> {
    let lines = LINES.map(|(line, colour)| (line, colour, points(measured, key, line)));
    let all = || lines.iter().flat_map(|(_, _, points)| points);
    let most = |of: fn(&(f64, f64)) -> f64| 1.05 * all().map(of).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 14))
        .margin(10)
        .x_label_area_size(34)
        .y_label_area_size(44)
        .build_cartesian_2d(0.0..most(|point| point.0), 0.0..most(|point| point.1))?;
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(axis).y_desc("seconds").x_labels(6).y_labels(6).max_light_lines(0);
    mesh.x_label_formatter(&|x| format!("{x:.0}")).y_label_formatter(&|y| format!("{y:.0}")).draw()?;
    for (name, colour, points) in lines {
        let line = LineSeries::new(points.clone(), colour.stroke_width(2));
        chart
            .draw_series(line)?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        chart.draw_series(points.into_iter().map(|point| Circle::new(point, 3, colour.filled())))?;
    }
    let mut legend = chart.configure_series_labels();
    // Where no line goes: above those that rise, or right of those that fall.
    legend.position(if key == "workers" {
        SeriesLabelPosition::UpperRight
    } else {
        SeriesLabelPosition::UpperLeft
    });
    legend.border_style(BLACK.mix(0.2)).background_style(WHITE).draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plot_is_drawn_with_both_lines() {
        let line = serde_json::json!({"exact": [[1, 2.0], [4, 8.0]], "fast": [[1, 1.5], [4, 6.0]]});
        let measured = serde_json::json!({"length": line, "layers": line, "workers": line});
        let svg = std::env::temp_dir().join(format!("headlight-growth-{}.svg", std::process::id()));
        draw(&measured, &svg).expect("drawn");
        let text = std::fs::read_to_string(&svg).expect("written");
        std::fs::remove_file(svg).expect("removed");
        for (_, title, axis) in PLOTS {
            assert!(text.contains(title) && text.contains(axis), "{title}");
        }
        for (_, RGBColor(r, g, b)) in LINES {
            let colour = format!("#{r:02X}{g:02X}{b:02X}");
            let n_lines =
                text.lines().filter(|line| line.contains("<polyline") && line.contains(&colour)).count();
            assert!(n_lines >= PLOTS.len(), "{colour}: {n_lines}");
        }
    }
}
