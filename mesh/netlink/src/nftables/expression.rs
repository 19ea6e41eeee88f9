//! The kernel's expressions: a rule is a list of them, and each works on registers. All of ours use the first register, and
//! the second for a port beside an address.

use super::numbers::NFTA_DATA_VALUE;
use crate::message::{Attributes, attribute, be_number, c_string, text};

const FIRST: u32 = 1;
const SECOND: u32 = 2;
/// `NFT_REG_VERDICT`: what is loaded here decides.
const VERDICT: u32 = 0;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;
const NFTA_META_SREG: u16 = 3;
const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const NFTA_CT_DIRECTION: u16 = 3;
const NFTA_CT_SREG: u16 = 4;
const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFTA_BITWISE_SREG: u16 = 1;
const NFTA_BITWISE_DREG: u16 = 2;
const NFTA_BITWISE_LEN: u16 = 3;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_BITWISE_XOR: u16 = 5;
const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFTA_LOOKUP_SET: u16 = 1;
const NFTA_LOOKUP_SREG: u16 = 2;
const NFTA_NG_DREG: u16 = 1;
const NFTA_NG_MODULUS: u16 = 2;
const NFTA_NG_TYPE: u16 = 3;
const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_REDIR_REG_PROTO_MIN: u16 = 1;
const NFTA_NAT_TYPE: u16 = 1;
const NFTA_NAT_FAMILY: u16 = 2;
const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
const NFTA_NAT_REG_PROTO_MIN: u16 = 5;

/// What is known of a packet beside its bytes (`NFT_META_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaKey {
    /// Its mark.
    Mark,
    /// The name of the interface by which it came in.
    InInterface,
    /// The name of the interface by which it leaves.
    OutInterface,
    /// The user whose socket sends it.
    User,
    /// IPv4 or IPv6 (`NFPROTO_*`).
    Family,
    /// The transport protocol's number.
    Transport,
}

/// What is known of a packet's connection (`NFT_CT_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CtKey {
    /// Its mark.
    Mark,
    /// The zone in which it is tracked.
    Zone,
}

/// From where on a packet's bytes are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The IP header.
    Network,
    /// The TCP or UDP header.
    Transport,
}

/// How a register is compared with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// Is the value.
    Equal,
    /// Is not the value.
    Differs,
}

/// What happens to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It passes this hook's chain.
    Accept,
    /// The chain that jumped here goes on.
    Return,
    /// This chain is asked.
    Jump(String),
}

/// One expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// Loads what is known of the packet.
    Meta(MetaKey),
    /// Changes what is known of the packet to what is loaded.
    SetMeta(MetaKey),
    /// Loads what is known of the connection.
    Ct(CtKey),
    /// Changes what is known of the connection to what is loaded; of what its opener sends only, if `original`.
    SetCt {
        /// What is changed.
        key: CtKey,
        /// In the direction of its opener only.
        original: bool,
    },
    /// Loads bytes of the packet.
    Payload {
        /// From where they are counted.
        part: Part,
        /// The first.
        offset: u32,
        /// How many.
        len: u32,
    },
    /// What is loaded becomes `(loaded & mask) ^ xor`.
    Bitwise {
        /// The bits that stay.
        mask: Vec<u8>,
        /// The bits that are turned then.
        xor: Vec<u8>,
    },
    /// Ends the rule unless what is loaded compares so.
    Compare(Operator, Vec<u8>),
    /// Ends the rule unless what is loaded is in this set.
    Lookup(String),
    /// Loads a random number below this one.
    Random(u32),
    /// Loads this value.
    Load(Vec<u8>),
    /// Loads this port beside an address.
    LoadPort(u16),
    /// Counts the packet.
    Counter,
    /// Decides.
    Verdict(Verdict),
    /// To the port that is loaded, on this machine.
    Redirect,
    /// From the address of the interface by which it leaves.
    Masquerade,
    /// The connection's source (or destination) becomes the address that is loaded.
    Translate {
        /// Its destination, not its source.
        destination: bool,
        /// IPv6, not IPv4.
        v6: bool,
        /// And the port that is loaded beside.
        port: bool,
    },
}

impl MetaKey {
    const ALL: [Self; 6] =
        [Self::Mark, Self::InInterface, Self::OutInterface, Self::User, Self::Family, Self::Transport];

    fn number(self) -> u32 {
        unsigned(match self {
            Self::Mark => libc::NFT_META_MARK,
            Self::InInterface => libc::NFT_META_IIFNAME,
            Self::OutInterface => libc::NFT_META_OIFNAME,
            Self::User => libc::NFT_META_SKUID,
            Self::Family => libc::NFT_META_NFPROTO,
            Self::Transport => libc::NFT_META_L4PROTO,
        })
    }
}

impl CtKey {
    const ALL: [Self; 2] = [Self::Mark, Self::Zone];

    fn number(self) -> u32 {
        unsigned(match self {
            Self::Mark => libc::NFT_CT_MARK,
            Self::Zone => libc::NFT_CT_ZONE,
        })
    }
}

impl Part {
    const ALL: [Self; 2] = [Self::Network, Self::Transport];

    fn number(self) -> u32 {
        unsigned(match self {
            Self::Network => libc::NFT_PAYLOAD_NETWORK_HEADER,
            Self::Transport => libc::NFT_PAYLOAD_TRANSPORT_HEADER,
        })
    }
}

impl Operator {
    const ALL: [Self; 2] = [Self::Equal, Self::Differs];

    fn number(self) -> u32 {
        unsigned(match self {
            Self::Equal => libc::NFT_CMP_EQ,
            Self::Differs => libc::NFT_CMP_NEQ,
        })
    }
}

impl Verdict {
    fn write(&self) -> Attributes {
        let code = match self {
            Self::Accept => libc::NF_ACCEPT,
            Self::Return => libc::NFT_RETURN,
            Self::Jump(_) => libc::NFT_JUMP,
        };
        let mut verdict = Attributes::new().with(NFTA_VERDICT_CODE, code.to_be_bytes());
        if let Self::Jump(chain) = self {
            verdict = verdict.with(NFTA_VERDICT_CHAIN, c_string(chain));
        }
        Attributes::new().nest(NFTA_DATA_VERDICT, verdict)
    }

    fn read(verdict: &[u8]) -> Option<Self> {
        let code = attribute(verdict, NFTA_VERDICT_CODE)?;
        match i32::from_be_bytes(code.try_into().ok()?) {
            libc::NF_ACCEPT => Some(Self::Accept),
            libc::NFT_RETURN => Some(Self::Return),
            libc::NFT_JUMP => Some(Self::Jump(attribute(verdict, NFTA_VERDICT_CHAIN).and_then(text)?.to_owned())),
            _ => None,
        }
    }
}

impl Expression {
    /// As an element of a rule's list.
    pub(super) fn write(&self) -> Attributes {
        let (name, data) = self.parts();
        let named = Attributes::new().with(NFTA_EXPR_NAME, c_string(name));
        named.nest(NFTA_EXPR_DATA, data)
    }

    fn parts(&self) -> (&'static str, Attributes) {
        let none = Attributes::new;
        match self {
            Self::Meta(key) => ("meta", none().with(NFTA_META_KEY, be(key.number())).with(NFTA_META_DREG, be(FIRST))),
            Self::SetMeta(key) => {
                ("meta", none().with(NFTA_META_KEY, be(key.number())).with(NFTA_META_SREG, be(FIRST)))
            }
            Self::Ct(key) => ("ct", none().with(NFTA_CT_KEY, be(key.number())).with(NFTA_CT_DREG, be(FIRST))),
            Self::SetCt { key, original } => {
                let set = none().with(NFTA_CT_KEY, be(key.number())).with(NFTA_CT_SREG, be(FIRST));
                ("ct", if *original { set.with(NFTA_CT_DIRECTION, [ORIGINAL]) } else { set })
            }
            Self::Payload { part, offset, len } => {
                let from = none().with(NFTA_PAYLOAD_DREG, be(FIRST)).with(NFTA_PAYLOAD_BASE, be(part.number()));
                ("payload", from.with(NFTA_PAYLOAD_OFFSET, be(*offset)).with(NFTA_PAYLOAD_LEN, be(*len)))
            }
            Self::Bitwise { mask, xor } => {
                let registers = none().with(NFTA_BITWISE_SREG, be(FIRST)).with(NFTA_BITWISE_DREG, be(FIRST));
                let len = u32::try_from(mask.len()).expect("a register is short");
                let sized = registers.with(NFTA_BITWISE_LEN, be(len));
                ("bitwise", sized.nest(NFTA_BITWISE_MASK, value(mask)).nest(NFTA_BITWISE_XOR, value(xor)))
            }
            Self::Compare(operator, with) => {
                let compare = none().with(NFTA_CMP_SREG, be(FIRST)).with(NFTA_CMP_OP, be(operator.number()));
                ("cmp", compare.nest(NFTA_CMP_DATA, value(with)))
            }
            Self::Lookup(set) => {
                ("lookup", none().with(NFTA_LOOKUP_SET, c_string(set)).with(NFTA_LOOKUP_SREG, be(FIRST)))
            }
            Self::Random(below) => {
                let random = none().with(NFTA_NG_DREG, be(FIRST)).with(NFTA_NG_MODULUS, be(*below));
                ("numgen", random.with(NFTA_NG_TYPE, be(unsigned(libc::NFT_NG_RANDOM))))
            }
            Self::Load(loaded) => ("immediate", immediate(FIRST, value(loaded))),
            Self::LoadPort(port) => ("immediate", immediate(SECOND, value(&port.to_be_bytes()))),
            Self::Counter => ("counter", none()),
            Self::Verdict(verdict) => ("immediate", immediate(VERDICT, verdict.write())),
            Self::Redirect => ("redir", none().with(NFTA_REDIR_REG_PROTO_MIN, be(FIRST))),
            Self::Masquerade => ("masq", none()),
            Self::Translate { destination, v6, port } => {
                let kind = unsigned(if *destination { libc::NFT_NAT_DNAT } else { libc::NFT_NAT_SNAT });
                let family = unsigned(if *v6 { libc::NFPROTO_IPV6 } else { libc::NFPROTO_IPV4 });
                let nat = none().with(NFTA_NAT_TYPE, be(kind)).with(NFTA_NAT_FAMILY, be(family));
                let nat = nat.with(NFTA_NAT_REG_ADDR_MIN, be(FIRST));
                ("nat", if *port { nat.with(NFTA_NAT_REG_PROTO_MIN, be(SECOND)) } else { nat })
            }
        }
    }

    /// As the kernel lists it. `None` for what no redirection of a pod has: another kind, another register, another key.
    pub(super) fn read(element: &[u8]) -> Option<Self> {
        let name = attribute(element, NFTA_EXPR_NAME).and_then(text)?;
        let data = attribute(element, NFTA_EXPR_DATA).unwrap_or_default();
        let field = |kind| attribute(data, kind).and_then(be_number);
        let bytes = |kind| Some(attribute(attribute(data, kind)?, NFTA_DATA_VALUE)?.to_vec());
        match name {
            "meta" => {
                let key = MetaKey::ALL.into_iter().find(|key| Some(key.number()) == field(NFTA_META_KEY))?;
                loads_or_sets(field(NFTA_META_DREG), field(NFTA_META_SREG), Self::Meta(key), Self::SetMeta(key))
            }
            "ct" => {
                let key = CtKey::ALL.into_iter().find(|key| Some(key.number()) == field(NFTA_CT_KEY))?;
                let original = match attribute(data, NFTA_CT_DIRECTION) {
                    None => false,
                    Some([ORIGINAL]) => true,
                    Some(_) => return None,
                };
                let loads = (!original).then_some(Self::Ct(key));
                match (field(NFTA_CT_DREG), field(NFTA_CT_SREG)) {
                    (Some(FIRST), None) => loads,
                    (None, Some(FIRST)) => Some(Self::SetCt { key, original }),
                    _ => None,
                }
            }
            "payload" if field(NFTA_PAYLOAD_DREG) == Some(FIRST) => {
                let part = Part::ALL.into_iter().find(|part| Some(part.number()) == field(NFTA_PAYLOAD_BASE))?;
                Some(Self::Payload { part, offset: field(NFTA_PAYLOAD_OFFSET)?, len: field(NFTA_PAYLOAD_LEN)? })
            }
            "bitwise" if field(NFTA_BITWISE_SREG) == Some(FIRST) && field(NFTA_BITWISE_DREG) == Some(FIRST) => {
                Some(Self::Bitwise { mask: bytes(NFTA_BITWISE_MASK)?, xor: bytes(NFTA_BITWISE_XOR)? })
            }
            "cmp" if field(NFTA_CMP_SREG) == Some(FIRST) => {
                let operator = Operator::ALL.into_iter().find(|op| Some(op.number()) == field(NFTA_CMP_OP))?;
                Some(Self::Compare(operator, bytes(NFTA_CMP_DATA)?))
            }
            "immediate" => match field(NFTA_IMMEDIATE_DREG)? {
                VERDICT => {
                    let verdict = attribute(attribute(data, NFTA_IMMEDIATE_DATA)?, NFTA_DATA_VERDICT)?;
                    Verdict::read(verdict).map(Self::Verdict)
                }
                FIRST => bytes(NFTA_IMMEDIATE_DATA).map(Self::Load),
                _ => None,
            },
            "counter" => Some(Self::Counter),
            "redir" if field(NFTA_REDIR_REG_PROTO_MIN) == Some(FIRST) => Some(Self::Redirect),
            _ => None,
        }
    }
}

/// `IP_CT_DIR_ORIGINAL`: what the opener of a connection sends.
const ORIGINAL: u8 = 0;

fn loads_or_sets(to: Option<u32>, from: Option<u32>, loads: Expression, sets: Expression) -> Option<Expression> {
    match (to, from) {
        (Some(FIRST), None) => Some(loads),
        (None, Some(FIRST)) => Some(sets),
        _ => None,
    }
}

fn immediate(register: u32, data: Attributes) -> Attributes {
    Attributes::new().with(NFTA_IMMEDIATE_DREG, be(register)).nest(NFTA_IMMEDIATE_DATA, data)
}

fn value(bytes: &[u8]) -> Attributes {
    Attributes::new().with(NFTA_DATA_VALUE, bytes)
}

fn be(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

fn unsigned(number: i32) -> u32 {
    u32::try_from(number).expect("the kernel's numbers here are positive")
}
