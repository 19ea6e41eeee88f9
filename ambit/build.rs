//! Puts the Helm charts into the program: a list of their files, as Helm would package the umbrella.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let helm = Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../helm");
    println!("cargo:rerun-if-changed={}", helm.display());
    let mut files = Vec::new();
    // Charts of the umbrella are links to folders beside it: what they lead to is taken.
    collect(&helm.join("ambit"), "ambit", &mut files)?;
    files.sort();
    let mut list = "&[\n".to_owned();
    for (name, path) in &files {
        let path = path.canonicalize()?;
        println!("cargo:rerun-if-changed={}", path.display());
        // Writing to a String cannot fail.
        let _ = writeln!(list, "    ({name:?}, include_bytes!({path:?})),");
    }
    list.push(']');
    let out = PathBuf::from(env::var("OUT_DIR").unwrap_or_default());
    fs::write(out.join("charts.rs"), list)
}

fn collect(folder: &Path, name: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), format!("{name}/{}", entry.file_name().to_string_lossy()));
        if path.is_dir() {
            collect(&path, &name, files)?;
        } else {
            files.push((name, path));
        }
    }
    Ok(())
}
