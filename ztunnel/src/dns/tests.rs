//! The proxy over real sockets, with real servers behind it that do as the test says. Entering a network namespace and
//! marking sockets needs rights even where the namespace is one's own.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;

use mesh_model::address::{NamespacedName, NetworkAddress};
use mesh_model::reason::ReasonCode;
use mesh_model::resource::Resource;
use mesh_model::service::{Service, Vip};
use mesh_xds::follow;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

use super::message::kind::{A, AAAA};
use super::message::tests::{query, read_answer, response, with_edns};
use super::serve::{Listeners, listen};
use super::*;

/// What a server answers to a query, by the way it came: any number of datagrams.
type Script = Rc<dyn Fn(&[u8], bool) -> Vec<Vec<u8>>>;

/// Queries, and whether each came over TCP.
type Asked = Rc<RefCell<Vec<(Vec<u8>, bool)>>>;

/// A name server. Says what it was asked.
struct Server {
    address: SocketAddr,
    asked: Asked,
}

impl Server {
    async fn start(script: impl Fn(&[u8], bool) -> Vec<Vec<u8>> + 'static) -> Self {
        let script: Script = Rc::new(script);
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).await.unwrap();
        let asked = Asked::default();
        let (log, says) = (asked.clone(), script.clone());
        spawn_local(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
                log.borrow_mut().push((buffer[..length].to_vec(), false));
                for answer in says(&buffer[..length], false) {
                    udp.send_to(&answer, from).await.unwrap();
                }
            }
        });
        let log = asked.clone();
        spawn_local(async move {
            loop {
                let (mut tcp, _) = tcp.accept().await.unwrap();
                let packet = read_tcp(&mut tcp).await.unwrap();
                log.borrow_mut().push((packet.clone(), true));
                for answer in script(&packet, true) {
                    write_tcp(&mut tcp, &answer).await;
                }
            }
        });
        Self { address, asked }
    }

    /// Answers 192.0.2.1 to everything, with a long TTL.
    async fn honest() -> Self {
        Self::start(|packet, _| vec![honest(packet)]).await
    }
}

fn honest(packet: &[u8]) -> Vec<u8> {
    response(packet, 0, &[("example", A, 60, &[192, 0, 2, 1])], &[])
}

async fn read_tcp(tcp: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut packet = vec![0; tcp.read_u16().await?.into()];
    tcp.read_exact(&mut packet).await?;
    Ok(packet)
}

async fn write_tcp(tcp: &mut TcpStream, packet: &[u8]) {
    tcp.write_all(&[&(packet.len() as u16).to_be_bytes(), packet].concat()).await.unwrap();
}

/// A service that is nothing but another name.
fn other_name(name: &str, target: &str) -> Service {
    let extension = mesh_model::service::ServiceExtension { external_name: target.into(), ..Default::default() };
    Service { extension: Some(extension.into()), ..Service::empty("shop", format!("{name}.shop.svc.cluster.local.")) }
}

/// The proxy of one pod, whose network is this process's.
struct Proxy {
    dns: Arc<Dns>,
    pod: Rc<PodDns>,
    udp: SocketAddr,
    tcp: SocketAddr,
    metrics: Metrics,
}

const SERVICE: &str = "shop/cart.shop.svc.cluster.local";

impl Proxy {
    /// None, said loudly, where there are no rights.
    #[allow(clippy::print_stderr, reason = "skipped tests must be seen")]
    async fn start(servers: &[SocketAddr]) -> Option<Self> {
        let netns = Netns::new(File::open("/proc/thread-self/ns/net").unwrap().into()).unwrap();
        let settings = SocketSettings {
            ipv6: true,
            mark: Some(crate::sockets::PACKET_MARK),
            reuse_port: true,
            keepalive: None,
            user_timeout: false,
            original_source: crate::sockets::OriginalSource::Off,
        };
        let listeners = match listen(&netns, "127.0.0.1:0".parse().unwrap(), &settings) {
            Ok(listeners) => listeners,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                eprintln!("SKIPPED: sockets in network namespaces need root: {error}");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        let (mut writer, tables) = follow::tables();
        let key = NamespacedName::parse(SERVICE).unwrap();
        let vip =
            |i: u8| Vip { address: NetworkAddress { network: "".into(), ip: [10, 96, 0, i].into() }, prefix: None };
        let many = Service { vips: (0..100).map(vip).collect(), ..Service::empty("shop", "many.example") };
        let client = Workload {
            name: "client".into(),
            namespace: "shop".into(),
            service_account: "default".into(),
            canonical_name: "front".into(),
            ..Workload::empty("client")
        };
        writer.apply_local(vec![
            Resource::Workload(client.into()),
            Resource::Service(Service { vips: vec![vip(1)], ..Service::empty(key.namespace, key.name) }.into()),
            Resource::Service(many.into()),
            Resource::Service(other_name("far", "www.example.org").into()),
            Resource::Service(other_name("near", "cart.shop.svc.cluster.local").into()),
        ]);
        let mut metrics = Metrics::new("ztunnel", "test");
        let (_, nameservers) = watch::channel(Nameservers { servers: servers.into(), ignored: Vec::new() });
        let dns = Arc::new(Dns {
            names: NameSettings { domain: "cluster.local".into(), preferred_namespace: None, ipv6: true },
            tables,
            sockets: settings,
            nameservers,
            waiting: Semaphore::new(MAX_WAITING_IN_ALL),
            metrics: DnsMetrics::register(&mut metrics),
        });
        let pod = Rc::new(PodDns::new(Arc::new(pod("client")), netns));
        let Listeners { mut udp, mut tcp } = listeners;
        let udp = UdpSocket::from_std(udp.remove(0)).unwrap();
        let tcp = TcpListener::from_std(tcp.remove(0)).unwrap();
        let this = Self {
            udp: udp.local_addr().unwrap(),
            tcp: tcp.local_addr().unwrap(),
            dns: dns.clone(),
            pod: pod.clone(),
            metrics,
        };
        spawn_local(dns.clone().serve_udp(pod.clone(), Rc::new(udp)));
        spawn_local(async move {
            loop {
                let (connection, _) = tcp.accept().await.unwrap();
                let (dns, pod) = (dns.clone(), pod.clone());
                spawn_local(async move { dns.serve_tcp(&pod, connection, std::future::pending()).await });
            }
        });
        Some(this)
    }

    async fn ask(&self, packet: &[u8], tcp: bool) -> Vec<u8> {
        if tcp {
            let mut tcp = TcpStream::connect(self.tcp).await.unwrap();
            write_tcp(&mut tcp, packet).await;
            return patiently(read_tcp(&mut tcp)).await.unwrap();
        }
        let udp = self.client().await;
        udp.send(packet).await.unwrap();
        receive(&udp).await
    }

    async fn client(&self) -> UdpSocket {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        udp.connect(self.udp).await.unwrap();
        udp
    }

    fn metrics(&self) -> String {
        self.metrics.encode(mesh_runtime::metrics::TextFormat::Prometheus).unwrap()
    }
}

async fn receive(udp: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_535];
    let length = patiently(udp.recv(&mut buffer)).await.unwrap();
    buffer.truncate(length);
    buffer
}

async fn patiently<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("an answer within 20 s")
}

fn pod(name: &str) -> PodInfo {
    PodInfo { name: name.into(), namespace: "shop".into(), service_account: "default".into() }
}

fn rcode(answer: &[u8]) -> u8 {
    answer[3] & 15
}

async fn local(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_name_of_the_mesh_is_answered_and_no_other_is_touched() {
    local(async {
        let server = Server::honest().await;
        let Some(proxy) = Proxy::start(&[server.address]).await else { return };
        for tcp in [false, true] {
            let (addresses, part) = read_answer(&proxy.ask(&query(7, "cart", A), tcp).await);
            assert_eq!((addresses, part), (vec![[10, 96, 0, 1].into()], false));
            // Trap 56: empty, and nobody is asked.
            let empty = proxy.ask(&query(7, "cart", AAAA), tcp).await;
            assert_eq!((rcode(&empty), read_answer(&empty).0.len()), (0, 0));
            assert!(server.asked.borrow().is_empty());

            let foreign = with_edns(&query(0x1234, "eXample", A), 1232);
            let answer = proxy.ask(&foreign, tcp).await;
            let (seen, by_tcp) = server.asked.borrow_mut().pop().unwrap();
            assert_eq!((&seen[2..], by_tcp), (&foreign[2..], tcp), "byte for byte but for the id, by the same way");
            assert_eq!(answer, honest(&foreign), "byte for byte, with the asker's id");
        }
        let text = proxy.metrics();
        let labels = "{request_query_type=\"A\",request_protocol=\"udp\",source_canonical_service=\"front\",\
                      source_canonical_revision=\"unknown\"}";
        assert!(text.contains(&format!("istio_dns_requests_total{labels} 2\n")), "{text}");
        assert!(text.contains(&format!("istio_dns_upstream_requests_total{labels} 1\n")), "{text}");
        assert!(text.contains("istio_dns_upstream_request_duration_seconds_count{"), "{text}");
        assert!(!text.contains("istio_dns_upstream_failures_total{"), "{text}");
    })
    .await;
}

#[tokio::test]
async fn what_does_not_fit_over_udp_comes_over_tcp() {
    local(async {
        let Some(proxy) = Proxy::start(&[]).await else { return };
        let many = query(7, "many.example", A);
        let (first, part) = read_answer(&proxy.ask(&many, false).await);
        assert!(part && !first.is_empty() && first.len() < 100);
        for (packet, tcp) in [(with_edns(&many, 4096), false), (many, true)] {
            let (mut all, part) = read_answer(&proxy.ask(&packet, tcp).await);
            assert_ne!(all, sorted(&all), "the order is shuffled");
            all = sorted(&all);
            all.dedup();
            assert_eq!((all.len(), part), (100, false));
        }
    })
    .await;
}

fn sorted(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut sorted = addresses.to_vec();
    sorted.sort();
    sorted
}

#[tokio::test]
async fn a_truncated_answer_is_passed_on_as_it_is() {
    local(async {
        let server = Server::start(|packet, tcp| {
            let mut answer = honest(packet);
            answer[2] |= if tcp { 0 } else { 2 };
            vec![answer]
        })
        .await;
        let Some(proxy) = Proxy::start(&[server.address]).await else { return };
        let foreign = query(7, "example", A);
        assert!(read_answer(&proxy.ask(&foreign, false).await).1, "the client decides what to do about it");
        assert!(!read_answer(&proxy.ask(&foreign, true).await).1);
    })
    .await;
}

#[tokio::test]
async fn guesses_are_not_answers() {
    local(async {
        let server = Server::start(|packet, _| {
            let mut other_id = honest(packet);
            other_id[0] ^= 1;
            let id = u16::from_be_bytes(message::id(packet));
            let other_name = response(&query(id, "evil", A), 0, &[("evil", A, 60, &[6, 6, 6, 6])], &[]);
            vec![vec![1], other_id, other_name, packet.to_vec(), honest(packet)]
        })
        .await;
        let Some(proxy) = Proxy::start(&[server.address]).await else { return };
        let foreign = query(7, "example", A);
        assert_eq!(proxy.ask(&foreign, false).await, honest(&foreign));
    })
    .await;
}

#[tokio::test]
async fn ids_and_ports_are_new_each_time() {
    local(async {
        let server = Server::start(|packet, _| vec![response(packet, 3, &[], &[])]).await;
        let Some(proxy) = Proxy::start(&[server.address]).await else { return };
        for _ in 0..20 {
            proxy.ask(&query(7, "example", A), false).await;
        }
        let mut ids: Vec<[u8; 2]> = server.asked.borrow().iter().map(|(packet, _)| message::id(packet)).collect();
        ids.sort_unstable();
        ids.dedup();
        assert!(ids.len() > 15, "{ids:?}");
    })
    .await;
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_fails() {
    local(async {
        let good = Server::honest().await;
        let failing = Server::start(|packet, _| vec![response(packet, 2, &[], &[])]).await;
        let refused = closed_port().await;
        for first in [refused, failing.address] {
            let Some(proxy) = Proxy::start(&[first, good.address]).await else { return };
            for tcp in [false, true] {
                let foreign = query(7, "example", A);
                assert_eq!(proxy.ask(&foreign, tcp).await, honest(&foreign), "{first} tcp {tcp}");
            }
        }
        // An absence is an answer: nobody else is asked.
        let absent = Server::start(|packet, _| vec![response(packet, 3, &[], &[])]).await;
        let Some(proxy) = Proxy::start(&[absent.address, good.address]).await else { return };
        assert_eq!(rcode(&proxy.ask(&query(7, "example", A), false).await), 3);
        // One server that fails: what it says is the answer.
        let Some(proxy) = Proxy::start(&[failing.address]).await else { return };
        assert_eq!(rcode(&proxy.ask(&query(7, "example", A), false).await), 2);
    })
    .await;
}

async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_server_without_tcp_serves_who_came_by_tcp() {
    local(async {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = udp.local_addr().unwrap();
        spawn_local(async move {
            let mut buffer = [0; 512];
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            udp.send_to(&honest(&buffer[..length]), from).await.unwrap();
        });
        let Some(proxy) = Proxy::start(&[address]).await else { return };
        let foreign = query(7, "example", A);
        assert_eq!(proxy.ask(&foreign, true).await, honest(&foreign));
    })
    .await;
}

#[tokio::test]
async fn no_server_is_said_at_once() {
    local(async {
        let Some(proxy) = Proxy::start(&[]).await else { return };
        for tcp in [false, true] {
            let answer = proxy.ask(&query(7, "example", A), tcp).await;
            assert_eq!((rcode(&answer), message::id(&answer)), (2, [0, 7]));
        }
        let text = proxy.metrics();
        assert!(text.contains("istio_dns_upstream_failures_total{"), "{text}");
        assert!(text.contains("ambit_dns_not_served_total{reason=\"DNS_NO_NAMESERVER\"} 2\n"), "{text}");
    })
    .await;
}

#[tokio::test]
async fn a_second_asker_is_answered_from_memory() {
    local(async {
        let server = Server::honest().await;
        let Some(proxy) = Proxy::start(&[server.address]).await else { return };
        for id in [7, 8] {
            let foreign = query(id, "example", A);
            assert_eq!(proxy.ask(&foreign, false).await[..6], honest(&foreign)[..6]);
        }
        assert_eq!(server.asked.borrow().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn malformed_packets_are_met_with_less_than_they_are() {
    local(async {
        let server = Server::honest().await;
        let Some(proxy) = Proxy::start(&[server.address]).await else { return };
        let udp = proxy.client().await;
        // Too short, an answer: silence, so what comes next is to the next.
        udp.send(&[0; 11]).await.unwrap();
        udp.send(&honest(&query(7, "example", A))).await.unwrap();
        let cut = &query(9, "example", A)[..15];
        udp.send(cut).await.unwrap();
        let answer = receive(&udp).await;
        assert_eq!((message::id(&answer), rcode(&answer)), ([0, 9], 1));
        assert!(answer.len() <= cut.len());
        udp.send(&[&query(10, "example", A)[..], &[0; 5000]].concat()).await.unwrap();
        assert_eq!(rcode(&receive(&udp).await), 1);
        assert!(server.asked.borrow().is_empty());
        // It goes on.
        assert_eq!(read_answer(&proxy.ask(&query(7, "cart", A), false).await).0.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn queries_that_wait_are_bounded() {
    local(async {
        let server = Server::start(|_, _| Vec::new()).await;
        let Some(proxy) = Proxy::start(&[server.address]).await else { return };
        let udp = proxy.client().await;
        for id in 0..=MAX_WAITING as u16 {
            udp.send(&query(id, &format!("n{id}.example"), A)).await.unwrap();
            // One at a time, or the socket's own bound is what is tested.
            while proxy.pod.waiting.get() < MAX_WAITING.min(usize::from(id) + 1) {
                tokio::task::yield_now().await;
            }
        }
        let answer = receive(&udp).await;
        assert_eq!((message::id(&answer), rcode(&answer)), ((MAX_WAITING as u16).to_be_bytes(), 2));
        assert_eq!(proxy.pod.waiting.get(), MAX_WAITING);
        // What needs no waiting is answered all the same.
        assert_eq!(read_answer(&proxy.ask(&query(7, "cart", A), false).await).0.len(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_is_not_known_is_not_answered() {
    let Some(proxy) = Proxy::start_in_local_set().await else { return };
    let stranger = PodDns::new(Arc::new(pod("stranger")), proxy.pod.netns.clone());
    let packet = query(7, "cart", A);
    let AtOnce::Wait(asked) = proxy.dns.at_once(&stranger, &packet, false) else { panic!("answered a stranger") };
    assert_eq!(rcode(&proxy.dns.later(&stranger, &packet, &asked, false).await), 2);
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let Some(proxy) = Proxy::start_in_local_set().await else { return };
    let (settings, address) = (&proxy.dns.sockets, silent.local_addr().unwrap());
    let started = Instant::now();
    let asked = forward::ask(&proxy.pod.netns, settings, &[address], &query(7, "example", A), false).await;
    let failure = asked.unwrap_err();
    assert_eq!(failure.code(), ReasonCode::DnsUpstreamFailed);
    assert!(failure.to_string().contains(&format!("{address}: no answer in time")), "{failure}");
    assert!(started.elapsed() < Duration::from_secs(5), "before the client gives up");
}

impl Proxy {
    /// For tests that ask it without its sockets.
    async fn start_in_local_set() -> Option<Self> {
        LocalSet::new().run_until(Self::start(&[])).await
    }
}

/// The server answers the first question when the second arrives, and no other.
#[tokio::test]
async fn a_late_answer_to_an_earlier_attempt_counts() {
    local(async {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        spawn_local(async move {
            let mut buffer = [0; 4096];
            let mut waiting = None;
            loop {
                let (length, from) = silent.recv_from(&mut buffer).await.unwrap();
                match waiting.take() {
                    None => waiting = Some((buffer[..length].to_vec(), from)),
                    Some((packet, asker)) => {
                        silent.send_to(&honest(&packet), asker).await.unwrap();
                        assert_ne!(asker, from, "each attempt from a port of its own");
                    }
                }
            }
        });
        let Some(proxy) = Proxy::start(&[address]).await else { return };
        let asked = query(7, "slow.example", A);
        let answer = proxy.ask(&asked, false).await;
        assert_eq!((rcode(&answer), read_answer(&answer).0.len()), (0, 1));
        assert_eq!(answer, honest(&asked));
    })
    .await;
}

#[tokio::test]
async fn names_that_are_other_names_are_followed() {
    local(async {
        let server = Server::start(|packet, _| {
            let asked = message::read(packet).unwrap().question.unwrap().name;
            match asked.as_str() {
                "www.example.org" => vec![response(
                    packet,
                    0,
                    &[
                        ("www.example.org", message::kind::CNAME, 60, b"\x01a\x07example\0"),
                        ("a.example", A, 60, &[192, 0, 2, 7]),
                    ],
                    &[],
                )],
                other => panic!("asked for {other}"),
            }
        })
        .await;
        let Some(proxy) = Proxy::start(&[server.address]).await else { return };
        for tcp in [false, true] {
            let before = server.asked.borrow().len();
            let near = proxy.ask(&query(7, "near", A), tcp).await;
            assert_eq!(read_answer(&near).0, [IpAddr::from([10, 96, 0, 1])]);
            let alias = message::records(&near, message::kind::CNAME);
            assert_eq!(alias, [b"\x04cart\x04shop\x03svc\x07cluster\x05local\0"]);
            assert_eq!(server.asked.borrow().len(), before, "nobody is asked");

            let far = proxy.ask(&query(9, "far.shop.svc.cluster.local", A), tcp).await;
            assert_eq!((message::id(&far), rcode(&far)), ([0, 9], 0));
            assert_eq!(read_answer(&far).0, [IpAddr::from([192, 0, 2, 7])]);
            assert_eq!(message::records(&far, message::kind::CNAME), [b"\x03www\x07example\x03org\0"]);
        }
        let ways: Vec<bool> = server.asked.borrow().iter().map(|(_, tcp)| *tcp).collect();
        assert_eq!(ways, [false, false], "for each way once: it is remembered; and over UDP, where it fits");
        server.asked.borrow_mut().clear();
        let again = proxy.ask(&query(11, "far.shop.svc.cluster.local", A), false).await;
        assert_eq!((read_answer(&again).0.len(), server.asked.borrow().len()), (1, 0));
    })
    .await;
}

/// What a name outside of the mesh leads to comes along whole, however long it is.
#[tokio::test]
async fn what_does_not_fit_of_a_name_that_leads_out_is_asked_for_over_tcp() {
    local(async {
        let server = Server::start(|packet, tcp| {
            let records: Vec<_> = [[192, 0, 2, 1], [192, 0, 2, 2]].into_iter().take(1 + usize::from(tcp)).collect();
            let records: Vec<_> = records.iter().map(|ip| ("www.example.org", A, 60, &ip[..])).collect();
            let mut answer = response(packet, 0, &records, &[]);
            answer[2] |= if tcp { 0 } else { 2 };
            vec![answer]
        })
        .await;
        let Some(proxy) = Proxy::start(&[server.address]).await else { return };
        let (mut addresses, part) = read_answer(&proxy.ask(&query(9, "far.shop.svc.cluster.local", A), false).await);
        addresses.sort();
        assert_eq!((addresses, part), (vec![IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])], false));
        let ways: Vec<bool> = server.asked.borrow().iter().map(|(_, tcp)| *tcp).collect();
        assert_eq!(ways, [false, true]);
    })
    .await;
}
