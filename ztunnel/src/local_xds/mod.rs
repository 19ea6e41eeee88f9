//! Workloads, services and policies without a control plane, in upstream's format: YAML in camelCase with the lists
//! `workloads`, `services` and `policies`, in a file (`LOCAL_XDS_PATH`) or in the environment (`LOCAL_XDS`).
//!
//! Read as a stream, one entry at a time on each core: a large mesh is never in memory twice. An entry that means nothing is
//! refused alone and by name, as a control plane's would be; nothing but a policy that may keep somebody out makes
//! the whole file useless.

mod address;
mod apart;
mod expected;
mod plain;
mod policy;
mod reading;

use std::io::{Read, Seek};

use serde::de::Deserializer;

use reading::{File, Reading, options};
pub use reading::{Local, Refused};

/// Why a file was refused as a whole.
#[derive(Debug, thiserror::Error)]
pub enum InvalidFile {
    /// Not the YAML expected.
    #[error("{0}")]
    Yaml(String),
    /// A policy without a name, a scope or an action. Without it, more would be let in than was written.
    #[error("{0}; without this policy more would be let in than is written")]
    Policy(Refused),
}

/// Reads a file.
///
/// # Errors
/// Says where and what, for the person who wrote it.
pub fn read(mut file: impl Read + Seek + Send) -> Result<Local, InvalidFile> {
    let reading = match apart::read(&mut file, apart::PIECE) {
        Some(reading) => reading,
        None => {
            // What has no place to return to was not read at all.
            let _ = file.rewind();
            whole(file)?
        }
    };
    match reading.policy {
        Some(refused) => Err(InvalidFile::Policy(refused)),
        None => Ok(reading.local),
    }
}

fn whole(file: impl Read) -> Result<Reading, InvalidFile> {
    let read = serde_saphyr::with_deserializer_from_reader_with_options(file, options(), |yaml| {
        let mut reading = Reading::default();
        yaml.deserialize_any(File(&mut reading))?;
        Ok(reading)
    });
    read.map_err(|e| InvalidFile::Yaml(e.to_string()))
}

#[cfg(test)]
mod tests;
