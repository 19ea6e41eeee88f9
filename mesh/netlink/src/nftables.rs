//! The packet filter: tables, chains, rules and sets, changed in transactions (`linux/netfilter/nf_tables.h`). Every table is
//! of family `inet`, which sees IPv4 and IPv6.

mod chain;
mod dump;
mod expression;
mod numbers;
mod rule;
mod set;

use std::os::fd::BorrowedFd;

use crate::message::{Attributes, Message, address_bytes, c_string};
use crate::socket::{Error, Socket};
use numbers::{
    NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME, NFTA_CHAIN_POLICY, NFTA_CHAIN_TABLE, NFTA_CHAIN_TYPE, NFTA_DATA_VALUE,
    NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY, NFTA_LIST_ELEM, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_TABLE,
    NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_TABLE,
    NFTA_SET_ELEM_USERDATA, NFTA_SET_ID, NFTA_SET_KEY_LEN, NFTA_SET_KEY_TYPE, NFTA_SET_NAME, NFTA_SET_TABLE,
    NFTA_TABLE_NAME,
};

pub use chain::{Base, ChainType, Hook, priority};
pub use dump::{ChainDump, RuleDump};
pub use expression::{CtKey, Expression, MetaKey, Operator, Part, Verdict};
pub use rule::{End, Rule, Transport};
pub use set::Set;

/// What nftables' own program calls the comment of an element, in user data: a type, a length and a text.
const COMMENT: u8 = 0;
/// Longest comment of an element, its end included.
const LONGEST_COMMENT: usize = 128;
/// The kernel accepts what no rule of a base chain decides.
const ACCEPT: u32 = 1;

/// Changes that are made together or not at all.
#[derive(Debug, Default)]
#[must_use = "nothing is changed before it is committed"]
pub struct Transaction(Vec<Message>);

impl Transaction {
    /// Of no changes yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn then(mut self, kind: i32, flags: i32, attributes: impl FnOnce(Message) -> Message) -> Self {
        self.0.push(attributes(message(kind, flags)));
        self
    }

    /// Makes a table. That it is there already is no failure.
    pub fn add_table(self, name: &str) -> Self {
        self.then(libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE, |m| m.with(NFTA_TABLE_NAME, c_string(name)))
    }

    /// Removes a table and all that is in it, whether or not it is there: it is first made if missing, so that the removal
    /// always finds it. (`NFT_MSG_DESTROYTABLE` says the same, but only since Linux 6.3.)
    pub fn remove_table(self, name: &str) -> Self {
        self.add_table(name).then(libc::NFT_MSG_DELTABLE, 0, |m| m.with(NFTA_TABLE_NAME, c_string(name)))
    }

    /// Makes a chain that rules jump to.
    pub fn add_chain(self, table: &str, name: &str) -> Self {
        self.then(libc::NFT_MSG_NEWCHAIN, libc::NLM_F_CREATE, |m| {
            m.with(NFTA_CHAIN_TABLE, c_string(table)).with(NFTA_CHAIN_NAME, c_string(name))
        })
    }

    /// Makes a chain that the kernel asks.
    pub fn add_base_chain(self, table: &str, name: &str, base: Base) -> Self {
        let hook = Attributes::new()
            .with(NFTA_HOOK_HOOKNUM, base.hook.number().to_be_bytes())
            .with(NFTA_HOOK_PRIORITY, base.priority.to_be_bytes());
        self.then(libc::NFT_MSG_NEWCHAIN, libc::NLM_F_CREATE, |m| {
            m.with(NFTA_CHAIN_TABLE, c_string(table))
                .with(NFTA_CHAIN_NAME, c_string(name))
                .nest(NFTA_CHAIN_HOOK, hook)
                .with(NFTA_CHAIN_POLICY, ACCEPT.to_be_bytes())
                .with(NFTA_CHAIN_TYPE, c_string(base.kind.name()))
        })
    }

    /// Removes all rules of a chain.
    pub fn flush_chain(self, table: &str, chain: &str) -> Self {
        self.then(libc::NFT_MSG_DELRULE, 0, |m| {
            m.with(NFTA_RULE_TABLE, c_string(table)).with(NFTA_RULE_CHAIN, c_string(chain))
        })
    }

    /// Adds a rule behind those of its chain.
    pub fn add_rule(self, table: &str, chain: &str, rule: &Rule) -> Self {
        let mut list = Attributes::new();
        for expression in rule.expressions() {
            list = list.nest(NFTA_LIST_ELEM, expression.write());
        }
        self.then(libc::NFT_MSG_NEWRULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND, |m| {
            m.with(NFTA_RULE_TABLE, c_string(table))
                .with(NFTA_RULE_CHAIN, c_string(chain))
                .nest(NFTA_RULE_EXPRESSIONS, list)
        })
    }

    /// Makes a set, empty.
    pub fn add_set(self, set: Set) -> Self {
        // What nftables' own program calls the types ipv4_addr and ipv6_addr.
        let (kind, len): (u32, u32) = if set.v6 { (8, 16) } else { (7, 4) };
        // Tells sets without a name apart within a transaction; the kernel asks for it always.
        let id = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.then(libc::NFT_MSG_NEWSET, libc::NLM_F_CREATE, |m| {
            m.with(NFTA_SET_TABLE, c_string(set.table))
                .with(NFTA_SET_NAME, c_string(set.name))
                .with(NFTA_SET_KEY_TYPE, kind.to_be_bytes())
                .with(NFTA_SET_KEY_LEN, len.to_be_bytes())
                .with(NFTA_SET_ID, id.to_be_bytes())
        })
    }

    /// Puts an address into a set, with a comment (cut to 127 bytes) for those who list it. That it is in already is no
    /// failure.
    pub fn add_element(self, set: Set, address: std::net::IpAddr, comment: &str) -> Self {
        let mut text = comment.as_bytes()[..comment.len().min(LONGEST_COMMENT - 1)].to_vec();
        text.push(0);
        let len = u8::try_from(text.len()).expect("at most LONGEST_COMMENT");
        self.element(
            libc::NFT_MSG_NEWSETELEM,
            libc::NLM_F_CREATE,
            set,
            address,
            Some([&[COMMENT, len], &text[..]].concat()),
        )
    }

    /// Takes an address out of a set. That it is not in is a failure.
    pub fn remove_element(self, set: Set, address: std::net::IpAddr) -> Self {
        self.element(libc::NFT_MSG_DELSETELEM, 0, set, address, None)
    }

    fn element(self, kind: i32, flags: i32, set: Set, address: std::net::IpAddr, user_data: Option<Vec<u8>>) -> Self {
        let key = Attributes::new().with(NFTA_DATA_VALUE, address_bytes(address));
        let mut element = Attributes::new().nest(NFTA_SET_ELEM_KEY, key);
        if let Some(user_data) = user_data {
            element = element.with(NFTA_SET_ELEM_USERDATA, user_data);
        }
        self.then(kind, flags, |m| {
            m.with(NFTA_SET_ELEM_LIST_TABLE, c_string(set.table))
                .with(NFTA_SET_ELEM_LIST_SET, c_string(set.name))
                .nest(NFTA_SET_ELEM_LIST_ELEMENTS, Attributes::new().nest(NFTA_LIST_ELEM, element))
        })
    }
}

/// The packet filter of a network namespace.
#[derive(Debug)]
pub struct Nftables(Socket);

impl Nftables {
    /// Reaches it.
    pub fn open_in(netns: BorrowedFd<'_>) -> Result<Self, Error> {
        Socket::open_in(netns, Some(rustix::net::netlink::NETFILTER)).map(Self)
    }

    /// Makes all changes, or none.
    pub fn commit(&self, transaction: Transaction) -> Result<(), Error> {
        let mut messages = transaction.0;
        // Refusals are told for each message anyway; one acknowledgement tells that there was none.
        let Some(last) = messages.pop() else { return Ok(()) };
        messages.insert(0, bracket(libc::NFNL_MSG_BATCH_BEGIN));
        messages.extend([last.flagged(libc::NLM_F_ACK), bracket(libc::NFNL_MSG_BATCH_END)]);
        self.0.transact(messages)
    }

    /// The names of the tables.
    pub fn tables(&self) -> Result<Vec<String>, Error> {
        self.0.dump(&message(libc::NFT_MSG_GETTABLE, 0), dump::table)
    }

    /// The base chains of a table; none if there is no such table.
    pub fn base_chains(&self, table: &str) -> Result<Vec<ChainDump>, Error> {
        let mut all = self.0.dump(&message(libc::NFT_MSG_GETCHAIN, 0), ChainDump::read)?;
        all.retain(|chain| chain.table == table);
        Ok(all)
    }

    /// The rules of a table, each chain's in their order; none if there is no such table.
    pub fn rules(&self, table: &str) -> Result<Vec<RuleDump>, Error> {
        let asked = message(libc::NFT_MSG_GETRULE, 0).with(NFTA_RULE_TABLE, c_string(table));
        let mut all = self.0.dump(&asked, RuleDump::read)?;
        all.retain(|rule| rule.table == table);
        Ok(all)
    }
}

/// A message of nftables, about family `inet`.
fn message(kind: i32, flags: i32) -> Message {
    let kind = (libc::NFNL_SUBSYS_NFTABLES << 8) | kind;
    let family = u8::try_from(libc::NFPROTO_INET).expect("families are below 256");
    Message::new(u16::try_from(kind).expect("kinds have 16 bits"), flags, &[family, 0, 0, 0])
}

/// What begins and ends a transaction.
fn bracket(kind: i32) -> Message {
    let subsystem = u16::try_from(libc::NFNL_SUBSYS_NFTABLES).expect("subsystems have 16 bits").to_be_bytes();
    Message::new(u16::try_from(kind).expect("kinds have 16 bits"), 0, &[0, 0, subsystem[0], subsystem[1]])
}
