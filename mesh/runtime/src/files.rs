//! Files that other programs read: each is replaced in one step.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// How a file is replaced; see [`replace`] for the plain way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Replace {
    mode: Option<u32>,
    to_disk: bool,
}

impl Replace {
    /// With the permissions that the umask leaves, and without waiting for the disk.
    pub const fn new() -> Self {
        Self { mode: None, to_disk: false }
    }

    /// The file has these permissions from the first byte on, for example `0o600`.
    #[must_use]
    pub const fn mode(self, mode: u32) -> Self {
        Self { mode: Some(mode), ..self }
    }

    /// The content is on the disk before it takes the old one's place, so that it outlives a loss of power.
    #[must_use]
    pub const fn to_disk(self) -> Self {
        Self { to_disk: true, ..self }
    }

    /// Replaces the file at `path`, or makes it. Readers see the old content or the new, never a part.
    ///
    /// The new content is written to `.NAME.new` beside it: on the same file system, so that the rename is atomic, and
    /// hidden from who reads all `*.yaml` or `*.json` of the directory. One writer at a time.
    ///
    /// # Errors
    /// As the system says; the old file is untouched then. `InvalidInput` for a path that ends in no file name.
    pub fn write(self, path: &Path, content: impl AsRef<[u8]>) -> io::Result<()> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary.push(".new");
        let temporary = path.with_file_name(temporary);
        let mut options = OpenOptions::new();
        options.write(true);
        match self.mode {
            // What a killed writer left could have other permissions.
            Some(mode) => {
                match fs::remove_file(&temporary) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                options.create_new(true).mode(mode);
            }
            None => {
                options.create(true).truncate(true);
            }
        }
        let mut file = options.open(&temporary)?;
        file.write_all(content.as_ref())?;
        if self.to_disk {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)
    }
}

/// Replaces the file at `path`, or makes it, in one step: [`Replace::write`] with the permissions that the umask leaves.
///
/// # Errors
/// As [`Replace::write`].
pub fn replace(path: &Path, content: impl AsRef<[u8]>) -> io::Result<()> {
    Replace::new().write(path, content)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_old_or_the_new_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("told.json");
        replace(&path, "a longer text").unwrap();
        // Who has opened the old one reads it to its end.
        let old = fs::File::open(&path).unwrap();
        replace(&path, "new").unwrap();
        assert_eq!(io::read_to_string(old).unwrap(), "a longer text");
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(replace(Path::new("/"), "").is_err());
        // Where it cannot be written, the old one stays.
        fs::create_dir(directory.path().join(".told.json.new")).unwrap();
        assert!(replace(&path, "lost").is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    }

    #[test]
    fn a_secret_is_its_owners_from_the_first_byte() {
        let directory = tempfile::tempdir().unwrap();
        let (path, left) = (directory.path().join("key.pem"), directory.path().join(".key.pem.new"));
        // A writer that was killed left a file that all may read.
        fs::write(&left, "what was left, and is longer").unwrap();
        fs::set_permissions(&left, fs::Permissions::from_mode(0o666)).unwrap();
        Replace::new().mode(0o600).to_disk().write(&path, "secret").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "secret");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
