use mesh_proxy::connections::Listed;

use super::*;

impl Ztunnel {
    async fn list(&self) -> Listed {
        let (answer, listed) = tokio::sync::oneshot::channel();
        self.worker.commands.send(Command::List(answer)).ok().unwrap();
        listed.await.unwrap()
    }

    /// What is open, once it is as many.
    pub(super) async fn open(&self, come: usize, going: usize) -> Listed {
        loop {
            let listed = self.list().await;
            if (listed.come.len(), listed.going.len()) == (come, going) {
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
        let (come, going) = (&listed.come[0], &listed.going[0]);
        assert_eq!((&*going.pod.name, going.from, going.dialled), ("client", tcp.local_addr().unwrap(), dialled));
        assert_eq!((going.to, going.tunnel), (SocketAddr::new("127.0.0.1".parse().unwrap(), app), false));
        assert_eq!((&*come.pod.name, come.from, come.facts.destination.port()), ("server", from, app));
        assert_eq!(come.facts.source, Some(id("caller")), "which is how it is known for a tunnel");
        drop((tcp, tunnel));
        ztunnel.open(0, 0).await;
    })
    .await;
}
