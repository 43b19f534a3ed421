//! The buffers of a thread. Connections hold none while they wait; what cannot be passed on at once is copied out.

use std::cell::RefCell;

/// Read at once from a client: the longest head, and what of the body came with it.
const INPUT: usize = 32 * 1024;
/// Read at once from a leg.
const LEG: usize = 64 * 1024;

pub(crate) struct Scratch {
    /// Filled from the client.
    pub(crate) input: Vec<u8>,
    /// Filled from the leg.
    pub(crate) leg: Vec<u8>,
    /// To be written. Empty at the start.
    pub(crate) out: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const {
        RefCell::new(Scratch { input: Vec::new(), leg: Vec::new(), out: Vec::new() })
    };
}

/// Lends the thread's buffers. Not to be nested.
pub(crate) fn with<T>(head_limit: usize, work: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.input.len() < input_room(head_limit) {
            scratch.input.resize(input_room(head_limit), 0);
        }
        scratch.leg.resize(LEG, 0);
        scratch.out.clear();
        work(scratch)
    })
}

/// The least `input` has room for.
pub(crate) fn input_room(head_limit: usize) -> usize {
    INPUT.max(head_limit + 1)
}
