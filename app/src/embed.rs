//! What the address's query asks: of an embedded page `?embed=1&map=1&prompt=0&readonly=1&start=click`, of any page where it is to
//! compute (`?backend=cpu`). Unknown flags are ignored, values that make no sense fall back; what the flags do to the page is decided
//! in `state` and the components.

use std::collections::{BTreeMap, BTreeSet};

use crate::link::Part;
use crate::protocol::BackendChoice;
use crate::view_model::colour::Theme;

/// Longest query that is read, bytes.
const MAX_QUERY: usize = 4096;
/// Most origins that may steer an embed.
const MAX_ORIGINS: usize = 20;

/// When an embed begins to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At once.
    #[default]
    Now,
    /// When the reader presses Start: until then there is neither worker nor model.
    Click,
}

/// What an embed is asked to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmbedFlags {
    /// Parts that are shown or hidden whatever the link says of them.
    pub parts: BTreeMap<Part, bool>,
    /// Whether the reader may look but not change.
    pub is_read_only: bool,
    /// When it begins.
    pub start: Start,
    /// Always this palette; else the system's.
    pub theme: Option<Theme>,
    /// Origins that may steer it; none for whoever embeds it.
    pub origins: Option<BTreeSet<String>>,
}

impl EmbedFlags {
    /// The flags of a query; none where it does not ask for an embed.
    pub fn of_query(query: &str) -> Option<Self> {
        let mut is_embed = false;
        let mut flags = Self::default();
        for (name, value) in pairs(query) {
            match name {
                "embed" => is_embed = value.is_empty() || is_on(value).unwrap_or(is_embed),
                "readonly" => flags.is_read_only = is_on(value).unwrap_or(flags.is_read_only),
                "start" => flags.start = if value == "click" { Start::Click } else { Start::Now },
                "theme" => {
                    flags.theme = match value {
                        "light" => Some(Theme::Light),
                        "dark" => Some(Theme::Dark),
                        _ => None,
                    }
                }
                "origins" => flags.origins = Some(origins(value)),
                _ => {
                    let part = Part::ALL.into_iter().find(|part| part.name() == name);
                    if let Some((part, is_shown)) = part.zip(is_on(value)) {
                        flags.parts.insert(part, is_shown);
                    }
                }
            }
        }
        is_embed.then_some(flags)
    }
}

/// Where the page is asked to compute, whatever its link says: `backend=cpu|webgpu|auto`.
pub fn backend_of_query(query: &str) -> Option<BackendChoice> {
    let (_, value) = pairs(query).find(|(name, _)| *name == "backend")?;
    match value {
        "auto" => Some(BackendChoice::Auto),
        "cpu" => Some(BackendChoice::Cpu),
        "webgpu" => Some(BackendChoice::Webgpu),
        _ => None,
    }
}

/// Names and values; none of a query that is too long.
fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let query = query.strip_prefix('?').unwrap_or(query);
    let pairs = (query.len() <= MAX_QUERY).then(|| query.split('&'));
    pairs.into_iter().flatten().map(|pair| pair.split_once('=').unwrap_or((pair, "1")))
}

fn is_on(value: &str) -> Option<bool> {
    match value {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

/// Origins as written, with the letters that query strings must escape.
fn origins(value: &str) -> BTreeSet<String> {
    let value = value.replace("%3A", ":").replace("%3a", ":").replace("%2F", "/").replace("%2f", "/");
    let value = value.replace("%2C", ",").replace("%2c", ",");
    let is_origin = |origin: &&str| {
        let host = origin.strip_prefix("https://").or(origin.strip_prefix("http://"));
        host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@', '*', ' ']))
    };
    value.split(',').filter(is_origin).take(MAX_ORIGINS).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_query_that_asks_for_an_embed_is_one() {
        for query in ["", "?", "?map=0", "?embed=0", "?embed=perhaps", "?embedded=1"] {
            assert_eq!(EmbedFlags::of_query(query), None, "{query}");
        }
        for query in ["?embed=1", "embed", "?x=y&embed=true"] {
            assert_eq!(EmbedFlags::of_query(query), Some(EmbedFlags::default()), "{query}");
        }
    }

    #[test]
    fn flags_are_read() {
        let query =
            "embed=1&prompt=0&map=1&readonly=1&start=click&theme=dark&origins=https://a.org,https://b.org:81";
        let flags = EmbedFlags::of_query(query).expect("an embed");
        assert_eq!(flags.parts, BTreeMap::from([(Part::Prompt, false), (Part::Map, true)]));
        assert!(flags.is_read_only);
        assert_eq!((flags.start, flags.theme), (Start::Click, Some(Theme::Dark)));
        assert_eq!(flags.origins.as_ref().map(BTreeSet::len), Some(2));
        let escaped = EmbedFlags::of_query("embed=1&origins=https%3A%2F%2Fa.org%2Chttps%3A%2F%2Fb.org");
        assert_eq!(escaped.and_then(|flags| flags.origins).map(|origins| origins.len()), Some(2));
    }

    #[test]
    fn a_query_says_where_to_compute_embedded_or_not() {
        for (query, wanted) in [
            ("?backend=cpu", Some(BackendChoice::Cpu)),
            ("?embed=1&backend=webgpu", Some(BackendChoice::Webgpu)),
            ("backend=auto", Some(BackendChoice::Auto)),
            ("?backend=gpu", None),
            ("?backend", None),
            ("?background=cpu", None),
        ] {
            assert_eq!(backend_of_query(query), wanted, "{query}");
        }
    }

    #[test]
    fn what_makes_no_sense_falls_back() {
        let query =
            "?embed=1&map=maybe&start=never&theme=pink&readonly=&__proto__=1&origins=*,javascript:1,https://";
        let flags = EmbedFlags { origins: Some(BTreeSet::new()), ..EmbedFlags::default() };
        assert_eq!(EmbedFlags::of_query(query), Some(flags));
        assert_eq!(EmbedFlags::of_query(&format!("?embed=1&{}", "a=1&".repeat(5000))), None);
    }
}
