//! The filter as text: `mod:level` and `mod=level`, merged, in one spelling (pure).

use tracing_subscriber::EnvFilter;

/// A filter text that means nothing.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "log filter {text:?} is not usable ({reason}): expected a level (trace, debug, info, warn, error, off) or scope=level, separated by commas"
)]
pub struct InvalidFilter {
    text: String,
    reason: String,
}

impl InvalidFilter {
    pub(super) fn new(text: &str, reason: &str) -> Self {
        Self { text: text.chars().take(128).collect(), reason: reason.to_owned() }
    }
}

const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "off"];

/// The most bytes a filter may have: what is added over time stays bounded.
const LIMIT: usize = 8 * 1024;

/// The text in one spelling: `mod=level`, lower-case levels, the bare level first, one directive per scope (the last given).
pub(super) fn normalise(text: &str) -> Result<String, InvalidFilter> {
    merge("", text)
}

/// `base` with `added` on top.
pub(super) fn merge(base: &str, added: &str) -> Result<String, InvalidFilter> {
    let mut directives: Vec<(String, String)> = Vec::new();
    for piece in pieces(base).chain(pieces(added)) {
        let (scope, level) = directive(piece)?;
        directives.retain(|(other, _)| *other != scope);
        directives.push((scope, level));
    }
    if directives.is_empty() {
        return Err(InvalidFilter::new(added, "it is empty"));
    }
    // A stable sort: only the bare level moves to the front.
    directives.sort_by_key(|(scope, _)| !scope.is_empty());
    let texts: Vec<String> = directives
        .into_iter()
        .map(|(scope, level)| if scope.is_empty() { level } else { format!("{scope}={level}") })
        .collect();
    let text = texts.join(",");
    if text.len() > LIMIT {
        return Err(InvalidFilter::new(added, "it is too long"));
    }
    compile(&text)?;
    Ok(text)
}

/// What `tracing` runs.
pub(super) fn compile(text: &str) -> Result<EnvFilter, InvalidFilter> {
    EnvFilter::builder().parse(text).map_err(|error| InvalidFilter::new(text, &error.to_string()))
}

/// One directive as (scope, level); the scope is empty for a bare level.
fn directive(piece: &str) -> Result<(String, String), InvalidFilter> {
    if let Some(level) = level(piece) {
        return Ok((String::new(), level));
    }
    let split = match piece.rsplit_once('=') {
        Some(parts) => Some(parts),
        // Not inside a path: `mesh_hbone::pool` alone has no level.
        None => piece.rsplit_once(':').filter(|(scope, _)| !scope.ends_with(':')),
    };
    let (scope, word) = split.ok_or_else(|| InvalidFilter::new(piece, "it names no level"))?;
    let level = level(word).ok_or_else(|| InvalidFilter::new(piece, "its level is unknown"))?;
    if scope.trim().is_empty() {
        return Err(InvalidFilter::new(piece, "it names no scope"));
    }
    Ok((scope.trim().to_owned(), level))
}

fn level(word: &str) -> Option<String> {
    let word = word.trim().to_ascii_lowercase();
    LEVELS.contains(&word.as_str()).then_some(word)
}

fn pieces(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|piece| !piece.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged() {
        let cases = [
            ("", "info", "info"),
            ("", "INFO", "info"),
            ("", "mesh_hbone:debug", "mesh_hbone=debug"),
            ("", "mesh_hbone::pool:debug", "mesh_hbone::pool=debug"),
            ("", "mesh_hbone::pool=debug,info", "info,mesh_hbone::pool=debug"),
            ("info", "debug", "debug"),
            ("info", "access:off", "info,access=off"),
            ("info,access=off", "access=info", "info,access=info"),
            ("info,access=off", "warn, b=trace ,", "warn,access=off,b=trace"),
            ("info", "a[s{x=1}]=debug", "info,a[s{x=1}]=debug"),
        ];
        for (base, added, expected) in cases {
            assert_eq!(merge(base, added).unwrap(), expected, "{base:?} + {added:?}");
        }
    }

    #[test]
    fn refused() {
        let long = format!("{}=debug", "a".repeat(LIMIT));
        for text in ["", " , ", "loud", "mesh_hbone=loud", "mesh_hbone::pool", "=debug", ":debug", "a[=debug", &long] {
            assert!(normalise(text).is_err(), "{text:?}");
        }
        let error = normalise("mesh_hbone=loud").unwrap_err().to_string();
        assert!(error.starts_with("log filter \"mesh_hbone=loud\" is not usable (its level is unknown)"), "{error}");
    }
}
