//! One head's pattern as a heatmap on a canvas: query down, key across, a crosshair for pointer and arrow keys.

use headlight_core::detect::AttentionTarget;
use headlight_core::report::PatternReport;
use leptos::{html, prelude::*};
use wasm_bindgen::prelude::*;
use web_sys::{CanvasRenderingContext2d, HtmlCanvasElement, ImageData};

use super::{ViewRef, page};
use crate::protocol::View;
use crate::view_model::colour::{Theme, label_ink, pattern_pixels, target_ink};
use crate::view_model::plot::{Plot, step_cell};
use crate::view_model::{short_text, token_texts};

/// Letters of a token on an axis.
const LABEL_CHARS: usize = 9;
/// Cells smaller than this, CSS pixels, have no room for an outline.
const MIN_OUTLINED_PX: f64 = 6.0;

/// The heatmap of the view's pattern; `crosshair` is the cell (query, key) under the pointer.
#[component]
pub fn PatternCanvas(
    view: Memo<Option<ViewRef>>,
    crosshair: RwSignal<Option<(usize, usize)>>,
) -> impl IntoView {
    let page = page();
    let canvas = NodeRef::<html::Canvas>::new();
    let theme = page.select(|state| state.theme());
    let target = page.select(|state| state.lens.target());
    let is_running = page.select(|state| state.is_running);
    let plot = RwSignal::new(Plot::default());
    let resized = RwSignal::new(0_u32);
    let handle = window_event_listener(leptos::ev::resize, move |_| resized.update(|n| *n += 1));
    on_cleanup(move || handle.remove());
    Effect::new(move |_| {
        resized.track();
        let (theme, target) = (theme.get(), target.get());
        let Some(canvas) = canvas.get() else { return };
        view.with(|view| {
            if let Some(ViewRef(view)) = view {
                plot.set(draw(&canvas, view, target, theme).unwrap_or_default());
            }
        });
    });
    let point = move |event: leptos::ev::PointerEvent| {
        let (x, y) = (f64::from(event.offset_x()), f64::from(event.offset_y()));
        crosshair.set(plot.get_untracked().cell_at(x, y));
    };
    let on_key = move |event: leptos::ev::KeyboardEvent| {
        if let Some(cell) = step_cell(crosshair.get_untracked(), &event.key(), plot.get_untracked().n_tokens)
        {
            event.prevent_default();
            crosshair.set(Some(cell));
        }
    };
    let head =
        move || view.with(|view| view.as_ref()?.0.pattern.as_ref().map(|pattern| pattern.head.to_string()));
    let label = move || {
        let n_tokens = plot.get().n_tokens;
        format!(
            "Attention pattern of {}, {n_tokens} tokens, query down, key across. Arrow keys read cells.",
            head().unwrap_or_else(|| "no head".to_owned())
        )
    };
    view! {
        <div class="pattern-frame">
            <canvas
                node_ref=canvas
                class:stale=move || is_running.get() && head().is_none()
                tabindex="0"
                role="img"
                aria-label=label
                aria-describedby="pattern-readout"
                data-testid="pattern-heatmap"
                data-head=head
                data-n-tokens=move || plot.get().n_tokens
                on:pointermove=point
                on:pointerdown=point
                on:pointerleave=move |_| crosshair.set(None)
                on:blur=move |_| crosshair.set(None)
                on:keydown=on_key
            ></canvas>
            {move || {
                let (query, key) = crosshair.get()?;
                let plot = plot.get();
                let (x, y) = (plot.margin + plot.cell * key as f64, plot.cell * query as f64);
                let row = band(plot.margin, y, plot.cell * (query + 1) as f64, plot.cell);
                let column = band(x, y, plot.cell, plot.extent() - y);
                Some(view! {
                    <div class="band" style=row></div>
                    <div class="band" style=column></div>
                })
            }}
        </div>
    }
}

fn band(left: f64, top: f64, width: f64, height: f64) -> String {
    format!("left:{left:.2}px;top:{top:.2}px;width:{:.2}px;height:{:.2}px", width.max(3.0), height.max(3.0))
}

/// Draws the view's pattern at the display's own resolution and tells where its cells are.
fn draw(
    canvas: &HtmlCanvasElement,
    view: &View,
    target: Option<AttentionTarget>,
    theme: Theme,
) -> Result<Plot, JsValue> {
    let pattern = view.pattern.as_ref().ok_or_else(|| JsValue::from_str("no pattern"))?;
    let dpr = window().device_pixel_ratio();
    let size = f64::from(canvas.client_width());
    let n_tokens = pattern.pattern.len();
    let plot = Plot::new(n_tokens, size, dpr);
    canvas.set_width((size * dpr).round() as u32);
    canvas.set_height((size * dpr).round() as u32);
    let context = context_of(canvas)?;
    context.scale(dpr, dpr)?;
    let cells = cells(pattern, theme)?;
    // Cells smaller than a device pixel are averaged rather than dropped.
    context.set_image_smoothing_enabled(plot.cell * dpr < 1.0);
    let extent = plot.extent();
    context.draw_image_with_html_canvas_element_and_dw_and_dh(&cells, plot.margin, 0.0, extent, extent)?;
    if let Some(target) = target.filter(|_| plot.cell >= MIN_OUTLINED_PX) {
        outline_target(&context, &target.keys(&pattern.ids).0, plot, theme);
    }
    if plot.margin > 0.0 {
        draw_labels(&context, &token_texts(&view.tokens), plot, theme)?;
    }
    Ok(plot)
}

fn context_of(canvas: &HtmlCanvasElement) -> Result<CanvasRenderingContext2d, JsValue> {
    let context = canvas.get_context("2d")?.ok_or_else(|| JsValue::from_str("no 2d canvas"))?;
    Ok(context.unchecked_into())
}

/// The pattern at one pixel a cell.
fn cells(pattern: &PatternReport, theme: Theme) -> Result<HtmlCanvasElement, JsValue> {
    let n = pattern.pattern.len() as u32;
    let canvas: HtmlCanvasElement = document().create_element("canvas")?.unchecked_into();
    canvas.set_width(n);
    canvas.set_height(n);
    let pixels = pattern_pixels(&pattern.pattern, theme);
    let image = ImageData::new_with_u8_clamped_array_and_sh(wasm_bindgen::Clamped(&pixels), n, n)?;
    context_of(&canvas)?.put_image_data(&image, 0.0, 0.0)?;
    Ok(canvas)
}

/// Outlines the cells that the map's lens reads.
fn outline_target(context: &CanvasRenderingContext2d, keys: &[Vec<usize>], plot: Plot, theme: Theme) {
    context.set_stroke_style_str(&target_ink(theme).css());
    context.set_line_width(1.0);
    for (query, keys) in keys.iter().enumerate() {
        for &key in keys {
            let (x, y) = (plot.margin + plot.cell * key as f64, plot.cell * query as f64);
            // Inside the cell, on whole pixels.
            context.stroke_rect(x.round() + 0.5, y.round() + 0.5, plot.cell - 1.0, plot.cell - 1.0);
        }
    }
}

fn draw_labels(
    context: &CanvasRenderingContext2d,
    texts: &[String],
    plot: Plot,
    theme: Theme,
) -> Result<(), JsValue> {
    context
        .set_font(&format!("{:.0}px ui-monospace, Menlo, Consolas, monospace", plot.cell.clamp(8.0, 11.0)));
    context.set_fill_style_str(&label_ink(theme).css());
    context.set_text_baseline("middle");
    for (position, token) in texts.iter().enumerate() {
        let label = short_text(token, LABEL_CHARS);
        let middle = plot.cell * (position as f64 + 0.5);
        context.set_text_align("right");
        context.fill_text_with_max_width(&label, plot.margin - 5.0, middle, plot.margin - 7.0)?;
        context.save();
        context.translate(plot.margin + middle, plot.extent() + 5.0)?;
        context.rotate(-std::f64::consts::FRAC_PI_2)?;
        context.fill_text_with_max_width(&label, 0.0, 0.0, plot.margin - 7.0)?;
        context.restore();
    }
    Ok(())
}
