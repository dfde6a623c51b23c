//! The worker's entry: starts listening for the page.

fn main() {
    #[cfg(target_arch = "wasm32")]
    headlight_app::worker::start();
}
