//! Running `ambit` and waiting no longer than agreed.
use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longer than any command of a test takes that does not say otherwise.
pub const LIMIT: Duration = Duration::from_secs(30);

/// What a command said and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit code; 128 and the signal's number if one ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Output {
    /// Its standard output, if it ended well.
    ///
    /// # Errors
    /// What it said, if it did not.
    pub fn good(self) -> Result<String> {
        ensure!(self.code == 0, "exit code {}: {}{}", self.code, self.stdout.trim_end(), self.stderr.trim_end());
        Ok(self.stdout)
    }

    /// What it said, if it ended badly.
    ///
    /// # Errors
    /// It ended well.
    pub fn bad(self) -> Result<String> {
        ensure!(self.code != 0, "it was meant to fail and said: {}", self.stdout.trim_end());
        Ok(self.stderr)
    }
}

/// The `ambit` under test: `AMBIT_EXE`, or this very binary, which answers to that name.
pub fn ambit() -> Command {
    let exe = std::env::var_os(ambit::EXE_OVERRIDE).filter(|exe| !exe.is_empty());
    let mut command = Command::new(exe.unwrap_or_else(|| OsString::from("/proc/self/exe")));
    command.arg0("ambit");
    command
}

/// Runs a command to its end.
///
/// # Errors
/// It cannot be started, or takes longer than `limit`; then it is killed.
pub fn run(command: &mut Command, limit: Duration) -> Result<Output> {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let stdout = reader(child.stdout.take());
    let stderr = reader(child.stderr.take());
    let code = wait(&mut child, limit);
    let (stdout, stderr) = (text(stdout), text(stderr));
    let code = code.with_context(|| format!("{command:?} said: {stdout}{stderr}"))?;
    Ok(Output { code, stdout, stderr, took: started.elapsed() })
}

/// Waits for a child's end and returns its exit code.
///
/// # Errors
/// It takes longer than `limit`; then it is killed.
pub fn wait(child: &mut Child, limit: Duration) -> Result<i32> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()));
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("still running after {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        if let Some(mut pipe) = pipe {
            // What could be read is what there is.
            let _ = pipe.read_to_end(&mut all);
        }
        all
    })
}

fn text(reader: JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
}
