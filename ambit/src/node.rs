//! A node: a network namespace on the fabric, with pods behind it.
use crate::net::addressing::{self, PodPool};
use crate::net::links::Fabric;
use crate::run_dir::RunDir;
use crate::sys::namespace;
use anyhow::{Context, Result};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A running node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) uid: String,
    /// Its number, from 1; its addresses follow from it.
    pub(crate) k: u8,
    pub(crate) netns: Arc<OwnedFd>,
    pub(crate) pool: PodPool,
    pub(crate) ipv6: bool,
}

impl Node {
    /// Makes node number `k` and connects it to the fabric and to the nodes before it.
    pub(crate) async fn make(run: &RunDir, fabric: &Fabric, name: &str, k: u8, others: &[Node]) -> Result<Self> {
        std::fs::create_dir_all(run.node(name).join("netns"))
            .with_context(|| format!("cannot make {}", run.node(name).display()))?;
        let netns = namespace::new_netns().context("cannot make a network namespace")?;
        fabric.plug_node(k, &netns)?;
        for other in others {
            fabric.introduce((k, &netns), (other.k, &other.netns))?;
        }
        Ok(Node {
            name: name.to_owned(),
            uid: crate::uid::new(),
            k,
            netns: Arc::new(netns),
            pool: PodPool::new(k),
            ipv6: fabric.ipv6(),
        })
    }

    /// Its addresses on the fabric.
    pub(crate) fn ips(&self) -> Vec<IpAddr> {
        addressing::node(self.k).list(self.ipv6)
    }
}
