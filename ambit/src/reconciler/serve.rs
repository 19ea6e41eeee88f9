//! Questions from outside.
use super::Reconciler;
use crate::control::{Answer, Ask};
use crate::manifest::Key;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::os::fd::OwnedFd;

impl Reconciler {
    /// Answers one question.
    pub(super) fn answer(&self, ask: &Ask) -> (Answer, Vec<OwnedFd>) {
        let answered = match ask {
            Ask::Status => Ok((Answer::Status(Box::new(self.status())), Vec::new())),
            Ask::Enter { namespace, pod, container } => {
                self.enter(&(namespace.clone(), pod.clone()), container.as_deref())
            }
            Ask::Network { node } => self.network(node.as_deref()),
            Ask::Restart { program } => self.programs.replace(program).map(|()| (Answer::Done, Vec::new())),
            Ask::Down => Ok((Answer::Done, Vec::new())),
        };
        answered.unwrap_or_else(|e| (Answer::Refused { why: format!("{e:#}") }, Vec::new()))
    }

    fn enter(&self, key: &Key, container: Option<&str>) -> Result<(Answer, Vec<OwnedFd>)> {
        let Some(pod) = self.pods.get(key) else {
            if let Some(why) = self.impossible.get(key) {
                bail!("pod {}/{} does not run: {why}", key.0, key.1);
            }
            let elsewhere: Vec<&str> =
                self.pods.keys().filter(|other| other.1 == key.1).map(|other| other.0.as_str()).collect();
            let hint = match elsewhere.as_slice() {
                [] => String::new(),
                namespaces => format!("; there is one in {} (choose with -n)", namespaces.join(", ")),
            };
            bail!("there is no pod {} in namespace {}{hint}", key.1, key.0);
        };
        let state = pod.state();
        let program = match container {
            None => state.programs.first(),
            Some(name) => state.programs.iter().find(|p| p.container == name),
        };
        let program = program.with_context(|| {
            let names: Vec<&str> = state.programs.iter().map(|p| p.container.as_str()).collect();
            format!("pod {} has no container {}; it has: {}", key.1, container.unwrap_or("(any)"), names.join(", "))
        })?;
        let pid = program.pid.with_context(|| {
            let why = state.trouble().unwrap_or_else(|| state.phase.name().to_owned());
            format!("container {} of pod {} does not run: {why}", program.container, key.1)
        })?;
        let fds = ["user", "net", "mnt", "uts", "pid"]
            .iter()
            .map(|kind| Ok(File::open(format!("/proc/{pid}/ns/{kind}"))?.into()))
            .collect::<std::io::Result<Vec<OwnedFd>>>()
            .with_context(|| format!("container {} of pod {} just ended", program.container, key.1))?;
        let env = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let env = env
            .split(|b| *b == 0)
            .filter_map(|pair| String::from_utf8(pair.to_vec()).ok())
            .filter_map(|pair| pair.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())))
            .collect();
        let directory = pod
            .pod
            .spec
            .iter()
            .flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()))
            .find(|c| c.name == program.container)
            .and_then(|c| c.working_dir.as_ref())
            .map(Into::into);
        Ok((Answer::Entered { env, directory }, fds))
    }

    fn network(&self, node: Option<&str>) -> Result<(Answer, Vec<OwnedFd>)> {
        let netns = match node {
            None => self.fabric.netns().try_clone()?,
            Some(name) => {
                let node = self.nodes.iter().find(|n| n.name == name);
                node.with_context(|| format!("there is no node {name}"))?.netns.try_clone()?
            }
        };
        let user = File::open("/proc/self/ns/user")?.into();
        Ok((Answer::Entered { env: Vec::new(), directory: None }, vec![user, netns]))
    }
}
