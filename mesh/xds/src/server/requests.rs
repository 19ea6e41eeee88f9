//! Which messages are in the bytes that come: gRPC's prefix (a byte that says whether it is compressed, the length in
//! four), then as many bytes.
//!
//! Small messages are read as they come. A large one waits for its turn before a byte of it is taken off the connection,
//! and then has to come in time: what is not read is held by who sends it.

use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;

use super::limits::LargeTurns;

/// Larger messages take turns. Every honest one but a reconnecting proxy's first is smaller.
const SMALL: usize = 64 * 1024;
/// How long a message may take that has begun to come; with a large one, from its turn on.
const IN_TIME: Duration = Duration::from_secs(20);

/// A turn at large requests; others have theirs when it is dropped.
pub(super) struct Large {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

/// A message; if it is large, with its turn. Or why there are no more.
pub(super) type Received = Result<(Vec<u8>, Option<Large>), Status>;

/// The messages of one stream.
pub(super) struct Requests {
    body: Body,
    /// What came and was not read.
    rest: Bytes,
    most: usize,
    turns: LargeTurns,
}

impl Requests {
    pub(super) fn new(body: Body, most: usize, turns: LargeTurns) -> Self {
        Self { body, rest: Bytes::new(), most, turns }
    }

    /// Hands over one after the other; gives why the stream has to end. When there are no more it says nothing.
    pub(super) async fn read(mut self, to: mpsc::Sender<Received>) -> Status {
        while let Some(received) = self.next().await.transpose() {
            let (last, large) = (received.is_err(), matches!(received, Ok((_, Some(_)))));
            // Who does not take what is sent to it does not take its own requests up either, and its turn is others'.
            let taken = async { to.send(received).await.is_ok() && (!large || to.reserve().await.is_ok()) };
            let taken = if large { timeout(IN_TIME, taken).await } else { Ok(taken.await) };
            match taken {
                Ok(true) if !last => {}
                Ok(_) => break,
                Err(_) => {
                    return Status::deadline_exceeded("a large request of one who does not take what is sent to it");
                }
            }
        }
        drop((self, to));
        std::future::pending().await
    }

    #[allow(clippy::result_large_err, reason = "tonic's own error")]
    async fn next(&mut self) -> Result<Option<(Vec<u8>, Option<Large>)>, Status> {
        if !self.more().await {
            return Ok(None);
        }
        let late = |_| Status::deadline_exceeded(format!("a request was not complete after {IN_TIME:?}"));
        let mut prefix = [0; 5];
        if !timeout(IN_TIME, self.fill(&mut prefix)).await.map_err(late)? {
            return Ok(None);
        }
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if prefix[0] != 0 {
            return Err(Status::unimplemented("requests must not be compressed"));
        }
        if length > self.most {
            let most = self.most;
            return Err(Status::resource_exhausted(format!(
                "a request of {length} bytes; at most {most} (ISTIO_GPRC_MAXRECVMSGSIZE)"
            )));
        }
        let large = if length > SMALL { Some(turn(self.turns.clone()).await?) } else { None };
        let mut message = vec![0; length];
        let whole = timeout(IN_TIME, self.fill(&mut message)).await.map_err(late)?;
        Ok(whole.then_some((message, large)))
    }

    /// Fills `to`; false when the stream ends before, as streams do.
    async fn fill(&mut self, mut to: &mut [u8]) -> bool {
        while !to.is_empty() {
            if !self.more().await {
                return false;
            }
            let part = self.rest.len().min(to.len());
            let (now, later) = to.split_at_mut(part);
            self.rest.copy_to_slice(now);
            to = later;
        }
        true
    }

    /// Waits until something is there; false when nothing comes any more.
    async fn more(&mut self) -> bool {
        while self.rest.is_empty() {
            match self.body.frame().await {
                // Trailers say nothing that matters.
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
                Some(Err(_)) | None => return false,
            }
        }
        true
    }
}

async fn turn(turns: LargeTurns) -> Result<Large, Status> {
    let closed = |_| Status::unavailable("the control plane is shutting down");
    // A caller's own first: who waits for it holds up nobody else.
    let own = turns.own.acquire_owned().await.map_err(closed)?;
    let all = turns.all.acquire_owned().await.map_err(closed)?;
    Ok(Large { _own: own, _all: all })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hyper::body::Frame;
    use tokio::sync::Semaphore;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    const MOST: usize = 1 << 20;

    fn turns() -> LargeTurns {
        LargeTurns { own: Arc::new(Semaphore::new(1)), all: Arc::new(Semaphore::new(1)) }
    }

    type Sent = mpsc::Sender<Result<Frame<Bytes>, Status>>;

    /// What is sent there is read here.
    fn requests(turns: &LargeTurns) -> (Sent, Requests) {
        let (bytes, body) = mpsc::channel(16);
        let body = Body::new(http_body_util::StreamBody::new(ReceiverStream::new(body)));
        (bytes, Requests::new(body, MOST, turns.clone()))
    }

    /// And handed over there.
    fn stream(turns: &LargeTurns) -> (Sent, mpsc::Receiver<Received>) {
        let (bytes, requests) = requests(turns);
        let (to, received) = mpsc::channel(1);
        tokio::spawn(requests.read(to));
        (bytes, received)
    }

    fn message(length: usize) -> Vec<u8> {
        [&[0][..], &(length as u32).to_be_bytes(), &vec![7; length]].concat()
    }

    async fn send(to: &Sent, bytes: &[u8]) {
        to.send(Ok(Frame::data(Bytes::copy_from_slice(bytes)))).await.unwrap();
    }

    async fn length(received: &mut mpsc::Receiver<Received>) -> usize {
        received.recv().await.unwrap().map(|(message, _)| message.len()).unwrap()
    }

    #[tokio::test]
    async fn messages_are_cut_out_of_bytes_in_any_pieces() {
        let (bytes, mut received) = stream(&turns());
        let many = [message(3), message(0), message(SMALL + 1), message(2)].concat();
        let sends = async {
            for piece in many.chunks(1000) {
                send(&bytes, piece).await;
            }
            drop(bytes);
        };
        let reads = async {
            for expected in [3, 0, SMALL + 1, 2] {
                assert_eq!(length(&mut received).await, expected);
            }
        };
        tokio::join!(sends, reads);
        for (what, bad) in [("too large", message(MOST + 1)), ("compressed", vec![1, 0, 0, 0, 1, 0])] {
            let (bytes, mut received) = stream(&turns());
            send(&bytes, &bad).await;
            assert!(received.recv().await.unwrap().is_err(), "{what}");
        }
    }

    /// Virtual time: a large request that does not come, and one that is not taken up, hold others up for so long.
    #[tokio::test(start_paused = true)]
    async fn a_turn_ends() {
        let turns = turns();
        let (slow, mut slow_received) = stream(&turns);
        send(&slow, &message(MOST)[..10]).await;
        tokio::task::yield_now().await;
        let (quick, mut quick_received) = stream(&turns);
        send(&quick, &message(SMALL)).await;
        assert_eq!(length(&mut quick_received).await, SMALL, "small ones wait for nobody");
        send(&quick, &message(MOST)).await;
        let start = tokio::time::Instant::now();
        assert_eq!(length(&mut quick_received).await, MOST);
        assert_eq!(start.elapsed(), IN_TIME);
        let late = slow_received.recv().await.unwrap().err().unwrap();
        assert_eq!(late.code(), tonic::Code::DeadlineExceeded);
        drop((slow, slow_received, quick, quick_received));
        // One that is not taken up.
        let (stuck, requests) = requests(&turns);
        send(&stuck, &message(MOST)).await;
        let (to, never_taken) = mpsc::channel(1);
        let end = requests.read(to).await;
        assert_eq!((end.code(), turns.all.available_permits()), (tonic::Code::DeadlineExceeded, 0));
        drop(never_taken);
        assert_eq!((turns.own.available_permits(), turns.all.available_permits()), (1, 1));
    }
}
