//! The meter sees the same frames however the bytes are cut.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::{frames::*, *};

/// Gives bytes in pieces of these sizes, again and again.
struct Pieces {
    bytes: Vec<u8>,
    at: usize,
    sizes: Vec<usize>,
    turn: usize,
}

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let size = self.sizes[self.turn % self.sizes.len()].min(self.bytes.len() - self.at).min(buffer.remaining());
        buffer.put_slice(&self.bytes[self.at..self.at + size]);
        self.at += size;
        self.turn += 1;
        Poll::Ready(Ok(()))
    }
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    (0_u8..12, any::<u8>(), 0_u32..9, prop::collection::vec(any::<u8>(), 0..60))
        // No PING, so that the flood's end is the only one; no blocks of headers without end.
        .prop_filter("not what is counted", |(kind, ..)| !matches!(*kind, PING | HEADERS | CONTINUATION))
        .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload))
}

proptest! {
    #[test]
    fn frames_are_found_however_they_are_cut(
        noise in prop::collection::vec(any_frame(), 0..30),
        sizes in prop::collection::vec(1_usize..40, 1..8),
        pings in 1_u32..20,
    ) {
        let mut bytes = PREFACE.to_vec();
        for index in 0..pings {
            bytes.extend(noise.get(index as usize).into_iter().flatten());
            bytes.extend(frame(PING, 0, 0, b"12345678"));
        }
        for budget in [pings - 1, pings] {
            let budgets = meter::Budgets { resets: 1000, idle_frames: budget, header_bytes: 1000, continuations: 5 };
            // Noise has its own budget: only PING may pass it here.
            if noise.len() as u32 > budget {
                continue;
            }
            let pieces = Pieces { bytes: bytes.clone(), at: 0, sizes: sizes.clone(), turn: 0 };
            let mut metered = meter::Metered::server(pieces, Bytes::new(), budgets);
            let mut read = Vec::new();
            let whole = metered.read_to_end(&mut read);
            let mut whole = std::pin::pin!(whole);
            let finished = whole.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
            prop_assert_eq!(finished, budget == pings);
            let signals = metered.signals();
            prop_assert_eq!(signals.verdict(), (budget < pings).then_some(meter::Abuse::PingFlood));
            if finished {
                prop_assert_eq!(&read, &bytes);
            }
        }
    }
}
