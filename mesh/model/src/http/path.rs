//! Paths (RFC 3986, 6.2.2), and what of them is refused.

use super::Rules;

/// What is wrong with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// Not a path from the root, nor `*` of OPTIONS; or too long.
    #[error("the target is no path from the root")]
    Form,
    /// A `%` without two hexadecimal digits behind it.
    #[error("it has a % that escapes nothing")]
    Escape,
    /// A control character, escaped or not; NUL is one.
    #[error("it has a control character")]
    Control,
    /// A byte beyond ASCII, not escaped.
    #[error("it has a byte beyond ASCII that is not escaped")]
    NotAscii,
    /// Escaped bytes that spell an ASCII character in too many of them.
    #[error("it has an overlong UTF-8 sequence")]
    Overlong,
    /// A `#`.
    #[error("it has a fragment")]
    Fragment,
    /// A `\`, which some servers take for a slash.
    #[error("it has a backslash")]
    Backslash,
    /// A character that has no place in a path.
    #[error("it has a character that is none of a path")]
    Character,
    /// An escaped slash or backslash, which some servers take for a slash.
    #[error("it has an escaped slash or backslash")]
    EncodedSlash,
    /// `..;x`, which some servers take for `..`.
    #[error("it has a dot segment with a parameter")]
    DotParameter,
}

/// The canonical form of a path that somebody wrote into a route or policy; None for one that no request has.
pub(crate) fn canonical_path(path: &str) -> Option<Box<str>> {
    // As written where that can be chosen: what does not fit the choice meets no request.
    let rules = Rules { merge_slashes: false, keep_encoded_slashes: true };
    let changed = canonical(path.as_bytes(), rules).ok()?;
    match changed {
        None => Some(path.into()),
        Some(changed) => Some(String::from_utf8(changed).ok()?.into()),
    }
}

/// The canonical form of a path; None where it is that already.
pub(super) fn canonical(path: &[u8], rules: Rules) -> Result<Option<Vec<u8>>, PathFault> {
    if path.first() != Some(&b'/') {
        return Err(PathFault::Form);
    }
    let mut before = 0;
    let mut plain = true;
    for byte in path {
        check(*byte)?;
        // An escape, two slashes, or a segment that begins with a dot has to be looked at.
        plain &= *byte != b'%' && !(before == b'/' && matches!(byte, b'/' | b'.'));
        before = *byte;
    }
    if plain {
        return Ok(None);
    }
    let decoded = decode(path, rules)?;
    let walked = walk(&decoded, rules)?;
    Ok((walked != path).then_some(walked))
}

/// A byte that is not escaped.
fn check(byte: u8) -> Result<(), PathFault> {
    match byte {
        b'\\' => Err(PathFault::Backslash),
        b'#' => Err(PathFault::Fragment),
        0..=0x1f | 0x7f => Err(PathFault::Control),
        0x80.. => Err(PathFault::NotAscii),
        b' ' | b'<' | b'>' | b'`' | b'?' => Err(PathFault::Character),
        _ => Ok(()),
    }
}

/// What follows the path: checked, and left as it is. Servers take apart what it means, and no policy looks at it.
pub(super) fn query(query: &[u8]) -> Result<(), PathFault> {
    query.iter().try_for_each(|byte| match byte {
        b'#' => Err(PathFault::Fragment),
        0..=0x1f | 0x7f => Err(PathFault::Control),
        0x80.. => Err(PathFault::NotAscii),
        b' ' | b'"' | b'<' | b'>' => Err(PathFault::Character),
        _ => Ok(()),
    })
}

/// Unreserved characters are not escaped; what is, is in upper case.
fn decode(path: &[u8], rules: Rules) -> Result<Vec<u8>, PathFault> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    // The escaped byte just before this one.
    let mut before = None;
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'%' {
            decoded.push(*byte);
            before = None;
            continue;
        }
        let [high, low, after @ ..] = rest else { return Err(PathFault::Escape) };
        rest = after;
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        let (Some(a), Some(b)) = (digit(high), digit(low)) else { return Err(PathFault::Escape) };
        let escaped = (a << 4 | b) as u8;
        match (before, escaped) {
            (_, 0..=0x1f | 0x7f) => return Err(PathFault::Control),
            (_, b'/' | b'\\') if !rules.keep_encoded_slashes => return Err(PathFault::EncodedSlash),
            (Some(0xc0 | 0xc1), 0x80..=0xbf) | (Some(0xe0), 0x80..=0x9f) | (Some(0xf0), 0x80..=0x8f) => {
                return Err(PathFault::Overlong);
            }
            _ => before = Some(escaped),
        }
        if escaped.is_ascii_alphanumeric() || matches!(escaped, b'-' | b'.' | b'_' | b'~') {
            decoded.push(escaped);
        } else {
            decoded.extend_from_slice(&[b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]);
        }
    }
    Ok(decoded)
}

/// Resolves dot segments, and merges slashes where that is the rule.
fn walk(path: &[u8], rules: Rules) -> Result<Vec<u8>, PathFault> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut segments = path.get(1..).unwrap_or_default().split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match kind(segment)? {
            Kind::Name if segment.is_empty() && !last && rules.merge_slashes => {}
            Kind::Name => kept.push(segment),
            Kind::This if last => kept.push(b""),
            Kind::This => {}
            Kind::Parent => {
                kept.pop();
                if last {
                    kept.push(b"");
                }
            }
        }
    }
    let mut walked = Vec::with_capacity(path.len());
    for segment in kept {
        walked.push(b'/');
        walked.extend_from_slice(segment);
    }
    if walked.is_empty() {
        walked.push(b'/');
    }
    Ok(walked)
}

enum Kind {
    Name,
    /// `.`
    This,
    /// `..`
    Parent,
}

fn kind(segment: &[u8]) -> Result<Kind, PathFault> {
    if segment.first() != Some(&b'.') && !has_slash(segment) {
        return Ok(Kind::Name);
    }
    match segment {
        b"." => return Ok(Kind::This),
        b".." => return Ok(Kind::Parent),
        _ => {}
    }
    // As a server might read it that takes escaped slashes for slashes, and leaves parameters out.
    let mut rest = segment;
    while !rest.is_empty() {
        let dots = rest.iter().take_while(|byte| **byte == b'.').count();
        let behind = rest.get(dots..).unwrap_or_default();
        if (dots == 1 || dots == 2) && (behind.is_empty() || behind.starts_with(b"%2F") || behind.starts_with(b"%5C")) {
            return Err(PathFault::EncodedSlash);
        }
        if (dots == 1 || dots == 2) && (behind.starts_with(b";") || behind.starts_with(b"%3B")) {
            return Err(PathFault::DotParameter);
        }
        let next = slash(behind).map(|at| at + 3);
        rest = next.and_then(|next| behind.get(next..)).unwrap_or_default();
    }
    Ok(Kind::Name)
}

fn has_slash(segment: &[u8]) -> bool {
    slash(segment).is_some()
}

/// Where an escaped slash or backslash is, of those that were let pass.
fn slash(segment: &[u8]) -> Option<usize> {
    segment.windows(3).position(|three| three == b"%2F" || three == b"%5C")
}
