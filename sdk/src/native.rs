//! How a filter runs without Wasm: for `weir-sdk-testing`, which drives it from the production host.
//!
//! A filter's author needs nothing here.

pub use crate::runtime::Callback;

/// One argument of a host call, as the ABI has them, but for memory: bytes are handed over as they are.
#[derive(Debug, Clone, Copy)]
pub enum Argument<'a> {
    /// A number.
    Number(u64),
    /// A pointer and a length.
    Bytes(&'a [u8]),
    /// Where the host leaves a pointer and a length: [`Outcome::bytes`].
    OutBytes,
    /// Where the host leaves a number: [`Outcome::number`].
    OutNumber,
}

/// What a host call came to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The status it returned.
    pub status: u32,
    /// The bytes it answered with, if any.
    pub bytes: Vec<u8>,
    /// The number it answered with, if any.
    pub number: u64,
}

/// Makes host calls for a filter that runs natively.
pub trait Caller {
    /// Makes one.
    fn call(&mut self, function: &str, arguments: &[Argument<'_>]) -> Outcome;
}

/// Hands this thread's host calls to somebody, or to nobody.
pub fn install(caller: Option<Box<dyn Caller>>) {
    crate::abi::native::install(caller);
}

/// A filter whose callbacks can be called.
pub trait Instance {
    /// The callbacks that it takes.
    fn callbacks(&self) -> &'static [Callback];

    /// Runs one. The arguments are the ABI's, in its order.
    fn run(&self, callback: Callback, arguments: [u32; 5]) -> u32;
}

/// A filter that `#[register]` has registered.
pub trait Registered {
    /// A new instance of it, as if the module were loaded once more.
    fn instance() -> Box<dyn Instance>;
}
