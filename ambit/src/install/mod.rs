//! `ambit install|upgrade|uninstall`: the mesh on a cluster, by the Helm charts that this program carries.
//!
//! | file | question |
//! |---|---|
//! | this one | does what was asked |
//! | [`arguments`] | what was asked? |
//! | [`charts`] | the charts, and where they are for Helm |
//! | `plan` | which command of Helm's does it? (pure) |
//! | `purge` | what is left after Helm has removed all that it made, and removes that |
//!
//! Helm does the work, where it is installed; where it is not, it is said which commands of it would do the same.

pub(crate) mod arguments;
mod charts;
mod plan;
mod purge;

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use arguments::{InstallArgs, UninstallArgs, UpgradeArgs};

/// `ambit install`.
pub(crate) fn install(args: &InstallArgs) -> Result<ExitCode> {
    let verb = if args.dry_run { "template" } else { "install" };
    with_charts(args.charts.as_deref(), |chart| plan::make(verb, &args.what, chart))
}

/// `ambit upgrade`.
pub(crate) fn upgrade(args: &UpgradeArgs) -> Result<ExitCode> {
    let verb = if args.dry_run { "upgrade --dry-run" } else { "upgrade" };
    with_charts(args.charts.as_deref(), |chart| plan::make(verb, &args.what, chart))
}

/// `ambit uninstall`.
pub(crate) fn uninstall(args: &UninstallArgs) -> Result<ExitCode> {
    let command = plan::remove(args);
    if !args.purge {
        return helm(&command);
    }
    find_helm(&command)?;
    let left = purge::look(args)?;
    if !args.yes && !purge::confirmed(&left)? {
        bail!("nothing was done");
    }
    let code = helm(&command)?;
    if code != ExitCode::SUCCESS {
        return Ok(code);
    }
    purge::remove(args, &left)?;
    Ok(code)
}

/// Runs Helm on the charts; or writes them into a folder that was named, and says how Helm is run on them there.
fn with_charts(
    folder: Option<&std::path::Path>,
    command: impl Fn(&std::path::Path) -> Vec<OsString>,
) -> Result<ExitCode> {
    if let Some(folder) = folder {
        let chart = charts::write(folder)?;
        say(&format!("the charts are in {}; this installs them:\n  {}", folder.display(), shown(&command(&chart))));
        return Ok(ExitCode::SUCCESS);
    }
    // Before anything is written: whoever reads the message shall find the charts there, too.
    find_helm(&command("DIR/ambit".as_ref()))?;
    let folder = charts::Temporary::new()?;
    helm(&command(&folder.chart))
}

fn helm(args: &[OsString]) -> Result<ExitCode> {
    let helm = find_helm(args)?;
    let ended = Command::new(&helm).args(args).status().with_context(|| format!("cannot run {}", helm.display()))?;
    // 128 and more: a signal ended it.
    Ok(ended.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Helm, where it is in the PATH; else what to do without.
fn find_helm(args: &[OsString]) -> Result<std::path::PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|folder| folder.join("helm")).find(|file| file.is_file());
    found.with_context(|| {
        let charts = if args.iter().any(|arg| arg == "DIR/ambit") {
            "; `--charts DIR` writes the charts there for it"
        } else {
            ""
        };
        format!(
            "`helm` is not in the PATH, and does the work: install Helm 3.14 or newer (https://helm.sh/docs/intro/install), or run \
             where it is installed{charts}:\n  {}",
            shown(args)
        )
    })
}

/// As a shell would take it.
fn shown(args: &[OsString]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+~".contains(c);
    let quoted = args.iter().map(|arg| {
        let arg = arg.to_string_lossy();
        if !arg.is_empty() && arg.chars().all(plain) {
            arg.into_owned()
        } else {
            format!("'{}'", arg.replace('\'', r"'\''"))
        }
    });
    std::iter::once("helm".to_owned()).chain(quoted).collect::<Vec<_>>().join(" ")
}

#[allow(clippy::print_stderr, reason = "what a command says to its user; its output is Helm's")]
fn say(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_a_shell_takes_them() {
        for (args, expected) in [
            (&["install", "ambit", "/tmp/a/ambit"][..], "helm install ambit /tmp/a/ambit"),
            (&["--set", "a=b c"], "helm --set 'a=b c'"),
            (&["it's", "", "$HOME"], r"helm 'it'\''s' '' '$HOME'"),
        ] {
            let args: Vec<OsString> = args.iter().map(Into::into).collect();
            assert_eq!(shown(&args), expected);
        }
    }
}
