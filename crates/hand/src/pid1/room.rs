//! Room for bytes that are about to come.

use std::mem::MaybeUninit;

/// So many bytes, of which only those that come take memory: the same on the stack would be touched as a whole, stay
/// this process's for good, and be copied for every command.
pub fn room(bytes: usize) -> Box<[MaybeUninit<u8>]> {
    Box::new_uninit_slice(bytes)
}
