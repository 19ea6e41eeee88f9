//! Reason codes: why a connection was refused, failed or was cut, a request was refused, or a DNS query was not answered. Each is a word that
//! keeps its meaning between versions, in logs, metrics and refusals; `docs/reasons.md` says what to do about each.

use std::fmt;

/// One list for the codes, their texts and their explanations, so that none can be without the other.
macro_rules! reason_codes {
    ($(#[doc = $explanation:literal] $code:ident = $text:literal,)+) => {
        /// Why a connection did not end well, a request was refused, or a DNS query was not answered.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ReasonCode {
            $(#[doc = $explanation] $code,)+
        }

        impl ReasonCode {
            /// All of them, in the order of `docs/reasons.md`.
            pub const ALL: &'static [Self] = &[$(Self::$code,)+];

            /// The word that logs, metrics and refusals show.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$code => $text,)+
                }
            }

            /// What it means, in one line. The cause that `docs/reasons.md` gives begins with it.
            pub const fn explanation(self) -> &'static str {
                let line = match self {
                    $(Self::$code => $explanation,)+
                };
                line.trim_ascii()
            }
        }
    };
}

reason_codes! {
    /// A DENY rule matched, or ALLOW policies cover the workload and none matched.
    PolicyDenied = "POLICY_DENIED",
    /// The connection was open, then the policies changed and it is no longer allowed.
    PolicyChanged = "POLICY_CHANGED",
    /// The workload names a policy that the control plane has not sent within 5 s.
    PolicyUnknown = "POLICY_UNKNOWN",
    /// The other side's ztunnel or waypoint answered 401: its log has the policy.
    RefusedByPolicy = "REFUSED_BY_POLICY",

    /// No endpoint of the service is ready, near enough for its traffic distribution, and has a weight.
    NoHealthyUpstream = "NO_HEALTHY_UPSTREAM",
    /// The service has no such port, or its name does not resolve to a port of the pod.
    UnknownServicePort = "UNKNOWN_SERVICE_PORT",
    /// The destination says it is reached through a waypoint that is unknown or has no endpoint.
    UnknownWaypoint = "UNKNOWN_WAYPOINT",
    /// The endpoint, or the waypoint, is on another network, and that network's gateway is not known.
    UnknownNetworkGateway = "UNKNOWN_NETWORK_GATEWAY",
    /// The endpoint is on another network, and the service names nobody who may answer there.
    NoServiceIdentity = "NO_SERVICE_IDENTITY",
    /// The destination, or the way to it, is known by a hostname only, and it did not resolve within 5 s.
    HostnameUnresolved = "HOSTNAME_UNRESOLVED",
    /// A tunnel asked a pod for an address that is not the pod's.
    WrongDestination = "WRONG_DESTINATION",
    /// A tunnel asked for a service by a hostname that is not in the tables.
    UnknownHostname = "UNKNOWN_HOSTNAME",
    /// A tunnel asked a waypoint behind an application tunnel for a service that has no address.
    NoServiceAddress = "NO_SERVICE_ADDRESS",
    /// The destination has only a name, and each time it was dialled the control plane named another one meanwhile.
    DestinationUnsettled = "DESTINATION_UNSETTLED",
    /// With `XDS_ON_DEMAND`, the control plane did not say within 5 s what the address is.
    NoAnswerOnDemand = "NO_ANSWER_ON_DEMAND",
    /// Somebody dialled a port that ztunnel itself uses in pods.
    RecursiveCall = "RECURSIVE_CALL",

    /// The pod holds as many connections, or handshakes under way, as one pod may.
    PodOverloaded = "POD_OVERLOADED",
    /// One source holds as much of this pod as one source may.
    SourceOverloaded = "SOURCE_OVERLOADED",
    /// It carried nothing, was the oldest of those of the greediest source, and somebody needed its place.
    EndedForOthers = "ENDED_FOR_OTHERS",
    /// All pods together hold as many connections, or handshakes under way, as ztunnel may.
    NodeOverloaded = "NODE_OVERLOADED",

    /// The destination, or its HBONE port, could not be dialled.
    ConnectFailed = "CONNECT_FAILED",
    /// Nothing answered on the peer's port 15008 for 10 s.
    ConnectTimeout = "CONNECT_TIMEOUT",
    /// One side did not accept the other's certificate.
    TlsFailed = "TLS_FAILED",
    /// TLS succeeded, HTTP/2 did not.
    Http2Failed = "HTTP2_FAILED",
    /// TLS or HTTP/2 took longer than 10 s, or a SOCKS client to say what it wants.
    HandshakeTimeout = "HANDSHAKE_TIMEOUT",
    /// The tunnel was answered with a status other than 200 and 401.
    RefusedByPeer = "REFUSED_BY_PEER",
    /// The peer did not say within 30 s whether it takes the tunnel, or no connection had room in that time.
    TunnelTimeout = "TUNNEL_TIMEOUT",
    /// The peer's HTTP/2 settings allow 0 streams on a connection.
    PeerTakesNoTunnels = "PEER_TAKES_NO_TUNNELS",
    /// The connection to the peer closed before the tunnel was looked at, three times in a row.
    PeerClosed = "PEER_CLOSED",
    /// It was let in, and the application in the pod did not take the connection.
    ApplicationUnreachable = "APPLICATION_UNREACHABLE",

    /// No valid certificate for the pod's identity within 5 s.
    NoCertificate = "NO_CERTIFICATE",
    /// The pod is on this node and the control plane has not told of it within 5 s.
    UnknownWorkload = "UNKNOWN_WORKLOAD",
    /// A workload's trust domain, namespace or service account makes no SPIFFE id.
    InvalidIdentity = "INVALID_IDENTITY",
    /// The peer's certificate, or one above it, is on a revocation list (`CRL_PATH`).
    CertRevoked = "CERT_REVOKED",

    /// An application (or a plain peer) reset the connection.
    ConnectionReset = "CONNECTION_RESET",
    /// The caller had sent all and was gone, and for 2 minutes the application took nothing of what was left for it.
    ApplicationStalled = "APPLICATION_STALLED",
    /// The other side broke the tunnel off: its application reset, its pod left, or the nodes lost each other.
    TunnelReset = "TUNNEL_RESET",
    /// The pod left, or ztunnel ended before the connection did.
    PodGone = "POD_GONE",
    /// The caller gave up before it was answered.
    CallerGone = "CALLER_GONE",
    /// A request on port 15008 that is no CONNECT or cannot be read, or a SOCKS request that is not served.
    BadRequest = "BAD_REQUEST",

    /// The request has a token that is not valid here.
    TokenInvalid = "TOKEN_INVALID",
    /// Whoever a CUSTOM policy asks did not let the request pass.
    AuthorizerDenied = "AUTHORIZER_DENIED",
    /// Whoever a CUSTOM policy asks could not be asked, or gave no answer.
    AuthorizerFailed = "AUTHORIZER_FAILED",
    /// More requests came than a rate limit of a TrafficPolicy lets pass.
    RateLimited = "RATE_LIMITED",
    /// The rate limit service that a TrafficPolicy names could not be asked, or gave no answer.
    RateLimiterFailed = "RATE_LIMITER_FAILED",
    /// Routes name the service as their parent, and none of their rules matches the request or connection.
    NoRoute = "NO_ROUTE",
    /// The rule that the request or connection follows has no backend that could take it.
    NoBackend = "NO_BACKEND",
    /// A TLSRoute is attached, and the connection does not begin with a ClientHello of TLS.
    NoClientHello = "NO_CLIENT_HELLO",
    /// The rule that the request matches cannot be followed as it is written.
    RouteInvalid = "ROUTE_INVALID",
    /// The rule that the request follows has it refused on purpose (`fault.abort`).
    FaultAborted = "FAULT_ABORTED",
    /// The rule that the request follows had it wait on purpose (`fault.delay`).
    FaultDelayed = "FAULT_DELAYED",
    /// A limit of a DestinationRule is reached.
    UpstreamOverflow = "UPSTREAM_OVERFLOW",
    /// The answer had not come, or not ended, when the route's timeout passed.
    RequestTimeout = "REQUEST_TIMEOUT",
    /// The endpoint ended the connection, or broke HTTP, before its answer had ended.
    UpstreamReset = "UPSTREAM_RESET",
    /// The request's path could be read in more than one way.
    AmbiguousPath = "AMBIGUOUS_PATH",
    /// The request's host is missing, said differently twice, or is no host.
    AmbiguousHost = "AMBIGUOUS_HOST",
    /// The request's method is CONNECT, or is not in upper case.
    MethodNotServed = "METHOD_NOT_SERVED",

    /// The name is not the mesh's, and no name server can be asked from inside a pod.
    DnsNoNameserver = "DNS_NO_NAMESERVER",
    /// No server answered from inside the pod's network.
    DnsUpstreamFailed = "DNS_UPSTREAM_FAILED",
    /// Too many queries wait for a name server, or too many TCP connections are open.
    DnsOverloaded = "DNS_OVERLOADED",
    /// A zone transfer: many messages, of which a proxy passes on one.
    DnsNotForwarded = "DNS_NOT_FORWARDED",
}

impl ReasonCode {
    /// True for a code that only DNS queries end with. All others are of connections and requests.
    pub const fn is_of_dns(self) -> bool {
        matches!(self, Self::DnsNoNameserver | Self::DnsUpstreamFailed | Self::DnsOverloaded | Self::DnsNotForwarded)
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../docs/reasons.md");

    /// The rows of the page that explain a code: its word, and the cells after it.
    fn rows() -> Vec<(&'static str, Vec<&'static str>)> {
        let (explained, _flags) = PAGE.split_once("## Flags in metrics").unwrap();
        let cells = |line: &'static str| Some(line.strip_prefix("| `")?.strip_suffix(" |")?.split(" | ").collect());
        explained
            .lines()
            .filter_map(cells)
            .map(|cells: Vec<&str>| (cells[0].trim_end_matches('`'), cells[1..].to_vec()))
            .collect()
    }

    #[test]
    fn each_code_is_a_row_of_the_page_and_each_row_is_a_code() {
        let codes: Vec<&str> = ReasonCode::ALL.iter().map(|code| code.as_str()).collect();
        let rows: Vec<&str> = rows().iter().map(|(word, _)| *word).collect();
        assert_eq!(codes, rows, "docs/reasons.md");
    }

    #[test]
    fn codes_of_queries_are_told_by_their_names() {
        for code in ReasonCode::ALL {
            assert_eq!(code.is_of_dns(), code.as_str().starts_with("DNS_"), "{code}");
        }
    }

    #[test]
    fn each_row_gives_the_cause_a_remedy_and_a_way_to_see_it() {
        for (code, (word, cells)) in ReasonCode::ALL.iter().zip(rows()) {
            assert!(cells.len() == 3 && cells.iter().all(|cell| !cell.trim().is_empty()), "{word}: {cells:?}");
            assert!(cells[0].starts_with(code.explanation()), "{word} means {:?}: {}", code.explanation(), cells[0]);
        }
    }

    #[test]
    fn words_are_told_apart_and_fit_a_header() {
        let mut words: Vec<&str> = ReasonCode::ALL.iter().map(|code| code.as_str()).collect();
        assert!(words.iter().all(|w| w.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')));
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), ReasonCode::ALL.len());
    }

    /// The table of flags speaks of codes that there are.
    #[test]
    fn flags_name_codes_that_exist() {
        let (_, flags) = PAGE.split_once("## Flags in metrics").unwrap();
        let reasons =
            flags.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" | ")).map(|(_, cell)| cell);
        for word in reasons.flat_map(|cell| cell.split('`').skip(1).step_by(2)) {
            assert!(ReasonCode::ALL.iter().any(|code| code.as_str() == word), "{word}");
        }
    }
}
