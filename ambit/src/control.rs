//! How the outside talks to a running mesh: one JSON line there, one back, over a Unix socket; descriptors of
//! namespaces ride along where a process wants in.
use crate::run_dir::RunDir;
use crate::status::Status;
use anyhow::{Context, Result, bail};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage};
use serde::{Deserialize, Serialize};
use std::io::{IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Longest request and answer.
const LONGEST: u64 = 16 << 20;
/// Most descriptors in one answer.
const MOST_FDS: usize = 5;
/// How long a mesh may start or end before `ask` says that it does.
const MOMENT: Duration = Duration::from_secs(1);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// What may be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "ask")]
pub(crate) enum Ask {
    /// How is everything?
    Status,
    /// Open a container's namespaces for me.
    Enter { namespace: String, pod: String, container: Option<String> },
    /// Open a node's network namespace for me; the fabric's, if no node is named.
    Network { node: Option<String> },
    /// Put a new instance in the place of a program that runs. Its status says whether that succeeded.
    Restart { program: String },
    /// End.
    Down,
}

/// The answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "answer")]
pub(crate) enum Answer {
    /// How everything is.
    Status(Box<Status>),
    /// With the descriptors of the namespaces: user, network, and for a container mounts, host name and processes.
    Entered { env: Vec<(String, String)>, directory: Option<PathBuf> },
    /// It will be done.
    Done,
    /// It cannot be done, and why.
    Refused { why: String },
}

/// Asks a running mesh.
pub(crate) fn ask(run: &RunDir, ask: &Ask) -> Result<(Answer, Vec<OwnedFd>)> {
    let answered = match connect(run)? {
        Some(stream) => converse(stream, ask),
        None => bail!(not_running(run)),
    };
    match answered {
        Ok((Answer::Refused { why }, _)) => bail!(why),
        Err(e) if ends(run)? => Err(e.context(not_running(run))),
        other => other,
    }
}

/// Connects to the mesh; `None` if none runs here. One whose lock is held and that does not listen is about to listen,
/// or was killed and its last threads are about to end, or another command holds the lock to see whether it runs: wait a moment
/// and look again.
fn connect(run: &RunDir) -> Result<Option<UnixStream>> {
    let path = run.control_socket();
    let deadline = Instant::now() + MOMENT;
    loop {
        match UnixStream::connect(&path) {
            Ok(stream) => return Ok(Some(stream)),
            Err(_) if !run.is_running()? => return Ok(None),
            Err(e) if Instant::now() > deadline => {
                let what = format!("mesh `{}` does not answer yet; it is starting or ending", run.name());
                return Err(e).with_context(|| format!("{what} ({})", path.display()));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

fn converse(mut stream: UnixStream, ask: &Ask) -> Result<(Answer, Vec<OwnedFd>)> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut line = serde_json::to_vec(ask)?;
    line.push(b'\n');
    stream.write_all(&line).context("the mesh closed the connection")?;
    let (mut text, fds) = receive(&stream).context("the mesh did not answer")?;
    stream.take(LONGEST).read_to_end(&mut text).context("the mesh did not finish its answer")?;
    let answer =
        serde_json::from_slice(&text).context("the mesh's answer cannot be read; is it of another version?")?;
    Ok((answer, fds))
}

/// A mesh that hangs up in the middle of a conversation is usually about to be gone.
fn ends(run: &RunDir) -> Result<bool> {
    let deadline = Instant::now() + MOMENT;
    while run.is_running()? {
        if Instant::now() > deadline {
            return Ok(false);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(true)
}

fn not_running(run: &RunDir) -> String {
    format!("no mesh `{}` is running here. Start one: ambit up -f DIR{}", run.name(), other_meshes(run.name()))
}

/// How a running mesh is.
pub(crate) fn status(run: &RunDir) -> Result<Status> {
    match ask(run, &Ask::Status)?.0 {
        Answer::Status(status) => Ok(*status),
        other => bail!("the mesh answered {other:?} to a question about its status"),
    }
}

fn other_meshes(but: &str) -> String {
    let others: Vec<String> = RunDir::names()
        .into_iter()
        .filter(|name| name != but && RunDir::of(name).and_then(|run| run.is_running()).unwrap_or(false))
        .collect();
    if others.is_empty() { String::new() } else { format!(". Running now: {}; name it with --name", others.join(", ")) }
}

fn receive(stream: &UnixStream) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; 64 << 10];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got =
        rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let fds = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds.collect::<Vec<_>>()),
            _ => None,
        })
        .flatten()
        .collect();
    bytes.truncate(got.bytes);
    Ok((bytes, fds))
}

/// Reads the question of a client that connected. Blocks at most a few seconds.
pub(crate) fn read_ask(stream: &UnixStream) -> Result<Ask> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let mut text = Vec::new();
    let mut reader = std::io::BufReader::new(stream.take(64 << 10));
    std::io::BufRead::read_until(&mut reader, b'\n', &mut text)?;
    serde_json::from_slice(&text).context("not a question")
}

/// Answers it, and hangs up.
pub(crate) fn write_answer(stream: &UnixStream, answer: &Answer, fds: &[OwnedFd]) -> Result<()> {
    let text = serde_json::to_vec(answer)?;
    let (first, rest) = text.split_at(text.len().min(1));
    let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        bail!("more than {MOST_FDS} descriptors in an answer");
    }
    rustix::net::sendmsg(stream, &[IoSlice::new(first)], &mut ancillary, rustix::net::SendFlags::NOSIGNAL)?;
    let mut stream = stream;
    stream.write_all(rest)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen red when the lock's holder was taken for a mesh that starts at the first look.
    #[test]
    fn a_mesh_whose_last_thread_is_about_to_go_is_not_running() {
        let base = tempfile::tempdir().unwrap();
        let run = RunDir::at(base.path().join("killed")).unwrap();
        let dying = run.claim().unwrap().unwrap();
        // However long this takes below MOMENT, the answer is the same.
        let goes = std::thread::spawn(move || {
            std::thread::sleep(PAUSE * 5);
            drop(dying);
        });
        let said = ask(&run, &Ask::Status).unwrap_err();
        assert!(said.to_string().contains("no mesh `killed` is running"), "{said:#}");
        goes.join().unwrap();
    }

    #[test]
    fn a_mesh_that_does_not_listen_yet_is_told_from_none() {
        let base = tempfile::tempdir().unwrap();
        let run = RunDir::at(base.path().join("starts")).unwrap();
        let _starts = run.claim().unwrap().unwrap();
        let said = ask(&run, &Ask::Status).unwrap_err();
        assert!(said.to_string().contains("starting or ending"), "{said:#}");
    }
}
