//! What the two ends say, to and from bytes. Pure: descriptors travel beside the bytes, see [`attach`].

use std::os::fd::OwnedFd;

use mesh_model::pod::PodInfo;
use mesh_proto::handoff as wire;
use prost::Message as _;

/// The largest packet either end reads, in bytes. A longer one is an error on both sides.
pub const MAX_PACKET: usize = 1024;

/// One message from the agent, without the descriptor that accompanies an [`Message::Add`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Serve this pod in the namespace whose descriptor comes along.
    Add {
        /// The Kubernetes pod UID.
        uid: String,
        /// Which workload it is.
        pod: PodInfo,
    },
    /// Go on serving this pod, if you do: the agent has no descriptor for it at the moment. Only before the snapshot ends.
    Keep {
        /// The Kubernetes pod UID.
        uid: String,
    },
    /// Stop serving this pod at once.
    Del {
        /// The Kubernetes pod UID.
        uid: String,
    },
    /// The snapshot is complete: what it did not name is no longer on this node.
    SnapshotSent,
}

/// What the agent asks: a [`Message`] and the descriptor that belongs to it.
#[derive(Debug)]
pub enum Request {
    /// Serve this pod. The same pod with the same namespace again is no change; with another namespace it replaces.
    Add {
        /// The Kubernetes pod UID.
        uid: String,
        /// Which workload it is.
        pod: PodInfo,
        /// Its network namespace.
        netns: OwnedFd,
    },
    /// Go on serving this pod if it is served. Only before [`Request::SnapshotSent`].
    Keep {
        /// The Kubernetes pod UID.
        uid: String,
    },
    /// Stop serving this pod at once; unknown is fine.
    Del {
        /// The Kubernetes pod UID.
        uid: String,
    },
    /// Stop every pod that this conversation did not name so far.
    SnapshotSent,
}

/// Why a message cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Kubernetes bounds names so that this never happens for a real pod.
    #[error("the message for {what} takes {len} bytes, more than the {MAX_PACKET} that one packet carries")]
    TooLong {
        /// The pod UID or kind of message.
        what: String,
        /// Its encoded size in bytes.
        len: usize,
    },
}

/// Why a packet is not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not protobuf of the expected shape.
    #[error("not a ZDS message: {0}")]
    Protobuf(prost::DecodeError),
    /// A message of a kind that this version does not know.
    #[error("the message has no payload this version knows")]
    NoPayload,
    /// A pod cannot be told from another without its UID.
    #[error("the message names no pod UID")]
    NoUid,
    /// An Add that does not say which workload the pod is.
    #[error("add of pod {uid} has no workload_info")]
    NoPodInfo {
        /// The pod UID.
        uid: String,
    },
    /// A hello of another protocol version.
    #[error("the peer speaks ZDS version {0}, not 1")]
    Version(i32),
    /// An Add carries one descriptor, everything else none.
    #[error("{kind} came with {found} descriptors, expected {expected}")]
    Descriptors {
        /// The kind of message.
        kind: &'static str,
        /// How many came.
        found: usize,
        /// How many belong to it.
        expected: usize,
    },
}

/// The first packet of a conversation: ztunnel says which version it speaks.
pub fn encode_hello() -> Vec<u8> {
    wire::ZdsHello { version: wire::Version::V1.into() }.encode_to_vec()
}

/// Reads the first packet of a conversation.
pub fn decode_hello(packet: &[u8]) -> Result<(), DecodeError> {
    let hello = wire::ZdsHello::decode(packet).map_err(DecodeError::Protobuf)?;
    if hello.version == i32::from(wire::Version::V1) { Ok(()) } else { Err(DecodeError::Version(hello.version)) }
}

/// One message as the bytes of one packet.
pub fn encode(message: &Message) -> Result<Vec<u8>, EncodeError> {
    use wire::workload_request::Payload;
    let (what, payload) = match message {
        Message::Add { uid, pod } => {
            let workload_info = Some(wire::WorkloadInfo {
                name: pod.name.clone(),
                namespace: pod.namespace.clone(),
                service_account: pod.service_account.clone(),
            });
            (uid.as_str(), Payload::Add(wire::AddWorkload { uid: uid.clone(), workload_info }))
        }
        Message::Keep { uid } => (uid.as_str(), Payload::Keep(wire::KeepWorkload { uid: uid.clone() })),
        Message::Del { uid } => (uid.as_str(), Payload::Del(wire::DelWorkload { uid: uid.clone() })),
        Message::SnapshotSent => ("snapshot sent", Payload::SnapshotSent(wire::SnapshotSent {})),
    };
    let packet = wire::WorkloadRequest { payload: Some(payload) }.encode_to_vec();
    if packet.len() > MAX_PACKET {
        return Err(EncodeError::TooLong { what: what.to_owned(), len: packet.len() });
    }
    Ok(packet)
}

/// Reads one message from the bytes of one packet.
pub fn decode(packet: &[u8]) -> Result<Message, DecodeError> {
    use wire::workload_request::Payload;
    let request = wire::WorkloadRequest::decode(packet).map_err(DecodeError::Protobuf)?;
    match request.payload.ok_or(DecodeError::NoPayload)? {
        Payload::Add(add) => {
            let uid = named(add.uid)?;
            let Some(info) = add.workload_info else { return Err(DecodeError::NoPodInfo { uid }) };
            let pod = PodInfo { name: info.name, namespace: info.namespace, service_account: info.service_account };
            Ok(Message::Add { uid, pod })
        }
        Payload::Keep(keep) => Ok(Message::Keep { uid: named(keep.uid)? }),
        Payload::Del(del) => Ok(Message::Del { uid: named(del.uid)? }),
        Payload::SnapshotSent(_) => Ok(Message::SnapshotSent),
    }
}

fn named(uid: String) -> Result<String, DecodeError> {
    if uid.is_empty() { Err(DecodeError::NoUid) } else { Ok(uid) }
}

/// Joins a message with the descriptors of its packet: exactly one for an Add, none for the rest.
/// Descriptors that do not belong are closed.
pub fn attach(message: Message, mut descriptors: Vec<OwnedFd>) -> Result<Request, DecodeError> {
    let found = descriptors.len();
    let (kind, expected) = match &message {
        Message::Add { .. } => ("add", 1),
        Message::Keep { .. } => ("keep", 0),
        Message::Del { .. } => ("del", 0),
        Message::SnapshotSent => ("snapshot sent", 0),
    };
    if found != expected {
        return Err(DecodeError::Descriptors { kind, found, expected });
    }
    Ok(match (message, descriptors.pop()) {
        (Message::Add { uid, pod }, Some(netns)) => Request::Add { uid, pod, netns },
        (Message::Keep { uid }, _) => Request::Keep { uid },
        (Message::Del { uid }, _) => Request::Del { uid },
        (Message::SnapshotSent, _) => Request::SnapshotSent,
        (Message::Add { .. }, None) => return Err(DecodeError::Descriptors { kind, found, expected }),
    })
}

/// An acknowledgement: done, or the reason why not. A reason too long for one packet is cut.
pub fn encode_ack(outcome: Result<(), &str>) -> Vec<u8> {
    // Two nested length-delimited fields cost at most six bytes at this size.
    const ROOM: usize = MAX_PACKET - 6;
    let mut error = outcome.err().unwrap_or_default();
    if error.len() > ROOM {
        error = &error[..error.floor_char_boundary(ROOM)];
    }
    // Empty means success on the wire, so a refusal always says something.
    let error = if outcome.is_err() && error.is_empty() { "failed without a reason" } else { error };
    wire::WorkloadResponse {
        payload: Some(wire::workload_response::Payload::Ack(wire::Ack { error: error.to_owned() })),
    }
    .encode_to_vec()
}

/// Reads an acknowledgement; the inner `Err` is the peer's reason.
pub fn decode_ack(packet: &[u8]) -> Result<Result<(), String>, DecodeError> {
    let response = wire::WorkloadResponse::decode(packet).map_err(DecodeError::Protobuf)?;
    let wire::workload_response::Payload::Ack(ack) = response.payload.ok_or(DecodeError::NoPayload)?;
    Ok(if ack.error.is_empty() { Ok(()) } else { Err(ack.error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> PodInfo {
        PodInfo { name: "n".into(), namespace: "s".into(), service_account: "a".into() }
    }

    /// The bytes are the contract: field numbers are easy to get wrong (del's uid is 2, keep is 5).
    /// Trap 1: `DelWorkload.uid` is field 2 and `keep` is field 5 of the request.
    #[test]
    fn golden_bytes() {
        assert_eq!(encode_hello(), [0x08, 0x01]);
        assert_eq!(encode_ack(Ok(())), [0x0a, 0x00]);
        assert_eq!(encode_ack(Err("no")), [0x0a, 0x04, 0x0a, 0x02, b'n', b'o']);
        let cases: [(Message, &[u8]); 4] = [
            (
                Message::Add { uid: "u".into(), pod: pod() },
                &[0x0a, 14, 0x0a, 1, b'u', 0x12, 9, 0x0a, 1, b'n', 0x12, 1, b's', 0x1a, 1, b'a'],
            ),
            (Message::Del { uid: "u".into() }, &[0x12, 3, 0x12, 1, b'u']),
            (Message::SnapshotSent, &[0x1a, 0]),
            (Message::Keep { uid: "u".into() }, &[0x2a, 3, 0x0a, 1, b'u']),
        ];
        for (message, bytes) in cases {
            assert_eq!(encode(&message).unwrap(), bytes, "{message:?}");
            assert_eq!(decode(bytes).unwrap(), message);
        }
    }

    #[test]
    fn refuses_what_is_not_a_message() {
        let cases: [(&[u8], DecodeError); 4] = [
            (&[], DecodeError::NoPayload),
            (&[0x22, 0], DecodeError::NoPayload), // field 4 has never been used
            (&[0x12, 0], DecodeError::NoUid),
            (&[0x0a, 3, 0x0a, 1, b'u'], DecodeError::NoPodInfo { uid: "u".into() }),
        ];
        for (bytes, expected) in cases {
            assert_eq!(decode(bytes), Err(expected), "{bytes:?}");
        }
        assert!(matches!(decode(&[0x0a, 9, 1]), Err(DecodeError::Protobuf(_))));
        assert_eq!(decode_hello(&[]), Err(DecodeError::Version(0)));
        assert_eq!(decode_hello(&[0x08, 0x02]), Err(DecodeError::Version(2)));
        assert_eq!(decode_ack(&[]), Err(DecodeError::NoPayload));
    }

    /// Trap 3: one packet of 1024 bytes.
    #[test]
    fn one_packet_bounds_every_message() {
        let uid = "u".repeat(MAX_PACKET);
        assert!(matches!(encode(&Message::Del { uid }), Err(EncodeError::TooLong { .. })));
        // The longest names Kubernetes allows fit.
        let pod = PodInfo { name: "n".repeat(253), namespace: "s".repeat(63), service_account: "a".repeat(253) };
        assert!(encode(&Message::Add { uid: "u".repeat(36), pod }).is_ok());
        // A long reason is cut at a character, not in the middle of one.
        let reason = "ü".repeat(MAX_PACKET);
        let ack = encode_ack(Err(&reason));
        assert!(ack.len() <= MAX_PACKET);
        assert!(decode_ack(&ack).unwrap().unwrap_err().chars().all(|c| c == 'ü'));
        // An empty reason is still a refusal.
        assert!(decode_ack(&encode_ack(Err(""))).unwrap().is_err());
    }

    #[test]
    fn descriptors_belong_to_add_alone() {
        let fds =
            |n: usize| -> Vec<OwnedFd> { (0..n).map(|_| std::fs::File::open("/dev/null").unwrap().into()).collect() };
        let add = || Message::Add { uid: "u".into(), pod: pod() };
        let others = [Message::SnapshotSent, Message::Del { uid: "u".into() }, Message::Keep { uid: "u".into() }];
        assert!(attach(add(), fds(1)).is_ok());
        for n in [0, 2] {
            assert!(matches!(attach(add(), fds(n)), Err(DecodeError::Descriptors { .. })));
        }
        for message in others {
            assert!(attach(message.clone(), fds(0)).is_ok());
            assert!(matches!(attach(message, fds(1)), Err(DecodeError::Descriptors { .. })));
        }
    }
}
