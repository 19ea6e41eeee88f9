//! Endpoints that have a name instead of an address, as those of a ServiceEntry outside of the mesh.

use mesh_testkit::hbone::on_one_thread;

use super::*;

fn endpoint(hostname: &str, port: u16) -> Resource {
    let Resource::Workload(of) = Endpoint::plain("outside", ([127, 0, 0, 1], port).into()).of("cart") else {
        unreachable!()
    };
    Resource::Workload(Arc::new(Workload { addresses: Vec::new(), hostname: hostname.into(), ..(*of).clone() }))
}

#[tokio::test]
async fn an_endpoint_that_has_only_a_name_is_resolved() {
    on_one_thread(async {
        let at = application(|_| std::future::ready(Response::new(Full::from("outside")))).await;
        let mut world = World::start(AppProtocol::Http11, &[]);
        let mut sender = world.http1("client").await;
        for (hostname, expected) in
            [("localhost", (200, "outside")), ("no-such-name.invalid", (503, "HOSTNAME_UNRESOLVED\n"))]
        {
            world.tables.apply_local(vec![endpoint(hostname, at.port())]);
            let request = Request::get("/").header("host", "cart").body(Full::default()).unwrap();
            sender.ready().await.unwrap();
            let (status, body) = text(sender.send_request(request).await.unwrap()).await;
            assert_eq!((status, &*body), expected, "{hostname}");
        }
        world.logged("cannot resolve workload hostname no-such-name.invalid").await;
        world.end().await;
    })
    .await;
}
