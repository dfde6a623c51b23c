//! One head's pattern as a heatmap on a canvas: query down, key across, a crosshair for pointer and arrow keys.

use headlight_core::detect::AttentionTarget;
use headlight_core::report::PatternReport;
use leptos::{html, prelude::*};
use wasm_bindgen::prelude::*;
use web_sys::{CanvasRenderingContext2d, HtmlCanvasElement, ImageData};

use super::{Page, ViewRef, page};
use crate::protocol::View;
use crate::state::Msg;
use crate::state::detection::{DetectorMsg, Setting};
use crate::state::settings::CustomPattern;
use crate::view_model::colour::{Theme, label_ink, pattern_pixels, target_ink};
use crate::view_model::plot::{Plot, step_cell};
use crate::view_model::{short_text, token_texts};

/// Letters of a token on an axis.
const LABEL_CHARS: usize = 9;
/// Cells smaller than this, CSS pixels, have no room for an outline.
const MIN_OUTLINED_PX: f64 = 6.0;
/// How much of the pattern a painted cell covers.
const PAINT_ALPHA: f64 = 0.55;

/// What is marked on the pattern.
#[derive(Clone, Debug, Default, PartialEq)]
struct Marks {
    /// The target that the lens reads.
    target: Option<AttentionTarget>,
    /// The user's own pattern, where that is the lens.
    custom: Option<CustomPattern>,
}

/// Paints and wipes cells while the custom lens is in paint mode.
#[derive(Clone, Copy)]
struct Brush {
    page: Page,
    marks: Memo<Marks>,
    /// Whether the stroke under way paints or wipes.
    stroke: RwSignal<Option<bool>>,
}

impl Brush {
    fn is_in_hand(self) -> bool {
        self.marks.with(|marks| marks.custom.as_ref().is_some_and(|custom| custom.is_painting))
    }

    /// Begins a stroke that does the opposite of what the cell is.
    fn begin(self, cell: (usize, usize)) {
        let is_on = self
            .marks
            .with_untracked(|marks| marks.custom.as_ref().is_some_and(|c| !c.cells.contains(&cell)));
        self.stroke.set(Some(is_on));
        self.go_on(cell);
    }

    /// Goes over another cell.
    fn go_on(self, cell: (usize, usize)) {
        if let Some(is_on) = self.stroke.get_untracked() {
            self.page.send(Msg::Detector(DetectorMsg::Set(Setting::Paint { cell, is_on })));
        }
    }

    fn lift(self) {
        self.stroke.set(None);
    }
}

/// The heatmap of the view's pattern; `crosshair` is the cell (query, key) under the pointer.
#[component]
pub fn PatternCanvas(
    view: Memo<Option<ViewRef>>,
    crosshair: RwSignal<Option<(usize, usize)>>,
) -> impl IntoView {
    let page = page();
    let canvas = NodeRef::<html::Canvas>::new();
    let theme = page.select(|state| state.theme());
    let marks = page.select(|state| Marks {
        target: state.lens.target(),
        custom: state.lens.is_custom().then(|| state.settings.custom.clone()),
    });
    let brush = Brush { page, marks, stroke: RwSignal::new(None) };
    let is_running = page.select(|state| state.is_running);
    let plot = RwSignal::new(Plot::default());
    let resized = RwSignal::new(0_u32);
    let handle = window_event_listener(leptos::ev::resize, move |_| resized.update(|n| *n += 1));
    on_cleanup(move || handle.remove());
    Effect::new(move |_| {
        resized.track();
        let (theme, marks) = (theme.get(), marks.get());
        let Some(canvas) = canvas.get() else { return };
        view.with(|view| {
            if let Some(ViewRef(view)) = view {
                plot.set(draw(&canvas, view, &marks, theme).unwrap_or_default());
            }
        });
    });
    let point = move |event: leptos::ev::PointerEvent| {
        let (x, y) = (f64::from(event.offset_x()), f64::from(event.offset_y()));
        let cell = plot.get_untracked().cell_at(x, y);
        // A stroke goes over a cell once, however slowly the pointer crosses it.
        if let Some(cell) = cell.filter(|_| cell != crosshair.get_untracked()) {
            brush.go_on(cell);
        }
        crosshair.set(cell);
    };
    let press = move |event: leptos::ev::PointerEvent| {
        point(event);
        if let Some(cell) = crosshair.get_untracked().filter(|_| untrack(|| brush.is_in_hand())) {
            brush.begin(cell);
        }
    };
    let on_key = move |event: leptos::ev::KeyboardEvent| {
        if let Some(cell) = step_cell(crosshair.get_untracked(), &event.key(), plot.get_untracked().n_tokens)
        {
            event.prevent_default();
            crosshair.set(Some(cell));
        } else if [" ", "Enter"].contains(&event.key().as_str()) && untrack(|| brush.is_in_hand()) {
            event.prevent_default();
            if let Some(cell) = crosshair.get_untracked() {
                brush.begin(cell);
                brush.lift();
            }
        }
    };
    let head =
        move || view.with(|view| view.as_ref()?.0.pattern.as_ref().map(|pattern| pattern.head.to_string()));
    let label = move || {
        let n_tokens = plot.get().n_tokens;
        let paints = if brush.is_in_hand() { " Space paints one." } else { "" };
        format!(
            "Attention pattern of {}, {n_tokens} tokens, query down, key across. Arrow keys read cells.{paints}",
            head().unwrap_or_else(|| "no head".to_owned())
        )
    };
    view! {
        <div class="pattern-frame">
            <canvas
                node_ref=canvas
                class:painting=move || brush.is_in_hand()
                class:stale=move || is_running.get() && head().is_none()
                tabindex="0"
                role="img"
                aria-label=label
                aria-describedby="pattern-readout"
                data-testid="pattern-heatmap"
                data-head=head
                data-n-tokens=move || plot.get().n_tokens
                on:pointermove=point
                on:pointerdown=press
                on:pointerup=move |_| brush.lift()
                on:pointercancel=move |_| brush.lift()
                on:pointerleave=move |_| {
                    brush.lift();
                    crosshair.set(None);
                }
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
fn draw(canvas: &HtmlCanvasElement, view: &View, marks: &Marks, theme: Theme) -> Result<Plot, JsValue> {
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
    if plot.cell >= MIN_OUTLINED_PX {
        if let Some(target) = marks.target {
            outline_target(&context, &target.keys(&pattern.ids).0, plot, theme);
        }
        if let Some(custom) = &marks.custom {
            outline_target(&context, &custom.keys(&pattern.ids), plot, theme);
        }
    }
    if let Some(custom) = &marks.custom {
        fill_painted(&context, custom, plot, theme);
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

/// Covers the painted cells, at any size.
fn fill_painted(context: &CanvasRenderingContext2d, custom: &CustomPattern, plot: Plot, theme: Theme) {
    context.set_fill_style_str(&target_ink(theme).css());
    context.set_global_alpha(PAINT_ALPHA);
    for &(query, key) in custom.cells.iter().filter(|(query, _)| *query < plot.n_tokens) {
        context.fill_rect(
            plot.margin + plot.cell * key as f64,
            plot.cell * query as f64,
            plot.cell,
            plot.cell,
        );
    }
    context.set_global_alpha(1.0);
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
