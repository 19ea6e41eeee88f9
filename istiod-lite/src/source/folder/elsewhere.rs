//! Looks at files from a thread of its own, with a time limit: a link to something that never ends a read, or a network
//! file system that hangs, costs its own file and nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::Duration;

use super::scan::{self, Found, Stamp};
use crate::source::Rejected;

/// How long a file of at most [`scan::MAX_FILE_BYTES`] may take, where all others have answered.
const READ: Duration = Duration::from_secs(1);
/// How long one may take at least, where many have not.
const LEAST: Duration = Duration::from_millis(20);
/// How long a folder may take, with everything below it.
const WALK: Duration = Duration::from_secs(10);
/// Most threads that wait for something that hangs.
const MOST_STUCK: usize = 16;

/// The thread that looks, and those that still wait for an answer.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    worker: Option<Worker>,
    stuck: BTreeMap<Job, Stuck>,
}

/// What has not answered.
#[derive(Debug)]
struct Stuck {
    done: Receiver<Done>,
    /// How long it was waited for.
    limit: Duration,
}

#[derive(Debug)]
struct Worker {
    jobs: Sender<Job>,
    done: Receiver<Done>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Job {
    Walk(PathBuf),
    Read(PathBuf),
}

#[derive(Debug)]
enum Done {
    Walked(Found),
    Read(Result<(Stamp, String), Box<Rejected>>),
}

impl Elsewhere {
    /// What is below `root`.
    pub(super) fn walk(&mut self, root: &Path) -> Found {
        match self.run(Job::Walk(root.to_owned()), WALK) {
            Ok(Done::Walked(found)) => found,
            Ok(Done::Read(_)) => Found::default(),
            Err(message) => Found {
                unreadable: vec![root.to_owned()],
                errors: vec![Rejected::file(root, message)],
                ..Found::default()
            },
        }
    }

    /// What a file says, and the stamp of what was read.
    pub(super) fn read(&mut self, path: &Path) -> Result<(Stamp, String), Box<Rejected>> {
        match self.run(Job::Read(path.to_owned()), self.patience()) {
            Ok(Done::Read(read)) => read,
            Ok(Done::Walked(_)) => Err(Box::new(Rejected::file(path, "cannot be read"))),
            Err(message) => Err(Box::new(Rejected::file(path, message))),
        }
    }

    /// How long the next file may take: half as long for each that does not answer, so that all of them together cost two
    /// seconds and not one each. One that is only slow is waited for by the look after this one.
    fn patience(&self) -> Duration {
        let stuck = u32::try_from(self.stuck.len()).unwrap_or(u32::MAX);
        (READ / 2_u32.saturating_pow(stuck)).max(LEAST)
    }

    fn run(&mut self, job: Job, limit: Duration) -> Result<Done, String> {
        let late = |limit: Duration| {
            format!(
                "cannot be read: no answer within {limit:?}. Is it a link to something that never ends, or on a network \
                 file system that hangs?"
            )
        };
        // An answer that comes late is as good.
        match self.stuck.get(&job).map(|stuck| (stuck.done.try_recv(), stuck.limit)) {
            Some((Err(TryRecvError::Empty), limit)) => return Err(late(limit)),
            Some((answer, _)) => {
                self.stuck.remove(&job);
                if let Ok(done) = answer {
                    return Ok(done);
                }
            }
            None => {}
        }
        if self.stuck.len() >= MOST_STUCK {
            return Err(format!("not read: {MOST_STUCK} other files do not answer"));
        }
        let worker = match self.worker.take() {
            Some(worker) => worker,
            None => Worker::start().map_err(|error| format!("cannot be read: no thread for it: {error}"))?,
        };
        let asked = worker.jobs.send(job.clone()).is_ok();
        match worker.done.recv_timeout(limit) {
            Ok(done) => {
                self.worker = Some(worker);
                Ok(done)
            }
            Err(RecvTimeoutError::Timeout) if asked => {
                self.stuck.insert(job, Stuck { done: worker.done, limit });
                Err(late(limit))
            }
            Err(_) => Err("cannot be read: the thread that reads ended".to_owned()),
        }
    }
}

impl Worker {
    fn start() -> std::io::Result<Self> {
        let (jobs, work) = channel::<Job>();
        let (finished, done) = channel();
        std::thread::Builder::new().name("folder".into()).spawn(move || {
            for job in work {
                let done = match job {
                    Job::Walk(root) => Done::Walked(scan::walk(&root)),
                    Job::Read(path) => Done::Read(scan::read(&path)),
                };
                // Nobody listens any more: the folder is gone.
                if finished.send(done).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { jobs, done })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn files_that_do_not_answer_cost_two_seconds_together() {
        let mut elsewhere = Elsewhere::default();
        let mut all = Duration::ZERO;
        for number in 0..MOST_STUCK {
            all += elsewhere.patience();
            let stuck = Stuck { done: channel().1, limit: READ };
            elsewhere.stuck.insert(Job::Read(number.to_string().into()), stuck);
        }
        assert!(elsewhere.patience() == LEAST && all < READ * 2 + LEAST * 16, "{all:?}");
        elsewhere.stuck.clear();
        assert_eq!(elsewhere.patience(), READ);
    }

    /// A pipe that nobody writes to: opening it does not end. (A walk leaves pipes out; what hangs behind a name that
    /// looks like a file cannot be made on every machine.) What it is for: files must not be read on the caller's own thread.
    #[test]
    fn a_file_that_never_answers_costs_itself_only() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("good"), "good").unwrap();
        assert!(std::process::Command::new("mkfifo").arg(at("never")).status().unwrap().success());
        let mut elsewhere = Elsewhere::default();
        let good = |elsewhere: &mut Elsewhere| assert_eq!(elsewhere.read(&at("good")).unwrap().1, "good");
        let late = |elsewhere: &mut Elsewhere| {
            let told = elsewhere.read(&at("never")).unwrap_err().to_string();
            assert!(told.contains("never: cannot be read: no answer within 1s"), "{told}");
        };
        good(&mut elsewhere);
        late(&mut elsewhere);
        good(&mut elsewhere);
        // Asked again it is not waited for again: no second thread hangs.
        late(&mut elsewhere);
        assert_eq!(elsewhere.stuck.len(), 1);
        assert_eq!(elsewhere.walk(directory.path()).errors, []);
        // It answers at last, and that counts.
        let mut pipe = fs::OpenOptions::new().write(true).open(at("never")).unwrap();
        pipe.write_all(b"at last").unwrap();
        drop(pipe);
        let answered = std::iter::repeat_with(|| elsewhere.read(&at("never"))).find_map(Result::ok);
        assert_eq!(answered.unwrap().1, "at last");
    }
}
