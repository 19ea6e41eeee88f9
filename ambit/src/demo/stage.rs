//! The mesh the demo plays on.
use crate::control;
use crate::exe;
use crate::run_dir::RunDir;
use crate::status::{Status, Width};
use crate::sys::launch;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const NAME: &str = "demo";
/// Where orders are asked for.
pub(super) const URL: &str = "http://orders.shop/";
/// Who asks.
pub(super) const STOREFRONT: &str = "spiffe://cluster.local/ns/shop/sa/storefront";
/// Longest wait for a change to take effect.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A mesh of the demo's own.
pub(super) struct Stage {
    run: RunDir,
    folder: PathBuf,
    keep: bool,
    up: Option<Child>,
}

impl Stage {
    /// Nothing runs yet.
    pub(super) fn new(keep: bool) -> Result<Self> {
        let run = RunDir::of(NAME)?;
        if run.is_running()? {
            bail!("an earlier demo is still running; end it with: ambit down --name {NAME}");
        }
        Ok(Stage { folder: run.folder(), run, keep, up: None })
    }

    /// The mesh's name.
    pub(super) fn name(&self) -> &str {
        self.run.name()
    }

    /// Where its YAML is.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes the files and starts the mesh.
    pub(super) fn start(&mut self, files: &[(&str, &str)]) -> Result<()> {
        self.run.make_folder()?;
        for (name, text) in files {
            self.write(name, text)?;
        }
        let mut command = Command::new(exe::own());
        command.args(["up", "--quiet", "--name", NAME, "-f"]).arg(&self.folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        if self.keep {
            launch::in_new_session(&mut command);
        } else {
            launch::die_with_parent(&mut command);
        }
        self.up = Some(command.spawn().context("cannot start the mesh")?);
        Ok(())
    }

    /// Writes one file of the folder, as an editor would.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        crate::run_dir::write_atomically(&path, text.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// How it is.
    pub(super) fn status(&self) -> Result<Status> {
        control::status(&self.run)
    }

    /// Waits until everything is ready.
    pub(super) fn wait_ready(&mut self, limit: Duration) -> Result<Status> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(up) = &mut self.up
                && up.try_wait()?.is_some()
            {
                let said = self.up.take().map(Child::wait_with_output).transpose()?;
                let said = said.map(|o| String::from_utf8_lossy(&o.stderr).into_owned()).unwrap_or_default();
                bail!("the mesh did not start: {}", said.trim().trim_start_matches("ambit: "));
            }
            match self.status() {
                Ok(status) if status.ready => return Ok(status),
                Ok(status) if Instant::now() > deadline => {
                    bail!("not everything was ready after {limit:?}:\n{}", status.table(Width::Narrow))
                }
                Err(e) if Instant::now() > deadline => return Err(e),
                Ok(_) | Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// An HTTP call from a pod of the shop; the answer, or why there was none.
    pub(super) fn call(&self, pod: &str, url: &str) -> Result<Result<String, String>> {
        let output = Command::new(exe::own())
            .args(["exec", "--name", NAME, "-n", "shop", pod, "--", "ambit", "tool", "http-get", "--timeout", "3", url])
            .output()
            .context("cannot run a command in a pod")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let why = String::from_utf8_lossy(&output.stderr).trim().trim_start_matches("ambit: ").to_owned();
        Ok(if output.status.success() { Ok(text) } else { Err(why) })
    }

    /// The log of a program.
    pub(super) fn log(&self, program: &str) -> Result<String> {
        let path = self.run.program_log(program);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// The log of a pod of the shop.
    pub(super) fn pod_log(&self, pod: &str) -> Result<String> {
        let path = self.run.pod_log("shop", pod);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// The ends of all programs' logs, for when something went wrong.
    pub(super) fn last_words(&self) -> Vec<(String, Vec<String>)> {
        ["ambit", "istiod-lite", "node-agent-node1", "node-agent-node2", "ztunnel-node1", "ztunnel-node2"]
            .iter()
            .filter_map(|program| {
                let log = self.log(program).ok()?;
                let lines: Vec<String> = log.lines().map(|line| line.chars().take(300).collect()).collect();
                Some(((*program).to_owned(), lines[lines.len().saturating_sub(6)..].to_vec()))
            })
            .collect()
    }

    /// Ends the mesh and waits until nothing of it is left.
    pub(super) fn end(&mut self) -> Result<()> {
        if let Some(mut up) = self.up.take()
            && up.try_wait()?.is_none()
        {
            let pid = i32::try_from(up.id()).ok().and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                rustix::process::kill_process(pid, rustix::process::Signal::TERM).context("cannot end the mesh")?;
            }
            up.wait()?;
        }
        Ok(())
    }
}

/// Looks again until there is something; `what` names it in the error.
pub(super) fn wait_for<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("waited {limit:?} for {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
