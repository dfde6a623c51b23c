//! Pages that embed Headlight, on a server of their own: what browser tests of embeds open.

use std::path::PathBuf;

use xtask::paths;
use xtask::server::{Asked, Readers, Serving, serve_dir};

/// A page that embeds, on a server of its own: its files, by name.
pub struct Host {
    /// Its address.
    pub address: String,
    /// The Headlight page's folder, on another port.
    pub page: String,
    /// What its server was asked for.
    pub asked: Asked,
    folder: PathBuf,
}

impl Host {
    /// How often the page's server was asked for paths that end so.
    pub fn n_asked(&self, end: &str) -> usize {
        let asked = self.asked.lock().expect("nobody panics while noting a path");
        asked.iter().filter(|path| path.ends_with(end)).count()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Records what frames say, what they do to this page, and calls them with ids.
const HOST_SCRIPT: &str = r#"
window.heard = [];
window.replies = {};
addEventListener("message", (event) => {
  const data = event.data;
  if (!data || data.headlight !== 1) return;
  if (data.event) heard.push({ event: data.event, origin: event.origin, value: data.value });
  else replies[data.id] = data;
});
window.call = (frame, id, method, args) => new Promise((resolve, reject) => {
  delete replies[id];
  frame.contentWindow.postMessage({ headlight: 1, id, method, args }, "*");
  const began = Date.now();
  const look = () => {
    if (replies[id]) resolve(replies[id]);
    else if (Date.now() - began > 60000) reject(new Error("no reply to " + method));
    else setTimeout(look, 20);
  };
  look();
});
"#;

/// Serves the page below a path, and a host with these files on another port, under this policy (`PAGE` stands for the page's
/// origin).
pub async fn host(name: &str, policy: &str, files: &[(&str, String)]) -> anyhow::Result<Host> {
    host_of(name, policy, Readers::AnyOrigin, files).await
}

/// The same; the page's server lets these origins read its files.
pub async fn host_of(
    name: &str,
    policy: &str,
    readers: Readers,
    files: &[(&str, String)],
) -> anyhow::Result<Host> {
    let asked = Asked::default();
    let sub_path = "/course/week-3/".to_owned();
    let serving = Serving { sub_path, readers, asked: asked.clone(), ..Serving::default() };
    let page = serve_dir(&paths::dist(), serving).await?;
    let folder = std::env::temp_dir().join(format!("headlight-host-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let origin = format!("http://{page}");
    for (file, text) in files {
        std::fs::write(folder.join(file), text.replace("PAGE", &format!("{origin}/course/week-3/")))?;
    }
    std::fs::write(folder.join("host.js"), HOST_SCRIPT)?;
    // As a host with a policy does: the element's file is its own copy.
    std::fs::copy(paths::root().join("static/embed/headlight-view.js"), folder.join("headlight-view.js"))?;
    let serving = Serving { policy: policy.replace("PAGE", &origin), ..Serving::default() };
    let address = serve_dir(&folder, serving).await?;
    let (address, page) = (format!("http://{address}"), format!("{origin}/course/week-3/"));
    Ok(Host { address, page, asked, folder })
}

/// What a careful school sends: its own scripts alone, frames of ours alone.
pub const STRICT: &str = "default-src 'self'; frame-src PAGE";

/// A page with the element's script and the recorder, and this in its body.
pub fn document(body: &str) -> String {
    format!(
        "<!doctype html><html><head><meta charset=utf-8><script src=\"host.js\"></script>\
         <script type=module src=\"headlight-view.js\"></script></head><body>{body}</body></html>"
    )
}
