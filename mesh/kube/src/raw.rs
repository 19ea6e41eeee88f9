//! An object as it came: its text, and which object it is. Pure.

use serde::Deserialize;

/// Which object, and which state of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// Empty for kinds above namespaces.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Another object of the same name has another one.
    pub uid: String,
    /// Another state of it has another one.
    pub resource_version: String,
    /// Counts the changes of what its author wrote; 0 where the kind does not count.
    pub generation: i64,
}

/// An object as it came. Nobody has read more of it than who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw<'a> {
    /// Who it is.
    pub meta: Meta,
    /// All of it, as JSON.
    pub text: &'a str,
}

impl<'a> Raw<'a> {
    /// Reads who it is: however deep and wide the rest may be, it is skipped.
    ///
    /// # Errors
    /// When it has no name.
    pub(crate) fn new(text: &'a str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Object {
            metadata: Meta,
        }
        let Object { metadata: meta } = serde_json::from_str(text).map_err(|e| e.to_string())?;
        if meta.name.is_empty() { Err("it has no name".to_owned()) } else { Ok(Self { meta, text }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_it_is_is_read_whatever_else_it_holds() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        let text = format!(
            r#"{{"spec": {deep}, "metadata": {{"name": "a", "namespace": "n", "resourceVersion": "7", "generation": 2,
                "labels": 5, "uid": "u"}}}}"#
        );
        let meta = Raw::new(&text).unwrap().meta;
        let expected = Meta {
            namespace: "n".into(),
            name: "a".into(),
            uid: "u".into(),
            resource_version: "7".into(),
            generation: 2,
        };
        assert_eq!(meta, expected);
        for nobody in ["{}", r#"{"metadata": {}}"#, "[", r#"{"metadata": {"name": 5}}"#] {
            assert!(Raw::new(nobody).is_err(), "{nobody}");
        }
    }
}
