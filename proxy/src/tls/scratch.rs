//! Room to work in while a task is polled, lent by its thread: connections hold none while they wait, and all of a thread work
//! in the same few pages, which stay in the cache.

use std::{
    cell::RefCell,
    ops::{Deref, DerefMut},
};

/// A piece of memory with anything in it. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Scratch(Vec<u8>);

impl Scratch {
    pub(crate) fn take() -> Self {
        Self(SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; SCRATCH]))
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let space = std::mem::take(&mut self.0);
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < MOST_SPARE {
                spare.push(space);
            }
        });
    }
}

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// The length of each piece: the most that one read moves, a record that began before, and what records add.
pub(crate) const SCRATCH: usize = 288 * 1024;
/// One to read into and one to seal in; more only where streams lie in streams.
const MOST_SPARE: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_lent_again_and_little_is_kept() {
        let first = Scratch::take();
        let place = first.as_ptr();
        drop(first);

        let again = Scratch::take();
        let more: Vec<_> = (0..4).map(|_| Scratch::take()).collect();
        assert_eq!(again.as_ptr(), place);
        drop((again, more));

        assert_eq!(SPARE.with_borrow(Vec::len), MOST_SPARE);
    }
}
