//! A static server on 127.0.0.1 for the built page: what `cargo xtask serve` shows and the browser tests open.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use tokio::net::TcpListener;
use tower_http::services::ServeDir;
use tower_http::set_header::SetResponseHeaderLayer;

/// How a folder is served.
#[derive(Clone, Debug, Default)]
pub struct Serving {
    /// Port; 0 takes a free one.
    pub port: u16,
    /// Path below which the folder appears, such as `/course/`; empty for the root.
    pub sub_path: String,
    /// Whether pages are cross-origin isolated.
    pub isolated: bool,
    /// A `Content-Security-Policy` that every answer carries; empty for none.
    pub policy: String,
    /// Which pages may read the files.
    pub readers: Readers,
    /// Where every path that is asked for is noted, in order.
    pub asked: Asked,
}

/// Paths that were asked for; clones share it.
pub type Asked = Arc<Mutex<Vec<String>>>;

/// Whose scripts may read what is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Readers {
    /// Any page's, as on GitHub Pages: a sandboxed frame has no origin that could be named.
    #[default]
    AnyOrigin,
    /// Those of the server's own pages, as many hosts have it.
    OwnOrigin,
}

/// Serves a folder until the runtime ends; gives the address that it listens on.
pub async fn serve_dir(folder: &Path, serving: Serving) -> anyhow::Result<SocketAddr> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, serving.port));
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| {
        format!("port {} is taken or not allowed; choose another with --port", serving.port)
    })?;
    let address = listener.local_addr()?;
    let files = ServeDir::new(folder);
    let sub_path = serving.sub_path.trim_end_matches('/');
    let mut router = match sub_path {
        "" => Router::new().fallback_service(files),
        path => Router::new().nest_service(path, files),
    };
    // Nothing is stale after a rebuild: the browser asks again each time.
    router = router.layer(set_header(header::CACHE_CONTROL, "no-cache"));
    let asked = serving.asked;
    router = router.layer(middleware::from_fn(move |request: Request, next: Next| {
        let path = request.uri().path().to_owned();
        asked.lock().expect("nobody panics while noting a path").push(path);
        next.run(request)
    }));
    if serving.readers == Readers::AnyOrigin {
        router = router.layer(set_header(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"));
    }
    if serving.isolated {
        router = router
            .layer(set_header(HeaderName::from_static("cross-origin-opener-policy"), "same-origin"))
            .layer(set_header(HeaderName::from_static("cross-origin-embedder-policy"), "require-corp"));
    }
    if !serving.policy.is_empty() {
        let policy = HeaderValue::from_str(&serving.policy).context("the policy is no header")?;
        let layer = SetResponseHeaderLayer::overriding(header::CONTENT_SECURITY_POLICY, policy);
        router = router.layer(layer);
    }
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

fn set_header(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value))
}
