use super::*;

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, InvalidBlock> {
    let mut fields = Vec::new();
    let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
    decoder.decode(block, 64 << 10, |name, value| fields.push((text(name), text(value))))?;
    Ok(fields)
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// RFC 7541, appendix C.4 and C.6: three blocks each that build on one another, with Huffman code and eviction.
#[test]
fn examples_of_rfc_7541_appendix_c() {
    let mut requests = Decoder::default();
    for (block, expected) in [
        ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", &["www.example.com"][..]),
        ("8286 84be 5886 a8eb 1064 9cbf", &["www.example.com", "no-cache"]),
        ("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", &["www.example.com", "custom-value"]),
    ] {
        let fields = decode(&mut requests, &bytes(block)).unwrap();
        let values: Vec<&str> = fields.iter().skip(3).map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, expected);
    }
    let mut plain = Decoder::default();
    let fields =
        decode(&mut plain, &bytes("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572")).unwrap();
    assert_eq!(fields, [("custom-key".to_owned(), "custom-header".to_owned())]);
    // It was added to the table: number 62 names it now.
    assert_eq!(decode(&mut plain, &[0xbe]).unwrap(), fields);
}

#[test]
fn entries_are_evicted_when_the_table_is_full() {
    let mut decoder = Decoder::default();
    let mut block = Vec::new();
    // Two entries of 2,000 bytes and 32 each fit into 4,096; the third evicts the first.
    for value in [b'a', b'b', b'c'] {
        block.push(0x40);
        string(b"x", &mut block);
        string(&[value; 2000], &mut block);
    }
    decode(&mut decoder, &block).unwrap();
    let value = |decoder: &mut Decoder, index: u8| decode(decoder, &[0x80 | index]).map(|f| f[0].1.as_bytes()[0]);
    assert_eq!(value(&mut decoder, 62), Ok(b'c'));
    assert_eq!(value(&mut decoder, 63), Ok(b'b'));
    assert_eq!(value(&mut decoder, 64), Err(InvalidBlock::Index));
    // Resized to nothing, it holds nothing.
    assert_eq!(decode(&mut decoder, &[0x20, 0xbe]), Err(InvalidBlock::Index));
}

#[test]
fn broken_blocks_are_refused() {
    for (name, block, expected) in [
        ("index 0", &[0x80][..], InvalidBlock::Index),
        ("an index of nothing", &[0xbe], InvalidBlock::Index),
        ("a name of nothing", &[0x7e, 0x00], InvalidBlock::Index),
        ("a number without end", &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff], InvalidBlock::Number),
        ("half a number", &[0x3f], InvalidBlock::Truncated),
        ("a string longer than the block", &[0x00, 0x05, b'a'], InvalidBlock::Number),
        ("no value", &[0x00, 0x01, b'a'], InvalidBlock::Truncated),
        ("a table larger than offered", &[0x3f, 0xe2, 0x1f], InvalidBlock::Resize),
        ("a table resized too late", &[0x82, 0x20], InvalidBlock::Resize),
        ("broken Huffman code", &[0x00, 0x81, 0x00, 0x00], InvalidBlock::Huffman),
    ] {
        assert_eq!(decode(&mut Decoder::default(), block), Err(expected), "{name}");
    }
}

#[test]
fn a_list_over_its_budget_is_read_to_its_end_but_not_handed_over() {
    let mut decoder = Decoder::default();
    let mut block = Vec::new();
    for _ in 0..10 {
        block.push(0x40);
        string(b"name", &mut block);
        string(&[b'v'; 64], &mut block);
    }
    let mut seen = 0;
    assert_eq!(decoder.decode(&block, 350, |_, _| seen += 1), Ok(false));
    assert_eq!(seen, 3);
    assert_eq!(decode(&mut decoder, &[0x80 | 71]).unwrap()[0].0, "name", "the table has all ten");
}

/// Two bytes name an entry as large as the table: 64 KiB of them would be read as 128 MiB.
#[test]
fn a_header_bomb_is_not_unpacked() {
    let mut block = vec![0x40];
    string(&[b'n'; 3900], &mut block);
    string(b"", &mut block);
    for _ in 0..30_000 {
        // The name of entry 62, an empty value, not added.
        block.extend_from_slice(&[0x0f, 62 - 15, 0]);
    }
    let mut seen = 0;
    assert_eq!(Decoder::default().decode(&block, 16 << 10, |_, _| seen += 1), Err(InvalidBlock::Bomb));
    assert_eq!(seen, 4);
}

#[test]
fn what_we_encode_reads_back() {
    let long = "v".repeat(300);
    let mut block = Vec::new();
    encode_known(known::METHOD, b"CONNECT", &mut block);
    encode_known(known::AUTHORITY, b"10.0.0.1:80", &mut block);
    encode(b"baggage", long.as_bytes(), &mut block);
    encode_static(known::STATUS_200, &mut block);
    let fields = decode(&mut Decoder::default(), &block).unwrap();
    let expected = [(":method", "CONNECT"), (":authority", "10.0.0.1:80"), ("baggage", &long), (":status", "200")];
    assert!(fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).eq(expected));
}
