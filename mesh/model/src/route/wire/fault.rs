//! Faults ↔ `ambit.v1.Fault`.

use http::StatusCode;
use mesh_proto::ambit as pb;

use super::parts::{InvalidRule, duration, duration_to_wire};
use crate::route::{Abort, Delay, Fault};

/// All of them.
const MILLION: u32 = 1_000_000;

pub(super) fn read(wire: pb::Fault) -> Result<Fault, InvalidRule> {
    let part = |part: u32| match part {
        0..=MILLION => Ok(part),
        too_many => Err(InvalidRule::Range("a fault's share in millionths", too_many)),
    };
    let delay = |wire: pb::FaultDelay| {
        let length = duration("a fault's delay", wire.length)?.ok_or(InvalidRule::Duration("a fault's delay"))?;
        Ok(Delay { length, millionths: part(wire.millionths)? })
    };
    let abort = |wire: pb::FaultAbort| {
        let status = u16::try_from(wire.status).ok().filter(|status| (200..600).contains(status));
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        let status = status.ok_or(InvalidRule::Range("a fault's status", wire.status))?;
        Ok(Abort { status, millionths: part(wire.millionths)? })
    };
    Ok(Fault { delay: wire.delay.map(delay).transpose()?, abort: wire.abort.map(abort).transpose()? })
}

pub(super) fn write(fault: &Fault) -> pb::Fault {
    let delay =
        |delay: Delay| pb::FaultDelay { length: Some(duration_to_wire(delay.length)), millionths: delay.millionths };
    let abort = |abort: Abort| pb::FaultAbort { status: abort.status.as_u16().into(), millionths: abort.millionths };
    pb::Fault { delay: fault.delay.map(delay), abort: fault.abort.map(abort) }
}
