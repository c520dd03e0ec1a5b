//! Step 2, what comes over the socket: is it a frame, and may its sender send it now? `commands` carries it out.

use std::task::{Context, Poll};

use natterjack_protocol::{
    Code, Refusal,
    client::{
        close,
        frame::{ClientFrame, TypingIn},
    },
    codec::Codec,
};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::{End, Session, backend::Backend, commands, frame_rate::FrameVerdict};
use crate::sends::connection::ConnectionSends;

/// Messages that are no frames, before the connection is given up.
const BAD_FRAMES: u32 = 10;

impl<B: Backend> Session<B> {
    /// Takes all that has come. Backpressure instead of refusals: what a client pipelines beyond its limit waits in its
    /// socket, in order. True: so much is under way that it may wait there now.
    pub(super) fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        while self.reads() {
            match self.socket.poll_read(cx) {
                Poll::Ready(Ok(message)) => {
                    self.heard = Instant::now();
                    self.message(message)?;
                }
                Poll::Ready(Err(gone)) => return Err(gone.into()),
                Poll::Pending => {
                    self.sends.iter().for_each(ConnectionSends::received_all);
                    break;
                }
            }
        }
        self.sends.iter_mut().for_each(ConnectionSends::publish);
        Ok(!self.reads())
    }

    fn message(&mut self, message: Message) -> Result<(), End> {
        let bytes = match (message, self.handle.codec) {
            (Message::Binary(bytes), Codec::Msgpack) => bytes,
            (Message::Text(text), Codec::Json) => text.into(),
            (Message::Ping(_) | Message::Pong(_), _) => {
                self.gives_back = true;
                return Ok(());
            }
            (Message::Close(_), _) => return Err(End::Peer),
            _ => {
                self.error(
                    None,
                    Refusal::new(Code::BadFrame, "text frames are for JSON, binary frames for MessagePack"),
                );
                return self.last_words(close::BAD_FRAME);
            }
        };
        self.services.counts.frames_in.increment(1);
        let frame = ClientFrame::decode(self.handle.codec, &bytes);
        // Tokio's clock, which a test can stop.
        match self.rate.frame(self.heard.into_std()) {
            FrameVerdict::Take => {}
            FrameVerdict::Refuse { retry_after_ms } => {
                let r = frame.as_ref().map_or_else(|bad| bad.r, commands::request);
                let cid = if let Ok(ClientFrame::Send(s)) = &frame { Some(s.cid) } else { None };
                let refusal = Refusal::new(Code::RateLimited, "too many frames; slow down");
                let thread =
                    if let Ok(ClientFrame::Typing(TypingIn { thread })) = &frame { Some(thread.clone()) } else { None };
                let refusal = Refusal { retry_after_ms: Some(retry_after_ms), cid, thread, ..refusal };
                if let Ok(ClientFrame::Send(s)) = &frame {
                    self.sends().refused(s, &refusal);
                }
                self.error(r, refusal);
                return Ok(());
            }
            FrameVerdict::Flood => return self.last_words(close::FLOOD),
        }
        match frame {
            Ok(frame) => self.command(frame),
            Err(bad) => {
                let no_frame = bad.r.is_none() && bad.refusal.code == Code::BadFrame;
                self.error(bad.r, bad.refusal);
                self.bad_frames += u32::from(no_frame);
                if self.bad_frames > BAD_FRAMES { self.last_words(close::BAD_FRAME) } else { Ok(()) }
            }
        }
    }
}
