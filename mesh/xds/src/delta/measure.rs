//! What a request comes to, counted before anything is made of it: three bytes can become a hundred. Pure.

use prost::decode_length_delimiter;

use super::server::MAX_NAME;

/// Largest introduction of a node, in bytes. An honest one says a few hundred, and more with its pod's labels.
pub const MAX_NODE: usize = 64 * 1024;
/// Largest explanation of a refusal, in bytes: our own client says at most a quarter of it.
pub const MAX_ERROR: usize = 64 * 1024;

/// What is in a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measure {
    /// Names that are subscribed to, unsubscribed from or declared.
    pub names: usize,
}

/// Why nothing is made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unmeasured {
    /// It is cut off, or no protobuf message at all.
    #[error("the request is no protobuf message")]
    Malformed,
    /// The node says too much of itself.
    #[error("a node of {0} bytes; at most {MAX_NODE}")]
    Node(usize),
    /// A refusal is explained at too great a length.
    #[error("an error of {0} bytes; at most {MAX_ERROR}")]
    Error(usize),
    /// Nothing is called so.
    #[error("a name of {0} bytes; none is longer than {MAX_NAME}")]
    Name(usize),
}

/// Counts what a `DeltaDiscoveryRequest` holds, without making anything of it.
///
/// # Errors
/// When it is no message, or some part of it is too large.
pub fn measure(mut message: &[u8]) -> Result<Measure, Unmeasured> {
    let mut measure = Measure::default();
    let (mut node, mut error) = (0, 0);
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let (field, wire_type) = (tag >> 3, tag & 7);
        let length = match wire_type {
            0 => {
                varint(&mut message)?;
                continue;
            }
            1 => 8,
            2 => varint(&mut message)?,
            5 => 4,
            // Groups are of old, and no request has one.
            _ => return Err(Unmeasured::Malformed),
        };
        message = message.get(length..).ok_or(Unmeasured::Malformed)?;
        match (field, wire_type) {
            // A field that comes twice is brought together.
            (1, 2) => node += length,
            (7, 2) => error += length,
            (3 | 4, 2) if length > MAX_NAME => return Err(Unmeasured::Name(length)),
            // A name with its version, which is as short as ours are, each with its tag and length.
            (5, 2) if length > MAX_NAME + MAX_VERSION => return Err(Unmeasured::Name(length)),
            (3..=5, 2) => measure.names += 1,
            _ => {}
        }
    }
    if node > MAX_NODE {
        return Err(Unmeasured::Node(node));
    }
    if error > MAX_ERROR {
        return Err(Unmeasured::Error(error));
    }
    Ok(measure)
}

/// Longest version that is declared: ours have 32 characters, istiod's 16.
const MAX_VERSION: usize = 128;

fn varint(message: &mut &[u8]) -> Result<usize, Unmeasured> {
    // Lengths and tags are varints of one kind.
    decode_length_delimiter(message).map_err(|_| Unmeasured::Malformed)
}

#[cfg(test)]
mod tests {
    use mesh_proto::discovery::{DeltaDiscoveryRequest, Node, Status};
    use prost::Message;

    use super::*;

    #[test]
    fn names_are_counted_and_what_is_too_long_is_found() {
        let name = |length: usize| "x".repeat(length);
        let request = DeltaDiscoveryRequest {
            type_url: "t".into(),
            resource_names_subscribe: vec!["*".into(), name(MAX_NAME)],
            resource_names_unsubscribe: vec![String::new()],
            initial_resource_versions: [(name(MAX_NAME), "1".into()), ("b".into(), String::new())].into(),
            response_nonce: "7".into(),
            node: Some(Node { id: "n".into(), ..Node::default() }),
            error_detail: Some(Status { code: 3, ..Status::default() }),
        };
        assert_eq!(measure(&request.encode_to_vec()), Ok(Measure { names: 5 }));
        assert_eq!(measure(&[]), Ok(Measure::default()));
        let with = |change: &dyn Fn(&mut DeltaDiscoveryRequest)| {
            let mut request = request.clone();
            change(&mut request);
            measure(&request.encode_to_vec())
        };
        let node = |r: &mut DeltaDiscoveryRequest| r.node = Some(Node { id: name(MAX_NODE), ..Node::default() });
        assert!(matches!(with(&node), Err(Unmeasured::Node(_))));
        let error = |r: &mut DeltaDiscoveryRequest| {
            r.error_detail = Some(Status { message: name(MAX_ERROR), ..Status::default() });
        };
        assert!(matches!(with(&error), Err(Unmeasured::Error(_))));
        let long = |r: &mut DeltaDiscoveryRequest| r.resource_names_subscribe.push(name(MAX_NAME + 1));
        assert_eq!(with(&long), Err(Unmeasured::Name(MAX_NAME + 1)));
        let gone = |r: &mut DeltaDiscoveryRequest| r.resource_names_unsubscribe.push(name(MAX_NAME + 1));
        assert_eq!(with(&gone), Err(Unmeasured::Name(MAX_NAME + 1)));
        let declared = |r: &mut DeltaDiscoveryRequest| {
            r.initial_resource_versions.insert(name(2 * MAX_NAME), "1".into());
        };
        assert!(matches!(with(&declared), Err(Unmeasured::Name(_))));
        let whole = request.encode_to_vec();
        assert_eq!(measure(&whole[..whole.len() - 1]), Err(Unmeasured::Malformed));
        // A node in many pieces, which a decoder would bring together.
        let piece = DeltaDiscoveryRequest {
            node: Some(Node { id: name(MAX_NODE / 2), ..Node::default() }),
            ..DeltaDiscoveryRequest::default()
        };
        assert!(matches!(measure(&piece.encode_to_vec().repeat(2)), Err(Unmeasured::Node(_))));
        assert_eq!(measure(&[0xff; 16]), Err(Unmeasured::Malformed));
        assert_eq!(measure(&[3 << 3 | 3]), Err(Unmeasured::Malformed), "a group");
    }
}
