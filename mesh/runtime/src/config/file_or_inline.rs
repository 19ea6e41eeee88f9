//! A setting that is either a path or the content itself.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::ConfigError;

/// Where the content of a setting is. Keep it and read again when the content may have changed: tokens and roots are rotated in place.
#[derive(Clone, PartialEq, Eq)]
pub enum FileOrInline {
    /// In this file.
    File(PathBuf),
    /// This is it.
    Inline(String),
}

/// The most a file may hold. A bundle of every public root is about 250 KiB.
const FILE_LIMIT: u64 = 1 << 20;

impl FileOrInline {
    /// What `text` means. PEM and anything of several lines is content; what exists, or is spelled as a path, is a file, so that a
    /// path whose file is late is never sent out as if it were a secret.
    pub fn classify(text: &str, exists: impl FnOnce(&Path) -> bool) -> Self {
        if text.contains("-----BEGIN") || text.contains('\n') {
            return Self::Inline(text.to_owned());
        }
        let spelled_as_path = ["/", "./", "../"].iter().any(|prefix| text.starts_with(prefix));
        if spelled_as_path || exists(Path::new(text)) {
            Self::File(PathBuf::from(text))
        } else {
            Self::Inline(text.to_owned())
        }
    }

    /// The content now; at most 1 MiB of it. `name` is the setting, for the error. Blocks on the file system.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`] or [`ConfigError::TooLarge`].
    pub fn read(&self, name: &str) -> Result<Vec<u8>, ConfigError> {
        let path = match self {
            Self::Inline(text) => return Ok(text.clone().into_bytes()),
            Self::File(path) => path,
        };
        let unreadable = |source| ConfigError::Unreadable { name: name.into(), path: path.clone(), source };
        let mut content = Vec::new();
        File::open(path).and_then(|file| file.take(FILE_LIMIT + 1).read_to_end(&mut content)).map_err(unreadable)?;
        if content.len() as u64 > FILE_LIMIT {
            return Err(ConfigError::TooLarge { name: name.into(), path: path.clone(), limit: FILE_LIMIT });
        }
        Ok(content)
    }
}

/// The path, or only that there is content: it may be a secret.
impl fmt::Debug for FileOrInline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Inline(_) => f.write_str("Inline(..)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classified() {
        let file = |path: &str| FileOrInline::File(path.into());
        let inline = |text: &str| FileOrInline::Inline(text.into());
        let pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
        let cases = [
            ("/var/run/token", false, file("/var/run/token")),
            ("./var/run/token", false, file("./var/run/token")),
            ("token.txt", true, file("token.txt")),
            ("token.txt", false, inline("token.txt")),
            ("SYSTEM", false, inline("SYSTEM")),
            ("eyJhbGciOi.x.y", false, inline("eyJhbGciOi.x.y")),
            (pem, false, inline(pem)),
        ];
        for (text, exists, expected) in cases {
            assert_eq!(FileOrInline::classify(text, |_| exists), expected, "{text:?} exists={exists}");
        }
    }

    #[test]
    fn reads_each_time_and_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let source = FileOrInline::File(path.clone());
        assert!(matches!(source.read("AUTH_TOKEN"), Err(ConfigError::Unreadable { .. })));
        std::fs::write(&path, "one").unwrap();
        assert_eq!(source.read("AUTH_TOKEN").unwrap(), b"one");
        std::fs::write(&path, "two").unwrap();
        assert_eq!(source.read("AUTH_TOKEN").unwrap(), b"two");
        std::fs::write(&path, vec![b'x'; FILE_LIMIT as usize + 1]).unwrap();
        let error = source.read("AUTH_TOKEN").unwrap_err().to_string();
        assert!(error.starts_with("setting AUTH_TOKEN names the file /"), "{error}");
        assert!(error.ends_with("larger than 1048576 bytes"), "{error}");
    }
}
