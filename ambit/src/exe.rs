//! Which file we are, to start ourselves again under another name.
use std::ffi::OsString;
use std::path::PathBuf;

/// Set to the path of another executable that behaves as `ambit`; for tests that carry the whole command inside.
pub const OVERRIDE: &str = "AMBIT_EXE";

/// The executable to start for `ambit ...`. Valid in every mount namespace, even after the file was replaced.
pub(crate) fn own() -> PathBuf {
    overridden().map_or_else(|| PathBuf::from("/proc/self/exe"), PathBuf::from)
}

/// The override, to be passed on to programs with an otherwise clean environment.
pub(crate) fn overridden() -> Option<OsString> {
    std::env::var_os(OVERRIDE).filter(|path| !path.is_empty())
}
