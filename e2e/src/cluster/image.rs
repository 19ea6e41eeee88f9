//! The image of the mesh's own programs.
use crate::command::{self, Output};
use anyhow::{Context, Result};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What pods call it.
pub const AMBIT: &str = "localhost/ambit:kit";
const SCRIPT: &str = include_str!("../../../scripts/image");
/// Where the program is in it.
const PROGRAM: &str = "/usr/local/bin/ambit";
/// It is hundreds of megabytes before it is stripped.
const LIMIT: Duration = Duration::from_secs(120);

/// Writes an archive of the program under test: `AMBIT_EXE`, or this very one, which answers to that name.
pub(super) fn ambit(files: &Path) -> Result<PathBuf> {
    let own = std::env::var_os(ambit::EXE_OVERRIDE).filter(|exe| !exe.is_empty());
    let own = own.map_or_else(|| std::env::current_exe().context("which program is this?"), |exe| Ok(exe.into()))?;
    let (script, program, archive) = (files.join("image"), files.join("ambit"), files.join("ambit.tar"));
    std::fs::write(&script, SCRIPT)?;
    run("strip", [OsStr::new("-o"), program.as_os_str(), own.as_os_str()])?.good()?;
    let mut put = program.into_os_string();
    put.push(format!("={PROGRAM}"));
    let words =
        [script.as_os_str(), archive.as_os_str(), AMBIT.as_ref(), "--entrypoint".as_ref(), PROGRAM.as_ref(), &put];
    run("bash", words)?.good()?;
    Ok(archive)
}

fn run<const N: usize>(program: &str, words: [&OsStr; N]) -> Result<Output> {
    command::run(Command::new(program).args(words), LIMIT)
}
