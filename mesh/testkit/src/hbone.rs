//! Both ends of HBONE, and what is behind them: over real sockets and real TLS, on one thread as in a worker.

use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mesh_hbone::Settings;
use mesh_hbone::carry::{self, Count};
use mesh_hbone::client::{Client, OpenError};
use mesh_hbone::pool::Key;
use mesh_hbone::server::{Asked, Connection};
use mesh_identity::tls::Credentials;
use mesh_model::identity::SpiffeId;
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};

use crate::tcp;

/// Far more than any test should take.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a test with a `LocalSet`, and not for ever.
pub async fn on_one_thread(test: impl Future<Output = ()>) {
    tokio::time::timeout(LIMIT, LocalSet::new().run_until(test)).await.expect("the test hangs");
}

/// Somebody of namespace `shop`.
pub fn id(name: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/shop/sa/{name}").parse().expect("a service account's name")
}

/// For connections whose bytes nobody counts.
pub struct Uncounted;

impl Count for Uncounted {
    fn forth(&self, _: usize) {}
    fn back(&self, _: usize) {}
}

/// Moves bytes between an application and a tunnel, uncounted, as a task that nobody waits for.
pub fn carry(tcp: TcpStream, tunnel: mesh_hbone::stream::Tunnel) {
    spawn_local(carry::tcp_and_tunnel(tcp, tunnel, Rc::new(Uncounted)));
}

/// Lets a tunnel in, and carries it to a new connection of `application`.
pub fn let_in(asked: Asked, application: SocketAddr, baggage: &str) {
    let baggage = baggage.to_owned();
    spawn_local(async move {
        let tcp = TcpStream::connect(application).await.expect("the application");
        carry(tcp, asked.accept(&baggage).expect("a header"));
    });
}

/// A server of tunnels.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// How many connections it has accepted.
    pub connections: Rc<Cell<usize>>,
}

/// Accepts connections at a new port; `asked` answers what is asked for on them.
pub async fn serve(
    credentials: Arc<Credentials>,
    settings: Settings,
    asked: impl Fn(&mut Connection, Asked) + 'static,
) -> Server {
    let connections = Rc::new(Cell::new(0));
    let (counted, asked) = (connections.clone(), Rc::new(asked));
    let address = tcp::listen(move |tcp| {
        counted.set(counted.get() + 1);
        let (config, settings, asked) = (credentials.server_config(), settings.clone(), asked.clone());
        async move {
            let Ok(mut connection) = Connection::accept(tcp, config, &settings).await else { return };
            while let Some(Ok(request)) = connection.next().await {
                asked(&mut connection, request);
            }
        }
    })
    .await;
    Server { address, connections }
}

/// What a pool knows the connections of `source` to `server` at `peer` by.
pub fn key(source: &str, server: &str, peer: SocketAddr) -> Key {
    Key {
        source: id(source),
        source_ip: "127.0.0.1".parse().expect("an address"),
        expected: vec![id(server)],
        peer,
        workload: server.into(),
    }
}

/// A connection of `who` to a server that has to prove to be one of `expected`.
///
/// # Errors
/// When TLS or HTTP/2 fails.
pub async fn dial(
    server: SocketAddr,
    who: &Credentials,
    expected: &[SpiffeId],
    settings: &Settings,
) -> Result<Client, OpenError> {
    let tcp = TcpStream::connect(server).await.expect("connected");
    Client::handshake(tcp, who.client_config(expected), expected, settings).await
}
