//! The launcher's side of the conversation.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::sandbox::protocol::{FRAME_BYTES_MAX, HEADER_BYTES, MESSAGE, Message};

/// Writes frames to standard output, each in one piece.
pub(super) struct Wire {
    output: Mutex<Option<File>>,
    done: AtomicBool,
}

impl Wire {
    pub(super) fn new() -> Self {
        let output = std::io::stdout().as_fd().try_clone_to_owned().map(File::from).ok();
        Self { output: Mutex::new(output), done: AtomicBool::new(false) }
    }

    /// Writes one frame. A runner that is gone is noticed elsewhere: its end of standard input closes too.
    pub(super) fn frame(&self, kind: u8, content: &[u8]) {
        for part in content.chunks(FRAME_BYTES_MAX) {
            let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
            let mut frame = Vec::with_capacity(HEADER_BYTES + part.len());
            frame.push(kind);
            frame.extend_from_slice(&length.to_le_bytes());
            frame.extend_from_slice(part);
            let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
            let broken = output.as_mut().is_none_or(|output| output.write_all(&frame).is_err());
            if broken {
                *output = None;
            }
        }
    }

    /// Tells that all was done, once.
    pub(super) fn done(&self) {
        if !self.done.swap(true, Ordering::Relaxed) {
            self.tell(&Message::Done);
        }
    }

    pub(super) fn tell(&self, message: &Message) {
        let mut text = serde_json::to_vec(message).unwrap_or_default();
        if text.len() > FRAME_BYTES_MAX {
            text = serde_json::to_vec(&Message::Failed("the launcher had too much to say".to_owned()))
                .unwrap_or_default();
        }
        self.frame(MESSAGE, &text);
    }
}
