//! DNS messages on the wire (RFC 1035, EDNS: RFC 6891), as far as a proxy must read them: one question, and where the
//! TTLs of an answer are. Everything else passes unread. Pure; a stranger's bytes come here first.
//!
//! A proxy that forwards byte for byte wants offsets into messages, not messages taken apart and put together again;
//! what is left to build is three shapes of records. That is why there is no DNS library here.

mod ask;
mod srv;

use std::net::IpAddr;
use std::time::Duration;

pub use ask::{addresses, query, records};
pub use srv::{Target, services};

/// Longest query taken, in bytes. Queries are some 50; updates with signatures are the longest ones seen.
pub const MAX_QUERY: usize = 4096;
/// Most that is sent over UDP, whatever the client says it can take: what resolvers agreed on until they agreed on
/// less, and over loopback it cannot be fragmented.
const MAX_UDP: u16 = 4096;
/// What every client can take over UDP (RFC 1035 4.2.1).
const MIN_UDP: u16 = 512;
/// Length of a header.
const HEADER: usize = 12;
/// Longest name on the wire (RFC 1035 2.3.4).
const MAX_NAME: usize = 255;
/// Bytes of an OPT record without options.
const OPT_LEN: usize = 11;
/// Most addresses in one answer: of 28 bytes each, so that they fit into the longest message.
const MAX_ADDRESSES: usize = 2000;

/// Record types, as numbers.
pub mod kind {
    /// IPv4 address.
    pub const A: u16 = 1;
    /// Alias.
    pub const CNAME: u16 = 5;
    /// Start of authority; how long an absence may be remembered.
    pub const SOA: u16 = 6;
    /// IPv6 address.
    pub const AAAA: u16 = 28;
    /// Where a service is: host and port.
    pub const SRV: u16 = 33;
    /// EDNS.
    pub const OPT: u16 = 41;
    /// Incremental zone transfer.
    pub const IXFR: u16 = 251;
    /// Zone transfer.
    pub const AXFR: u16 = 252;
}

/// The Internet class.
pub const CLASS_IN: u16 = 1;

/// Response codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rcode {
    /// It is answered, perhaps with nothing.
    NoError = 0,
    /// It cannot be read.
    FormErr = 1,
    /// It could not be answered.
    ServFail = 2,
    /// It is not done here.
    NotImp = 4,
}

/// A query, read as far as needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Its one question; none when it asks in a way that is only forwarded (an update, for example).
    pub question: Option<Question>,
    /// Its EDNS.
    pub edns: Option<Edns>,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Lower case, without the last dot. Bytes that no hostname has are escaped, so that such a name equals no hostname.
    pub name: String,
    /// Record type.
    pub kind: u16,
    /// Class.
    pub class: u16,
    /// Where in the message it ends.
    end: usize,
}

/// What a client says by EDNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// How much it can take over UDP.
    payload: u16,
    /// Only version 0 is known.
    pub version: u8,
    /// Wants signatures.
    dnssec_ok: bool,
    /// Carries options: cookies, the client's subnet. Such a query is like no other.
    pub options: bool,
}

/// Why a packet is not a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// To be met with silence: whatever is said could start a conversation among servers.
    #[error("{0}")]
    Ignore(&'static str),
    /// To be met with [`Rcode::FormErr`].
    #[error("{0}")]
    Malformed(&'static str),
}

/// How long an answer may be remembered, and what in it ages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// From now.
    pub lasts: Duration,
    /// Where its TTLs are.
    ttls: Vec<u16>,
}

/// Reads a query.
///
/// # Errors
/// When it is none, and what is to be done about it.
pub fn read(packet: &[u8]) -> Result<Query, Unreadable> {
    use Unreadable::{Ignore, Malformed};
    if packet.len() < HEADER {
        return Err(Ignore("shorter than a DNS header"));
    }
    if packet.len() > MAX_QUERY {
        return Err(Malformed("longer than 4096 bytes"));
    }
    if is_response(packet) {
        return Err(Ignore("an answer, not a question"));
    }
    let [questions, answers, authority, additional] = counts(packet);
    if opcode(packet) != 0 || questions == 0 {
        return Ok(Query { question: None, edns: None });
    }
    // RFC 9619.
    if questions > 1 {
        return Err(Malformed("more than one question"));
    }
    let question = read_question(packet).ok_or(Malformed("its question cannot be read"))?;
    let mut at = question.end;
    let mut edns = None;
    for _ in 0..u32::from(answers) + u32::from(authority) + u32::from(additional) {
        let record = Record::at(packet, at).ok_or(Malformed("a record cannot be read"))?;
        if record.kind == kind::OPT {
            let opt = Edns {
                payload: record.class,
                version: (record.ttl >> 16) as u8,
                dnssec_ok: record.ttl & 0x8000 != 0,
                options: !record.data.is_empty(),
            };
            if edns.replace(opt).is_some() {
                return Err(Malformed("more than one OPT record"));
            }
        }
        at = record.end;
    }
    Ok(Query { question: Some(question), edns })
}

impl Question {
    /// The same about another name. For asking the tables: it stands in no message.
    pub fn of(&self, name: &str) -> Self {
        Self { name: name.to_ascii_lowercase(), ..*self }
    }
}

impl Query {
    /// How long an answer over UDP may be.
    pub fn udp_limit(&self) -> usize {
        self.edns.map_or(MIN_UDP, |edns| edns.payload.clamp(MIN_UDP, MAX_UDP)).into()
    }
}

/// The answer with these addresses: of A if the question is for A, else AAAA. The first of them that fit into `limit`;
/// if they are not all, the answer says so, and the client asks again over TCP. With `aliases`, the question's name is
/// an alias of the first, that of the next, and the addresses are the last one's.
pub fn answer(
    packet: &[u8],
    query: &Query,
    aliases: &[&str],
    addresses: &[IpAddr],
    ttl: Duration,
    limit: usize,
) -> Vec<u8> {
    let Some(question) = &query.question else { return refuse(packet, Some(query), Rcode::ServFail) };
    let mut out = Records::new(packet, query, question, ttl, limit);
    for name in aliases.iter().filter_map(|alias| encode_name(alias)) {
        out.alias(&name);
    }
    for address in addresses.iter().take(MAX_ADDRESSES) {
        match address {
            IpAddr::V4(ip) => out.add(kind::A, &ip.octets()),
            IpAddr::V6(ip) => out.add(kind::AAAA, &ip.octets()),
        }
    }
    out.finish(query)
}

/// An answer that is being written: as many records as fit.
struct Records {
    out: Vec<u8>,
    /// Whose record is next: the question's name, which stands right after the header, or the last alias's.
    owner: u16,
    count: u16,
    ttl: u32,
    limit: usize,
    /// Everything fitted so far.
    whole: bool,
}

impl Records {
    fn new(packet: &[u8], query: &Query, question: &Question, ttl: Duration, limit: usize) -> Self {
        let mut out = start(packet, Rcode::NoError, true);
        out.extend_from_slice(&packet[HEADER..question.end]);
        Self {
            out,
            owner: pointer(HEADER),
            count: 0,
            ttl: u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX),
            limit: limit - query.edns.map_or(0, |_| OPT_LEN),
            whole: true,
        }
    }

    /// One more, if it fits and all before it did.
    fn add(&mut self, kind: u16, data: &[u8]) {
        if !self.whole {
            return;
        }
        let before = self.out.len();
        record(&mut self.out, self.owner, kind, self.ttl, data);
        self.whole = self.out.len() <= self.limit;
        if self.whole {
            self.count += 1;
        } else {
            self.out.truncate(before);
        }
    }

    /// The owner so far is an alias of this name, encoded, which is the owner from now on.
    fn alias(&mut self, name: &[u8]) {
        self.add(kind::CNAME, name);
        self.owner = pointer(self.out.len().saturating_sub(name.len()));
    }

    fn finish(mut self, query: &Query) -> Vec<u8> {
        self.out[6..8].copy_from_slice(&self.count.to_be_bytes());
        if !self.whole {
            self.out[2] |= 0x02;
        }
        finish(self.out, query.edns)
    }
}

/// An answer with another response code.
pub fn with_rcode_of(mut answer: Vec<u8>, other: &[u8]) -> Vec<u8> {
    answer[3] = answer[3] & 0xf0 | rcode(other);
    answer
}

/// An answer that says no, with nothing in it but the question: never longer than the query.
pub fn refuse(packet: &[u8], query: Option<&Query>, rcode: Rcode) -> Vec<u8> {
    let mut out = start(packet, rcode, false);
    match query.and_then(|q| q.question.as_ref()) {
        Some(question) => out.extend_from_slice(&packet[HEADER..question.end]),
        None => out[4..6].fill(0),
    }
    finish(out, query.and_then(|q| q.edns))
}

/// Whether this is what a server answers to the query when asked with this id.
pub fn answers(answer: &[u8], query: &[u8], id: u16) -> bool {
    if answer.len() < HEADER
        || !is_response(answer)
        || opcode(answer) != opcode(query)
        || answer[..2] != id.to_be_bytes()
    {
        return false;
    }
    let [asked, ..] = counts(query);
    let [repeated, records, ..] = counts(answer);
    if asked != 1 || opcode(query) != 0 {
        return true;
    }
    // A server that could not read the question may leave it out.
    if repeated == 0 {
        return records == 0 && rcode(answer) != 0;
    }
    let (Some(ours), Some(theirs)) = (read_question(query), read_question(answer)) else { return false };
    repeated == 1 && (ours.name, ours.kind, ours.class) == (theirs.name, theirs.kind, theirs.class)
}

/// Whether a server says that it failed, so that another may know better: SERVFAIL, NOTIMP, REFUSED.
pub fn failed(answer: &[u8]) -> bool {
    answer.len() < HEADER || matches!(rcode(answer), 2 | 4 | 5)
}

/// Whether an answer says that it is only a part of one.
pub fn truncated(answer: &[u8]) -> bool {
    answer.len() >= HEADER && answer[2] & 0x02 != 0
}

/// How long an answer may be remembered; none if it must not be.
pub fn lifetime(answer: &[u8]) -> Option<Lifetime> {
    const NXDOMAIN: u8 = 3;
    if answer.len() < HEADER || truncated(answer) || !matches!(rcode(answer), 0 | NXDOMAIN) {
        return None;
    }
    let [questions, answers, authority, additional] = counts(answer).map(u32::from);
    if questions != 1 {
        return None;
    }
    let mut at = read_question(answer)?.end;
    let mut lasts = u32::MAX;
    let mut negative = false;
    let mut ttls = Vec::new();
    for index in 0..answers + authority + additional {
        let record = Record::at(answer, at)?;
        at = record.end;
        if record.kind == kind::OPT {
            continue;
        }
        // RFC 2181 8: a TTL with its highest bit set is none.
        let ttl = if record.ttl > i32::MAX as u32 { 0 } else { record.ttl };
        ttls.push(u16::try_from(record.ttl_at).ok()?);
        if index < answers {
            lasts = lasts.min(ttl);
        } else if index < answers + authority && record.kind == kind::SOA {
            // RFC 2308 5: the SOA's last field.
            let minimum = record.data.last_chunk().map_or(0, |minimum| u32::from_be_bytes(*minimum));
            lasts = lasts.min(ttl).min(minimum);
            negative = true;
        }
    }
    let positive = answers > 0 && rcode(answer) == 0;
    ((positive || negative) && lasts > 0).then(|| Lifetime { lasts: Duration::from_secs(lasts.into()), ttls })
}

/// Whether an answer says that there is nothing of the kind asked for.
pub fn is_absence(answer: &[u8]) -> bool {
    answer.len() >= HEADER && (rcode(answer) != 0 || counts(answer)[1] == 0)
}

/// Takes from an answer's TTLs what has passed.
pub fn age(answer: &mut [u8], lifetime: &Lifetime, passed: Duration) {
    let passed = u32::try_from(passed.as_secs()).unwrap_or(u32::MAX);
    for at in &lifetime.ttls {
        if let Some(ttl) = answer.get_mut(usize::from(*at)..).and_then(|rest| rest.first_chunk_mut::<4>()) {
            *ttl = u32::from_be_bytes(*ttl).saturating_sub(passed).to_be_bytes();
        }
    }
}

/// A message's id.
pub fn id(packet: &[u8]) -> [u8; 2] {
    [packet[0], packet[1]]
}

/// Gives a message another id.
pub fn set_id(packet: &mut [u8], id: [u8; 2]) {
    packet[..2].copy_from_slice(&id);
}

fn is_response(packet: &[u8]) -> bool {
    packet[2] & 0x80 != 0
}

fn opcode(packet: &[u8]) -> u8 {
    packet[2] >> 3 & 0x0f
}

fn rcode(packet: &[u8]) -> u8 {
    packet[3] & 0x0f
}

/// Questions, answers, authority, additional.
fn counts(packet: &[u8]) -> [u16; 4] {
    [4, 6, 8, 10].map(|at| u16::from_be_bytes([packet[at], packet[at + 1]]))
}

/// The question right after the header. Its name cannot be compressed: nothing stands before it.
fn read_question(packet: &[u8]) -> Option<Question> {
    let mut name = String::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = packet.get(at..at + length).filter(|_| length < 64)?;
        at += length;
        if at + 1 - HEADER > MAX_NAME {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        for byte in label {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'*' => {
                    name.push(byte.to_ascii_lowercase().into());
                }
                // As in RFC 1035 5.1.
                _ => name.push_str(&format!("\\{byte:03}")),
            }
        }
    }
    let [kind_high, kind_low, class_high, class_low] = *packet.get(at..)?.first_chunk()?;
    Some(Question {
        name,
        kind: u16::from_be_bytes([kind_high, kind_low]),
        class: u16::from_be_bytes([class_high, class_low]),
        end: at + 4,
    })
}

/// One record.
struct Record<'a> {
    kind: u16,
    class: u16,
    ttl: u32,
    ttl_at: usize,
    data: &'a [u8],
    end: usize,
}

impl<'a> Record<'a> {
    fn at(packet: &'a [u8], start: usize) -> Option<Self> {
        let after_name = skip_name(packet, start)?;
        let fixed: &[u8; 10] = packet.get(after_name..)?.first_chunk()?;
        let data_at = after_name + 10;
        let end = data_at + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        Some(Self {
            kind: u16::from_be_bytes([fixed[0], fixed[1]]),
            class: u16::from_be_bytes([fixed[2], fixed[3]]),
            ttl: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ttl_at: after_name + 4,
            data: packet.get(data_at..end)?,
            end,
        })
    }
}

/// Where a name ends. A pointer ends it, and is not followed.
fn skip_name(packet: &[u8], mut at: usize) -> Option<usize> {
    let start = at;
    while at - start < MAX_NAME {
        let length = *packet.get(at)?;
        match length {
            0 => return Some(at + 1),
            1..=63 => at += 1 + usize::from(length),
            0xc0.. => return packet.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
    }
    None
}

/// Header of an answer: the query's id, opcode and RD; one question, no records.
fn start(packet: &[u8], rcode: Rcode, authoritative: bool) -> Vec<u8> {
    const QR: u8 = 0x80;
    const AA: u8 = 0x04;
    const RA: u8 = 0x80;
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(&packet[..2]);
    // 0x79: opcode and RD.
    out.push(QR | packet[2] & 0x79 | if authoritative { AA } else { 0 });
    // 0x10: checking disabled. RA, because what is not known here is asked for elsewhere.
    out.push(RA | packet[3] & 0x10 | rcode as u8);
    out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    out
}

/// Adds EDNS if the query had it (RFC 6891 7).
fn finish(mut out: Vec<u8>, edns: Option<Edns>) -> Vec<u8> {
    if let Some(edns) = edns {
        let [.., additional] = counts(&out);
        out[10..12].copy_from_slice(&(additional + 1).to_be_bytes());
        let flags: u32 = if edns.dnssec_ok { 0x8000 } else { 0 };
        out.push(0);
        out.extend_from_slice(&kind::OPT.to_be_bytes());
        out.extend_from_slice(&MAX_UDP.to_be_bytes());
        out.extend_from_slice(&flags.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
    }
    out
}

fn pointer(to: usize) -> u16 {
    debug_assert!(to < 0x4000, "within the first 16 KiB: the question ends before");
    0xc000 | to as u16
}

fn record(out: &mut Vec<u8>, owner: u16, kind: u16, ttl: u32, data: &[u8]) {
    out.extend_from_slice(&owner.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    out.extend_from_slice(&ttl.to_be_bytes());
    out.extend_from_slice(&(data.len() as u16).to_be_bytes());
    out.extend_from_slice(data);
}

/// A hostname on the wire; none for what is no name.
fn encode_name(name: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        out.push(u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    (out.len() <= MAX_NAME).then_some(out)
}

#[cfg(test)]
pub(crate) mod tests;
