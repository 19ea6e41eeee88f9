//! The gateway of a network, for tests: ends the outer tunnel of double HBONE and hands on what is in it, byte by byte.
//!
//! It is a program in a pod of its own. The test binary is this program too, when its first argument is [`GATEWAY`].
use anyhow::{Context, Result, anyhow, bail};
use mesh_hbone::Settings;
use mesh_hbone::carry::{self, Count};
use mesh_hbone::server::{Asked, Connection};
use mesh_identity::certificate::SigningRequest;
use mesh_identity::tls::{Credentials, TlsOptions};
use mesh_model::identity::SpiffeId;
use mesh_model::reason::ReasonCode;
use rcgen::{CertificateSigningRequestParams, DistinguishedName, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

/// The first argument; then come the directory of the CA's `ca-cert.pem` and `ca-key.pem`, the gateway's identity, where
/// it listens, and where the other end of the inner tunnels listens.
pub const GATEWAY: &str = "gateway-for-tests";

/// The command of a gateway's container.
///
/// # Errors
/// When this program's own path is not known.
pub fn command(ca: &Path, identity: &str, listen: SocketAddr, to: SocketAddr) -> Result<Vec<String>> {
    let own = std::env::current_exe()?;
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path that is no text");
    Ok(vec![text(&own)?, GATEWAY.into(), text(ca)?, identity.into(), listen.to_string(), to.to_string()])
}

/// Is a gateway, if this process was started as one.
#[allow(clippy::print_stderr, reason = "it is a program, and this is its log")]
pub(crate) fn as_gateway() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    (arguments.first().map(String::as_str) == Some(GATEWAY)).then(|| match run(&arguments[1..]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    })
}

fn run(arguments: &[String]) -> Result<()> {
    let [ca, identity, listen, to] = arguments else { bail!("{GATEWAY} CA IDENTITY LISTEN TO") };
    let credentials = credentials(Path::new(ca), identity)?;
    let (listen, to): (SocketAddr, SocketAddr) = (listen.parse()?, to.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(LocalSet::new().run_until(async {
        let listener = TcpListener::bind(listen).await?;
        loop {
            let (tcp, _) = listener.accept().await?;
            tcp.set_nodelay(true)?;
            spawn_local(serve(tcp, credentials.clone(), to));
        }
    }))
}

/// Signed here, with the mesh's own CA: no control plane knows this gateway.
fn credentials(ca: &Path, identity: &str) -> Result<Arc<Credentials>> {
    let read = |name: &str| std::fs::read_to_string(ca.join(name)).with_context(|| format!("{name} of the CA"));
    let root = read("ca-cert.pem")?;
    let issuer = Issuer::from_ca_cert_pem(&root, KeyPair::from_pem(&read("ca-key.pem")?)?)?;
    let id: SpiffeId = identity.parse()?;
    let request = SigningRequest::new(&id)?;
    let mut csr = CertificateSigningRequestParams::from_pem(request.csr_pem())?;
    let now = SystemTime::now();
    csr.params.distinguished_name = DistinguishedName::new();
    csr.params.subject_alt_names = vec![SanType::URI(identity.try_into()?)];
    csr.params.not_before = (now - Duration::from_secs(60)).into();
    csr.params.not_after = (now + Duration::from_secs(3600)).into();
    csr.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let chain = [csr.signed_by(&issuer)?.pem(), root];
    let certificate = request.complete(&chain)?;
    Ok(Arc::new(Credentials::new(certificate, &TlsOptions::default()).map_err(|e| anyhow!("the certificate: {e}"))?))
}

#[allow(clippy::print_stdout, reason = "it is a program, and this is its log")]
async fn serve(tcp: TcpStream, credentials: Arc<Credentials>, to: SocketAddr) {
    let mut connection = match Connection::accept(tcp, credentials.server_config(), &Settings::default()).await {
        Ok(connection) => connection,
        Err(error) => return println!("not accepted: {error}"),
    };
    while let Some(Ok(asked)) = connection.next().await {
        println!("{} asks for {}", connection.peer, asked.authority);
        spawn_local(hand_on(asked, to));
    }
}

#[allow(clippy::print_stdout, reason = "it is a program, and this is its log")]
async fn hand_on(asked: Asked, to: SocketAddr) {
    // What is in the tunnel is small, and is answered.
    let tcp = match TcpStream::connect(to).await.and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp)) {
        Ok(tcp) => tcp,
        Err(error) => {
            println!("{to}: {error}");
            return asked.refuse(http::StatusCode::SERVICE_UNAVAILABLE, ReasonCode::ApplicationUnreachable);
        }
    };
    let Ok(tunnel) = asked.accept("") else { return };
    if let Err(error) = carry::tcp_and_tunnel(tcp, tunnel, Rc::new(Uncounted)).await {
        println!("{error}");
    }
}

struct Uncounted;

impl Count for Uncounted {
    fn forth(&self, _: usize) {}
    fn back(&self, _: usize) {}
}
