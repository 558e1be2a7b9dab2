//! Where the host's answers lie.
//!
//! A bump arena: the host asks for room by the allocator's export, the bytes are lent until the next callback begins, and then the room is used again.
//! What always holds: a block that was lent does not move or go before [`begin`]; after a callback that needed much, at most [`KEEP`] is kept.

#![allow(unsafe_code, reason = "lends bytes of blocks it owns for longer than the borrow checker can see")]

use std::cell::RefCell;

/// Room that is kept between callbacks, and the least that is asked for at a time.
const KEEP: usize = 64 << 10;

thread_local! {
    static ARENA: RefCell<Arena> = const { RefCell::new(Arena { blocks: Vec::new(), used: 0 }) };
}

struct Arena {
    /// The last one is being filled.
    blocks: Vec<Box<[u8]>>,
    /// How much of the last block.
    used: usize,
}

/// Gives all room away again: the first thing in every callback.
#[inline]
pub(crate) fn begin() {
    ARENA.with_borrow_mut(|arena| {
        arena.used = 0;
        if arena.blocks.len() > 1 || arena.blocks.first().is_some_and(|block| block.len() > KEEP) {
            arena.blocks.clear();
        }
    });
}

impl Arena {
    /// Room for so many bytes. Null when there is no more memory in the world.
    fn take(&mut self, size: usize) -> *mut u8 {
        let fits = self.blocks.last().is_some_and(|block| block.len() - self.used >= size);
        if !fits {
            let mut block = Vec::new();
            let wanted = size.max(KEEP);
            if block.try_reserve_exact(wanted).is_err() {
                return std::ptr::null_mut();
            }
            block.resize(wanted, 0);
            self.blocks.push(block.into_boxed_slice());
            self.used = 0;
        }
        let Some(block) = self.blocks.last_mut() else { return std::ptr::null_mut() };
        let at = block[self.used..].as_mut_ptr();
        self.used += size;
        at
    }
}

/// What the host calls to put an answer somewhere.
#[cfg(target_arch = "wasm32")]
#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    ARENA.with_borrow_mut(|arena| arena.take(size))
}

/// The answer that the host put there.
#[cfg(target_arch = "wasm32")]
#[inline]
pub(super) fn lent<'a>(data: *const u8, size: usize) -> &'a [u8] {
    if data.is_null() || size == 0 {
        return &[];
    }
    // SAFETY: the host wrote `size` bytes into room that the allocator above gave it for that; the room is used again only after the next `begin`,
    // at the start of the next callback, and what this lends is bound to the callback by the types that hand it on.
    unsafe { std::slice::from_raw_parts(data, size) }
}

/// Copies an answer into the arena.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn keep<'a>(bytes: &[u8]) -> &'a [u8] {
    ARENA.with_borrow_mut(|arena| {
        let at = arena.take(bytes.len());
        if at.is_null() {
            return &[][..];
        }
        // SAFETY: `take` gave room for so many bytes, which nobody else has; it lives until the next `begin`, as on wasm32.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len());
            std::slice::from_raw_parts(at, bytes.len())
        }
    })
}
