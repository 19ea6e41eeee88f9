//! A running mesh.
use crate::command::{self, LIMIT, Output, ambit};
use crate::folder::Folder;
use crate::harness::{PARENT, REPORT, Skip, skip};
use crate::observe::Metrics;
use crate::process::{self, Process};
use crate::traffic::Traffic;
use crate::until::{until, until_within};
use crate::yaml::{self, Pod};
use ambit::capture::Capture;
use ambit::status::{PodStatus, ProgramStatus, Status};
use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The first start of a machine's life may be slow.
const START: Duration = Duration::from_secs(60);
/// What `ambit up` begins with when the machine lacks what it needs.
const LACKS: &[&str] = &["a mesh cannot run here", "cannot make a user namespace", "cannot make a pid namespace"];
/// Where the kit's own pods are.
const KIT: &str = "kit";
/// The nodes of every mesh of the kit.
pub const NODES: [&str; 2] = ["node1", "node2"];

/// A mesh of two nodes, and the folder it is made from. Ends when dropped.
#[derive(Debug)]
pub struct Mesh {
    name: String,
    /// The user's YAML.
    pub folder: Folder,
    up: Child,
}

impl Mesh {
    /// Starts a mesh from YAML and returns once every pod is ready.
    ///
    /// # Errors
    /// It does not become ready in time; or [`skip`], if the machine lacks what a mesh needs.
    pub fn up(yaml: &str) -> Result<Self> {
        Self::up_with(yaml, &[])
    }

    /// [`Mesh::up`], with more arguments for `ambit up`.
    ///
    /// # Errors
    /// As [`Mesh::up`].
    pub fn up_with(yaml: &str, args: &[&str]) -> Result<Self> {
        Self::up_within(START, yaml, args)
    }

    /// [`Mesh::up_with`], with another limit.
    ///
    /// # Errors
    /// As [`Mesh::up`].
    pub fn up_within(limit: Duration, yaml: &str, args: &[&str]) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("e2e-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = Folder::with(yaml)?;
        // Windows into the nodes' own networks, where metrics and state are served.
        let windows = NODES.map(|node| Pod::new(KIT, node, node).on_host().quick_end().yaml());
        folder.write("kit.yaml", &(yaml::namespace(KIT, false) + &windows.concat()))?;
        let said = std::fs::File::create(folder.file("up.said"))?;
        let mut command = ambit();
        command.args(["up", "--quiet", "--name", &name, "-f"]).arg(folder.path()).args(args);
        // Ends with the test, even if that is killed; see `harness::main`.
        command.env(PARENT, std::process::id().to_string());
        let up =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).spawn().context("cannot start ambit")?;
        let mut mesh = Mesh { name, folder, up };
        match mesh.wait_ready(limit) {
            Ok(()) => Ok(mesh),
            Err(e) if e.is::<Skip>() => Err(e),
            Err(e) => Err(e.context(mesh.report())),
        }
    }

    fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        let up = &mut self.up;
        let folder = &self.folder;
        let ended = until_within(limit, "the mesh is ready", || {
            if let Some(status) = up.try_wait()? {
                return Ok(Some(status));
            }
            let status = status(&self.name)?;
            ensure!(status.ready, "not ready yet");
            // A file that could not be read in time, on a busy machine, is read at the next look.
            let late = status.rejected.iter().find(|r| r.reason.contains("no answer within"));
            ensure!(late.is_none(), "not all is read yet: {late:?}");
            Ok(None)
        })?;
        let Some(status) = ended else { return Ok(()) };
        let said = std::fs::read_to_string(folder.file("up.said")).unwrap_or_default();
        if LACKS.iter().any(|lack| said.contains(lack)) {
            return Err(skip(said.trim()));
        }
        bail!("`ambit up` ended with {status}: {said}")
    }

    /// Its name, for commands of `ambit`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id of `ambit up`.
    ///
    /// # Errors
    /// None in practice: process ids are positive.
    pub fn up_pid(&self) -> Result<i32> {
        Ok(i32::try_from(self.up.id())?)
    }

    /// How it is.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self) -> Result<Status> {
        status(&self.name)
    }

    /// One pod, named `NAMESPACE/NAME`.
    ///
    /// # Errors
    /// There is none.
    pub fn pod(&self, pod: &str) -> Result<PodStatus> {
        let (namespace, name) = pod.split_once('/').context("a pod is NAMESPACE/NAME")?;
        self.status()?.pod(namespace, name).cloned().with_context(|| format!("there is no pod {pod}"))
    }

    /// A pod's first address of a family.
    ///
    /// # Errors
    /// It has none.
    pub fn ip(&self, pod: &str, v6: bool) -> Result<IpAddr> {
        let ips = self.pod(pod)?.ips;
        ips.iter().copied().find(|ip| ip.is_ipv6() == v6).with_context(|| format!("{pod} has only {ips:?}"))
    }

    /// Runs a command in a pod, named `NAMESPACE/NAME`.
    ///
    /// # Errors
    /// It does not end in time. A bad exit code is no error here.
    pub fn exec(&self, pod: &str, command: &[&str]) -> Result<Output> {
        self.exec_within(LIMIT, pod, command)
    }

    /// [`Mesh::exec`], with another limit.
    ///
    /// # Errors
    /// As [`Mesh::exec`].
    pub fn exec_within(&self, limit: Duration, pod: &str, command: &[&str]) -> Result<Output> {
        command::run(ambit().args(["exec", "--name", &self.name, pod, "--"]).args(command), limit)
    }

    /// Fetches a URL from inside a pod; the body.
    ///
    /// # Errors
    /// There is no answer, or it is not 200.
    pub fn get(&self, pod: &str, url: &str) -> Result<String> {
        let output = self.exec(pod, &["ambit", "tool", "http-get", "--timeout", "10", url])?;
        output.good().map(|text| text.trim_end().to_owned()).with_context(|| format!("{pod} asks {url}"))
    }

    /// Waits until a URL can be fetched from inside a pod; the body.
    ///
    /// # Errors
    /// It cannot, in time.
    pub fn get_at_last(&self, pod: &str, url: &str) -> Result<String> {
        until(&format!("{pod} reaches {url}"), || self.get(pod, url))
    }

    /// Waits until a URL cannot be fetched from inside a pod.
    ///
    /// # Errors
    /// It still can, after a time.
    pub fn refused_at_last(&self, pod: &str, url: &str) -> Result<()> {
        until(&format!("{pod} is kept from {url}"), || match self.get(pod, url) {
            Ok(text) => Err(anyhow!("{pod} asks {url} and is told {text:?}")),
            Err(_) => Ok(()),
        })
    }

    /// Waits until a URL cannot be fetched from inside a pod for a reason that a log gives: a line of it has all these words. It is
    /// asked for again until then, because on the way to the last state others may refuse it.
    ///
    /// # Errors
    /// It still can be fetched, or is refused for other reasons, after a time.
    pub fn refused_because(&self, pod: &str, url: &str, log: &str, words: &[&str]) -> Result<()> {
        until(&format!("{pod} is kept from {url}, and the log of {log} has a line with {words:?}"), || {
            if let Ok(text) = self.get(pod, url) {
                bail!("{pod} asks {url} and is told {text:?}");
            }
            self.logged(log, words).map(drop)
        })
    }

    /// Fetches a URL from inside a pod again and again, until [`Traffic::finish`]. Each time is a new connection. Returns when
    /// the first answer, or failure, is there.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn traffic(&self, pod: &str, to: &str, args: &[&str]) -> Result<Traffic> {
        let mut command = ambit();
        command.args(["exec", "--name", &self.name, pod, "--", "ambit", "tool", "pace", to]).args(args);
        Traffic::start(&mut command)
    }

    /// What a pod (`NAMESPACE/NAME`) or a program (`ztunnel-node1`, `istiod-lite`) wrote.
    ///
    /// # Errors
    /// There is no such log.
    pub fn log(&self, what: &str) -> Result<String> {
        command::run(ambit().args(["logs", "--name", &self.name, what]), LIMIT)?.good()
    }

    /// The log of a node's ztunnel.
    ///
    /// # Errors
    /// As [`Mesh::log`].
    pub fn ztunnel_log(&self, node: &str) -> Result<String> {
        self.log(&format!("ztunnel-{node}"))
    }

    /// Waits for a line of a log that has all these words, and returns it.
    ///
    /// # Errors
    /// It does not come.
    pub fn log_line(&self, what: &str, words: &[&str]) -> Result<String> {
        until(&format!("the log of {what} has a line with {words:?}"), || self.logged(what, words))
    }

    /// The last line of a log that has all these words, for a look that is repeated.
    ///
    /// # Errors
    /// There is none.
    pub fn logged(&self, what: &str, words: &[&str]) -> Result<String> {
        let log = self.log(what)?;
        let line = log.lines().rev().find(|line| words.iter().all(|word| line.contains(word)));
        line.map(str::to_owned).context("no such line")
    }

    /// The metrics of a node's ztunnel.
    ///
    /// # Errors
    /// It does not answer.
    pub fn metrics(&self, node: &str) -> Result<Metrics> {
        Ok(Metrics::parse(&self.get(&format!("{KIT}/{node}"), "http://127.0.0.1:15020/metrics")?))
    }

    /// The state of a node's ztunnel.
    ///
    /// # Errors
    /// It does not answer.
    pub fn config_dump(&self, node: &str) -> Result<Value> {
        let text = self.get(&format!("{KIT}/{node}"), "http://127.0.0.1:15000/config_dump")?;
        serde_json::from_str(&text).with_context(|| format!("the state of {node} is no JSON: {text}"))
    }

    /// Captures on the wires between the nodes, looking for these texts.
    ///
    /// # Errors
    /// The machine does not allow it.
    pub fn capture(&self, needles: &[&str]) -> Result<Capture> {
        Capture::start(&self.name, needles)
    }

    /// Replaces or adds a file of YAML and waits until it was read.
    ///
    /// # Errors
    /// It is not read.
    pub fn apply(&self, file: &str, yaml: &str) -> Result<()> {
        self.and_read(|| self.folder.write(file, yaml))
    }

    /// Removes a file of YAML and waits until that was noticed.
    ///
    /// # Errors
    /// It is not noticed.
    pub fn remove(&self, file: &str) -> Result<()> {
        self.and_read(|| self.folder.remove(file))
    }

    /// Replaces text in a file of YAML and waits until it was read.
    ///
    /// # Errors
    /// The text is not there, or the file is not read.
    pub fn edit(&self, file: &str, from: &str, to: &str) -> Result<()> {
        self.and_read(|| self.folder.edit(file, from, to))
    }

    fn and_read(&self, change: impl FnOnce() -> Result<()>) -> Result<()> {
        change()?;
        // It is looked at now and then anyway: another look says nothing, one that began after the change does.
        let changed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        // The look that the change itself caused may have begun before `changed` was taken. This makes sure of one that has not; no dot
        // file is read as YAML.
        std::fs::write(self.folder.file(".look"), changed.to_string()).context("cannot write .look")?;
        until("the folder is read again", || {
            let read = self.status()?.folder_read_at_ms;
            ensure!(u128::from(read) > changed, "changed at {changed} ms, read at {read} ms");
            Ok(())
        })
    }

    /// Waits until a pod is ready, and in the mesh or not.
    ///
    /// # Errors
    /// It is not, in time.
    pub fn pod_ready(&self, pod: &str, meshed: bool) -> Result<PodStatus> {
        let state = if meshed { "yes" } else { "no" };
        until(&format!("pod {pod} is ready, in the mesh: {state}"), || {
            let status = self.pod(pod)?;
            ensure!(status.ready && status.mesh.state == state && !status.leaving, "{status:?}");
            Ok(status)
        })
    }

    /// Waits until both nodes' ztunnels know that a pod is in the mesh, or that it is not. That it is they know before
    /// status says so; that it is not, a moment later.
    ///
    /// # Errors
    /// They do not learn it, in time.
    pub fn pod_known(&self, pod: &str, meshed: bool) -> Result<()> {
        let protocol = if meshed { "HBONE" } else { "TCP" };
        until(&format!("all ztunnels know that {pod} speaks {protocol}"), || {
            for node in NODES {
                let dump = self.config_dump(node)?;
                let workloads = dump["workloads"].as_array().context("no workloads in the state")?;
                let named = |w: &&Value| pod == format!("{}/{}", text(&w["namespace"]), text(&w["name"]));
                let workload = workloads.iter().find(named).with_context(|| format!("{node} does not know {pod}"))?;
                ensure!(workload["protocol"] == protocol, "{node} thinks it speaks {}", workload["protocol"]);
            }
            Ok(())
        })
    }

    /// Waits until a pod is gone.
    ///
    /// # Errors
    /// It is not, in time.
    pub fn pod_gone(&self, pod: &str) -> Result<()> {
        let (namespace, name) = pod.split_once('/').context("a pod is NAMESPACE/NAME")?;
        until(&format!("pod {pod} is gone"), || {
            ensure!(self.status()?.pod(namespace, name).is_none(), "still there");
            Ok(())
        })
    }

    /// How one of the mesh's programs is.
    ///
    /// # Errors
    /// There is no such program.
    pub fn program(&self, name: &str) -> Result<ProgramStatus> {
        let programs = self.status()?.programs;
        programs.into_iter().find(|p| p.name == name).with_context(|| format!("there is no program {name}"))
    }

    /// A file of the CA's own, as text: its key is what test lists of revoked certificates are signed with.
    ///
    /// # Errors
    /// There is none, or it may not be read.
    pub fn ca_file(&self, name: &str) -> Result<String> {
        let path = self.istiod_state()?.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// The directory of the control plane's state, while that runs.
    ///
    /// # Errors
    /// It does not run, or says nothing of it.
    pub fn istiod_state(&self) -> Result<PathBuf> {
        let istiod = self.process("istiod-lite")?.pid;
        let env = std::fs::read(format!("/proc/{istiod}/environ")).context("istiod-lite's environment")?;
        let env = String::from_utf8_lossy(&env);
        let directory = env.split('\0').find_map(|set| set.strip_prefix("STATE_DIR=")).context("no STATE_DIR")?;
        Ok(PathBuf::from(format!("/proc/{istiod}/root{directory}")))
    }

    /// Signals one of the mesh's programs (`ztunnel-node1`, `istiod-lite`, `node-agent-node2`).
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, program: &str, signal: Signal) -> Result<()> {
        process::signal(self.process(program)?.pid, signal)
    }

    /// The process of one of the mesh's programs, as seen from outside.
    ///
    /// # Errors
    /// It does not run.
    pub fn process(&self, program: &str) -> Result<Process> {
        let inner = self.program(program)?.pid.with_context(|| format!("{program} does not run"))?;
        let init = self.init()?;
        let found = process::children(init).into_iter().find(|p| p.own_pid() == inner);
        found.with_context(|| format!("{program} is not to be found"))
    }

    /// Process 1 of the machine, seen from outside.
    ///
    /// # Errors
    /// There is none.
    pub fn init(&self) -> Result<i32> {
        let children = process::children(self.up_pid()?);
        children.iter().find(|p| p.own_pid() == 1).map(|p| p.pid).context("the machine has no process 1")
    }

    /// Signals a program, and waits until it was started again and everything is ready.
    ///
    /// # Errors
    /// It does not come back.
    pub fn restart(&self, program: &str, with: Signal) -> Result<()> {
        let before = self.program(program)?.restarts;
        self.signal(program, with)?;
        until(&format!("{program} runs again"), || {
            let now = self.program(program)?;
            ensure!(now.restarts > before && now.pid.is_some(), "{now:?}");
            ensure!(self.status()?.ready, "not everything is ready");
            Ok(())
        })
    }

    /// Replaces a program as a user does; returns once the new instance is ready.
    ///
    /// # Errors
    /// It is not replaced.
    pub fn replace(&self, program: &str) -> Result<()> {
        let command = command::run(ambit().args(["restart", "--name", &self.name, program]), LIMIT)?;
        command.good().map(drop).with_context(|| format!("replacing {program}"))
    }

    /// Ends it and waits for that.
    ///
    /// # Errors
    /// It does not end in good order.
    pub fn down(mut self) -> Result<()> {
        command::run(ambit().args(["down", "--name", &self.name]), LIMIT)?.good()?;
        let code = command::wait(&mut self.up, LIMIT)?;
        ensure!(code == 0, "`ambit up` ended with {code}");
        Ok(())
    }

    /// Kills `ambit up`, so that nothing of it can clean up.
    ///
    /// # Errors
    /// It is gone already.
    pub fn kill(mut self) -> Result<()> {
        self.up.kill()?;
        self.up.wait()?;
        Ok(())
    }

    /// What there is to know when something went wrong: the status, and the ends of the programs' logs and of the pods'. Connections and
    /// requests that went well are left out: they would be all there is.
    pub fn report(&self) -> String {
        let mut text = String::new();
        let mut tell = |title: &str, output: Result<Output>, lines: usize| {
            let body = output.map_or_else(|e| format!("{e:#}"), |o| o.stdout + &o.stderr);
            let all: Vec<&str> = body.lines().filter(|line| !line.contains("\tinfo\taccess\t")).collect();
            let end = all[all.len().saturating_sub(lines)..].join("\n");
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{REPORT}{title}\n{end}");
        };
        tell("status", command::run(ambit().args(["status", "--name", &self.name]), LIMIT), 100);
        // Who has a log, those that are gone among them, is told to whoever asks for one that there is not.
        let known = command::run(ambit().args(["logs", "--name", &self.name, "-"]), LIMIT);
        let known = known.map_or_else(|e| format!("{e:#}"), |o| o.stderr);
        let known = known.split_once("There are logs of: ").map_or("", |(_, known)| known.trim());
        for one in known.split(", ").filter(|one| !one.starts_with(&format!("{KIT}/"))) {
            tell(one, command::run(ambit().args(["logs", "--name", &self.name, one]), LIMIT), 60);
        }
        let said = std::fs::read_to_string(self.folder.file("up.said")).unwrap_or_default();
        format!("{text}{REPORT}ambit up\n{said}")
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if matches!(self.up.try_wait(), Ok(Some(_))) {
            return;
        }
        // In good order if that works, by force if not; both are over when this returns.
        let asked = self.up_pid().and_then(|pid| process::signal(pid, Signal::TERM));
        if asked.is_err() || command::wait(&mut self.up, LIMIT).is_err() {
            let _ = self.up.kill();
            let _ = self.up.wait();
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// How the mesh called `name` is.
///
/// # Errors
/// It does not answer.
pub fn status(name: &str) -> Result<Status> {
    let output = command::run(ambit().args(["status", "--name", name, "-o", "json"]), LIMIT)?;
    // 3: it runs, and something in its folder is refused.
    let text = if output.code == 3 { output.stdout } else { output.good()? };
    serde_json::from_str(&text).context("the status is no JSON")
}
