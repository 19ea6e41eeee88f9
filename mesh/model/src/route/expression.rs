//! Regular expressions of routes: of the whole value, in time that grows with its length only.

use regex::bytes::{Regex, RegexBuilder};

/// Most that one compiled expression takes, in bytes.
const MAX_COMPILED: usize = 256 * 1024;
/// Most that one keeps of what it learns as it runs, in bytes for each thread.
const MAX_LEARNT: usize = 64 * 1024;

/// Compiles one. Of bytes, not of Unicode: what is not UTF-8 is not something that a `.` does not match.
///
/// # Errors
/// What is wrong with it, or that it is too large.
pub(super) fn whole(text: &str) -> Result<Regex, String> {
    // By itself first: one with a parenthesis too many would be another in parentheses.
    compile(text)?;
    compile(&format!(r"\A(?:{text})\z"))
}

/// Whether waypoints can follow an expression.
///
/// # Errors
/// What is wrong with it, or that it is too large.
pub fn check(text: &str) -> Result<(), String> {
    whole(text).map(drop)
}

fn compile(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(text)
        .unicode(false)
        .size_limit(MAX_COMPILED)
        .dfa_size_limit(MAX_LEARNT)
        .build()
        .map_err(|error| format!("the regular expression {text:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_whole_value() {
        for (text, value, expected) in [
            ("a|bc", &b"bc"[..], true),
            ("a|bc", b"abc", false),
            ("a|bc", b"a", true),
            ("a.c", b"a\xffc", true),
            (".*", b"\xe9", true),
            (r"\d+", "\u{0661}".as_bytes(), false),
            ("^a$", b"a", true),
            ("", b"", true),
            ("", b"a", false),
        ] {
            assert_eq!(whole(text).unwrap().is_match(value), expected, "{text} {value:?}");
        }
    }

    #[test]
    fn what_is_none_and_what_is_too_large() {
        for text in ["(", "a)|(b", r"(a)\1", "(?=a)", "((a{100}){100}){100}"] {
            let why = whole(text).unwrap_err();
            assert!(why.starts_with("the regular expression "), "{why}");
        }
    }
}
