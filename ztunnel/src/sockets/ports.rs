//! Which local port a connection gets, at a bounded cost.
//!
//! Left alone, the kernel looks at every second port of its range, and then at the others, until one is free for the
//! pair of addresses; where one pod calls another often enough that most are taken (a closed connection keeps its port
//! for a minute), that takes milliseconds of the thread that asked, and of everybody whose bytes it moves. So it is
//! told a few ports to look at (`IP_LOCAL_PORT_RANGE`, Linux 6.3 and newer; older ones are left alone), and others of the
//! thread have their turn in between.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use socket2::Socket;

/// Ports that the kernel looks at before others of the thread have their turn: some 50 µs.
const SLICE: u16 = 256;
/// Most slices that are looked at. While one port in a hundred is free, sixteen of them without a free one are as good as
/// impossible.
const SLICES: usize = 16;
/// `IP_LOCAL_PORT_RANGE` of `linux/in.h`; the C library's headers do not have it yet.
const IP_LOCAL_PORT_RANGE: libc::c_int = 51;
/// What the kernel has where nobody has set anything.
const DEFAULT: RangeInclusive<u16> = 32_768..=60_999;

/// Every port that a connection could have is taken.
#[derive(Debug, thiserror::Error)]
#[error(
    "no local port is free for one more connection to {0}: the same caller has too many connections to it, open or \
     closed less than a minute ago"
)]
pub(crate) struct NoPort(pub(crate) SocketAddr);

/// The ports of this thread's namespace that connections may come from (`net.ipv4.ip_local_port_range`, which holds for
/// IPv6 too).
pub(crate) fn range() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    text.ok().and_then(|text| parse(&text)).unwrap_or(DEFAULT)
}

fn parse(text: &str) -> Option<RangeInclusive<u16>> {
    let (low, high) = text.trim().split_once(char::is_whitespace)?;
    let range = low.trim().parse().ok()?..=high.trim().parse().ok()?;
    (!range.is_empty()).then_some(range)
}

/// What to look at, in order: the port that is wished for if it is one that connections may come from, then slices of
/// `range` from a place that `random` chooses.
pub(crate) fn tries(
    range: &RangeInclusive<u16>,
    wish: Option<u16>,
    random: u16,
) -> impl Iterator<Item = RangeInclusive<u16>> + use<> {
    let wish = wish.filter(|port| range.contains(port)).map(|port| port..=port);
    let (low, high) = (*range.start(), *range.end());
    let all = usize::from(high - low) + 1;
    let slices = all.div_ceil(usize::from(SLICE));
    let first = usize::from(random) % slices;
    let slices = (0..slices.min(SLICES)).map(move |n| {
        let start = low + ((first + n) % slices) as u16 * SLICE;
        start..=high.min(start.saturating_add(SLICE - 1))
    });
    wish.into_iter().chain(slices)
}

/// Has the kernel choose from these ports only.
///
/// # Errors
/// Where it does not know how.
#[allow(unsafe_code, reason = "no crate in use offers this socket option; it takes an int that lives on this stack")]
pub(crate) fn choose_from(socket: &Socket, ports: &RangeInclusive<u16>) -> io::Result<()> {
    let both = u32::from(*ports.end()) << 16 | u32::from(*ports.start());
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and the kernel reads `size_of(both)` bytes.
    let result = unsafe {
        libc::setsockopt(
            std::os::fd::AsRawFd::as_raw_fd(socket),
            libc::SOL_IP,
            IP_LOCAL_PORT_RANGE,
            (&raw const both).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says() {
        for (text, range) in [
            ("32768\t60999\n", Some(32_768..=60_999)),
            ("1024 65535", Some(1_024..=65_535)),
            ("60999 32768", None),
            ("32768 70000", None),
            ("", None),
        ] {
            assert_eq!(parse(text), range, "{text:?}");
        }
    }

    #[test]
    fn the_wish_then_slices_and_no_port_twice() {
        let first = |range, wish, random| tries(&range, wish, random).next().unwrap();
        assert_eq!(first(DEFAULT, Some(40_000), 7), 40_000..=40_000);
        assert_eq!(first(DEFAULT, Some(80), 0), 32_768..=33_023, "a server's port is nobody's wish");
        assert_eq!(first(DEFAULT, None, 1), 33_024..=33_279);
        for range in [DEFAULT, 1..=65_535, 40_000..=40_000, 40_000..=40_255, 40_000..=40_256, 65_000..=65_535] {
            for random in [0, 1, 109, 40_000, u16::MAX] {
                let all: Vec<_> = tries(&range, None, random).collect();
                assert!(all.len() <= SLICES);
                let mut ports: Vec<u16> = all.iter().cloned().flatten().collect();
                assert!(ports.iter().all(|port| range.contains(port)), "{range:?} {all:?}");
                let looked_at = ports.len();
                ports.sort_unstable();
                ports.dedup();
                assert_eq!(ports.len(), looked_at, "{range:?} {all:?}");
                let want = range.len().min(usize::from(SLICE) * (SLICES - 1));
                assert!(looked_at >= want, "{looked_at} of {range:?}");
            }
        }
    }
}
