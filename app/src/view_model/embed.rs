//! What teachers paste: a frame, or the web component, as HTML.

use crate::embed::{EmbedFlags, Start};
use crate::view_model::colour::Theme;

/// Largest height of a frame, CSS pixels.
const MAX_HEIGHT: u32 = 4000;

/// How large a frame is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size {
    /// Its width, in pixels or per cent.
    pub width: String,
    /// Its height, CSS pixels.
    pub height: u32,
}

impl Size {
    /// Takes a width that is one, such as `700` or `100%`.
    pub fn set_width(&mut self, text: &str) {
        let text = text.trim().trim_end_matches("px");
        let digits = text.strip_suffix('%').unwrap_or(text);
        if digits.parse::<u32>().is_ok_and(|width| width > 0) {
            self.width = text.to_owned();
        }
    }

    /// Takes a height that is one.
    pub fn set_height(&mut self, text: &str) {
        if let Ok(height) = text.trim().parse::<u32>() {
            self.height = height.clamp(1, MAX_HEIGHT);
        }
    }
}

/// Text inside an attribute's quotes.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;")
}

/// A frame. Its sandbox lets scripts run and a new tab open; answers are files, so an assignment may save them.
pub fn frame_html(address: &str, size: &Size, title: &str, saves_files: bool) -> String {
    let downloads = if saves_files { " allow-downloads" } else { "" };
    format!(
        "<iframe src=\"{}\" width=\"{}\" height=\"{}\" title=\"{}\" \
         sandbox=\"allow-scripts allow-popups allow-popups-to-escape-sandbox{downloads}\" loading=\"lazy\" \
         style=\"border: 0\"></iframe>",
        escaped(address),
        escaped(&size.width),
        size.height,
        escaped(title),
    )
}

/// The web component; `page` is the address of the full page.
pub fn view_html(page: &str, letters: &str, flags: &EmbedFlags, size: &Size, title: &str) -> String {
    let folder = page.rsplit_once('/').map_or(page, |(folder, _)| folder);
    let mut attributes = format!("link=\"#{letters}\" title=\"{}\"", escaped(title));
    for (part, is_shown) in &flags.parts {
        attributes.push_str(&format!(" {}=\"{}\"", part.name(), u8::from(*is_shown)));
    }
    if flags.is_read_only {
        attributes.push_str(" readonly");
    }
    if flags.start == Start::Click {
        attributes.push_str(" start=\"click\"");
    }
    match flags.theme {
        Some(Theme::Light) => attributes.push_str(" theme=\"light\""),
        Some(Theme::Dark) => attributes.push_str(" theme=\"dark\""),
        None => {}
    }
    if size.width != "100%" {
        attributes.push_str(&format!(" width=\"{}\"", escaped(&size.width)));
    }
    attributes.push_str(&format!(" height=\"{}\"", size.height));
    format!(
        "<script type=\"module\" src=\"{}/embed/headlight-view.js\"></script>\n\
         <headlight-view {attributes}></headlight-view>",
        escaped(folder)
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::link::Part;

    #[test]
    fn what_is_pasted_is_inert_html() {
        let size = Size { width: "100%".to_owned(), height: 640 };
        let html =
            frame_html("https://a.org/?embed=1&map=0#1.x", &size, "\"><script>alert(1)</script>", false);
        assert!(html.contains("embed=1&amp;map=0#1.x") && html.contains("height=\"640\""), "{html}");
        assert!(html.contains("&quot;>&lt;script>") && !html.contains("<script"), "{html}");
        assert!(html.contains("sandbox=\"allow-scripts allow-popups"), "{html}");
        assert!(!html.contains("allow-same-origin") && !html.contains("downloads"), "{html}");
        assert!(frame_html("x", &size, "", true).contains("allow-downloads"));
    }

    #[test]
    fn the_element_says_the_same() {
        let flags = EmbedFlags {
            parts: BTreeMap::from([(Part::Plots, false)]),
            is_read_only: true,
            start: Start::Click,
            ..EmbedFlags::default()
        };
        let size = Size { width: "700".to_owned(), height: 500 };
        let html = view_html("https://a.org/course/index.html", "1.x", &flags, &size, "A & B");
        assert!(html.contains("src=\"https://a.org/course/embed/headlight-view.js\""), "{html}");
        let element = "<headlight-view link=\"#1.x\" title=\"A &amp; B\" plots=\"0\" readonly start=\"click\" width=\"700\" height=\"500\">";
        assert!(html.contains(element), "{html}");
    }

    #[test]
    fn a_size_that_is_none_is_not_taken() {
        let mut size = Size { width: "100%".to_owned(), height: 640 };
        for text in ["", "0", "-3", "\" onload=x", "many"] {
            size.set_width(text);
            size.set_height(text.trim_start_matches('0'));
        }
        assert_eq!(size, Size { width: "100%".to_owned(), height: 640 });
        size.set_width("50%");
        size.set_height("99999");
        assert_eq!(size, Size { width: "50%".to_owned(), height: MAX_HEIGHT });
    }
}
