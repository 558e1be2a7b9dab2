//! Keys of a terminal, one by one, and the terminal as it was afterwards.

use std::io::{IsTerminal, Read};
use std::sync::mpsc::Sender;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::Event;

/// The terminal's own ways, put back at the end.
pub(crate) struct Keys(Option<Termios>);

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(before) = self.0.take() {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
        }
    }
}

/// Whether there is somebody to press them.
pub(crate) fn are_there() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Reads keys from now on; nothing happens without a terminal.
pub(crate) fn start(send: &Sender<Event>) -> Keys {
    let Some(before) = are_there().then(|| tcgetattr(std::io::stdin()).ok()).flatten() else { return Keys(None) };
    let mut each = before.clone();
    // Ctrl-C comes as a key too, so that the terminal is always put back.
    each.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
    if tcsetattr(std::io::stdin(), OptionalActions::Now, &each).is_err() {
        return Keys(None);
    }
    let send = send.clone();
    std::thread::spawn(move || {
        for key in std::io::stdin().lock().bytes().map_while(Result::ok) {
            let event = if matches!(key, b'q' | 3 | 4) { Event::Quit } else { Event::Key(key) };
            if send.send(event).is_err() {
                return;
            }
        }
    });
    Keys(Some(before))
}
