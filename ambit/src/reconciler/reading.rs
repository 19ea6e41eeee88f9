//! Reads the folder on a thread of its own: a network disk may take long, and requests are answered meanwhile.
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A look that takes longer than this is told in the status.
const LONG: Duration = Duration::from_secs(2);

/// `T` is looked at by a function that may block, once at a time.
pub(super) struct Reading<T, R> {
    look: fn(&mut T) -> R,
    state: State<T, R>,
    /// When the last look that has ended had begun.
    began: SystemTime,
}

enum State<T, R> {
    Idle(T),
    UnderWay {
        since: Instant,
        began: SystemTime,
        task: JoinHandle<(T, R)>,
        /// Something changed since it began.
        again: bool,
    },
    /// Only within a step.
    Between,
}

impl<T: Send + 'static, R: Send + 'static> Reading<T, R> {
    /// Nothing is read before it is told to.
    pub(super) fn new(what: T, look: fn(&mut T) -> R) -> Self {
        Self { look, state: State::Idle(what), began: UNIX_EPOCH }
    }

    /// Looks now, or once more when the look that is under way has ended.
    pub(super) fn look(&mut self) {
        match std::mem::replace(&mut self.state, State::Between) {
            State::Idle(mut what) => {
                let (look, began) = (self.look, SystemTime::now());
                let task = tokio::task::spawn_blocking(move || {
                    let read = look(&mut what);
                    (what, read)
                });
                self.state = State::UnderWay { since: Instant::now(), began, task, again: false };
            }
            State::UnderWay { since, began, task, .. } => {
                self.state = State::UnderWay { since, began, task, again: true };
            }
            State::Between => {}
        }
    }

    /// What a look has found, when it has ended; never without one. Nothing is lost where this is not waited for to its end.
    pub(super) async fn done(&mut self) -> R {
        let State::UnderWay { began, task, again, .. } = &mut self.state else { return std::future::pending().await };
        let (what, read) = match task.await {
            Ok(ended) => ended,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The process ends.
                Err(_) => return std::future::pending().await,
            },
        };
        let again = *again;
        self.began = *began;
        self.state = State::Idle(what);
        if again {
            self.look();
        }
        read
    }

    /// When the look began of which this is the outcome, in milliseconds since 1970.
    pub(super) fn began_ms(&self) -> u64 {
        let since = self.began.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether the look that is under way takes so long that people wonder.
    pub(super) fn takes_long(&self) -> bool {
        matches!(&self.state, State::UnderWay { since, .. } if since.elapsed() > LONG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};

    /// A look ends when the test says so.
    #[tokio::test(start_paused = true)]
    async fn others_are_served_while_it_is_read_and_no_change_is_missed() {
        let (answer, answers) = channel::<u32>();
        let mut reading = Reading::new(answers, |answers: &mut Receiver<u32>| answers.recv().unwrap());
        let waits = async |reading: &mut Reading<_, _>| {
            tokio::select! {
                biased;
                read = reading.done() => panic!("read {read}"),
                () = std::future::ready(()) => {}
            }
        };
        waits(&mut reading).await;
        reading.look();
        waits(&mut reading).await;
        assert!(!reading.takes_long());
        tokio::time::advance(LONG * 2).await;
        assert!(reading.takes_long());
        // Two changes meanwhile are one more look.
        reading.look();
        reading.look();
        answer.send(1).unwrap();
        assert_eq!(reading.done().await, 1);
        assert!(!reading.takes_long());
        answer.send(2).unwrap();
        assert_eq!(reading.done().await, 2);
        answer.send(3).unwrap();
        waits(&mut reading).await;
    }
}
