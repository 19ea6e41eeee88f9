//! Paths that a route replaces, whole or at their beginning.

use http::uri::PathAndQuery;

use super::{PathEdit, PathMatch};

/// Whether an edit can be done where this was matched.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(edit: &PathEdit) -> Result<(), String> {
    let (PathEdit::Whole(path) | PathEdit::Prefix(path) | PathEdit::Matched(path)) = edit;
    let plain = !path.contains(['?', '#']) && path.is_ascii();
    let good = plain && path.starts_with('/') && PathAndQuery::try_from(&**path).is_ok();
    match good || (path.is_empty() && matches!(edit, PathEdit::Prefix(_))) {
        true => Ok(()),
        false => Err(format!("{path:?} is no path")),
    }
}

/// The path after an edit; None where the beginning is to be replaced and none was matched.
pub(super) fn edited(edit: &PathEdit, path: &str, matched: Option<&PathMatch>) -> Option<String> {
    let (prefix, replacement) = match (edit, matched) {
        (PathEdit::Whole(whole), _) => return Some(whole.to_string()),
        (PathEdit::Prefix(replacement), Some(PathMatch::Prefix(prefix))) => (&**prefix, replacement),
        // Without a match of the path it is `/`, which is a prefix.
        (PathEdit::Prefix(replacement), None) => ("/", replacement),
        (PathEdit::Prefix(_), Some(_)) => return None,
        (PathEdit::Matched(replacement), matched) => {
            let length = match matched {
                None => 1,
                Some(PathMatch::Beginning(text) | PathMatch::BeginningAnyCase(text)) => text.len(),
                Some(_) => path.len(),
            };
            return Some(format!("{replacement}{}", path.get(length..)?));
        }
    };
    let prefix = crate::http::canonical_path(prefix)?;
    let rest = path.strip_prefix(prefix.trim_end_matches('/'))?;
    let edited = format!("{}{rest}", replacement.trim_end_matches('/'));
    Some(if edited.is_empty() { "/".to_owned() } else { edited })
}

/// Path and query, the query as it was.
pub(super) fn with_query(path: String, query: Option<&str>) -> Option<PathAndQuery> {
    let target = match query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    PathAndQuery::try_from(target).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of HTTPPathModifier in Gateway API, and what it leaves open.
    #[test]
    fn prefixes() {
        for (path, prefix, replacement, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo", "/", "/xyz", "/xyz/foo"),
            ("/", "/", "/xyz", "/xyz/"),
            ("/", "/", "", "/"),
        ] {
            let edit = PathEdit::Prefix(replacement.into());
            let found = edited(&edit, path, Some(&PathMatch::Prefix(prefix.into())));
            assert_eq!(found.as_deref(), Some(expected), "{path}: {prefix} by {replacement}");
        }
        let edit = PathEdit::Prefix("/xyz".into());
        assert_eq!(edited(&edit, "/foo", None).as_deref(), Some("/xyz/foo"));
        assert_eq!(edited(&edit, "/foo", Some(&PathMatch::Exact("/foo".into()))), None);
        let whole = PathEdit::Whole("/xyz".into());
        assert_eq!(edited(&whole, "/foo", Some(&PathMatch::Exact("/foo".into()))).as_deref(), Some("/xyz"));
    }

    /// `rewrite.uri` of a VirtualService, as Envoy does it: text for text.
    #[test]
    fn what_was_matched() {
        let beginning = |text: &str| Some(PathMatch::Beginning(text.into()));
        for (path, matched, replacement, expected) in [
            ("/api/x", beginning("/api/"), "/", "/x"),
            ("/api/x", beginning("/api"), "/", "//x"),
            ("/api/x", beginning("/api"), "/v1", "/v1/x"),
            ("/apiary", beginning("/api"), "/v1", "/v1ary"),
            ("/x", beginning("/"), "/v1", "/v1x"),
            ("/x", None, "/v1/", "/v1/x"),
            ("/API/x", Some(PathMatch::BeginningAnyCase("/api".into())), "/v1", "/v1/x"),
            ("/old", Some(PathMatch::Exact("/old".into())), "/new", "/new"),
            ("/Old", Some(PathMatch::ExactAnyCase("/old".into())), "/new", "/new"),
            ("/a/b/c", Some(PathMatch::Regex("/a/.*".into())), "/new", "/new"),
        ] {
            let found = edited(&PathEdit::Matched(replacement.into()), path, matched.as_ref());
            assert_eq!(found.as_deref(), Some(expected), "{path}: {matched:?} by {replacement}");
        }
    }

    #[test]
    fn what_can_stand_for_a_path() {
        for (edit, good) in [
            (PathEdit::Whole("/a".into()), true),
            (PathEdit::Whole("".into()), false),
            (PathEdit::Whole("a".into()), false),
            (PathEdit::Whole("*".into()), false),
            (PathEdit::Whole("/a?b".into()), false),
            (PathEdit::Whole("/a b".into()), false),
            (PathEdit::Whole("/é".into()), false),
            (PathEdit::Prefix("".into()), true),
            (PathEdit::Prefix("/".into()), true),
            (PathEdit::Prefix("a".into()), false),
        ] {
            assert_eq!(check(&edit).is_ok(), good, "{edit:?}");
        }
        assert_eq!(with_query("/a".into(), Some("b=c")).unwrap().as_str(), "/a?b=c");
    }
}
