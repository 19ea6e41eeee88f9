//! Sockets that see every packet of a network namespace.
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Sees what all interfaces of the calling thread's network namespace send and receive. Reading waits a moment.
pub(crate) fn socket() -> io::Result<Socket> {
    const EVERY_PROTOCOL: u16 = libc::ETH_P_ALL as u16;
    let protocol = Protocol::from(i32::from(EVERY_PROTOCOL.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    // As much as the machine allows; what does not fit is counted as lost.
    socket.set_recv_buffer_size(16 << 20)?;
    Ok(socket)
}

/// Packets that did not fit the socket's buffer since it was last asked.
#[allow(unsafe_code, reason = "packet statistics have no safe interface")]
pub(crate) fn lost(socket: &Socket) -> io::Result<u64> {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: the pointer and length describe `statistics`, which outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(u64::from(statistics.tp_drops)) } else { Err(io::Error::last_os_error()) }
}
