//! Why a pod cannot run here, in words for its author.
use thiserror::Error;

/// Why a pod cannot run here.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum CannotRun {
    #[error("the pod has no containers")]
    NoContainers,
    #[error(
        "container {container} has no `command`: ambit pulls no images, it runs programs of this machine; \
         name one in spec.containers[].command"
    )]
    NoCommand { container: String },
    #[error("container {container}: program `{program}` is not on this machine (looked in {path})")]
    NoProgram { container: String, program: String, path: String },
    #[error("container {container}: workingDir {directory} is not a directory on this machine")]
    NoDirectory { container: String, directory: String },
    #[error("container {container}: environment variable {name}: {why}")]
    BadVariable { container: String, name: String, why: String },
    #[error(
        "container {container}: its {what} has none of exec, httpGet and tcpSocket (sleep, for a hook) with something to \
         try; grpc is not done here: ask the same by exec"
    )]
    NothingToTry { container: String, what: &'static str },
    #[error("container {container}: its {what} names port `{port}`, which the container does not have")]
    NoPort { container: String, what: &'static str, port: String },
    #[error(
        "container {container}: its {what} goes to host `{host}`: only an IP address or localhost can be reached from a \
         node here (for the Host header, write httpHeaders)"
    )]
    ProbeHost { container: String, what: &'static str, host: String },
    #[error(
        "init container {container}: restartPolicy `{policy}` is not one: leave it out, or write Always for a sidecar"
    )]
    InitRestart { container: String, policy: String },
}
