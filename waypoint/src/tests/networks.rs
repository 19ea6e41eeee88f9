//! Endpoints on another network, behind its gateway.

use std::cell::RefCell;

use mesh_hbone::Settings;
use mesh_model::address::{GatewayAddress, GatewayDestination};
use mesh_model::reason::ReasonCode;
use mesh_testkit::hbone::{let_in, on_one_thread};

use super::*;

/// What one end was asked: by whom, for what, and from which network, if that is named.
type Asked = Rc<RefCell<Vec<(String, String, Option<String>)>>>;

/// An HBONE server that proves to be `who` and carries each tunnel to a connection of `to`; without, it refuses.
async fn serve(ca: &TestCa, who: &str, to: Option<SocketAddr>) -> (SocketAddr, Asked) {
    let seen = Asked::default();
    let told = seen.clone();
    let server = hbone::serve(ca.credentials(&id(who)), Settings::default(), move |connection, asked| {
        let network = asked.headers.get("x-forwarded-network").map(|v| v.to_str().unwrap().to_owned());
        let caller = connection.peer.service_account().to_string();
        told.borrow_mut().push((caller, asked.authority.clone(), network));
        match to {
            Some(to) => let_in(asked, to, ""),
            None => asked.refuse(http::StatusCode::UNAUTHORIZED, ReasonCode::PolicyDenied),
        }
    })
    .await;
    (server.address, seen)
}

/// A service at `vip` behind the waypoint, whose only endpoint is on network `west`, behind a gateway. `cart` may answer for it.
fn far(name: &str, vip: [u8; 4], gateway: SocketAddr) -> Vec<Resource> {
    let network = NetworkAddress { network: "west".into(), ip: gateway.ip() };
    let at = GatewayAddress { destination: GatewayDestination::Address(network), hbone_mtls_port: gateway.port() };
    let ports = vec![PortMapping { service_port: 80, target_port: 8080, app_protocol: AppProtocol::Http11 }];
    let of_west = |name: &str, account: &str| Workload {
        name: name.into(),
        namespace: "shop".into(),
        service_account: account.into(),
        network: "west".into(),
        tunnel: Tunnel::Hbone,
        ..Workload::empty(name)
    };
    let endpoint = Workload {
        network_gateway: Some(at.shared()),
        services: Memberships::from_iter([(key(name), ports)]),
        ..of_west(&format!("{name}-far"), "cart")
    };
    let gateway = Workload { addresses: vec![gateway.ip()], ..of_west("gateway", "gw") };
    let names = vec![id("cart").to_string().as_str().into()];
    let service = Service { subject_alt_names: names, ..service(name, vip.into(), AppProtocol::Http11) };
    vec![
        Resource::Workload(Arc::new(gateway)),
        Resource::Workload(Arc::new(endpoint)),
        Resource::Service(Arc::new(service)),
        Resource::Routes(Arc::new(routes(name, Vec::new(), &[]))),
    ]
}

async fn ask(world: &World, at: &str) -> (u16, String) {
    let tunnel = world.tunnel("web", at).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(tunnel)).await.unwrap();
    spawn_local(connection);
    let request = Request::get("/").header("host", "whoever").body(Full::<Bytes>::default()).unwrap();
    text(sender.send_request(request).await.unwrap()).await
}

/// The gateway learns which service is meant, and who is behind it speaks with the waypoint. Connections for two services through one
/// gateway are not taken for each other.
#[tokio::test]
async fn requests_reach_endpoints_of_another_network_through_its_gateway() {
    on_one_thread(async {
        let application = application(|request: Request<Incoming>| {
            let xfcc = request.headers()["x-forwarded-client-cert"].to_str().unwrap().to_owned();
            std::future::ready(Response::new(Full::from(xfcc)))
        })
        .await;
        let mut world = World::start_with(AppProtocol::Http11, &[], |config| config.network = "here".to_owned());
        let (behind, inner) = serve(&world.ca, "cart", Some(application)).await;
        let (gateway, outer) = serve(&world.ca, "gw", Some(behind)).await;
        let resources = [far("cart", VIP.octets(), gateway), far("other", [10, 1, 0, 2], gateway)].concat();
        world.tables.apply_local(resources);
        for _ in 0..2 {
            for at in ["10.1.0.1:80", "10.1.0.2:80"] {
                let (status, xfcc) = ask(&world, at).await;
                assert_eq!((status, xfcc.contains("URI=spiffe://cluster.local/ns/shop/sa/web")), (200, true), "{xfcc}");
            }
        }
        let tunnel = |name: &str, network: Option<&str>| {
            ("waypoint".to_owned(), format!("{name}.shop.svc.cluster.local:80"), network.map(str::to_owned))
        };
        assert_eq!(*outer.borrow(), [tunnel("cart", None), tunnel("other", None)], "kept for the next request");
        assert_eq!(*inner.borrow(), [tunnel("cart", Some("here")), tunnel("other", Some("here"))]);
        let line = world.logged("response_code=200").await;
        assert!(line.contains("dst.service=\"other.shop.svc.cluster.local\""), "{line}");
        world.end().await;
    })
    .await;
}

/// Who answers has to be of those that the service names, and what is denied there is denied here.
#[tokio::test]
async fn who_answers_behind_the_gateway_has_to_prove_it() {
    for (what, is, lets_in, code) in [
        ("somebody else answers", "other", true, "TLS_FAILED"),
        ("the gateway answers itself", "gw", true, "TLS_FAILED"),
        ("it is denied there", "cart", false, "REFUSED_BY_POLICY"),
    ] {
        on_one_thread(async {
            let application = application(|_| std::future::ready(Response::new(Full::from("no")))).await;
            let mut world = World::start(AppProtocol::Http11, &[]);
            let (behind, inner) = serve(&world.ca, is, lets_in.then_some(application)).await;
            let (gateway, _) = serve(&world.ca, "gw", Some(behind)).await;
            world.tables.apply_local(far("cart", VIP.octets(), gateway));
            assert_eq!(ask(&world, "10.1.0.1:80").await, (503, format!("{code}\n")), "{what}");
            let line = world.logged("response_code=503").await;
            assert!(line.contains("behind network gateway"), "{what}: {line}");
            assert_eq!(inner.borrow().is_empty(), is != "cart", "{what}: asked");
            world.end().await;
        })
        .await;
    }
}
