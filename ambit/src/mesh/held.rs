//! What everybody's tables hold of a pod, as the control plane says. Pure but for reading its file.
//!
//! Ambit tells the control plane of a pod in an object with a version that grows; the control plane says of which version
//! every ztunnel has acknowledged what. An answer to an older version says nothing about what has changed since.
use crate::manifest::Key;
use istiod_lite::held::{Held, Protocol};
use serde_json::Value;
use std::net::IpAddr;
use std::path::Path;

/// Reads the file that the control plane writes; an empty answer if there is none yet.
pub(crate) fn read(path: &Path) -> Held {
    let Ok(text) = std::fs::read(path) else { return Held::default() };
    serde_json::from_slice(&text).unwrap_or_else(|e| {
        tracing::warn!("{} is not what istiod-lite writes: {e}", path.display());
        Held::default()
    })
}

/// What the control plane was told of one pod, and in which version that changed.
#[derive(Debug, Default)]
pub(crate) struct Told {
    object: Value,
    version: u64,
    /// The version in which the way it takes connections last changed.
    protocol: u64,
    /// The version in which its readiness last changed.
    ready: u64,
    /// Every ztunnel's tables have held that it is ready, and it has been ready since.
    known_ready: bool,
}

impl Told {
    /// Takes in what the control plane is told now, and returns it with its version. `last` is the last version of any
    /// object.
    pub(crate) fn tell(&mut self, object: Value, last: &mut u64) -> Value {
        if object != self.object {
            *last += 1;
            self.version = *last;
            if redirection(&object) != redirection(&self.object) {
                self.protocol = *last;
            }
            if conditions(&object) != conditions(&self.object) {
                self.ready = *last;
                self.known_ready = false;
            }
            self.object = object;
        }
        let mut object = self.object.clone();
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        object
    }

    /// Takes in what every ztunnel holds of the pod with this uid, as the control plane says.
    pub(crate) fn hear(&mut self, held: &Held, uid: &str) {
        let said = held.pods.get(uid);
        let ready = said.is_some_and(|said| said.ready && version(&said.resource_version) >= self.ready);
        // A control plane that starts again knows nothing at first; that takes nothing out of anybody's tables.
        self.known_ready |= ready;
    }

    /// Every ztunnel's tables hold that it is ready.
    pub(crate) fn known_ready(&self) -> bool {
        self.known_ready
    }

    /// How it takes connections by every ztunnel's tables; None while they may differ.
    pub(crate) fn known_as(&self, held: &Held, uid: &str) -> Option<Protocol> {
        let said = held.pods.get(uid).filter(|said| version(&said.resource_version) >= self.protocol)?;
        said.protocol
    }
}

/// What the control plane was told of one Service, and what everybody's tables held of it since.
#[derive(Debug)]
pub(crate) struct ToldService {
    /// The version in which the control plane was first told of this Service: another one of the same name has a later one.
    version: u64,
    /// The addresses by which everybody knew it; None within for one that is in no tables.
    known: Option<Option<Vec<IpAddr>>>,
}

impl ToldService {
    /// One that the control plane is told of from now on. `last` is the last version of any object.
    pub(crate) fn new(last: &mut u64) -> Self {
        *last += 1;
        Self { version: *last, known: None }
    }

    /// The version that the control plane is told.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Takes in what the control plane says everybody holds of the Service of this name. One that starts again knows
    /// nothing at first; that takes nothing out of anybody's tables.
    pub(crate) fn hear(&mut self, held: &Held, (namespace, name): &Key) {
        let said = held.services.get(&format!("{namespace}/{name}"));
        if let Some(said) = said.filter(|said| version(&said.resource_version) >= self.version) {
            self.known = Some(said.addresses.clone());
        }
    }

    /// Whether everybody knows it by these addresses.
    pub(crate) fn is_known_by(&self, addresses: &[IpAddr]) -> bool {
        match &self.known {
            None => false,
            Some(None) => true,
            Some(Some(known)) => addresses.iter().all(|address| known.contains(address)),
        }
    }
}

/// 0 for what is no version of ours.
fn version(text: &str) -> u64 {
    text.parse().unwrap_or_default()
}

fn redirection(object: &Value) -> &Value {
    &object["metadata"]["annotations"][mesh_model::labels::REDIRECTION]
}

fn conditions(object: &Value) -> &Value {
    &object["status"]["conditions"]
}

#[cfg(test)]
mod tests {
    use super::*;
    use istiod_lite::held::{HeldPod, HeldService};
    use serde_json::json;

    fn object(redirection: Option<&str>, ready: bool) -> Value {
        json!({
            "metadata": {"annotations": {"ambient.istio.io/redirection": redirection}},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        })
    }

    fn said(version: u64, protocol: Option<Protocol>, ready: bool) -> Held {
        let pod = HeldPod { resource_version: version.to_string(), protocol, ready };
        Held { pods: [("u".to_owned(), pod)].into(), ..Held::default() }
    }

    #[test]
    fn an_answer_counts_for_what_has_not_changed_since() {
        let (plain, joined, ready) =
            (object(None, false), object(Some("enabled"), false), object(Some("enabled"), true));
        let (tcp, hbone) = (Some(Protocol::Tcp), Some(Protocol::Hbone));
        // (told one after the other, said at last, known as, known to be ready)
        for (name, told, said, known_as, known_ready) in [
            ("nothing said", vec![&plain], Held::default(), None, false),
            ("said", vec![&plain], said(1, tcp, false), tcp, false),
            ("of an older one", vec![&plain, &joined], said(1, tcp, false), None, false),
            ("of the newer one", vec![&plain, &joined], said(2, hbone, false), hbone, false),
            ("not held by all", vec![&plain, &joined], said(2, None, false), None, false),
            ("ready since, and it joined before", vec![&joined, &ready], said(1, hbone, false), hbone, false),
            ("ready", vec![&joined, &ready], said(2, hbone, true), hbone, true),
            ("not ready again", vec![&joined, &ready, &joined], said(2, hbone, true), hbone, false),
            ("ready once more", vec![&ready, &joined, &ready], said(1, hbone, true), hbone, false),
            ("out and in again", vec![&joined, &plain, &joined], said(1, hbone, false), None, false),
            ("told again", vec![&joined, &joined], said(1, hbone, false), hbone, false),
        ] {
            let (mut one, mut last) = (Told::default(), 0);
            for object in told {
                one.tell(object.clone(), &mut last);
            }
            one.hear(&said, "u");
            assert_eq!((one.known_as(&said, "u"), one.known_ready()), (known_as, known_ready), "{name}");
        }
    }

    #[test]
    fn a_service_is_known_by_what_is_said_of_itself() {
        let address: IpAddr = "10.96.0.1".parse().unwrap();
        let said = |version: u64, addresses: Option<&[IpAddr]>| {
            let addresses = addresses.map(<[IpAddr]>::to_vec);
            let service = HeldService { resource_version: version.to_string(), addresses };
            Held { services: [("shop/web".to_owned(), service)].into(), ..Held::default() }
        };
        // (said one after the other, known)
        for (name, said, known) in [
            ("nothing said", vec![], false),
            ("said", vec![said(7, Some(&[address]))], true),
            ("of the one before, which was deleted", vec![said(6, Some(&[address]))], false),
            ("before it had this address", vec![said(7, Some(&[]))], false),
            ("in no tables", vec![said(7, None)], true),
            ("a control plane that starts again", vec![said(7, Some(&[address])), Held::default()], true),
        ] {
            let mut last = 6;
            let mut one = ToldService::new(&mut last);
            assert_eq!((one.version(), last), (7, 7));
            for said in said {
                one.hear(&said, &("shop".to_owned(), "web".to_owned()));
            }
            assert_eq!(one.is_known_by(&[address]), known, "{name}");
        }
    }

    #[test]
    fn a_control_plane_that_starts_again_takes_no_readiness_away() {
        let (mut told, mut last) = (Told::default(), 6);
        let object = told.tell(object(Some("enabled"), true), &mut last);
        assert_eq!(object["metadata"]["resourceVersion"], "7");
        told.hear(&said(7, Some(Protocol::Hbone), true), "u");
        told.hear(&Held::default(), "u");
        assert!(told.known_ready());
    }
}
