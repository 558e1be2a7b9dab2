//! What a run waits for, all in one channel.

use std::sync::mpsc::Sender;
use std::time::Duration;

use serde_json::Value;

use crate::failure::{Done, Failure};

/// Something happened.
pub(crate) enum Event {
    /// A file of the project was saved.
    Saved,
    /// The sample was.
    SampleSaved,
    /// A build has ended.
    Built(Done, Duration),
    /// The proxy logged a line.
    Log(Value),
    /// The proxy served a request.
    Access(Value),
    /// The proxy has ended.
    Ended,
    /// A key was pressed.
    Key(u8),
    /// Enough.
    Quit,
}

/// Being told to end is a [`Event::Quit`]: the proxy ends first, and the terminal is put back.
pub(crate) fn signals(send: &Sender<Event>) -> Done {
    use tokio::signal::unix::{SignalKind, signal};
    let send = send.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(format!("no runtime: {error}")))?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let [terminate, interrupt] = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
            let (Ok(mut terminate), Ok(mut interrupt)) = (terminate, interrupt) else { return };
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            let _ = send.send(Event::Quit);
        });
    });
    Ok(())
}
