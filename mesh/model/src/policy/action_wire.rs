//! An action that Istio's messages do not know: an extension of a policy. Beside it stands DENY; with AUDIT, as a dry run.

use mesh_proto::workload::Extension;
use mesh_proto::{Any, ambit as pb};
use pb::policy_action::Kind;
use prost::Message;

use super::Action;
use crate::authorizer;
use crate::shared::text;

/// Its name among a policy's extensions.
const NAME: &str = "ambit.dev/action";
/// What it holds.
const TYPE_URL: &str = "type.googleapis.com/ambit.v1.PolicyAction";

/// The action that the extension says, if it is there. None when it cannot be read: nobody knows then what the policy wants.
pub(super) fn read(extensions: &[Extension]) -> Option<Option<Action>> {
    let mut ours = extensions.iter().filter(|extension| extension.name == NAME);
    let Some(extension) = ours.next() else { return Some(None) };
    let config = extension.config.as_ref().filter(|config| config.type_url == TYPE_URL && ours.next().is_none())?;
    Some(Some(match pb::PolicyAction::decode(&*config.value).ok()?.kind? {
        Kind::Audit(_) => Action::Audit,
        Kind::Custom(authorizer) => Action::Custom(Ok(authorizer::wire::read(authorizer)?.into())),
        Kind::Nobody(why) => Action::Custom(Err(text(&why))),
    }))
}

pub(super) fn write(action: &Action) -> Option<Extension> {
    let kind = match action {
        Action::Allow | Action::Deny => return None,
        Action::Audit => Kind::Audit(true),
        Action::Custom(Ok(authorizer)) => Kind::Custom(authorizer::wire::write(authorizer)),
        Action::Custom(Err(why)) => Kind::Nobody(why.to_string()),
    };
    let value = pb::PolicyAction { kind: Some(kind) }.encode_to_vec();
    Some(Extension { name: NAME.to_owned(), config: Some(Any { type_url: TYPE_URL.to_owned(), value }) })
}
