//! Files to and from the user's disk: texts saved through an object URL, pictures turned into pixels on a canvas first.

use js_sys::{Array, Function, Promise};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    Blob, BlobPropertyBag, CanvasRenderingContext2d, HtmlAnchorElement, HtmlCanvasElement, HtmlImageElement,
    Url, Window,
};

use crate::export::File;

/// An object URL stays valid this long, so that the browser has read it.
const KEPT_MS: i32 = 60_000;
/// Longest edge of a canvas that browsers agree on, pixels.
const MAX_EDGE: u32 = 16_384;

fn window() -> Window {
    web_sys::window().expect("the page has a window")
}

fn element<T: JsCast>(name: &str) -> Result<T, JsValue> {
    let document = window().document().ok_or(JsValue::NULL)?;
    Ok(document.create_element(name)?.unchecked_into())
}

fn blob_of(file: &File) -> Result<Blob, JsValue> {
    let options = BlobPropertyBag::new();
    options.set_type(&format!("{};charset=utf-8", file.media_type));
    Blob::new_with_str_sequence_and_options(&Array::of1(&file.text.as_str().into()), &options)
}

/// An object URL that goes by itself.
fn url_of(blob: &Blob) -> Result<String, JsValue> {
    let url = Url::create_object_url_with_blob(blob)?;
    let kept = url.clone();
    let revoke = Closure::once_into_js(move || {
        let _ = Url::revoke_object_url(&kept);
    });
    window().set_timeout_with_callback_and_timeout_and_arguments_0(revoke.unchecked_ref(), KEPT_MS)?;
    Ok(url)
}

fn offer(blob: &Blob, name: &str) -> Result<(), JsValue> {
    let link: HtmlAnchorElement = element("a")?;
    link.set_href(&url_of(blob)?);
    link.set_download(name);
    link.click();
    Ok(())
}

/// Saves a file; gives its name.
pub fn save(file: &File) -> Result<String, String> {
    let name = file.name();
    match blob_of(file).and_then(|blob| offer(&blob, &name)) {
        Ok(()) => Ok(name),
        Err(_) => Err("this browser or frame allows no downloads".to_owned()),
    }
}

/// Saves a picture as pixels, `scale` to each of its own; gives the file's name.
pub async fn save_png(file: &File, scale: u32) -> Result<String, String> {
    let name = match scale {
        1 => format!("{}.png", file.stem),
        _ => format!("{}@{scale}x.png", file.stem),
    };
    let canvas = drawn(file, scale).await?;
    let failed = |_| "this browser could not make the PNG; take the SVG".to_owned();
    let made = Promise::new(&mut |resolve: Function, _| {
        let _ = canvas.to_blob(&resolve);
    });
    let blob: Blob = JsFuture::from(made).await.and_then(JsCast::dyn_into).map_err(failed)?;
    offer(&blob, &name).map_err(failed)?;
    Ok(name)
}

async fn drawn(file: &File, scale: u32) -> Result<HtmlCanvasElement, String> {
    let failed = |_: JsValue| "this browser could not draw the SVG; save it as SVG".to_owned();
    let image: HtmlImageElement = element("img").map_err(failed)?;
    image.set_src(&blob_of(file).and_then(|blob| url_of(&blob)).map_err(failed)?);
    JsFuture::from(image.decode()).await.map_err(failed)?;
    let (width, height) = (image.natural_width() * scale, image.natural_height() * scale);
    if width.max(height) > MAX_EDGE {
        return Err(format!(
            "{width} × {height} pixels are more than a browser's canvas holds; take a smaller size or the SVG"
        ));
    }
    let canvas: HtmlCanvasElement = element("canvas").map_err(failed)?;
    canvas.set_width(width);
    canvas.set_height(height);
    let context = canvas.get_context("2d").ok().flatten().ok_or_else(|| failed(JsValue::NULL))?;
    let context: CanvasRenderingContext2d = context.unchecked_into();
    context
        .draw_image_with_html_image_element_and_dw_and_dh(&image, 0.0, 0.0, width.into(), height.into())
        .map_err(failed)?;
    Ok(canvas)
}

/// A file's text; `None` when it cannot be read.
pub async fn read_text(file: &web_sys::File) -> Option<String> {
    JsFuture::from(file.text()).await.ok()?.as_string()
}
