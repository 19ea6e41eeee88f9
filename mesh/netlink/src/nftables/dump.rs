//! What the kernel says there is.

use super::chain::{Base, ChainType, Hook};
use super::expression::Expression;
use super::numbers::{
    FIXED, NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME, NFTA_CHAIN_TABLE, NFTA_CHAIN_TYPE, NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY,
    NFTA_LIST_ELEM, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_TABLE, NFTA_TABLE_NAME,
};
use crate::message::{attribute, attributes, be_number, text};

/// A base chain that there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainDump {
    /// The table it is in.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Where the kernel asks it; `None` for a place where we have none.
    pub base: Option<Base>,
}

impl ChainDump {
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let body = body.get(FIXED..)?;
        let hook = attribute(body, NFTA_CHAIN_HOOK)?;
        let kind = attribute(body, NFTA_CHAIN_TYPE).and_then(text);
        let number = attribute(hook, NFTA_HOOK_HOOKNUM).and_then(be_number);
        let priority = attribute(hook, NFTA_HOOK_PRIORITY).and_then(|value| value.try_into().ok());
        let kind = [ChainType::Filter, ChainType::Nat, ChainType::Route].into_iter().find(|k| Some(k.name()) == kind);
        let hook = [Hook::Prerouting, Hook::Output, Hook::Postrouting].into_iter().find(|h| Some(h.number()) == number);
        let base = || Some(Base { kind: kind?, hook: hook?, priority: i32::from_be_bytes(priority?) });
        Some(Self {
            table: attribute(body, NFTA_CHAIN_TABLE).and_then(text)?.to_owned(),
            name: attribute(body, NFTA_CHAIN_NAME).and_then(text)?.to_owned(),
            base: base(),
        })
    }
}

/// A rule that there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleDump {
    /// The table it is in.
    pub table: String,
    /// The chain it is in.
    pub chain: String,
    /// What it does; an expression that no rule of ours has is `None`.
    pub expressions: Vec<Option<Expression>>,
}

impl RuleDump {
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let body = body.get(FIXED..)?;
        let list = attribute(body, NFTA_RULE_EXPRESSIONS).unwrap_or_default();
        let elements = attributes(list).filter(|(kind, _)| *kind == NFTA_LIST_ELEM);
        Some(Self {
            table: attribute(body, NFTA_RULE_TABLE).and_then(text)?.to_owned(),
            chain: attribute(body, NFTA_RULE_CHAIN).and_then(text)?.to_owned(),
            expressions: elements.map(|(_, element)| Expression::read(element)).collect(),
        })
    }
}

/// The name of a table that there is.
pub(super) fn table(body: &[u8]) -> Option<String> {
    attribute(body.get(FIXED..)?, NFTA_TABLE_NAME).and_then(text).map(str::to_owned)
}
