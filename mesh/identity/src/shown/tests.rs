//! What is looked at, what is not, and what it would cost. (Case: one handshake with 60 certificates of one name held a
//! data thread for 2.7 s.)

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::*;
use crate::test_ca::{TestCa, id};
use crate::tls::PeerRefused;
use crate::tls::tests::handshake;

#[path = "../../../testkit/src/maze.rs"]
#[allow(unreachable_pub, reason = "public where it lives")]
pub(crate) mod maze;
use maze::maze;

const CART: &str = "spiffe://td/ns/shop/sa/cart";
const PAY: &str = "spiffe://td/ns/shop/sa/pay";

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca(name: &str, by: Option<&Ca>) -> Ca {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::OrganizationName, name);
    let key = KeyPair::generate().unwrap();
    match by {
        None => CertifiedIssuer::self_signed(params, key),
        Some(by) => CertifiedIssuer::signed_by(params, key, by),
    }
    .unwrap()
}

fn leaf(by: &Ca) -> CertificateDer<'static> {
    CertificateParams::default().signed_by(&KeyPair::generate().unwrap(), by).unwrap().der().clone()
}

/// `count` intermediates, one above the other, the one that signs the leaf first.
fn chain(count: usize) -> (CertificateDer<'static>, Vec<CertificateDer<'static>>) {
    let mut above = vec![ca("0", None)];
    for number in 1..=count {
        above.push(ca(&number.to_string(), above.last()));
    }
    let leaf = leaf(above.last().unwrap());
    (leaf, above.iter().skip(1).rev().map(|ca| ca.der().clone()).collect())
}

/// Whether all of them are looked at.
fn seen(leaf: &CertificateDer<'_>, above: &[CertificateDer<'_>], roots: &[TrustAnchor<'_>]) -> Result<bool, TooMuch> {
    check(leaf, above, roots).map(|left| left == above)
}

#[test]
fn chains_are_looked_at_and_mazes_are_not() {
    let (short, none) = chain(0);
    assert_eq!(seen(&short, &none, &[]), Ok(true));
    let (first, six) = chain(6);
    assert_eq!(seen(&first, &six, &[]), Ok(true), "as deep as the verifier goes");
    let shuffled: Vec<_> = six.iter().rev().cloned().collect();
    assert_eq!(seen(&first, &shuffled, &[]), Ok(true), "in any order");
    let (first, nine) = chain(9);
    assert_eq!(seen(&first, &nine, &[]), Err(TooMuch::Certificates(9)));
    assert_eq!(seen(&first, &nine[..8], &[]), Ok(true), "the verifier says what it thinks of them");

    // An intermediate that two roots have signed, and both roots.
    let roots = [ca("a", None), ca("b", None)];
    let params = || {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::OrganizationName, "intermediate");
        params
    };
    let key = KeyPair::generate().unwrap();
    let signed: Vec<_> = roots.iter().map(|root| params().signed_by(&key, root).unwrap().der().clone()).collect();
    let under = CertifiedIssuer::self_signed(params(), key).unwrap();
    let shown = [&signed[..], &[roots[0].der().clone(), roots[1].der().clone()]].concat();
    assert_eq!(seen(&leaf(&under), &shown, &[]), Ok(true));
    // The roots are left out: who has them needs them from nobody.
    let trusted: Vec<_> = roots.iter().map(|root| webpki::anchor_from_trusted_cert(root.der()).unwrap()).collect();
    assert_eq!(check(&leaf(&under), &shown, &trusted), Ok(signed.clone()));

    // A root that has replaced its key and shows both.
    let renewed = [ca("root", None), ca("root", None)];
    let both: Vec<_> = renewed.iter().map(|root| root.der().clone()).collect();
    assert_eq!(seen(&leaf(&renewed[0]), &both, &[]), Ok(true));
    let trusted: Vec<_> = both.iter().map(|root| webpki::anchor_from_trusted_cert(root).unwrap()).collect();
    assert_eq!(check(&leaf(&renewed[0]), &both, &trusted), Ok(vec![]));

    // Ends: intermediates of one name, of which each says that a root has signed it.
    for (count, expected) in [(2, Ok(true)), (3, Ok(true)), (4, Err(TooMuch::Ways))] {
        let of_one_name: Vec<_> = (0..count).map(|_| ca("intermediate", Some(&roots[0]))).collect();
        let shown: Vec<_> = of_one_name.iter().map(|ca| ca.der().clone()).collect();
        let root = [webpki::anchor_from_trusted_cert(roots[0].der()).unwrap()];
        assert_eq!(seen(&leaf(&of_one_name[0]), &shown, &root), expected, "{count} ends");
    }

    for count in 3..=8 {
        let (shown, _) = maze(CART, "name", count);
        assert_eq!(seen(&shown[0], &shown[1..], &[]), Err(TooMuch::Ways), "{count} of one name");
    }
    let (shown, _) = maze(CART, "name", 60);
    assert_eq!(seen(&shown[0], &shown[1..], &[]), Err(TooMuch::Certificates(60)));

    let large = vec![CertificateDer::from(vec![0; MAX_BYTES - short.len()])];
    assert_eq!(seen(&short, &large, &[]), Ok(false), "no certificate at all is left out");
    let larger = vec![CertificateDer::from(vec![0; MAX_BYTES - short.len() + 1])];
    assert_eq!(seen(&short, &larger, &[]), Err(TooMuch::Bytes(MAX_BYTES + 1)));
}

/// Both verifiers, over whole handshakes.
#[test]
fn both_sides_refuse_a_maze_unseen() {
    let real = TestCa::new();
    let (cart, pay) = (real.credentials(CART), real.credentials(PAY));
    let provider = crate::crypto::provider(false);
    let shown = |uri, count| {
        // The root's own name, so that each would be tried under the root's key as well.
        let (certificates, key) = maze(uri, "test", count);
        Arc::new(SingleCertAndKey::from(CertifiedKey::from_der(certificates, key, &provider).unwrap()))
    };
    for (count, expected) in [(60, TooMuch::Certificates(60)), (8, TooMuch::Ways)] {
        let mut client = (*cart.client_config(&[id(PAY)])).clone();
        client.client_auth_cert_resolver = shown(CART, count);
        let error = handshake(Arc::new(client), pay.server_config()).err().unwrap();
        assert_eq!(PeerRefused::find(&error), Some(&PeerRefused::TooMuch(expected)), "the server: {error}");
        let mut server = (*pay.server_config()).clone();
        server.cert_resolver = shown(PAY, count);
        let error = handshake(cart.client_config(&[id(PAY)]), Arc::new(server)).err().unwrap();
        assert_eq!(PeerRefused::find(&error), Some(&PeerRefused::TooMuch(expected)), "the client: {error}");
    }
}

/// Prints what the dearest chains cost that are looked at at all. `cargo test -p mesh-identity --release -- --ignored`.
#[test]
#[ignore = "measures, and asserts nothing"]
#[allow(clippy::print_stdout, reason = "what it is for")]
fn what_the_dearest_costs() {
    let p521 = || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let rsa = || KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA512, rcgen::RsaKeySize::_4096).unwrap();
    let p256 = || KeyPair::generate().unwrap();
    let kinds: [(&str, &dyn Fn() -> KeyPair); 3] = [("P-256", &p256), ("P-521", &p521), ("RSA-4096", &rsa)];
    let params = |name: &str| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::OrganizationName, name);
        params
    };
    for (kind, key) in kinds {
        let root = CertifiedIssuer::self_signed(params("root"), key()).unwrap();
        let mut store = rustls::RootCertStore::empty();
        store.add(root.der().clone()).unwrap();
        let forger = CertifiedIssuer::self_signed(params("root"), key()).unwrap();
        let genuine = CertifiedIssuer::signed_by(params("x"), key(), &root).unwrap();
        // All of one name, all said to be the root's.
        let fan = |count: usize| -> Vec<CertificateDer<'static>> {
            (0..count).map(|_| params("x").signed_by(&key(), &forger).unwrap().der().clone()).collect()
        };
        let under = CertifiedIssuer::signed_by(params("x"), key(), &forger).unwrap();
        let mut chain = vec![CertifiedIssuer::self_signed(params("root"), key()).unwrap()];
        for number in 0..6 {
            let next = CertifiedIssuer::signed_by(params(&number.to_string()), key(), chain.last().unwrap()).unwrap();
            chain.push(next);
        }
        let mut stuffed = params("x");
        stuffed.custom_extensions =
            (0..900).map(|number| rcgen::CustomExtension::from_oid_content(&[1, 2, 3, number], vec![])).collect();
        let stuffed = stuffed.signed_by(&key(), &forger).unwrap().der().clone();
        for (shape, leaf, above) in [
            ("no intermediate", leaf(&forger), vec![]),
            ("eight ends", leaf(&under), fan(8)),
            ("three ends", leaf(&under), fan(3)),
            ("three ends, one genuine", leaf(&under), [vec![genuine.der().clone()], fan(2)].concat()),
            ("two of the root's name", leaf(&forger), vec![chain[0].der().clone(), forger.der().clone()]),
            ("one of the root's name", leaf(&forger), vec![chain[0].der().clone()]),
            ("a chain of six", leaf(&chain[6]), chain[1..].iter().rev().map(|ca| ca.der().clone()).collect()),
            ("extensions", leaf(&under), [fan(2), vec![stuffed]].concat()),
        ] {
            let bytes = leaf.len() + above.iter().map(|c| c.len()).sum::<usize>();
            let seen = check(&leaf, &above, &store.roots).map(|left| left.len());
            let began = std::time::Instant::now();
            const TIMES: u32 = 50;
            for _ in 0..TIMES {
                let Ok(above) = check(&leaf, &above, &store.roots) else { continue };
                let parsed = EndEntityCert::try_from(&leaf).unwrap();
                let algorithms = crate::crypto::signature_algorithms().all;
                let (now, usage) = (rustls_pki_types::UnixTime::now(), webpki::KeyUsage::client_auth());
                let result = parsed.verify_for_usage(algorithms, &store.roots, &above, now, usage, None, None);
                assert!(result.is_err());
            }
            println!("{kind}, {shape}: {:?}, {bytes} bytes, {seen:?}", began.elapsed() / TIMES);
        }
    }
    let (shown, _) = maze(CART, "root", 60);
    let began = std::time::Instant::now();
    let parsed = EndEntityCert::try_from(&shown[0]).unwrap();
    let (now, usage) = (rustls_pki_types::UnixTime::now(), webpki::KeyUsage::client_auth());
    let _ =
        parsed.verify_for_usage(crate::crypto::signature_algorithms().all, &[], &shown[1..], now, usage, None, None);
    println!("60 of one name, if it were looked at: {:?}", began.elapsed());
}
