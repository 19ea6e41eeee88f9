use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::AsyncReadExt;

use super::*;

/// What a client says first that asks for `name`, or for none.
fn hello(name: Option<&str>) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    config.enable_sni = name.is_some();
    let name = name.unwrap_or("unsaid.example").to_owned().try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// The same message in records of `most` bytes each (RFC 8446 5.1).
fn in_records(hello: &[u8], most: usize) -> Vec<u8> {
    let record = |piece: &[u8]| {
        let length = u16::try_from(piece.len()).unwrap().to_be_bytes();
        [&[22, 3, 1][..], &length, piece].concat()
    };
    hello[5..].chunks(most).flat_map(record).collect()
}

#[test]
fn the_name_is_read_from_whichever_pieces() {
    let whole = hello(Some("A.Example.com"));
    for (what, bytes) in [("one record", whole.clone()), ("many records", in_records(&whole, 100))] {
        for size in [1, 7, 512, bytes.len()] {
            let (mut reader, mut found) = (Reader::default(), None);
            for (i, piece) in bytes.chunks(size).enumerate() {
                assert_eq!(found, None, "{what}, {size} bytes at once: before its end, at {i}");
                found = reader.take(piece).unwrap();
            }
            assert_eq!(found, Some(Some("a.example.com".to_owned())), "{what}, {size} bytes at once");
        }
    }
    assert_eq!(Reader::default().take(&hello(None)).unwrap(), Some(None), "without a name");
    // What follows it at once (RFC 8446 4.2.10, early data) is the server's to read.
    let early = [&whole[..], &[23, 3, 3, 0, 5], b"early"].concat();
    assert_eq!(Reader::default().take(&early).unwrap(), Some(Some("a.example.com".to_owned())));
}

#[test]
fn what_is_none_is_refused_as_soon_as_that_is_sure() {
    for bytes in
        [&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], b"SSH-2.0-OpenSSH_9.9\r\n", &[0; 64], &[22, 3, 1, 0, 4, 2, 0, 0, 0]]
    {
        let told = Reader::default().take(bytes);
        assert!(matches!(told, Err(NoClientHello::Other(_))), "{bytes:?}: {told:?}");
    }
    // A ClientHello of 60 KiB, in records of 16 KiB: said at its beginning, and refused before it has come.
    let mut reader = Reader::default();
    let long = in_records(&[&[0; 5][..], &[1, 0, 0xf0, 0], &[0; 0xf000]].concat(), 16_000);
    let told = long.chunks(1000).try_for_each(|piece| match reader.take(piece) {
        Ok(None) => Ok(()),
        other => Err(other),
    });
    assert!(matches!(told, Err(Err(NoClientHello::TooLong))), "{told:?}");
    assert!(reader.read <= MOST + 4096, "{}", reader.read);
}

/// Whatever comes: an answer, and none that says more than was said. (rustls has fuzz targets of its own for the same.)
#[test]
fn made_up_bytes_are_refused_or_waited_for() {
    let whole = hello(Some("a.example.com"));
    for place in 0..whole.len() {
        for change in [1, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[place] ^= change;
            let at_once = Reader::default().take(&bytes).map_err(drop);
            let mut reader = Reader::default();
            let in_two = reader.take(&bytes[..place]).and_then(|_| reader.take(&bytes[place..])).map_err(drop);
            if let (Ok(Some(one)), Ok(Some(other))) = (&at_once, &in_two) {
                assert_eq!(one, other, "byte {place} changed by {change}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_read_stays_and_who_says_nothing_is_not_waited_for_for_ever() {
    let whole = hello(Some("a.example.com"));
    let (early, late) = whole.split_at(100);
    let mut stream = Peeked::after(early.to_vec(), late.chain(&b"more"[..]));
    assert_eq!(server_name(&mut stream).await.unwrap().as_deref(), Some("a.example.com"));
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, [&whole[..], b"more"].concat());

    let ended = server_name(&mut Peeked::new(early)).await;
    assert!(matches!(ended, Err(NoClientHello::Ended)), "{ended:?}");
    let (_open, silent) = tokio::io::duplex(64);
    let late = server_name(&mut Peeked::new(silent)).await;
    assert!(matches!(late, Err(NoClientHello::TooLate)), "{late:?}");
}
