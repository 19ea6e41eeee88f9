//! The agent's end: the pods of this node, told to every ztunnel that connects.
//!
//! Usually one ztunnel is connected. During its upgrade there are two: the newer one is told about new pods, both are
//! told about pods that go. A ztunnel that connects first gets a snapshot of all pods held, so a restart of either
//! side needs nothing else.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_model::pod::PodInfo;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::message::{self, EncodeError, Message};
use crate::socket::{PacketListener, PacketSocket, RecvError};

/// How long a ztunnel may take for its hello, to take a message, and to answer it; each.
const DEADLINE: Duration = Duration::from_secs(5);
/// Messages that may wait for one ztunnel.
const QUEUE: usize = 100;
/// The least time between two accepted connections: a ztunnel in a crash loop must not keep the agent busy.
const ACCEPT_INTERVAL: Duration = Duration::from_millis(200);

/// Why a pod was not taken by ztunnel. The pod stays in the snapshot; adding it again is safe and may succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// No ztunnel is connected.
    #[error("no ztunnel is connected on this node; is it running?")]
    NoZtunnel,
    /// ztunnel answered that it cannot serve the pod.
    #[error("ztunnel refused the pod: {0}")]
    Refused(String),
    /// The conversation ended before the answer.
    #[error("the connection to ztunnel was lost: {0}")]
    Lost(String),
    /// The pod's names do not fit in one message. Trying again cannot help.
    #[error(transparent)]
    TooLong(#[from] EncodeError),
}

/// What happened on the socket, for the agent to log and to act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A ztunnel said hello and is being sent the snapshot.
    Connected {
        /// Counts the ztunnels since the agent's start.
        ztunnel: u64,
        /// How many pods the snapshot holds.
        pods: usize,
    },
    /// A ztunnel has acknowledged the whole snapshot.
    SnapshotTaken {
        /// Which ztunnel.
        ztunnel: u64,
        /// Pods it could not serve, by UID, with its reasons. It tries again by itself.
        refused: Vec<(String, String)>,
    },
    /// A connection ended.
    Disconnected {
        /// Which ztunnel.
        ztunnel: u64,
        /// Why.
        reason: String,
    },
    /// A connection could not be accepted.
    AcceptFailed {
        /// What the kernel said.
        reason: String,
    },
}

/// The pods handed over and the ztunnels they are handed to. Clones share both.
#[derive(Clone, Default)]
pub struct AgentEnd(Arc<Mutex<Table>>);

/// What the clones of an [`AgentEnd`] have in common.
#[derive(Default)]
struct Table {
    /// By pod UID; what a snapshot says. Changed by `hold`, `add` and `del`.
    pods: BTreeMap<String, Held>,
    /// Past their hello, oldest first.
    ztunnels: Vec<Ztunnel>,
    accepted: u64,
}

#[derive(Clone)]
struct Held {
    info: PodInfo,
    netns: Option<Arc<OwnedFd>>,
}

struct Ztunnel {
    id: u64,
    commands: mpsc::Sender<Command>,
    /// The pods it has acknowledged, in the namespace that the table holds.
    serves: HashSet<String>,
}

struct Command {
    message: Message,
    netns: Option<Arc<OwnedFd>>,
    done: oneshot::Sender<Result<(), AddError>>,
}

impl Table {
    /// No ztunnel serves this pod any more, as far as the table knows.
    fn forget(&mut self, uid: &str) {
        for ztunnel in &mut self.ztunnels {
            ztunnel.serves.remove(uid);
        }
    }
}

impl AgentEnd {
    /// No pods, no ztunnels, not listening.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a pod into future snapshots without telling a connected ztunnel: how the agent fills the table before it
    /// listens, since what a snapshot leaves out is stopped. Without a descriptor the snapshot says "keep".
    pub fn hold(&self, uid: &str, info: PodInfo, netns: Option<OwnedFd>) {
        let held = Held { info, netns: netns.map(Arc::new) };
        self.table().pods.insert(uid.to_owned(), held);
    }

    /// Hands a pod to the newest ztunnel and waits for its answer. The pod is part of every later snapshot, whatever
    /// the answer. This may be repeated: what the newest ztunnel serves already, by this or by its snapshot, is not
    /// said again.
    pub async fn add(&self, uid: &str, info: PodInfo, netns: OwnedFd) -> Result<(), AddError> {
        let message = Message::Add { uid: uid.to_owned(), pod: info.clone() };
        message::encode(&message)?;
        let (netns, newest) = {
            let mut table = self.table();
            let known = table.pods.get(uid).filter(|known| known.info == info);
            let same = known.and_then(|known| known.netns.clone()).filter(|known| same_file(known, &netns));
            let unchanged = same.is_some();
            let netns = same.unwrap_or_else(|| Arc::new(netns));
            table.pods.insert(uid.to_owned(), Held { info, netns: Some(netns.clone()) });
            if !unchanged {
                table.forget(uid);
            }
            let newest = table.ztunnels.last();
            if newest.is_some_and(|ztunnel| ztunnel.serves.contains(uid)) {
                return Ok(());
            }
            (netns, newest.map(|ztunnel| ztunnel.commands.clone()))
        };
        let Some(commands) = newest else { return Err(AddError::NoZtunnel) };
        enqueue(&commands, message, Some(netns)).await
    }

    /// Takes a pod back from every ztunnel and from future snapshots. Unknown is fine. Ends when all have answered or
    /// are gone.
    pub async fn del(&self, uid: &str) {
        let ztunnels: Vec<_> = {
            let mut table = self.table();
            table.pods.remove(uid);
            table.forget(uid);
            table.ztunnels.iter().map(|ztunnel| ztunnel.commands.clone()).collect()
        };
        let mut answers = JoinSet::new();
        for commands in ztunnels {
            let message = Message::Del { uid: uid.to_owned() };
            answers.spawn(async move { enqueue(&commands, message, None).await });
        }
        // A ztunnel that is gone learns from its next snapshot.
        while answers.join_next().await.is_some() {}
    }

    /// How many ztunnels are connected, past their hello.
    pub fn connected(&self) -> usize {
        self.table().ztunnels.len()
    }

    /// The UIDs of the pods held.
    pub fn pods(&self) -> Vec<String> {
        self.table().pods.keys().cloned().collect()
    }

    /// Listens for ztunnels at `path`, replacing a stale socket. Nothing is answered until [`Listening::serve`].
    pub fn listen(&self, path: impl AsRef<Path>) -> io::Result<Listening> {
        Ok(Listening { listener: PacketListener::bind(path.as_ref())?, agent: self.clone() })
    }

    /// Remembers that a ztunnel serves a pod, unless the pod has another namespace or is gone by now.
    fn acknowledged(&self, id: u64, uid: &str, netns: Option<&Arc<OwnedFd>>) {
        let mut table = self.table();
        let current = table.pods.get(uid).and_then(|held| held.netns.as_ref());
        if current.zip(netns).is_some_and(|(current, netns)| Arc::ptr_eq(current, netns))
            && let Some(ztunnel) = table.ztunnels.iter_mut().find(|ztunnel| ztunnel.id == id)
        {
            ztunnel.serves.insert(uid.to_owned());
        }
    }

    /// Whether a ztunnel has acknowledged a pod in this namespace.
    fn serves(&self, id: u64, uid: &str, netns: Option<&Arc<OwnedFd>>) -> bool {
        let table = self.table();
        let current = table.pods.get(uid).and_then(|held| held.netns.as_ref());
        current.zip(netns).is_some_and(|(current, netns)| Arc::ptr_eq(current, netns))
            && table.ztunnels.iter().any(|ztunnel| ztunnel.id == id && ztunnel.serves.contains(uid))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing under the lock panics half way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether two descriptors are of the same namespace. If that cannot be told, they are not.
fn same_file(a: impl AsFd, b: impl AsFd) -> bool {
    let identity = |fd: std::os::fd::BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    identity(a.as_fd()).is_ok_and(|a| identity(b.as_fd()) == Ok(a))
}

async fn enqueue(
    commands: &mpsc::Sender<Command>,
    message: Message,
    netns: Option<Arc<OwnedFd>>,
) -> Result<(), AddError> {
    let lost = || AddError::Lost("the conversation ended".to_owned());
    let (done, answer) = oneshot::channel();
    commands.send(Command { message, netns, done }).await.map_err(|_| lost())?;
    answer.await.unwrap_or_else(|_| Err(lost()))
}

/// A bound socket on which ztunnels may already be waiting.
pub struct Listening {
    listener: PacketListener,
    agent: AgentEnd,
}

impl Listening {
    /// Serves ztunnels until dropped; never returns. A dropped receiver of `events` is fine.
    pub async fn serve(self, events: mpsc::UnboundedSender<Event>) {
        let mut conversations = JoinSet::new();
        loop {
            match self.listener.accept().await {
                Ok(socket) => {
                    let id = {
                        let mut table = self.agent.table();
                        table.accepted += 1;
                        table.accepted
                    };
                    let (agent, events) = (self.agent.clone(), events.clone());
                    conversations.spawn(async move {
                        let reason = converse(&agent, &socket, id, &events).await.to_string();
                        agent.table().ztunnels.retain(|ztunnel| ztunnel.id != id);
                        let _ = events.send(Event::Disconnected { ztunnel: id, reason });
                    });
                }
                Err(error) => {
                    let _ = events.send(Event::AcceptFailed { reason: error.to_string() });
                }
            }
            while conversations.try_join_next().is_some() {}
            tokio::time::sleep(ACCEPT_INTERVAL).await;
        }
    }
}

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("ztunnel closed the connection")]
    Closed,
    #[error("ztunnel did not {0} within {DEADLINE:?}")]
    Slow(&'static str),
    #[error("ztunnel broke the protocol: {0}")]
    Protocol(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<RecvError> for Ended {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::Closed => Self::Closed,
            RecvError::Truncated => Self::Protocol(error.to_string()),
            RecvError::Io(error) => Self::Io(error),
        }
    }
}

/// One ztunnel, from its hello to its end.
async fn converse(agent: &AgentEnd, socket: &PacketSocket, id: u64, events: &mpsc::UnboundedSender<Event>) -> Ended {
    match hear_hello(socket).await {
        Ok(()) => {}
        Err(ended) => return ended,
    }
    // In one step: what is added from now on waits in the queue behind the snapshot, so it is in one of the two.
    let (mut commands, snapshot) = {
        let mut table = agent.table();
        let (sender, commands) = mpsc::channel(QUEUE);
        table.ztunnels.push(Ztunnel { id, commands: sender, serves: HashSet::new() });
        (commands, table.pods.clone())
    };
    let _ = events.send(Event::Connected { ztunnel: id, pods: snapshot.len() });
    match send_snapshot(agent, socket, id, snapshot).await {
        Ok(refused) => {
            let _ = events.send(Event::SnapshotTaken { ztunnel: id, refused });
        }
        Err(ended) => return ended,
    }
    loop {
        tokio::select! {
            command = commands.recv() => {
                // The table holds a sender for as long as this runs.
                let Some(Command { message, netns, done }) = command else { return Ended::Closed };
                // The snapshot may have said it while this waited.
                if let Message::Add { uid, .. } = &message
                    && agent.serves(id, uid, netns.as_ref())
                {
                    let _ = done.send(Ok(()));
                    continue;
                }
                let answer = exchange(socket, &message, netns.as_deref()).await;
                if let (Message::Add { uid, .. }, Ok(Ok(()))) = (&message, &answer) {
                    agent.acknowledged(id, uid, netns.as_ref());
                }
                let (answer, ended) = match answer {
                    Ok(answer) => (answer.map_err(AddError::Refused), None),
                    Err(ended) => (Err(AddError::Lost(ended.to_string())), Some(ended)),
                };
                let _ = done.send(answer);
                if let Some(ended) = ended {
                    return ended;
                }
            }
            // Nobody asked: this is the end, or a peer that cannot be trusted to answer in order.
            unasked = socket.recv() => return match unasked {
                Ok(_) => Ended::Protocol("it spoke without being asked".to_owned()),
                Err(error) => error.into(),
            },
        }
    }
}

async fn hear_hello(socket: &PacketSocket) -> Result<(), Ended> {
    let packet = timeout(DEADLINE, socket.recv()).await.map_err(|_| Ended::Slow("say hello"))??;
    message::decode_hello(&packet.bytes).map_err(|error| Ended::Protocol(error.to_string()))
}

/// Sends all pods; what ztunnel refuses does not hold up the rest.
async fn send_snapshot(
    agent: &AgentEnd,
    socket: &PacketSocket,
    id: u64,
    pods: BTreeMap<String, Held>,
) -> Result<Vec<(String, String)>, Ended> {
    let mut refused = Vec::new();
    for (uid, Held { info, netns }) in pods {
        let message = match netns {
            Some(_) => Message::Add { uid: uid.clone(), pod: info },
            None => Message::Keep { uid: uid.clone() },
        };
        match exchange(socket, &message, netns.as_deref()).await? {
            Ok(()) => agent.acknowledged(id, &uid, netns.as_ref()),
            Err(reason) => refused.push((uid, reason)),
        }
    }
    match exchange(socket, &Message::SnapshotSent, None).await? {
        Ok(()) => Ok(refused),
        Err(reason) => Err(Ended::Protocol(format!("it refused the end of the snapshot: {reason}"))),
    }
}

/// One message and its answer.
async fn exchange(
    socket: &PacketSocket,
    message: &Message,
    netns: Option<&OwnedFd>,
) -> Result<Result<(), String>, Ended> {
    let packet = match message::encode(message) {
        Ok(packet) => packet,
        // Only this pod's trouble: it counts as refused and the conversation goes on.
        Err(error) => return Ok(Err(error.to_string())),
    };
    timeout(DEADLINE, socket.send(&packet, netns.map(AsFd::as_fd)))
        .await
        .map_err(|_| Ended::Slow("take a message"))??;
    let answer = timeout(DEADLINE, socket.recv()).await.map_err(|_| Ended::Slow("answer"))??;
    message::decode_ack(&answer.bytes).map_err(|error| Ended::Protocol(error.to_string()))
}
