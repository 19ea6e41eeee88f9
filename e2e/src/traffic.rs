//! Requests at a steady pace in the background, each of which counts.
use crate::command;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// Traffic that flows until [`Traffic::finish`].
#[derive(Debug)]
pub struct Traffic {
    child: Child,
    output: BufReader<ChildStdout>,
}

/// What became of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// Requests with the right answer.
    pub good: u64,
    /// Requests without one.
    pub failed: u64,
    /// The first failures in words.
    pub failures: Vec<String>,
    /// When the first failure was seen, in milliseconds since 1970.
    pub first_failure_ms: Option<u64>,
    /// How often each answer came.
    pub answers: BTreeMap<String, u64>,
    /// The longest a request took, in milliseconds.
    pub slowest_ms: u64,
    /// How long all of it took, in milliseconds.
    pub took_ms: u64,
}

impl Traffic {
    /// Starts `command`, an `ambit exec` of `tool pace`, and returns once it has asked for the first time and was answered, or was not.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let mut output = BufReader::new(child.stdout.take().context("no pipe")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        ensure!(line == "asking\n", "the traffic did not start: {line:?}");
        Ok(Traffic { child, output })
    }

    /// Stops, and tells.
    ///
    /// # Errors
    /// It broke down on the way.
    pub fn finish(mut self) -> Result<Tally> {
        drop(self.child.stdin.take());
        self.tally()
    }

    /// Waits for the end of traffic that stops at its first failure, and tells.
    ///
    /// # Errors
    /// It does not end within `limit`, or broke down on the way.
    pub fn outlived(mut self, limit: Duration) -> Result<Tally> {
        command::wait(&mut self.child, limit).context("the traffic does not fail")?;
        self.tally()
    }

    fn tally(&mut self) -> Result<Tally> {
        let mut text = String::new();
        self.output.read_to_string(&mut text)?;
        let code = command::wait(&mut self.child, command::LIMIT)?;
        ensure!(code == 0, "the traffic ended with {code}: {text}");
        serde_json::from_str(&text).with_context(|| format!("the traffic told {text:?}"))
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        // After `finish` there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Tally {
    /// Every request was answered, and there were enough of them to mean something.
    ///
    /// # Errors
    /// Says what failed.
    pub fn flawless(&self, at_least: u64) -> Result<()> {
        ensure!(
            self.failed == 0,
            "{} of {} requests failed: {:#?}",
            self.failed,
            self.good + self.failed,
            self.failures
        );
        ensure!(self.good >= at_least, "only {} requests were made, {at_least} would mean something", self.good);
        Ok(())
    }
}
