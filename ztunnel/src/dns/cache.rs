//! What others answered, for as long as they said it holds. One cache for each pod: a pod can make its own network
//! lie to ztunnel, and must not be able to lie to other pods.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::message::{self, Lifetime, Query};

/// Most answers remembered of one pod.
const MAX_ENTRIES: usize = 512;
/// Most bytes remembered of one pod, questions and answers: some 16 MiB on a node with 250 pods.
const MAX_BYTES: usize = 64 * 1024;
/// Longer answers are not remembered.
const MAX_ANSWER: usize = 4096;
/// Nothing is remembered for longer, so that no mistake lasts.
const MAX_LIFETIME: Duration = Duration::from_secs(300);
/// An absence ends when somebody makes the name: it is asked for again soon.
const MAX_ABSENCE: Duration = Duration::from_secs(30);

/// Answers by the very bytes of the question, so that each is right for its asker in every respect: its EDNS, its
/// flags, the case of its letters.
#[derive(Default)]
pub(crate) struct Cache {
    entries: HashMap<Rc<[u8]>, Entry>,
    /// Oldest first.
    order: BTreeMap<u64, Rc<[u8]>>,
    next: u64,
    bytes: usize,
}

struct Entry {
    answer: Box<[u8]>,
    lifetime: Lifetime,
    since: Instant,
    number: u64,
}

/// What makes a query the same as another: all but its id, and how it came, for what fits over TCP may not over UDP.
/// None when it is like no other.
fn key(packet: &[u8], query: &Query, tcp: bool) -> Option<Rc<[u8]>> {
    const MAX_KEY: usize = 512;
    if query.question.is_none() || query.edns.is_some_and(|edns| edns.options) || packet.len() > MAX_KEY {
        return None;
    }
    Some(std::iter::once(u8::from(tcp)).chain(packet[2..].iter().copied()).collect())
}

impl Cache {
    /// The answer to a query, with the query's id and what is left of its TTLs.
    pub(crate) fn get(&mut self, packet: &[u8], query: &Query, tcp: bool, now: Instant) -> Option<Vec<u8>> {
        let key = key(packet, query, tcp)?;
        let entry = self.entries.get(&key)?;
        let passed = now.saturating_duration_since(entry.since);
        if passed >= entry.lifetime.lasts {
            self.forget(&key);
            return None;
        }
        let mut answer = entry.answer.to_vec();
        message::set_id(&mut answer, message::id(packet));
        message::age(&mut answer, &entry.lifetime, passed);
        Some(answer)
    }

    /// Remembers an answer, if it says that it may be.
    pub(crate) fn put(&mut self, packet: &[u8], query: &Query, tcp: bool, answer: &[u8], now: Instant) {
        let Some(key) = key(packet, query, tcp).filter(|_| answer.len() <= MAX_ANSWER) else { return };
        let Some(mut lifetime) = message::lifetime(answer) else { return };
        let longest = if message::is_absence(answer) { MAX_ABSENCE } else { MAX_LIFETIME };
        lifetime.lasts = lifetime.lasts.min(longest);
        self.forget(&key);
        self.bytes += key.len() + answer.len();
        self.order.insert(self.next, key.clone());
        self.entries.insert(key, Entry { answer: answer.into(), lifetime, since: now, number: self.next });
        self.next += 1;
        while self.entries.len() > MAX_ENTRIES || self.bytes > MAX_BYTES {
            let Some(oldest) = self.order.first_entry().map(|entry| entry.get().clone()) else { break };
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, key: &Rc<[u8]>) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.number);
            self.bytes -= key.len() + entry.answer.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::{query, response, with_edns_option};
    use super::*;

    fn asked(packet: &[u8]) -> Query {
        message::read(packet).unwrap()
    }

    #[test]
    fn an_answer_ages_and_ends() {
        let mut cache = Cache::default();
        let now = Instant::now();
        let packet = query(7, "a.example", 1);
        let answer = response(&packet, 0, &[("a.example", 1, 60, &[192, 0, 2, 1])], &[]);
        cache.put(&packet, &asked(&packet), false, &answer, now);

        let again = query(8, "a.example", 1);
        let later = cache.get(&again, &asked(&again), false, now + Duration::from_secs(10)).unwrap();
        assert_eq!(message::id(&later), [0, 8], "the asker's id");
        let ttl_at = later.len() - 10;
        assert_eq!(later[ttl_at..ttl_at + 4], 50_u32.to_be_bytes());
        assert_eq!(later[2..ttl_at], answer[2..ttl_at], "else byte for byte");
        assert_eq!(cache.get(&again, &asked(&again), true, now), None, "an answer over UDP is no answer over TCP");
        let other = query(8, "A.example", 1);
        assert_eq!(cache.get(&other, &asked(&other), false, now), None, "the letters' case comes back as it was sent");
        assert_eq!(cache.get(&again, &asked(&again), false, now + Duration::from_secs(60)), None);
        assert_eq!((cache.bytes, cache.order.len()), (0, 0));
    }

    #[test]
    fn what_is_not_remembered() {
        let packet = query(7, "a.example", 1);
        let address = ("a.example", 1, 60, &[192, 0, 2, 1][..]);
        let cookie = with_edns_option(&packet);
        let mut truncated = response(&packet, 0, &[address], &[]);
        truncated[2] |= 2;
        for (what, packet, answer) in [
            ("a failure", &packet, response(&packet, 2, &[], &[])),
            ("no TTL", &packet, response(&packet, 0, &[("a.example", 1, 0, &[192, 0, 2, 1])], &[])),
            ("an absence without SOA", &packet, response(&packet, 3, &[], &[])),
            ("a part", &packet, truncated),
            ("an answer to one client", &cookie, response(&packet, 0, &[address], &[])),
        ] {
            let mut cache = Cache::default();
            cache.put(packet, &asked(packet), false, &answer, Instant::now());
            assert!(cache.entries.is_empty(), "{what}");
        }
    }

    #[test]
    fn an_absence_is_remembered_briefly() {
        let mut cache = Cache::default();
        let now = Instant::now();
        let packet = query(7, "none.example", 1);
        let soa = [&[0, 0][..], &[0; 16], &3600_u32.to_be_bytes()].concat();
        cache.put(&packet, &asked(&packet), false, &response(&packet, 3, &[], &[("example", 6, 3600, &soa)]), now);
        assert!(cache.get(&packet, &asked(&packet), false, now + Duration::from_secs(29)).is_some());
        assert!(cache.get(&packet, &asked(&packet), false, now + Duration::from_secs(30)).is_none());
    }

    #[test]
    fn it_never_grows_past_its_bounds() {
        let mut cache = Cache::default();
        let now = Instant::now();
        for i in 0..2000 {
            let packet = query(7, &format!("n{i}.example"), 1);
            let name = format!("n{i}.example");
            let records = vec![(name.as_str(), 1, 60, &[192, 0, 2, 1][..]); 1 + i % 50];
            cache.put(&packet, &asked(&packet), false, &response(&packet, 0, &records, &[]), now);
            assert!(cache.entries.len() <= MAX_ENTRIES && cache.bytes <= MAX_BYTES);
            assert_eq!(cache.entries.len(), cache.order.len());
            assert!(cache.get(&packet, &asked(&packet), false, now).is_some(), "the newest stays");
        }
    }
}
