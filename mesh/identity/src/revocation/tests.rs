//! Who is refused when, and what becomes of the file. Contract 4.1, "CRL".

use std::future::Future;

use rustls_pki_types::CertificateDer;

use super::*;
use crate::peer_watch::PeerWatch;
use crate::test_ca::TestCa;
use crate::tls::tests::{between, handshake};
use crate::tls::{Credentials, TlsOptions, is_revoked};

const CART: &str = "spiffe://td/ns/shop/sa/cart";
const PAY: &str = "spiffe://td/ns/shop/sa/pay";

/// A file of lists that is written as tests go on.
struct Lists {
    _dir: tempfile::TempDir,
    path: PathBuf,
    revocations: Revocations,
}

impl Lists {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca-crl.pem");
        Self { _dir: dir, revocations: Revocations::of_file(&path), path }
    }

    fn write(&self, content: impl AsRef<[u8]>) -> Result<bool, RevocationError> {
        std::fs::write(&self.path, content).unwrap();
        self.revocations.reload()
    }

    fn credentials(&self, ca: &TestCa, name: &str) -> Credentials {
        let options = TlsOptions { revocations: self.revocations.clone(), ..TlsOptions::default() };
        ca.credentials_with(name, &options)
    }
}

fn leaf(of: &Credentials) -> &CertificateDer<'static> {
    &of.certificate().chain()[0]
}

/// Both verifiers refuse, each with the other side not looking.
#[test]
fn a_revoked_peer_is_refused_by_both_sides() {
    let (ca, lists) = (TestCa::new(), Lists::new());
    let (cart, pay) = (ca.credentials(CART), ca.credentials(PAY));
    let (checking_cart, checking_pay) = (lists.credentials(&ca, CART), lists.credentials(&ca, PAY));
    lists.write(ca.revoke(&[leaf(&cart), leaf(&pay)])).unwrap();
    let error = between(&cart, &[PAY], &checking_pay).err().unwrap();
    assert!(is_revoked(&error), "the server: {error}");
    let error = between(&checking_cart, &[PAY], &pay).err().unwrap();
    assert!(is_revoked(&error), "the client: {error}");
    // Another certificate of the same identity is none the worse for it. The list was over long ago, and is used.
    between(&ca.credentials(CART), &[PAY], &checking_pay).unwrap();
    between(&cart, &[PAY], &pay).unwrap();
}

/// An intermediate that is revoked takes what it signed with it; who has no list is let in.
#[test]
fn the_whole_chain_is_checked_and_a_missing_list_is_allowed() {
    let (ca, lists) = (TestCa::with_intermediate(), Lists::new());
    let pay = lists.credentials(&ca, PAY);
    let cart = ca.credentials(CART);
    // Only the root has a list; the leaf's issuer has none.
    lists.write(ca.revoke(&[])).unwrap();
    between(&cart, &[PAY], &pay).unwrap();
    lists.write(ca.revoke(&[]) + &ca.revoke_by_intermediate(&[leaf(&cart)])).unwrap();
    assert!(is_revoked(&between(&cart, &[PAY], &pay).err().unwrap()));
    between(&ca.credentials(CART), &[PAY], &pay).unwrap();
    lists.write(ca.revoke(&[ca.intermediate()])).unwrap();
    assert!(is_revoked(&between(&ca.credentials(CART), &[PAY], &pay).err().unwrap()));
}

/// A list is its issuer's by name and by key, wherever it stands; so after a rotation of roots that have one name.
#[tokio::test]
async fn lists_of_two_issuers_of_one_name() {
    let (ca, other, lists) = (TestCa::new(), TestCa::new(), Lists::new());
    let pay = lists.credentials(&ca, PAY);
    let revoked = ca.credentials(CART);
    let good = ca.credentials(CART);
    let mut watch = PeerWatch::new(Arc::new(lists.credentials(&ca, PAY)));
    // The other's alone, with numbers that are ours: it says nothing of ours.
    lists.write(other.revoke(&[leaf(&revoked), leaf(&good)])).unwrap();
    between(&revoked, &[PAY], &pay).unwrap();
    handshake(revoked.client_config(&[PAY.parse().unwrap()]), watch.server_config()).unwrap();
    let mut is_cut = || {
        let revoked = std::pin::pin!(watch.revoked());
        revoked.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    };
    assert!(!is_cut());
    let (ours, theirs) = (ca.revoke(&[leaf(&revoked)]), other.revoke(&[leaf(&good)]));
    for (order, file) in [
        ("theirs first", theirs.clone() + &ours),
        ("ours first", ours.clone() + &theirs),
        ("between two", theirs.clone() + &ours + &theirs),
    ] {
        lists.write(ca.revoke(&[])).unwrap();
        between(&revoked, &[PAY], &pay).unwrap();
        assert!(!is_cut(), "{order}");
        lists.write(&file).unwrap();
        assert!(is_revoked(&between(&revoked, &[PAY], &pay).err().unwrap()), "{order}: new");
        between(&good, &[PAY], &pay).unwrap_or_else(|error| panic!("{order}: {error}"));
        assert!(is_cut(), "{order}: open");
    }
}

/// What says that it is ours and is not signed by our key tells nobody who is revoked: nobody is let in, whatever else
/// the file has.
#[test]
fn a_list_of_ours_that_was_changed_lets_nobody_in() {
    let (ca, lists) = (TestCa::new(), Lists::new());
    let (cart, pay) = (ca.credentials(CART), lists.credentials(&ca, PAY));
    let good = CertificateRevocationListDer::from_pem_slice(ca.revoke(&[]).as_bytes()).unwrap();
    let mut changed = good.to_vec();
    // Its signature is what it ends with.
    *changed.last_mut().unwrap() ^= 1;
    lists.write(&changed).unwrap();
    let error = between(&cart, &[PAY], &pay).err().unwrap();
    assert!(!is_revoked(&error) && error.to_string().contains("Crl"), "{error}");
}

/// Fail closed if it was never good; keep the last good otherwise.
#[test]
fn a_bad_file_changes_nothing_unless_it_was_never_good() {
    let (ca, lists) = (TestCa::new(), Lists::new());
    let (cart, pay) = (ca.credentials(CART), lists.credentials(&ca, PAY));
    let changed = lists.revocations.changed();
    let refused = |why: &str| {
        let error = between(&cart, &[PAY], &pay).err().unwrap().to_string();
        assert!(error.contains("no usable revocation lists") && error.contains("CRL_PATH"), "{why}: {error}");
    };
    refused("not read yet");
    let error = lists.revocations.reload().unwrap_err().to_string();
    assert!(error.contains("ca-crl.pem cannot be read"), "{error}");
    refused("not there");
    for content in ["", "hello", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", &ca.root_pem()] {
        let error = lists.write(content).unwrap_err().to_string();
        assert!(error.contains("cannot be used"), "{content:?}: {error}");
        refused(content);
        assert!(!lists.revocations.is_usable());
        assert!(!lists.revocations.reload().unwrap(), "the same bad content is told once");
    }
    assert!(!changed.has_changed().unwrap());

    assert!(lists.write(ca.revoke(&[])).unwrap());
    assert!(changed.has_changed().unwrap() && lists.revocations.is_usable());
    between(&cart, &[PAY], &pay).unwrap();
    assert!(!lists.revocations.reload().unwrap(), "nothing new");

    assert!(lists.write(ca.revoke(&[leaf(&cart)])).unwrap());
    lists.write("hello").unwrap_err();
    assert!(is_revoked(&between(&cart, &[PAY], &pay).err().unwrap()), "the last good is kept");
    std::fs::remove_file(&lists.path).unwrap();
    lists.revocations.reload().unwrap_err();
    assert!(is_revoked(&between(&cart, &[PAY], &pay).err().unwrap()), "also when the file goes");
}

/// DER, and more than may be.
#[test]
fn forms_and_bounds() {
    let (ca, lists) = (TestCa::new(), Lists::new());
    let cart = ca.credentials(CART);
    let pem = ca.revoke(&[leaf(&cart)]);
    let der = CertificateRevocationListDer::from_pem_slice(pem.as_bytes()).unwrap();
    assert!(lists.write(der.as_ref()).unwrap());
    assert!(is_revoked(&between(&cart, &[PAY], &lists.credentials(&ca, PAY)).err().unwrap()));
    let error = lists.write(pem.repeat(MAX_LISTS + 1)).unwrap_err().to_string();
    assert!(error.contains("more than 256"), "{error}");
    let error = lists.write(vec![b'x'; MAX_BYTES as usize + 1]).unwrap_err().to_string();
    assert!(error.contains("larger than"), "{error}");
}

/// What is open is asked about again when the lists change.
#[tokio::test]
async fn a_peer_that_is_connected_is_judged_again() {
    let (ca, lists) = (TestCa::new(), Lists::new());
    let (cart, pay) = (ca.credentials(CART), ca.credentials(PAY));
    let watch = |name| PeerWatch::new(Arc::new(lists.credentials(&ca, name)));
    let expected = [PAY.parse().unwrap()];
    let now = |watch: &mut PeerWatch| {
        let revoked = std::pin::pin!(watch.revoked());
        revoked.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    };
    lists.write(ca.revoke(&[])).unwrap();
    let (mut of_client, mut of_server) = (watch(PAY), watch(CART));
    handshake(cart.client_config(&expected), of_client.server_config()).unwrap();
    handshake(of_server.client_config(&expected), pay.server_config()).unwrap();
    for (whose, watch, peer) in [("client", &mut of_client, &cart), ("server", &mut of_server, &pay)] {
        assert!(!now(watch), "{whose}");
        lists.write(ca.revoke(&[leaf(&ca.credentials(CART)), leaf(&ca.credentials(PAY))])).unwrap();
        assert!(!now(watch), "{whose}: others of the same names");
        lists.write(ca.revoke(&[leaf(peer)])).unwrap();
        assert!(now(watch), "{whose}");
    }
    let mut off = PeerWatch::new(Arc::new(pay));
    assert!(!off.is_on() && !now(&mut off), "nothing is checked");
}

/// The file is followed, through the swap of a link as Kubernetes mounts it.
#[tokio::test(start_paused = true)]
async fn the_file_is_followed() {
    let ca = TestCa::new();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("one"), ca.revoke(&[])).unwrap();
    std::fs::write(at("two"), ca.revoke(&[leaf(&ca.credentials(CART))])).unwrap();
    std::os::unix::fs::symlink(at("one"), at("crl")).unwrap();
    let revocations = Revocations::of_file(&at("crl"));
    let mut changed = revocations.changed();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let following =
        tokio::spawn(revocations.clone().follow(move |outcome| tell.send(outcome.is_ok()).unwrap_or_default()));
    changed.changed().await.unwrap();
    std::os::unix::fs::symlink(at("two"), at("next")).unwrap();
    std::fs::rename(at("next"), at("crl")).unwrap();
    changed.changed().await.unwrap();
    std::fs::remove_file(at("crl")).unwrap();
    assert_eq!((told.recv().await, told.recv().await, told.recv().await), (Some(true), Some(true), Some(false)));
    following.abort();
}
