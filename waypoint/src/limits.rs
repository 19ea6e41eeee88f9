//! The bounds of what a caller, or an endpoint, may send. `docs/operations.md` names those that users meet.

use std::time::Duration;

/// Header lines of a message.
pub(crate) const HEADERS: usize = 200;
/// Bytes of a message's head: Envoy's limit, which applications rely on.
pub(crate) const HEADER_BYTES: usize = 60 << 10;
/// What hyper buffers of an HTTP/1 connection in each direction: a head and a little more. Its own default is 408 KiB, which a caller that
/// reads no answers would have on each of its connections.
pub(crate) const BUFFER: usize = 64 << 10;
/// From the first byte of a head to its last, and how long an HTTP/1 connection may rest.
pub(crate) const HEADER_TIME: Duration = Duration::from_secs(3600);
/// Requests at once on one HTTP/2 connection of a caller.
pub(crate) const STREAMS: u32 = 200;
/// HTTP/2 streams that were reset and are not forgotten yet.
pub(crate) const RESETS: usize = 64;
/// What an HTTP/2 stream may have on its way to one who does not read it.
pub(crate) const STREAM_WINDOW: u32 = 256 << 10;
/// The same of a connection.
pub(crate) const CONNECTION_WINDOW: u32 = 1 << 20;
/// An HTTP/2 peer that does not answer a PING is gone.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(30);
/// How long it may take to answer.
pub(crate) const PING_TIME: Duration = Duration::from_secs(20);
/// Bytes of a request's body that are kept until its answer comes, in case it has to be sent again. A longer one is sent once.
pub(crate) const KEPT_BODY: usize = 64 << 10;
/// Bytes of all bodies that a data thread keeps, in up to twice as much memory; each caller has its share ([`crate::room`]). What comes
/// when its caller has no room is sent once.
pub(crate) const KEPT: usize = 16 << 20;
/// Bytes of copies for mirrors that a data thread holds until they have their answers, 4 KiB for each and its body; each caller has its
/// share. A request is not mirrored when there is no room.
pub(crate) const COPIED: usize = 16 << 20;
/// Requests and connections that may be under way to endpoints at once, at least, each in a tunnel of its own.
pub(crate) const LEAST_UNDER_WAY: usize = 1024;
/// Requests of one data thread about which authorizers or rate limit services are being asked: about as many as a thread can have open.
/// Each caller has its share.
pub(crate) const ASKS: usize = 4096;
/// Bytes of their bodies that are held meanwhile, of which each caller has its share, too.
pub(crate) const SHOWN: usize = 64 << 20;
/// How long what is to be shown of a body may take to come, at most: who sends it slowly holds room that others want.
pub(crate) const SHOWN_TIME: Duration = Duration::from_secs(30);
/// Bytes of the answer of an authorizer or rate limit service: a page for a refused caller.
pub(crate) const ASKED_ANSWER: usize = 64 << 10;
/// Keys of one rate limit that are counted apart at once, in each of its [`RATE_SHARDS`] parts: together 16,384. A key is needed
/// until its bucket is full again. Who comes when there is no place shares one bucket with all others who do.
pub(crate) const RATE_KEYS: usize = 1024;
/// Parts of a rate limit that are locked apart.
pub(crate) const RATE_SHARDS: usize = 16;
