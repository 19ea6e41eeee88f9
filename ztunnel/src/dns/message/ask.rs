//! Asking, where ztunnel itself wants to know: a query, and what its answer holds.

use super::{CLASS_IN, HEADER, Record, counts, encode_name, read_question};

/// A question for records of `kind`; none for what is no name.
pub fn query(name: &str, kind: u16, id: u16) -> Option<Vec<u8>> {
    let mut out = id.to_be_bytes().to_vec();
    // Recursion desired, one question.
    out.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(&encode_name(name)?);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    Some(out)
}

/// What an answer holds in records of `kind`, as far as it can be read.
pub fn records(answer: &[u8], kind: u16) -> Vec<&[u8]> {
    let Some(question) = (answer.len() >= HEADER).then(|| read_question(answer)).flatten() else { return Vec::new() };
    let [_, answers, ..] = counts(answer);
    let (mut found, mut at) = (Vec::new(), question.end);
    for _ in 0..answers {
        let Some(record) = Record::at(answer, at) else { break };
        if record.kind == kind && record.class == CLASS_IN {
            found.push(record.data);
        }
        at = record.end;
    }
    found
}
