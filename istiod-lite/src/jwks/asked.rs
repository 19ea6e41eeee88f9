//! Which keys RequestAuthentications ask for, as changes of objects go by. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_model::address::NamespacedName;

use crate::cluster::attachments::refs_of_authentication;
use crate::cluster::{Change, Kept};
use crate::resources::{KeySource, Kind, RequestAuthentication};

/// Where keys are that somebody asks for, each with how long fetching them may take.
pub(super) type Sources = BTreeMap<KeySource, Duration>;

/// Which keys each object asks for.
#[derive(Default)]
pub(super) struct Asked(BTreeMap<NamespacedName, Sources>);

impl Asked {
    /// Takes a change in. Whether others may be asked for now.
    pub(super) fn take(&mut self, change: &Change) -> bool {
        match change {
            Change::Apply(Kept::RequestAuthentication(object)) => self.apply(object),
            Change::Delete(key) if key.kind == Kind::RequestAuthentication => self.0.remove(&key.object()).is_some(),
            Change::Replace(Kind::RequestAuthentication, objects) => {
                let before = std::mem::take(&mut self.0);
                for object in objects {
                    if let Kept::RequestAuthentication(object) = object {
                        self.apply(object);
                    }
                }
                before != self.0
            }
            _ => false,
        }
    }

    fn apply(&mut self, object: &RequestAuthentication) -> bool {
        let text = |text: &Option<String>| text.as_deref().unwrap_or_default().to_owned();
        let key = NamespacedName::new(text(&object.metadata.namespace), text(&object.metadata.name));
        let mut sources = Sources::new();
        // Without targets it checks nothing here.
        if refs_of_authentication(object).next().is_some() {
            for rule in &object.spec.jwt_rules {
                let Some(source) = rule.key_source() else { continue };
                let timeout = sources.entry(source).or_default();
                *timeout = rule.fetch_timeout().max(*timeout);
            }
        }
        let before = match sources.is_empty() {
            true => self.0.remove(&key),
            false => self.0.insert(key.clone(), sources),
        };
        before.as_ref() != self.0.get(&key)
    }

    /// All of them. Of several that name the same, who waits longest is heard.
    pub(super) fn all(&self) -> Sources {
        let mut all = Sources::new();
        for (source, timeout) in self.0.values().flatten() {
            let longest = all.entry(source.clone()).or_default();
            *longest = (*longest).max(*timeout);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::{Key, Object};

    #[test]
    fn what_objects_ask_for() {
        let object = |name: &str, targets: serde_json::Value, rules: serde_json::Value| {
            let value = json!({"metadata": {"name": name, "namespace": "n"}, "spec": {"targetRefs": targets, "jwtRules": rules}});
            Change::apply(Object::from_value(Kind::RequestAuthentication, &value).unwrap())
        };
        let web = || json!([{"kind": "Service", "group": "", "name": "web"}]);
        let at = |uri: &str, timeout: &str| json!({"issuer": "i", "jwksUri": uri, "timeout": timeout});
        let key = |name| Key::new(Kind::RequestAuthentication, Some("n"), name);
        let mut asked = Asked::default();
        let mut after = |change: Change| {
            let news = asked.take(&change);
            let all: Vec<_> = asked.all().into_iter().map(|(source, time)| format!("{source} {time:?}")).collect();
            (news, all)
        };
        let told = |news: bool, all: &[&str]| (news, all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert_eq!(after(object("a", web(), json!([at("http://x/", "1s")]))), told(true, &["http://x/ 1s"]));
        assert_eq!(after(object("a", web(), json!([at("http://x/", "1s")]))), told(false, &["http://x/ 1s"]));
        assert_eq!(after(object("b", web(), json!([at("http://x/", "7s")]))), told(true, &["http://x/ 7s"]));
        let own = json!([{"issuer": "i", "jwks": "{\"keys\": []}"}, {"issuer": "https://y"}]);
        assert_eq!(
            after(object("b", web(), own)),
            told(true, &["http://x/ 1s", "https://y/.well-known/openid-configuration 5s"])
        );
        assert_eq!(after(object("b", json!([]), json!([at("http://z/", "1s")]))), told(true, &["http://x/ 1s"]));
        assert_eq!(after(Change::Delete(key("b"))), told(false, &["http://x/ 1s"]));
        assert_eq!(after(object("c", web(), json!([at("http://c/", "90s")]))).1, ["http://c/ 30s", "http://x/ 1s"]);
        assert_eq!(after(Change::Replace(Kind::RequestAuthentication, vec![])), told(true, &[]));
    }
}
