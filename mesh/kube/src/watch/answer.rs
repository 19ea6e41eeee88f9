//! What an API server answers: a line of a watch, or a page of a list. Pure.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::raw::{Meta, Raw};

/// One line of a watch.
#[derive(Debug, PartialEq)]
pub(super) enum Line<'a> {
    /// It is there, as it is now.
    Apply(Raw<'a>),
    /// It is gone.
    Delete(Meta),
    /// Nothing happened up to this version of the whole; `all`: now everything has been said that was there at first.
    Bookmark { version: String, all: bool },
    /// The watch ends with this: HTTP's code, and what is the matter.
    Error { code: u16, message: String },
}

/// One page of a list.
#[derive(Debug)]
pub(super) struct Page<'a> {
    /// The version of the whole that it is part of.
    pub(super) version: String,
    /// What to ask the next page with; empty at the last one.
    pub(super) next: String,
    /// The objects.
    pub(super) items: Vec<Raw<'a>>,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

/// Reads a line of a watch.
///
/// # Errors
/// When it is not one. One object that is odd inside is no error.
pub(super) fn line(text: &str) -> Result<Line<'_>, String> {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        #[serde(borrow)]
        object: &'a RawValue,
    }
    let event: Event<'_> = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let object = event.object.get();
    match event.kind {
        "ADDED" | "MODIFIED" => Raw::new(object).map(Line::Apply),
        "DELETED" => Raw::new(object).map(|raw| Line::Delete(raw.meta)),
        "BOOKMARK" => bookmark(object),
        "ERROR" => {
            let Status { code, message } = serde_json::from_str(object).map_err(|e| e.to_string())?;
            Ok(Line::Error { code, message })
        }
        other => Err(format!("{other:?} is no kind of event")),
    }
}

fn bookmark(object: &str) -> Result<Line<'_>, String> {
    #[derive(Deserialize)]
    struct Bookmark {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        resource_version: String,
        #[serde(default)]
        annotations: Annotations,
    }
    #[derive(Default, Deserialize)]
    struct Annotations {
        #[serde(rename = "k8s.io/initial-events-end", default)]
        end: String,
    }
    let Bookmark { metadata } = serde_json::from_str(object).map_err(|e| e.to_string())?;
    Ok(Line::Bookmark { version: metadata.resource_version, all: metadata.annotations.end == "true" })
}

/// Reads a page of a list.
///
/// # Errors
/// When it is not one.
pub(super) fn page(text: &str) -> Result<Page<'_>, String> {
    #[derive(Deserialize)]
    struct List<'a> {
        metadata: Metadata,
        #[serde(borrow)]
        items: Option<Vec<&'a RawValue>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        #[serde(default)]
        resource_version: String,
        #[serde(rename = "continue", default)]
        next: String,
    }
    let List { metadata, items } = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let items = items.into_iter().flatten().map(|item| Raw::new(item.get())).collect::<Result<_, _>>()?;
    Ok(Page { version: metadata.resource_version, next: metadata.next, items })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_watch() {
        let pod = r#"{"metadata":{"name":"a","resourceVersion":"5"}}"#;
        let raw = || Raw::new(pod).unwrap();
        let event = |kind: &str, object: &str| format!(r#"{{"type":"{kind}","object":{object}}}"#);
        let at = |version: &str, all| Ok(Line::Bookmark { version: version.to_owned(), all });
        let gone = Line::Error { code: 410, message: "too old".into() };
        for (kind, object, expected) in [
            ("ADDED", pod, Ok(Line::Apply(raw()))),
            ("MODIFIED", pod, Ok(Line::Apply(raw()))),
            ("DELETED", pod, Ok(Line::Delete(raw().meta))),
            ("BOOKMARK", r#"{"kind":"Pod","metadata":{"resourceVersion":"9"},"spec":{}}"#, at("9", false)),
            (
                "BOOKMARK",
                r#"{"metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true","x":"y"}}}"#,
                at("9", true),
            ),
            ("ERROR", r#"{"kind":"Status","code":410,"message":"too old","metadata":{}}"#, Ok(gone)),
            ("OTHER", "{}", Err("\"OTHER\" is no kind of event".to_owned())),
        ] {
            assert_eq!(line(&event(kind, object)), expected, "{kind} {object}");
        }
        assert!(line("").is_err() && line("{").is_err() && line("{}").is_err());
    }

    #[test]
    fn pages_of_a_list() {
        let text = r#"{"kind":"PodList","metadata":{"resourceVersion":"8","continue":"abc","remainingItemCount":4},
            "items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"}}]}"#;
        let read = page(text).unwrap();
        let names: Vec<_> = read.items.iter().map(|item| &*item.meta.name).collect();
        assert_eq!((&*read.version, &*read.next, names), ("8", "abc", vec!["a", "b"]));
        let last = page(r#"{"metadata":{"resourceVersion":"8"},"items":null}"#).unwrap();
        assert_eq!((&*last.next, last.items.len()), ("", 0));
        assert!(page("{}").is_err());
    }
}
