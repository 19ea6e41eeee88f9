//! What the access logs say: ztunnel's of connections, the waypoint's of requests.

/// One line of an access log: caller, callee, and how the connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) source: String,
    pub(super) destination: String,
    pub(super) direction: String,
    pub(super) error: Option<String>,
}

impl Access {
    /// Reads a line in the plain format; `None` for any other line.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (_, fields) = line.split_once("\taccess\tconnection complete\t")?;
        Some(Access {
            source: field(fields, "src.identity")?,
            destination: field(fields, "dst.identity")?,
            direction: field(fields, "direction")?,
            error: field(fields, "error"),
        })
    }

    /// A policy kept it from being opened.
    pub(super) fn refused(&self) -> bool {
        self.error.as_ref().is_some_and(|e| e.contains("policy rejection"))
    }

    /// Written by the node of the destination.
    pub(super) fn inbound(&self) -> bool {
        self.direction == "inbound"
    }
}

/// One line of a waypoint's log: who asked for what, and how it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) source: String,
    pub(super) path: String,
    pub(super) route: Option<String>,
    pub(super) policy: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) error: Option<String>,
}

impl Request {
    /// Reads a line in the plain format; `None` for any other line.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (_, fields) = line.split_once("\taccess\trequest complete\t")?;
        Some(Request {
            source: field(fields, "src.identity")?,
            path: field(fields, "path")?,
            route: field(fields, "route"),
            policy: field(fields, "policy"),
            reason: field(fields, "reason"),
            error: field(fields, "error"),
        })
    }
}

/// The value of `name="value"`; a backslash keeps the next character from ending it.
fn field(fields: &str, name: &str) -> Option<String> {
    let marker = format!("{name}=\"");
    let start = fields.match_indices(&marker).find(|(at, _)| *at == 0 || fields.as_bytes()[at - 1] == b' ')?.0;
    let mut value = String::new();
    let mut escaped = false;
    for c in fields[start + marker.len()..].chars() {
        match c {
            '"' if !escaped => return Some(value),
            '\\' if !escaped => escaped = true,
            _ => {
                value.push(c);
                escaped = false;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let line = "2026-11-21T08:00:00Z\tinfo\taccess\tconnection complete\tsrc.addr=10.244.1.2:4 \
                    src.identity=\"spiffe://a\" dst.identity=\"spiffe://b\" direction=\"inbound\" \
                    error=\"closed: \\\"x\\\" says no\"";
        let access = Access::parse(line).unwrap();
        assert!(access.inbound());
        assert_eq!((access.source.as_str(), access.destination.as_str()), ("spiffe://a", "spiffe://b"));
        assert_eq!(access.error.as_deref(), Some("closed: \"x\" says no"));
        let line = "2026-11-30T05:16:22Z\tinfo\taccess\trequest complete\tsrc.addr=10.244.1.3:3 src.identity=\"spiffe://a\" \
                    method=\"GET\" path=\"/hello\" response_code=403 reason=\"POLICY_DENIED\" policy=\"shop/no\"";
        let request = Request::parse(line).unwrap();
        assert_eq!((&*request.source, &*request.path, request.route), ("spiffe://a", "/hello", None));
        assert_eq!((request.reason.as_deref(), request.policy.as_deref()), (Some("POLICY_DENIED"), Some("shop/no")));
        let line = "2026-11-21T08:00:00Z\tinfo\taccess\tconnection complete\tsrc.addr=10.244.1.2:4";
        assert_eq!(Request::parse(line), None);
        assert_eq!(Access::parse("2026\tinfo\tztunnel\tstarting"), None);
        assert_eq!(Access::parse(&line.replace("src.identity=\"spiffe://a\" ", "")), None);
    }
}
