//! A port on which a process speaks of itself, taken over from a predecessor that still answers there.

use std::fmt::Display;
use std::future::Future;
use std::io;
use std::time::Duration;

use crate::drain;
use crate::http_server::Listeners;

/// A port is looked for this often while somebody else has it.
const RETRY: Duration = Duration::from_millis(10);

/// The port of `setting` cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {error}")]
pub struct NotBound {
    setting: &'static str,
    #[source]
    error: io::Error,
}

/// Serves pages of our own on the port of `setting`, as a task. One that is in use is taken over when it is free: where
/// predecessor and successor share a network namespace, the one that drains still answers there. It is not waited for once we
/// drain ourselves.
///
/// # Errors
/// When the port cannot be listened on for another reason.
pub fn serve<F, E>(
    setting: &'static str,
    bind: impl Fn() -> io::Result<Listeners> + Send + 'static,
    serve: impl FnOnce(Listeners) -> F + Send + 'static,
    draining: &drain::Watch,
) -> Result<(), NotBound>
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Display + Send,
{
    let in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
    let mut bound = match bind() {
        Err(error) if !in_use(&error) => return Err(NotBound { setting, error }),
        bound => bound,
    };
    if let Err(error) = &bound {
        tracing::warn!(setting, %error, "port in use: by a predecessor that drains? It is served here once it is free");
    }
    let draining = draining.clone();
    tokio::spawn(async move {
        while bound.as_ref().is_err_and(in_use) {
            tokio::select! {
                () = tokio::time::sleep(RETRY) => bound = bind(),
                () = draining.closing() => return,
            }
        }
        let ended = match bound {
            Ok(listeners) => serve(listeners).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = ended {
            tracing::error!(setting, error, "not served");
        }
    });
    Ok(())
}
