//! The client: what is subscribed, what is held, what to answer.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use mesh_model::resource::{Kind, Resource};
use mesh_proto::discovery::{self, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Status};
use prost::Message;

use super::WILDCARD;

/// Longest text of reasons sent with a refusal, in bytes.
const MAX_REASONS: usize = 16 * 1024;

/// What a client wants and has. Survives streams: what is held is held until it is removed.
#[derive(Debug)]
pub struct Client {
    node: Node,
    subscriptions: BTreeMap<Kind, Subscription>,
}

#[derive(Debug, Default)]
struct Subscription {
    /// The keys asked for one by one; None: everything.
    keys: Option<BTreeSet<String>>,
    held: HashMap<String, Held>,
    /// What was let go of, lately and before that. A response that was under way then may still tell of it: that would
    /// never be kept up to date.
    let_go: [HashSet<String>; 2],
    /// A response was accepted as a whole.
    ready: bool,
}

#[derive(Debug)]
struct Held {
    version: String,
    /// The resource's own name, where the control plane sent it under another.
    own_name: Option<Box<str>>,
    /// By what it is brought besides its name. Empty where everything is asked for.
    brought_by: Ways,
}

/// The keys by which a resource comes without being named.
#[derive(Debug, Default)]
struct Ways {
    /// Other names of it.
    aliases: Box<[String]>,
    /// Of a workload: a service that comes brings its workloads.
    services: Box<[String]>,
}

/// Keys that are asked for no longer.
#[derive(Debug, PartialEq)]
pub struct Unsubscribed {
    /// Says so.
    pub request: DeltaDiscoveryRequest,
    /// What they alone had brought, to forget, by the resources' own names.
    pub removals: Vec<String>,
}

/// What a response means for the tables, and the answer to it.
#[derive(Debug, PartialEq)]
pub struct Received {
    /// Of which kind.
    pub kind: Kind,
    /// To take in first.
    pub upserts: Vec<Resource>,
    /// To forget then, by the resources' own names.
    pub removals: Vec<String>,
    /// Not understood; what was held under these names stays.
    pub rejected: Vec<Rejected>,
    /// The on-demand keys that this response answers, found or not.
    pub answered: Vec<String>,
    /// Those of them that mean nothing to the control plane.
    pub absent: Vec<String>,
    /// Acknowledges, or says what was rejected. To send once the tables are changed.
    pub answer: DeltaDiscoveryRequest,
}

/// One resource that was not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its name.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A message that cannot be handled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Of a type never asked for.
    #[error("a response of type {0:?}, which was never asked for")]
    UnexpectedType(String),
    /// No discovery response.
    #[error("not a discovery response: {0}")]
    Encoding(String),
}

impl Client {
    /// Wants everything of these kinds; of addresses, `on_demand`, only those asked for by [`Self::subscribe`].
    pub fn new(node: Node, kinds: &[Kind], on_demand: bool) -> Self {
        let of = |kind| Subscription {
            keys: (on_demand && kind == Kind::Address).then(BTreeSet::new),
            ..Subscription::default()
        };
        Self { node, subscriptions: kinds.iter().map(|kind| (*kind, of(*kind))).collect() }
    }

    /// The first requests of a new stream.
    pub fn connected(&self) -> Vec<DeltaDiscoveryRequest> {
        let mut requests = Vec::new();
        for kind in Kind::ALL {
            let Some(subscription) = self.subscriptions.get(&kind) else { continue };
            let mut first = DeltaDiscoveryRequest {
                node: Some(self.node.clone()),
                type_url: kind.type_url().to_owned(),
                initial_resource_versions: subscription.declare(),
                ..DeltaDiscoveryRequest::default()
            };
            let Some(keys) = &subscription.keys else {
                requests.push(first);
                continue;
            };
            // The one way to say "not everything, and nothing yet".
            first.resource_names_subscribe.push(WILDCARD.to_owned());
            first.resource_names_unsubscribe.push(WILDCARD.to_owned());
            requests.push(first);
            if !keys.is_empty() {
                requests.push(subscribe(kind, keys.iter().cloned().collect()));
            }
        }
        requests
    }

    /// Asks for one address, on demand. None when there is nothing to send: it is asked for already, or everything is.
    pub fn subscribe(&mut self, key: &str) -> Option<DeltaDiscoveryRequest> {
        let keys = self.subscriptions.get_mut(&Kind::Address)?.keys.as_mut()?;
        // In a request of its own, without a nonce: a server drops an answer that is out of date as a whole.
        keys.insert(key.to_owned()).then(|| subscribe(Kind::Address, vec![key.to_owned()]))
    }

    /// Asks for these no longer, and holds no longer what they alone brought. None when there is nothing to send.
    pub fn unsubscribe(&mut self, mut names: Vec<String>) -> Option<Unsubscribed> {
        let subscription = self.subscriptions.get_mut(&Kind::Address)?;
        let keys = subscription.keys.as_mut()?;
        names.retain(|key| keys.remove(key));
        if names.is_empty() {
            return None;
        }
        let removals = subscription.let_go(&names);
        let request =
            DeltaDiscoveryRequest { resource_names_unsubscribe: names, ..subscribe(Kind::Address, Vec::new()) };
        Some(Unsubscribed { request, removals })
    }

    /// Takes a response in.
    ///
    /// # Errors
    /// When it is of a type that was not asked for. It is then as if it had not come.
    pub fn receive(&mut self, response: DeltaDiscoveryResponse) -> Result<Received, Unusable> {
        let kind = Kind::from_type_url(&response.type_url);
        let Some((kind, subscription)) = kind.and_then(|kind| Some((kind, self.subscriptions.get_mut(&kind)?))) else {
            return Err(Unusable::UnexpectedType(response.type_url));
        };
        let (mut upserts, mut rejected) = (Vec::new(), Vec::new());
        let mut mentioned: HashSet<String> = HashSet::new();
        let mut present: HashSet<String> = HashSet::new();
        let mut decoded = Vec::new();
        for mut resource in response.resources {
            let aliases = std::mem::take(&mut resource.aliases);
            mentioned.extend(aliases.iter().cloned());
            mentioned.insert(resource.name.clone());
            present.insert(resource.name.clone());
            let name = resource.name.clone();
            let version = std::mem::take(&mut resource.version);
            match decode(kind, resource) {
                Ok(resource) => decoded.push((name, version, aliases, resource)),
                Err(reason) => rejected.push(Rejected { name, reason }),
            }
        }
        // Services first: workloads that they bring come with them, in any order.
        decoded.sort_by_key(|(.., resource)| matches!(resource, Resource::Workload(_)));
        for (name, version, aliases, resource) in decoded {
            let brought_by = subscription.ways(aliases, &resource);
            if subscription.was_let_go(&name, &brought_by) {
                continue;
            }
            let own = resource.name();
            let own_name = (own != name).then(|| own.into_boxed_str());
            subscription.held.insert(name, Held { version, own_name, brought_by });
            upserts.push(resource);
        }
        let mut removals = Vec::new();
        let mut absent = Vec::new();
        let wanted = |key: &String| subscription.keys.as_ref().is_some_and(|keys| keys.contains(key));
        absent
            .extend(response.removed_resources.iter().filter(|key| wanted(key) && !mentioned.contains(*key)).cloned());
        for name in response.removed_resources {
            // What is both sent and removed is there.
            if !present.contains(&name)
                && let Some(held) = subscription.held.remove(&name)
            {
                removals.push(held.own_name.map_or_else(|| name.clone(), String::from));
            }
            mentioned.insert(name);
        }
        subscription.ready |= rejected.is_empty();
        // Looked for in what came, which is less than all that was ever asked for.
        let asked = |name: &String| subscription.keys.as_ref().is_some_and(|keys| keys.contains(name));
        let mut answered: Vec<String> = mentioned.into_iter().filter(asked).collect();
        answered.sort_unstable();
        let answer = DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            response_nonce: response.nonce,
            error_detail: (!rejected.is_empty()).then(|| reasons(&rejected)),
            ..DeltaDiscoveryRequest::default()
        };
        Ok(Received { kind, upserts, removals, rejected, answered, absent, answer })
    }

    /// [`Self::receive`] of a message as it is on the wire.
    ///
    /// # Errors
    /// As there, and when it is no message.
    pub fn receive_bytes(&mut self, message: &[u8]) -> Result<Received, Unusable> {
        let response = DeltaDiscoveryResponse::decode(message).map_err(|e| Unusable::Encoding(e.to_string()))?;
        self.receive(response)
    }

    /// Whether of each kind some response was accepted as a whole. Before that, what is not known may well exist.
    pub fn ready(&self) -> bool {
        self.subscriptions.values().all(|subscription| subscription.ready)
    }

    /// How many resources of a kind are held.
    pub fn held(&self, kind: Kind) -> usize {
        self.subscriptions.get(&kind).map_or(0, |subscription| subscription.held.len())
    }
}

impl Subscription {
    fn ways(&self, aliases: Vec<String>, resource: &Resource) -> Ways {
        match (&self.keys, resource) {
            (None, _) => Ways::default(),
            (Some(_), Resource::Workload(workload)) => {
                Ways { aliases: aliases.into(), services: workload.services.keys().map(ToString::to_string).collect() }
            }
            (Some(_), _) => Ways { aliases: aliases.into(), services: Box::default() },
        }
    }

    /// Whether `keys` brings a resource: by its name, by another name of it, or by a service that it belongs to.
    fn brings(&self, keys: impl Fn(&str) -> bool, name: &str, ways: &Ways) -> bool {
        let named = |name: &str, ways: &Ways| keys(name) || ways.aliases.iter().any(|alias| keys(alias));
        let service = |service: &String| match self.held.get(service) {
            Some(held) => named(service, &held.brought_by),
            None => keys(service),
        };
        named(name, ways) || ways.services.iter().any(service)
    }

    fn wanted(&self, name: &str, ways: &Ways) -> bool {
        self.keys.as_ref().is_none_or(|keys| self.brings(|key| keys.contains(key), name, ways))
    }

    /// Lets go of what `gone` brought and no other key brings. What nothing explains stays.
    fn let_go(&mut self, gone: &[String]) -> Vec<String> {
        let gone: HashSet<&str> = gone.iter().map(String::as_str).collect();
        let brought = |(name, held): &(&String, &Held)| {
            self.brings(|key| gone.contains(key), name, &held.brought_by) && !self.wanted(name, &held.brought_by)
        };
        let names: Vec<String> = self.held.iter().filter(brought).map(|(name, _)| name.clone()).collect();
        let own_name = |(name, held): (&String, Held)| held.own_name.map_or_else(|| name.clone(), String::from);
        let removals = names.iter().filter_map(|name| Some((name, self.held.remove(name)?))).map(own_name).collect();
        let [lately, before] = &mut self.let_go;
        *before = std::mem::take(lately);
        lately.extend(gone.into_iter().map(str::to_owned));
        lately.extend(names);
        removals
    }

    /// Whether a resource is one of those that were let go of, and not asked for again since.
    fn was_let_go(&self, name: &str, ways: &Ways) -> bool {
        let let_go = |key: &str| self.let_go.iter().any(|names| names.contains(key));
        let any = self.let_go.iter().any(|names| !names.is_empty());
        any && self.brings(let_go, name, ways) && !self.wanted(name, ways)
    }

    /// Only what is really held: a server does not send again what is declared.
    fn declare(&self) -> BTreeMap<String, String> {
        self.held.iter().map(|(name, held)| (name.clone(), held.version.clone())).collect()
    }
}

fn subscribe(kind: Kind, keys: Vec<String>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.type_url().to_owned(),
        resource_names_subscribe: keys,
        ..DeltaDiscoveryRequest::default()
    }
}

fn decode(kind: Kind, resource: discovery::Resource) -> Result<Resource, String> {
    let any = resource.resource.ok_or("the resource is missing")?;
    if any.type_url != kind.type_url() {
        return Err(format!("of type {:?} in a response of {}", any.type_url, kind.type_url()));
    }
    Resource::decode(kind, any.value.into()).map_err(|e| e.to_string())
}

fn reasons(rejected: &[Rejected]) -> Status {
    let mut message = String::new();
    for (n, Rejected { name, reason }) in rejected.iter().enumerate() {
        let separator = if n == 0 { "" } else { "; " };
        if message.len() + separator.len() + name.len() + 2 + reason.len() > MAX_REASONS {
            message.push_str(&format!("{separator}and {} more", rejected.len() - n));
            break;
        }
        message.push_str(&format!("{separator}{name}: {reason}"));
    }
    Status { message, ..Status::default() }
}

#[cfg(test)]
mod tests;
