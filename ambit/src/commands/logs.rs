//! `ambit logs`.
use crate::cli::Logs;
use crate::manifest::pod_key;
use crate::run_dir::RunDir;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

pub(super) fn run(args: &Logs) -> Result<ExitCode> {
    let run = RunDir::of(&args.which.name)?;
    if !run.is_running()? {
        bail!("mesh `{}` is not running; its logs ended with it", run.name());
    }
    let path = find(&run, args)?;
    let mut file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    show(last_lines(&text, args.tail))?;
    if args.follow { follow(file, &path) } else { Ok(ExitCode::SUCCESS) }
}

/// Shows what is added until the mesh ends.
fn follow(mut file: File, path: &Path) -> Result<ExitCode> {
    let mut text = Vec::new();
    loop {
        std::thread::sleep(Duration::from_millis(100));
        text.clear();
        file.read_to_end(&mut text)?;
        show(&text)?;
        // Put aside because it grew too large, or gone with the mesh.
        match std::fs::metadata(path) {
            Ok(now) if now.ino() != file.metadata()?.ino() => file = File::open(path)?,
            Ok(now) if now.len() < file.stream_position()? => {
                file.seek(SeekFrom::Start(0))?;
            }
            Ok(_) => {}
            Err(_) => return Ok(ExitCode::SUCCESS),
        }
    }
}

fn show(text: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        // The reader (`head`, a pager) has seen enough.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.context("cannot write"),
    }
}

fn find(run: &RunDir, args: &Logs) -> Result<PathBuf> {
    let (namespace, pod) = pod_key(&args.namespace, &args.what);
    let pod_log = run.pod_log(&namespace, &pod);
    if pod_log.is_file() {
        return Ok(pod_log);
    }
    let program = run.program_log(&args.what);
    if !args.what.contains('/') && program.is_file() {
        return Ok(program);
    }
    let mut known = names(&run.logs(), |name| name.to_owned());
    known.extend(names(&run.logs().join("pods"), |name| name.replacen('_', "/", 1)));
    bail!("there are no logs of `{}`. There are logs of: {}", args.what, known.join(", "))
}

fn names(directory: &Path, shown: impl Fn(&str) -> String) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.filter_map(|e| Some(shown(e.ok()?.file_name().to_str()?.strip_suffix(".log")?))).collect();
    names.sort();
    names
}

/// The last `count` lines of a text; all of it for `None`.
fn last_lines(text: &[u8], count: Option<usize>) -> &[u8] {
    let Some(count) = count else { return text };
    if count == 0 {
        return &[];
    }
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let start = body.iter().enumerate().rev().filter(|(_, b)| **b == b'\n').nth(count - 1).map_or(0, |(at, _)| at + 1);
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails() {
        for (count, expected) in [(None, "a\nb\nc\n"), (Some(0), ""), (Some(2), "b\nc\n"), (Some(9), "a\nb\nc\n")] {
            assert_eq!(last_lines(b"a\nb\nc\n", count), expected.as_bytes(), "{count:?}");
        }
    }
}
