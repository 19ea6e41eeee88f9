//! Both ends over a real socket, with real descriptors.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use mesh_handoff::agent_end::{AddError, Event};
use mesh_handoff::ztunnel_end::Error;
use mesh_handoff::{AgentEnd, Request, ZtunnelEnd};
use mesh_model::pod::PodInfo;
use tokio::sync::mpsc::UnboundedReceiver;

struct Node {
    agent: AgentEnd,
    path: PathBuf,
    events: UnboundedReceiver<Event>,
    _dir: tempfile::TempDir,
}

impl Node {
    fn new(agent: AgentEnd) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ztunnel.sock");
        let (sender, events) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(agent.listen(&path).unwrap().serve(sender));
        Self { agent, path, events, _dir: dir }
    }

    /// Connects and takes an empty snapshot.
    async fn ztunnel(&mut self) -> ZtunnelEnd {
        let mut ztunnel = ZtunnelEnd::connect(&self.path).await.unwrap();
        assert!(matches!(ztunnel.next().await.unwrap(), Request::SnapshotSent));
        ztunnel.ack(Ok(())).await.unwrap();
        while !matches!(self.events.recv().await, Some(Event::SnapshotTaken { .. })) {}
        ztunnel
    }
}

fn pod(name: &str) -> PodInfo {
    PodInfo { name: name.into(), namespace: "default".into(), service_account: "sa".into() }
}

fn netns() -> OwnedFd {
    File::open("/proc/self/ns/net").unwrap().into()
}

fn same_file(a: impl AsFd, b: impl AsFd) -> bool {
    let stat = |fd: std::os::fd::BorrowedFd<'_>| File::from(fd.try_clone_to_owned().unwrap()).metadata().unwrap();
    let (a, b) = (stat(a.as_fd()), stat(b.as_fd()));
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// Traps 2 and 3: ztunnel speaks first, and each message has one ack. Trap 4: a Keep is said in the snapshot only.
#[tokio::test]
async fn a_snapshot_then_what_happens() {
    let agent = AgentEnd::new();
    agent.hold("a", pod("a"), Some(netns()));
    agent.hold("b", pod("b"), None);
    let mut node = Node::new(agent.clone());
    let mut ztunnel = ZtunnelEnd::connect(&node.path).await.unwrap();

    match ztunnel.next().await.unwrap() {
        Request::Add { uid, pod: info, netns: descriptor } => {
            assert_eq!((uid.as_str(), info), ("a", pod("a")));
            assert!(same_file(&descriptor, netns()));
            assert!(rustix::io::fcntl_getfd(&descriptor).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        }
        other => panic!("{other:?}"),
    }
    ztunnel.ack(Err("port taken".to_owned())).await.unwrap();
    assert!(matches!(ztunnel.next().await.unwrap(), Request::Keep { uid } if uid == "b"));
    ztunnel.ack(Ok(())).await.unwrap();
    assert!(matches!(ztunnel.next().await.unwrap(), Request::SnapshotSent));
    ztunnel.ack(Ok(())).await.unwrap();
    assert_eq!(node.events.recv().await, Some(Event::Connected { ztunnel: 1, pods: 2 }));
    let refused = vec![("a".to_owned(), "port taken".to_owned())];
    assert_eq!(node.events.recv().await, Some(Event::SnapshotTaken { ztunnel: 1, refused }));

    let added = tokio::spawn({
        let agent = agent.clone();
        async move {
            let first = agent.add("c", pod("c"), netns()).await;
            let second = agent.add("c", pod("c"), netns()).await;
            // Served: not said again. The next thing ztunnel hears is something else.
            agent.add("c", pod("c"), netns()).await.unwrap();
            (first, second)
        }
    });
    assert!(matches!(ztunnel.next().await.unwrap(), Request::Add { uid, .. } if uid == "c"));
    ztunnel.ack(Err("not yet".to_owned())).await.unwrap();
    assert!(matches!(ztunnel.next().await.unwrap(), Request::Add { uid, .. } if uid == "c"));
    ztunnel.ack(Ok(())).await.unwrap();
    assert_eq!(added.await.unwrap(), (Err(AddError::Refused("not yet".to_owned())), Ok(())));

    let gone = tokio::spawn(async move { agent.del("a").await });
    assert!(matches!(ztunnel.next().await.unwrap(), Request::Del { uid } if uid == "a"));
    ztunnel.ack(Ok(())).await.unwrap();
    gone.await.unwrap();
    assert_eq!(node.agent.pods(), ["b", "c"]);
}

#[tokio::test]
async fn without_ztunnel_a_pod_waits_for_the_next_snapshot() {
    let node = Node::new(AgentEnd::new());
    assert_eq!(node.agent.add("a", pod("a"), netns()).await, Err(AddError::NoZtunnel));
    let mut ztunnel = ZtunnelEnd::connect(&node.path).await.unwrap();
    assert!(matches!(ztunnel.next().await.unwrap(), Request::Add { uid, .. } if uid == "a"));
}

#[tokio::test]
async fn an_add_that_waits_behind_the_snapshot_is_not_said_twice() {
    let agent = AgentEnd::new();
    agent.hold("a", pod("a"), Some(netns()));
    let mut node = Node::new(agent.clone());
    let mut ztunnel = ZtunnelEnd::connect(&node.path).await.unwrap();
    assert!(matches!(ztunnel.next().await.unwrap(), Request::Add { .. }));
    assert!(matches!(node.events.recv().await, Some(Event::Connected { .. })));
    let (added, ()) = tokio::join!(agent.add("a", pod("a"), netns()), async {
        ztunnel.ack(Ok(())).await.unwrap();
        assert!(matches!(ztunnel.next().await.unwrap(), Request::SnapshotSent));
        ztunnel.ack(Ok(())).await.unwrap();
    });
    assert_eq!(added, Ok(()));
    // Another namespace under the same UID is another pod to serve.
    let other = File::open("/dev/null").unwrap().into();
    let (added, ()) = tokio::join!(agent.add("a", pod("a"), other), async {
        assert!(matches!(ztunnel.next().await.unwrap(), Request::Add { .. }));
        ztunnel.ack(Ok(())).await.unwrap();
    });
    assert_eq!(added, Ok(()));
}

/// Trap 6.
#[tokio::test]
async fn the_newest_takes_adds_and_all_take_dels() {
    let mut node = Node::new(AgentEnd::new());
    let mut old = node.ztunnel().await;
    let mut new = node.ztunnel().await;
    assert_eq!(node.agent.connected(), 2);

    let agent = node.agent.clone();
    let added = tokio::spawn(async move { agent.add("a", pod("a"), netns()).await });
    assert!(matches!(new.next().await.unwrap(), Request::Add { .. }));
    new.ack(Ok(())).await.unwrap();
    assert_eq!(added.await.unwrap(), Ok(()));

    let agent = node.agent.clone();
    let gone = tokio::spawn(async move { agent.del("a").await });
    for ztunnel in [&mut old, &mut new] {
        // The add never came here: the first thing the old one hears is the del.
        assert!(matches!(ztunnel.next().await.unwrap(), Request::Del { .. }));
        ztunnel.ack(Ok(())).await.unwrap();
    }
    gone.await.unwrap();

    // When the newest leaves, the one before it takes the adds.
    drop(new);
    while !matches!(node.events.recv().await, Some(Event::Disconnected { ztunnel: 2, .. })) {}
    let agent = node.agent.clone();
    let added = tokio::spawn(async move { agent.add("b", pod("b"), netns()).await });
    assert!(matches!(old.next().await.unwrap(), Request::Add { .. }));
    old.ack(Ok(())).await.unwrap();
    assert_eq!(added.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn an_add_is_lost_with_its_ztunnel() {
    let mut node = Node::new(AgentEnd::new());
    let mut ztunnel = node.ztunnel().await;
    let agent = node.agent.clone();
    let added = tokio::spawn(async move { agent.add("a", pod("a"), netns()).await });
    let request = ztunnel.next().await.unwrap();
    assert!(matches!(request, Request::Add { .. }));
    drop(ztunnel);
    assert!(matches!(added.await.unwrap(), Err(AddError::Lost(_))));
}

#[tokio::test]
async fn the_agent_leaving_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ztunnel.sock");
    assert!(matches!(ZtunnelEnd::connect(&path).await, Err(Error::Connect { .. })));

    let agent = AgentEnd::new();
    let (sender, _events) = tokio::sync::mpsc::unbounded_channel();
    let serving = tokio::spawn(agent.listen(&path).unwrap().serve(sender.clone()));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut ztunnel = ZtunnelEnd::connect(&path).await.unwrap();
    assert!(matches!(ztunnel.next().await.unwrap(), Request::SnapshotSent));
    ztunnel.ack(Ok(())).await.unwrap();
    serving.abort();
    assert!(matches!(ztunnel.next().await, Err(Error::Closed)));
    // The socket file is stale now; a new agent takes its place.
    tokio::spawn(agent.listen(&path).unwrap().serve(sender));
    assert!(ZtunnelEnd::connect(&path).await.is_ok());
}

mod raw {
    //! A peer that does not keep the rules.
    use super::*;
    use rustix::net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketType, accept, bind,
        connect, listen, recv, send, sendmsg, socket,
    };
    use std::io::IoSlice;
    use std::mem::MaybeUninit;

    fn read(fd: &OwnedFd) -> Vec<u8> {
        let mut bytes = vec![0; 2048];
        let n = recv(fd, &mut bytes[..], rustix::net::RecvFlags::empty()).unwrap().0;
        bytes.truncate(n);
        bytes
    }

    fn send_with(fd: &OwnedFd, bytes: &[u8], descriptors: usize) {
        let owned: Vec<_> = (0..descriptors).map(|_| netns()).collect();
        let borrowed: Vec<_> = owned.iter().map(AsFd::as_fd).collect();
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if descriptors > 0 {
            assert!(control.push(SendAncillaryMessage::ScmRights(&borrowed)));
        }
        sendmsg(fd, &[IoSlice::new(bytes)], &mut control, SendFlags::empty()).unwrap();
    }

    /// What ztunnel's end makes of a packet from an agent, and what it answers.
    async fn ztunnel_hears(packets: Vec<(Vec<u8>, usize)>) -> (Error, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&listener, 1).unwrap();
        let agent = std::thread::spawn(move || {
            let peer = accept(&listener).unwrap();
            assert_eq!(read(&peer), [8, 1], "ztunnel speaks first");
            let mut answer = Vec::new();
            for (bytes, descriptors) in packets {
                send_with(&peer, &bytes, descriptors);
                answer = read(&peer);
            }
            answer
        });
        let mut ztunnel = ZtunnelEnd::connect(&path).await.unwrap();
        let error = loop {
            match ztunnel.next().await {
                Ok(_) => ztunnel.ack(Ok(())).await.unwrap(),
                Err(error) => break error,
            }
        };
        drop(ztunnel);
        (error, agent.join().unwrap())
    }

    #[tokio::test]
    async fn ztunnel_refuses_what_it_cannot_read() {
        let add = vec![0x0a, 7, 0x0a, 1, b'u', 0x12, 2, 0x0a, 0];
        let snapshot = vec![0x1a, 0];
        let del = vec![0x12, 3, 0x12, 1, b'u'];
        let unreadable = [
            vec![(vec![0xff, 0xff], 0)],
            vec![(vec![0x12; 1025], 0)], // one byte too many
            vec![(add.clone(), 0)],
            vec![(add.clone(), 2)],
            vec![(add, 9)], // more than there is room for
            vec![(del, 1)],
            vec![(snapshot.clone(), 1)],
        ];
        for packets in unreadable {
            let (error, answer) = ztunnel_hears(packets.clone()).await;
            assert!(matches!(error, Error::Unreadable(_)), "{packets:?}: {error}");
            let reason = mesh_handoff::message::decode_ack(&answer).unwrap().unwrap_err();
            assert!(reason.starts_with("failure to read message"), "{reason}");
        }
        let keep = vec![0x2a, 3, 0x0a, 1, b'u'];
        let violations = [
            vec![(snapshot.clone(), 0), (snapshot.clone(), 0)],
            vec![(keep.clone(), 0), (snapshot, 0), (keep, 0)],
            vec![(vec![0x0a, 3, 0x0a, 1, b'u'], 1)], // no workload_info
        ];
        for packets in violations {
            let (error, answer) = ztunnel_hears(packets.clone()).await;
            assert!(matches!(error, Error::Violation(_)), "{packets:?}: {error}");
            assert!(mesh_handoff::message::decode_ack(&answer).unwrap().is_err());
        }
    }

    #[tokio::test]
    async fn the_agent_drops_a_ztunnel_that_breaks_the_rules() {
        let mut node = Node::new(AgentEnd::new());
        let dial = |path: &PathBuf| {
            let fd = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
            connect(&fd, &SocketAddrUnix::new(path).unwrap()).unwrap();
            fd
        };
        // A wrong version; then one that acknowledges what nobody asked.
        let wrong = dial(&node.path);
        send(&wrong, &[8, 9], SendFlags::empty()).unwrap();
        assert!(
            matches!(node.events.recv().await, Some(Event::Disconnected { reason, .. }) if reason.contains("version 9"))
        );

        let eager = dial(&node.path);
        send(&eager, &[8, 1], SendFlags::empty()).unwrap();
        let eager = tokio::task::spawn_blocking(move || {
            assert_eq!(read(&eager), [0x1a, 0]);
            send(&eager, &[0x0a, 0], SendFlags::empty()).unwrap();
            send(&eager, &[0x0a, 0], SendFlags::empty()).unwrap();
            eager
        });
        let reason = loop {
            if let Some(Event::Disconnected { reason, .. }) = node.events.recv().await {
                break reason;
            }
        };
        assert!(reason.contains("without being asked"), "{reason}");
        assert_eq!(node.agent.connected(), 0);
        drop(eager.await.unwrap());
    }
}
