use mesh_proxy::connections::OpenConnections;

use super::*;

impl Ztunnel {
    async fn list(&self) -> OpenConnections {
        let (answer, listed) = tokio::sync::oneshot::channel();
        self.worker.commands.send(Command::List(answer)).ok().unwrap();
        listed.await.unwrap()
    }

    /// What is open, once it is as many.
    pub(super) async fn open(&self, inbound: usize, outbound: usize) -> OpenConnections {
        loop {
            let listed = self.list().await;
            if (listed.inbound.len(), listed.outbound.len()) == (inbound, outbound) {
                return listed;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Contract 11.4: what is open is shown, from both sides, for as long as it is.
#[tokio::test]
async fn connections_are_listed_while_they_are_open() {
    with_rights(async {
        let mut ztunnel = Ztunnel::new();
        let (client, server) = (ztunnel.serve("client"), ztunnel.serve("server").hbone);
        let (app, port) = (application().await, client.outbound);
        let outside = Workload { hostname: "localhost".into(), tunnel: Tunnel::None, ..pod("db") };
        ztunnel.tables.apply_local(vec![
            Resource::Workload(Arc::new(pod("client"))),
            Resource::Workload(Arc::new(pod("server"))),
            Resource::Service(Arc::new(service("db.shop", "127.0.0.2", ports(port, 0)))),
            serving("db.shop", ports(port, app), outside),
        ]);
        let dialled = SocketAddr::new("127.0.0.2".parse().unwrap(), port);
        let tcp = TcpStream::connect(dialled).await.unwrap();
        let (mut caller, from) = ztunnel.caller(("server", server)).await;
        let request = connect::request(&format!("127.0.0.1:{app}"), &Context::default()).unwrap();
        let tunnel = caller.open(&request).await.unwrap();
        let listed = ztunnel.open(1, 1).await;
        let (inbound, outbound) = (&listed.inbound[0], &listed.outbound[0]);
        assert_eq!(
            (&*outbound.pod.name, outbound.from, outbound.dialled),
            ("client", tcp.local_addr().unwrap(), dialled)
        );
        assert_eq!((outbound.to, outbound.tunnel), (SocketAddr::new("127.0.0.1".parse().unwrap(), app), false));
        assert_eq!((&*inbound.pod.name, inbound.from, inbound.facts.destination.port()), ("server", from, app));
        assert_eq!(inbound.facts.source, Some(id("caller")), "which is how it is known for a tunnel");
        drop((tcp, tunnel));
        ztunnel.open(0, 0).await;
    })
    .await;
}
