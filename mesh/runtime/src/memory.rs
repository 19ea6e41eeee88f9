//! Memory that a process no longer uses is the machine's again.
//!
//! glibc keeps what was freed for the next who asks, in an arena for each thread, and gives back only what lies at an
//! arena's end: after a flood that filled memory with many small things, nearly nothing. It is asked to give the rest
//! back when there is much of it (decision 18). With another C library nothing is asked: they give back by themselves.

use std::io;
use std::time::Duration;

/// How often it is looked at. A look reads one small file.
const LOOK: Duration = Duration::from_secs(2);
/// So much is given back at once. Asking stops a thread that wants memory at the same moment, and what is given back costs a
/// page fault when it is wanted again: 16 MiB about 30 ms.
const MUCH: usize = 32 << 20;
/// So much is given back when it has stayed unused for [`LONG`] looks.
const SOME: usize = 4 << 20;
/// Looks between two at what is left of less than [`MUCH`]: counting it takes longer than reading a file.
const LONG: u32 = 5;

/// What the memory of a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Memory {
    /// Bytes that the process has of the machine's memory.
    resident: usize,
    /// Bytes that were asked for and not freed. The rest is code, stacks, and what the allocator keeps.
    used: usize,
}

/// What is known from earlier looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Earlier {
    /// What is unused and stays all the same: as much as there was when last it was given back, or less since.
    stays: usize,
    /// At the last look at some, there was some to give back.
    some: bool,
}

impl Earlier {
    /// True when so little is resident that not so much of it can be given back, whatever is used.
    fn is_little(self, resident: usize, than: usize) -> bool {
        resident < self.stays.saturating_add(than)
    }

    /// True when memory is to be given back: much of it at once; some of it if there was some at the last long look too.
    fn give_back(&mut self, memory: Memory, long: bool) -> bool {
        let unused = memory.resident.saturating_sub(memory.used);
        self.stays = self.stays.min(unused);
        if !self.is_little(unused, MUCH) {
            return true;
        }
        let some = !self.is_little(unused, SOME);
        if long {
            return std::mem::replace(&mut self.some, some) && some;
        }
        self.some &= some;
        false
    }

    /// After giving back, with what was left.
    fn left(memory: Memory) -> Self {
        Self { stays: memory.resident.saturating_sub(memory.used), some: false }
    }
}

/// Has unused memory given back from now on, by a thread of its own. It lives as long as the process.
///
/// # Errors
/// When the system has no thread left.
pub fn give_back() -> io::Result<()> {
    std::thread::Builder::new().name("memory".to_owned()).spawn(|| {
        let mut earlier = Earlier::default();
        for look in (1..=LONG).cycle() {
            std::thread::sleep(LOOK);
            let Some(resident) = resident() else { return };
            let long = look == LONG;
            if earlier.is_little(resident, if long { SOME } else { MUCH })
                || !earlier.give_back(Memory { resident, used: allocator::used() }, long)
            {
                continue;
            }
            allocator::give_back();
            let Some(after) = self::resident() else { return };
            earlier = Earlier::left(Memory { resident: after, used: allocator::used() });
            tracing::debug!(before = resident, after, "gave unused memory back");
        }
    })?;
    Ok(())
}

/// Resident bytes of this process. `None` where the system does not say.
fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: usize = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "glibc's allocator is spoken to by functions of C")]
mod allocator {
    /// Bytes asked for and not freed. Counted in 32 bits each, as every glibc has it: past 4 GiB it is less than the truth,
    /// and memory is given back more often than it need be.
    pub(super) fn used() -> usize {
        // SAFETY: takes nothing, returns numbers, and may be called from any thread (mallinfo(3), "MT-Unsafe init" is of the
        // first allocation of a process, which was long ago).
        let info = unsafe { libc::mallinfo() };
        // In arenas, and mapped by themselves.
        [info.uordblks, info.hblkhd].map(|bytes| bytes.cast_unsigned() as usize).iter().sum()
    }

    /// Gives every page back that holds nothing, of all arenas.
    pub(super) fn give_back() {
        // SAFETY: may be called from any thread (malloc_trim(3)); nothing that was asked for is touched.
        unsafe { libc::malloc_trim(0) };
    }
}

#[cfg(not(target_env = "gnu"))]
mod allocator {
    pub(super) fn used() -> usize {
        usize::MAX
    }

    pub(super) fn give_back() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn memory_is_given_back_when_much_of_it_is_unused() {
        // What stays, resident, used; whether it is given back at once, and what stays then.
        for (row, stays, resident, used, expected) in [
            ("at start", 0, 16, 6, (false, 0)),
            ("a flood, all of it in use", 0, 300, 290, (false, 0)),
            ("the flood has gone", 0, 300, 8, (true, 0)),
            ("what cannot be given back", 30, 38, 8, (false, 30)),
            ("a little more than that", 30, 60, 8, (false, 30)),
            ("much more", 30, 70, 8, (true, 30)),
            ("it has been used since, and what stays is less", 30, 38, 28, (false, 10)),
            ("more in use than resident: swapped out", 10, 20, 40, (false, 0)),
        ] {
            let mut earlier = Earlier { stays: stays * MIB, some: false };
            let memory = Memory { resident: resident * MIB, used: used * MIB };
            let given = earlier.give_back(memory, false);
            assert_eq!((given, earlier.stays / MIB), expected, "{row}");
            assert!(!given || !earlier.is_little(memory.resident, MUCH), "{row}: the quick look would have missed it");
        }
    }

    #[test]
    fn some_of_it_is_given_back_when_it_stays_unused() {
        let with = |unused: usize| Memory { resident: (8 + unused) * MIB, used: 8 * MIB };
        let mut earlier = Earlier::default();
        // Unused MiB, whether the look is a long one, whether it is given back.
        for (row, unused, long, expected) in [
            ("a burst has gone", 20, true, false),
            ("between the long looks", 20, false, false),
            ("it stayed unused", 20, true, true),
            ("it was in use in between", 2, false, false),
            ("and is not any more, for the first time", 20, true, false),
            ("too little", 3, true, false),
            ("again for the first time", 5, true, false),
        ] {
            assert_eq!(earlier.give_back(with(unused), long), expected, "{row}");
        }
    }

    /// Small things by the million, every hundredth of which stays; on another thread, which has an arena of its own.
    #[test]
    #[cfg(target_env = "gnu")]
    fn what_is_freed_between_what_stays_is_given_back() {
        let thread = std::thread::spawn(|| {
            let things: Vec<Box<[u8; 8_000]>> = (0..10_000).map(|n| Box::new([n as u8; 8_000])).collect();
            let full = Memory { resident: resident().unwrap(), used: allocator::used() };
            let kept: Vec<_> = things.into_iter().step_by(100).collect();
            let freed = Memory { resident: resident().unwrap(), used: allocator::used() };
            (full, freed, kept)
        });
        let (full, freed, kept) = thread.join().unwrap();
        assert!(full.used > freed.used + 70 * MIB, "{full:?}, {freed:?}");
        assert!(Earlier::default().give_back(freed, false), "{freed:?}");
        allocator::give_back();
        let after = resident().unwrap();
        assert!(after + 50 * MIB < full.resident, "{full:?}, {freed:?}, {after}");
        drop(kept);
    }
}
