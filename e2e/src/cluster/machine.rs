//! A machine: namespaces and a file system of its own, and what runs in it. The script `e2e/cluster/machine` makes it.
use crate::command::{self, LIMIT, Output};
use crate::process::{self, Process};
use crate::until::{PATIENCE, until};
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;

const SCRIPT: &str = include_str!("../../cluster/machine");
/// Where programs are searched in a machine.
const PATH: &str = "/kit/programs/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A machine that runs. Dropped, it is gone: processes, mounts, control groups.
#[derive(Debug)]
pub struct Machine {
    name: String,
    outside: Child,
    commands: Mutex<Option<ChildStdin>>,
    /// Its process 1, as we count.
    init: i32,
}

impl Machine {
    /// Starts a machine with nothing in it. `files` appears in it as `/kit/files`, `programs` as `/kit/programs`.
    pub(super) fn start(name: &str, programs: &Path, files: &Path) -> Result<Self> {
        let script = files.join("machine");
        std::fs::write(&script, SCRIPT)?;
        let root = files.join("machines").join(name);
        std::fs::create_dir_all(&root)?;
        let cluster = files.file_name().context("a folder without name")?.display();
        let said = files.join(format!("{name}.said"));
        let mut outside = Command::new("bash")
            .arg(script)
            .args([name, &format!("{cluster}/{name}")])
            .args([&root, programs, files])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&said)?)
            .spawn()
            .context("cannot start bash")?;
        let commands = outside.stdin.take();
        let mut machine = Machine { name: name.to_owned(), outside, commands: Mutex::new(commands), init: 0 };
        let mut ready = String::new();
        BufReader::new(machine.outside.stdout.take().context("no output")?).read_line(&mut ready)?;
        ensure!(ready == "ready\n", "machine {name}: {}", std::fs::read_to_string(said)?.trim());
        let below = process::descendants(i32::try_from(machine.outside.id())?);
        machine.init = below.iter().find(|p| p.own_pid() == 1).context("the machine has no process 1")?.pid;
        Ok(machine)
    }

    /// Its host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process 1, as this machine counts.
    pub fn init(&self) -> i32 {
        self.init
    }

    /// A file of it, as this machine reaches it.
    pub fn file(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// Writes a file, with the folders it is in.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let file = self.file(path);
        let folder = file.parent().context("a file is in a folder")?;
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&file, text))
            .with_context(|| format!("cannot write {path} of {}", self.name))
    }

    /// Its network namespace.
    ///
    /// # Errors
    /// The machine is gone.
    pub fn netns(&self) -> Result<File> {
        File::open(format!("/proc/{}/ns/net", self.init)).with_context(|| format!("{} is gone", self.name))
    }

    /// Starts a program that runs until the machine ends or it is killed. What it says is in its [`Self::log`].
    ///
    /// # Errors
    /// The machine is gone.
    pub fn spawn(&self, program: &str, args: &[&str]) -> Result<()> {
        let words: Vec<String> = [program, program].iter().chain(args).map(|word| quoted(word)).collect();
        let mut commands = self.commands.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let commands = commands.as_mut().context("the machine has ended")?;
        writeln!(commands, "start {}", words.join(" ")).with_context(|| format!("{} is gone", self.name))
    }

    /// Runs a command in all of its namespaces, to its end.
    ///
    /// # Errors
    /// It cannot be started, or takes longer than [`LIMIT`].
    pub fn run(&self, words: &[&str]) -> Result<Output> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.init)).args(["--all", "--"]).args(words);
        command::run(command.env("PATH", PATH).env("HOME", "/root"), LIMIT)
    }

    /// What a program has said so far.
    ///
    /// # Errors
    /// It was not started.
    pub fn log(&self, program: &str) -> Result<String> {
        let log = self.file(&format!("/var/log/{program}.log"));
        let bytes = std::fs::read(log).with_context(|| format!("{} has no log of {program}", self.name))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A program that was started and runs.
    ///
    /// # Errors
    /// It does not run.
    pub fn process(&self, program: &str) -> Result<Process> {
        // The kernel keeps 15 letters of a name.
        let name = &program[..program.len().min(15)];
        let mut all = process::children(self.init).into_iter();
        all.find(|p| p.name == name).with_context(|| format!("{program} does not run on {}", self.name))
    }

    /// Kills a program that was started, and waits until it is gone.
    ///
    /// # Errors
    /// It does not run, or does not end.
    pub fn kill(&self, program: &str) -> Result<()> {
        let process = self.process(program)?;
        process::signal(process.pid, rustix::process::Signal::KILL)?;
        until("the program is gone", || {
            ensure!(!process.runs(), "{program} still runs");
            Ok(())
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let commands = self.commands.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(commands.take());
        // What the script could not remove, it says; there is nobody here to do more about it.
        let _ = command::wait(&mut self.outside, PATIENCE);
    }
}

/// A word as the shell reads it back.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
