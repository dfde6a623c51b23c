//! The page's entry: mounts the components.

fn main() {
    #[cfg(target_arch = "wasm32")]
    headlight_app::components::mount();
}
