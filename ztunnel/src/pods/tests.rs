//! What is said of pods; and the list of pods against a real agent's end, in real network namespaces.

use std::fs::File;
use std::path::Path;
use std::task::Poll;

use mesh_handoff::AgentEnd;
use mesh_handoff::agent_end::{AddError, Event};
use mesh_runtime::config::Env;
use mesh_runtime::metrics::{Metrics, TextFormat};
use mesh_runtime::readiness::Readiness;
use rustix::thread::UnshareFlags;
use tokio::task::JoinHandle;

use super::*;

/// A new network namespace, and what `inside` made in it; `None`, loudly, where this user may not make one.
#[allow(unsafe_code, reason = "unshare may leave the threads of a process with different views; this one ends")]
#[allow(clippy::print_stderr, reason = "skipped tests must be seen")]
fn namespace<T: Send + 'static>(inside: impl FnOnce() -> T + Send + 'static) -> Option<(OwnedFd, T)> {
    let thread = std::thread::spawn(|| -> io::Result<(OwnedFd, T)> {
        // SAFETY: only this thread's network namespace changes; no file descriptor table is involved.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
        Ok((File::open("/proc/thread-self/ns/net")?.into(), inside()))
    });
    let made = thread.join().unwrap();
    let made = made.and_then(|(netns, made)| Netns::new(netns.try_clone()?)?.run(|| Ok(())).map(|()| (netns, made)));
    made.inspect_err(|error| eprintln!("SKIPPED: this user may not make network namespaces: {error}")).ok()
}

fn info(name: &str) -> PodInfo {
    PodInfo { name: name.into(), namespace: "shop".into(), service_account: name.into() }
}

/// An agent that holds these pods, `None` being one whose namespace it cannot find any more.
struct Agent {
    end: AgentEnd,
    serving: JoinHandle<()>,
}

impl Agent {
    fn start(socket: &Path, pods: &[(&str, Option<&OwnedFd>)]) -> Self {
        let end = AgentEnd::new();
        for (name, netns) in pods {
            end.hold(name, info(name), netns.map(|netns| netns.try_clone().unwrap()));
        }
        let (events, _) = tokio::sync::mpsc::unbounded_channel();
        let serving = tokio::spawn(end.listen(socket).unwrap().serve(events));
        Self { end, serving }
    }

    async fn add(&self, name: &str, netns: impl Into<OwnedFd>) -> Result<(), AddError> {
        self.end.add(name, info(name), netns.into()).await
    }

    /// As when its process is killed.
    async fn kill(self) {
        self.serving.abort();
        let _ = self.serving.await;
    }
}

/// The list of pods of a ztunnel without workers: its listeners are made, and closed again.
struct Node {
    list: List,
    metrics: Metrics,
    readiness: Readiness,
    following: JoinHandle<Infallible>,
    _drain: drain::Trigger,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl Node {
    fn start(socket: &Path) -> Self {
        let socket = socket.to_str().unwrap();
        let settings = [("INPOD_UDS", socket), ("INPOD_PORT_REUSE", "false"), ("ISTIO_META_DNS_CAPTURE", "false")];
        let config = Config::from_env(&settings.into_iter().collect::<Env>()).unwrap();
        let mut metrics = Metrics::new("ztunnel", "test");
        let (drain, draining) = drain::new();
        let pods = Pods::new(&[], config, PodMetrics::register(&mut metrics), draining);
        let readiness = Readiness::new();
        let (list, part) = (pods.list(), readiness.register("node agent"));
        Self { list, metrics, readiness, following: tokio::spawn(pods.follow(part)), _drain: drain }
    }

    fn served(&self) -> Vec<String> {
        lock(&self.list).keys().map(ToString::to_string).collect()
    }

    fn not_ready(&self) -> String {
        self.readiness.pending().iter().map(ToString::to_string).collect()
    }

    /// The lines of `/metrics` that begin so.
    fn lines(&self, name: &str) -> Vec<String> {
        let text = self.metrics.encode(TextFormat::Prometheus).unwrap();
        text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
    }

    async fn until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let wait = async {
            while !is(self) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
        waited.unwrap_or_else(|_| panic!("{what}: serves {:?}, not ready: {}", self.served(), self.not_ready()));
    }
}

/// The agent comes back and says something else: what it names is served, what it leaves out is not, and what it cannot
/// find any more stays as it is.
#[tokio::test]
async fn another_snapshot_after_a_reconnect_is_taken_as_a_whole() {
    let made = (namespace(|| ()), namespace(|| ()), namespace(|| ()));
    let (Some((goes, ())), Some((stays, ())), Some((comes, ()))) = made else { return };
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("ztunnel.sock");
    let node = Node::start(&socket);
    let agent = Agent::start(&socket, &[("goes", Some(&goes)), ("stays", Some(&stays))]);
    node.until("the first snapshot", |node| node.readiness.is_ready()).await;
    assert_eq!(node.served(), ["goes", "stays"]);

    agent.kill().await;
    node.until("the loss of the agent is noticed", |node| !node.readiness.is_ready()).await;
    assert_eq!(node.served(), ["goes", "stays"], "the loss of the agent stops no pod");

    let _agent = Agent::start(&socket, &[("stays", None), ("comes", Some(&comes)), ("never-served", None)]);
    node.until("the other snapshot", |node| node.readiness.is_ready()).await;
    assert_eq!(node.served(), ["comes", "stays"]);
    assert_eq!(node.lines("workload_manager_proxies_started_total"), ["workload_manager_proxies_started_total 3"]);
    assert_eq!(node.lines("workload_manager_proxies_stopped_total"), ["workload_manager_proxies_stopped_total 1"]);
}

/// One message that cannot be, of any kind, ends that conversation: no pod is dropped for it, and the next snapshot is
/// taken. (Each of them ended the whole ztunnel.)
#[tokio::test]
async fn an_agent_that_breaks_the_protocol_costs_no_pod() {
    let Some((netns, ())) = namespace(|| ()) else { return };
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("ztunnel.sock");
    let node = Node::start(&socket);
    let agent = Agent::start(&socket, &[("stays", Some(&netns))]);
    node.until("the first snapshot", |node| node.readiness.is_ready()).await;
    agent.kill().await;
    let snapshot: &[u8] = &[0x1a, 0];
    let keep: &[u8] = &[0x2a, 7, 0x0a, 5, b's', b't', b'a', b'y', b's'];
    for (what, packets) in [
        ("add without workload_info", vec![(&[0x0a, 3, 0x0a, 1, b'u'][..], true)]),
        ("a second snapshot", vec![(keep, false), (snapshot, false), (snapshot, false)]),
        ("a late keep", vec![(keep, false), (snapshot, false), (keep, false)]),
        ("what is no message", vec![(&[0xff, 0xff][..], false)]),
        ("add without a descriptor", vec![(&[0x0a, 7, 0x0a, 1, b'u', 0x12, 2, 0x0a, 0][..], false)]),
    ] {
        let refused = by_hand::agent(&socket, packets.iter().map(|(bytes, fd)| (bytes.to_vec(), *fd)).collect());
        let refused = tokio::task::spawn_blocking(move || refused.join()).await.unwrap().unwrap();
        assert!(refused, "{what}: the last of them is refused");
        assert_eq!(node.served(), ["stays"], "{what}");
        assert!(!node.following.is_finished(), "{what}: it goes on");
        // Connects again, and takes what an agent in its right mind says.
        let agent = Agent::start(&socket, &[("stays", None)]);
        node.until(what, |node| node.readiness.is_ready()).await;
        assert_eq!(node.served(), ["stays"], "{what}");
        agent.kill().await;
        node.until("the loss of the agent is noticed", |node| !node.readiness.is_ready()).await;
    }
}

/// Agents that say what no agent says.
mod by_hand {
    use std::io::IoSlice;
    use std::mem::MaybeUninit;
    use std::os::fd::AsFd;
    use std::thread::JoinHandle;

    use mesh_handoff::message::decode_ack;
    use rustix::net::{
        AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketType,
        accept, bind, listen, recv, sendmsg, socket,
    };

    use super::*;

    /// Says each of these to the next ztunnel that connects, with a descriptor or without; whether the last was refused,
    /// and no other.
    pub(super) fn agent(at: &Path, packets: Vec<(Vec<u8>, bool)>) -> JoinHandle<bool> {
        let _ = std::fs::remove_file(at);
        let listener = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        bind(&listener, &SocketAddrUnix::new(at).unwrap()).unwrap();
        listen(&listener, 1).unwrap();
        std::thread::spawn(move || {
            let peer = accept(&listener).unwrap();
            let read = || {
                let mut bytes = vec![0; 2048];
                let length = recv(&peer, &mut bytes[..], RecvFlags::empty()).unwrap().0;
                bytes.truncate(length);
                bytes
            };
            read();
            let last = packets.len() - 1;
            packets.into_iter().enumerate().all(|(number, (bytes, with))| {
                let own = File::open("/proc/thread-self/ns/net").unwrap();
                let descriptors = [own.as_fd()];
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if with {
                    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
                }
                sendmsg(&peer, &[IoSlice::new(&bytes)], &mut control, SendFlags::empty()).unwrap();
                decode_ack(&read()).unwrap().is_err() == (number == last)
            })
        })
    }
}

/// Never silently outside, and never at others' cost.
#[tokio::test]
async fn a_pod_that_cannot_be_served_is_told_of_and_holds_up_no_other() {
    let taken = || std::net::TcpListener::bind("0.0.0.0:15008").unwrap();
    let (Some((bad, taken)), Some((good, ())), Some((late, ()))) =
        (namespace(taken), namespace(|| ()), namespace(|| ()))
    else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("ztunnel.sock");
    let node = Node::start(&socket);
    let agent = Agent::start(&socket, &[("bad", Some(&bad)), ("good", Some(&good))]);
    node.until("the good one is served", |node| node.served() == ["good"]).await;
    agent.add("late", late).await.unwrap();
    assert_eq!(node.served(), ["good", "late"]);
    let told = node.not_ready();
    assert!(told.contains("1 pods not served: shop/bad; the first because cannot listen in pod shop/bad: "), "{told}");
    let line = |name: &str, why: &str| {
        format!("ambit_pod_not_served{{pod_namespace=\"shop\",pod_name=\"{name}\",reason=\"{why}\"}} 1")
    };
    assert_eq!(node.lines("ambit_pod_not_served{"), [line("bad", "port_in_use")]);

    // What is no namespace, or none any more.
    let refused = agent.add("odd", File::open("/dev/null").unwrap()).await;
    let Err(AddError::Refused(why)) = refused else { panic!("{refused:?}") };
    assert_eq!(why, "cannot listen in pod shop/odd: what the node agent handed over is no network namespace");
    let both = [line("bad", "port_in_use"), line("odd", "no_namespace")];
    let mut lines = node.lines("ambit_pod_not_served{");
    lines.sort();
    assert_eq!(lines, both);

    drop(taken);
    agent.add("bad", bad).await.unwrap();
    agent.end.del("odd").await;
    node.until("all is well", |node| node.readiness.is_ready()).await;
    assert_eq!((node.served().len(), node.lines("ambit_pod_not_served{")), (3, Vec::new()));
}

/// Never silently outside: the pods are named, and not more of them than a line holds.
#[test]
fn pods_that_are_not_served_are_named() {
    let pods: Vec<PodInfo> = (0..25)
        .map(|i| PodInfo { name: format!("web-{i}"), namespace: "shop".into(), service_account: "web".into() })
        .collect();
    let detail = |n: usize| pods_not_served(pods.iter().take(n).map(|pod| (pod, "no such namespace")));
    assert_eq!(detail(0), None);
    let two = detail(2).unwrap();
    assert!(two.starts_with("2 pods not served: ") && two.contains("web-0") && two.contains("web-1"), "{two}");
    assert!(two.ends_with("; the first because no such namespace"), "{two}");
    let many = detail(25).unwrap();
    assert!(many.contains("shop/web-9 and 15 more; ") && !many.contains("web-10"), "{many}");
}

/// Contract 2.5 and Trap 7, and what they do not say: it ends.
#[test]
fn a_pod_that_cannot_be_served_holds_nobody_up_for_long() {
    let not_ready = |text: &str| PodsReadiness::NotReady(text.to_owned());
    for (snapshot_sent, youngest, expected) in [
        (false, None, not_ready("waiting for the node agent's snapshot")),
        (false, Some(PATIENCE), not_ready("waiting for the node agent's snapshot")),
        (true, None, PodsReadiness::Ready),
        (true, Some(PATIENCE / 2), not_ready("a pod")),
        (true, Some(PATIENCE), PodsReadiness::ReadyBut("a pod".to_owned())),
    ] {
        let pending = youngest.map(|_| "a pod".to_owned());
        assert_eq!(readiness(snapshot_sent, pending, youngest), expected, "{snapshot_sent} {youngest:?}");
    }
}

/// An agent that says the same nonsense after each snapshot is not asked for ever as fast as it can answer; one that comes
/// back is dialled at once.
#[test]
fn the_wait_after_a_fault_grows_until_a_conversation_lasts() {
    use ztunnel_end::Error::{Closed, Unreadable, Violation};
    let (violation, unreadable) = (Violation("late keep".to_owned()), Unreadable("add".to_owned()));
    let (short, long) = (Duration::from_millis(5), LONGEST);
    let mut waits = Waits::default();
    for (number, (error, snapshot_sent, lasted, expected)) in [
        (&violation, true, short, 10),
        (&unreadable, true, short, 20),
        (&violation, true, LONGEST - short, 40),
        (&violation, false, short, 80),
        (&violation, true, long, 10),
        (&violation, true, short, 20),
        // It goes away before its snapshot, and again: neither ends what is wrong with it.
        (&Closed, false, short, 10),
        (&Closed, false, short, 20),
        (&violation, false, short, 40),
        (&Closed, false, short, 40),
        // What it said up to its end was understood.
        (&Closed, true, short, 10),
        (&violation, true, short, 10),
    ]
    .into_iter()
    .enumerate()
    {
        let wait = waits.after(error, snapshot_sent, lasted);
        assert_eq!(wait.as_millis(), expected, "{number}: {error}");
    }
    let mut worst = Duration::ZERO;
    for _ in 0..20 {
        worst = waits.after(&violation, true, short);
    }
    assert_eq!(worst, LONGEST);
}

/// Trap 59. Pods, and with them their listeners, come by the agent only.
#[tokio::test]
async fn no_pod_is_served_before_the_tables_are_complete() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let (events, mut heard) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(AgentEnd::new().listen(&socket).unwrap().serve(events));
    let config = Config::from_env(&Env::from_iter([("INPOD_UDS", socket.to_str().unwrap())])).unwrap();
    let (mut tables, reader) = mesh_xds::follow::tables();
    let (_drain, draining) = drain::new();
    let readiness = Readiness::new();
    let ready = readiness.register("node agent");
    let pods = Pods::new(&[], config, PodMetrics::default(), draining);
    let mut follow = Box::pin(once_complete(reader.synced(), pods.follow(ready)));
    // As often as anybody likes: it waits for the tables, and has not so much as said hello to the agent.
    for _ in 0..100 {
        let looked = std::future::poll_fn(|cx| Poll::Ready(follow.as_mut().poll(cx).is_pending())).await;
        assert!(looked);
        tokio::task::yield_now().await;
    }
    assert!(heard.try_recv().is_err() && !readiness.is_ready());
    tables.synced();
    let event = tokio::select! {
        event = heard.recv() => event,
        _ = follow => None,
    };
    assert!(matches!(event, Some(Event::Connected { pods: 0, .. })), "{event:?}");
}
