//! What the README shows works: the demo, and every example.
//!
//! Seen red without redirect rules (the demo), and with a Pod without a command among the examples.
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::command::{self, ambit};
use e2e::folder::Folder;
use e2e::harness::{Suite, need_program};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("examples::the_demo_observes_all_it_claims", demo);
    suite.trial("examples::every_example_becomes_ready", examples);
}

fn demo() -> Result<()> {
    // Its mesh is called `demo`; in a runtime directory of its own it is in nobody's way.
    let runtime = Folder::with("")?;
    let ambit = || {
        let mut command = ambit();
        command.env("XDG_RUNTIME_DIR", runtime.path());
        command
    };
    let output = command::run(ambit().arg("demo"), Duration::from_secs(90))?;
    ensure!(output.code == 0, "the demo ended with {}:\n{}\n{}", output.code, output.stdout, output.stderr);
    // Without --keep nothing of it runs on.
    let status = command::run(ambit().args(["status", "--name", "demo"]), command::LIMIT)?.bad()?;
    ensure!(status.contains("no mesh"), "{status}");
    Ok(())
}

fn examples() -> Result<()> {
    for program in ["python3", "curl", "openssl"] {
        need_program(program)?;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(&root)?.filter_map(|e| Some(e.ok()?.path())).collect();
    // The demo's files are edits of each other, played one after the other by the demo.
    folders.retain(|folder| folder.is_dir() && !folder.ends_with("demo"));
    folders.sort();
    ensure!(!folders.is_empty(), "no examples in {}", root.display());
    for folder in folders {
        let mut yaml = String::new();
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "yaml") {
                yaml += &format!("---\n{}\n", std::fs::read_to_string(&path)?);
            }
        }
        ensure!(!yaml.is_empty(), "no YAML in {}", folder.display());
        let mesh = Mesh::up(&yaml).with_context(|| format!("{}", folder.display()))?;
        let rejected = mesh.status()?.rejected;
        ensure!(rejected.is_empty(), "{}: {rejected:?}", folder.display());
    }
    Ok(())
}
