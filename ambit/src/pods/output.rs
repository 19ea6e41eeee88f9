//! Logs of what we run: lines in, a file out, of bounded size.
use rustix::fd::OwnedFd;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

/// At this size a log is put aside as `<name>.1`, replacing an older one.
const LARGEST: u64 = 8 << 20;
/// Longer lines are cut into lines of this length.
const LONGEST_LINE: u64 = 16 << 10;

/// One log file, written by any number of programs.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Log {
    /// Appends to the file at `path`.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Log { inner: Arc::new(Mutex::new(Inner { path: path.to_owned(), file, size })) })
    }

    /// Adds one line. A full disk loses lines rather than stop the program that says them.
    pub(crate) fn line(&self, line: &[u8]) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.size > LARGEST && inner.rotate().is_err() {
            return;
        }
        if inner.file.write_all(line).is_ok() {
            inner.size += line.len() as u64;
        }
    }

    /// A descriptor for a program to write to; each of its lines gets `prefix`.
    pub(crate) fn pipe(&self, prefix: &str) -> io::Result<OwnedFd> {
        Ok(self.pipe_to_last(prefix)?.0)
    }

    /// The same, and a task that ends when all writers have closed it, with the last line that was written.
    pub(crate) fn pipe_to_last(&self, prefix: &str) -> io::Result<(OwnedFd, JoinHandle<Option<String>>)> {
        let (sender, receiver) = pipe::pipe()?;
        let (log, prefix) = (self.clone(), prefix.as_bytes().to_vec());
        let last = tokio::spawn(async move {
            let mut lines = BufReader::new(receiver);
            let mut last = None;
            loop {
                let mut line = prefix.clone();
                match (&mut lines).take(LONGEST_LINE).read_until(b'\n', &mut line).await {
                    Ok(n) if n > 0 => {
                        if line.last() != Some(&b'\n') {
                            line.push(b'\n');
                        }
                        log.line(&line);
                        last = Some(line);
                    }
                    _ => return last.map(|line| String::from_utf8_lossy(&line).trim_end().to_owned()),
                }
            }
        });
        Ok((sender.into_blocking_fd()?, last))
    }
}

impl Inner {
    fn rotate(&mut self) -> io::Result<()> {
        let mut aside = self.path.clone().into_os_string();
        aside.push(".1");
        std::fs::rename(&self.path, aside)?;
        self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_get_their_prefix_and_logs_stay_bounded() {
        let dir = std::env::temp_dir().join(format!("ambit-output-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("x.log");
        let log = Log::open(&path).unwrap();
        let (fd, last) = log.pipe_to_last("[c] ").unwrap();
        File::from(fd).write_all(b"one\ntwo").unwrap();
        assert_eq!(last.await.unwrap().as_deref(), Some("[c] two"));
        let text = tokio::time::timeout(std::time::Duration::from_secs(5), async {
            loop {
                let text = std::fs::read_to_string(&path).unwrap();
                if text.lines().count() == 2 {
                    return text;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        assert_eq!(text, "[c] one\n[c] two\n");
        let line = vec![b'x'; 1 << 20];
        for _ in 0..20 {
            log.line(&line);
        }
        let total: u64 = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(total <= 2 * LARGEST + (4 << 20), "{total}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
