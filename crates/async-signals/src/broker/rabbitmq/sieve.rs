//! Keeps from lapin what it cannot read.
//!
//! RabbitMQ passes on what a publisher wrote: routing keys, names and short
//! texts that are no UTF-8, and headers that nest as deep as a frame is long.
//! lapin breaks the connection over the former, and over the latter overflows
//! its thread's stack, which ends the process. Either way the message goes back
//! into its queue, for the next worker to fall over.
//!
//! So everything that comes in passes here, and is amended in its place, its
//! length unchanged: a byte that is no UTF-8 becomes a question mark, and a
//! table or an array that nests too deep becomes what it is on the wire, an
//! array of bytes.
//!
//! Frames: <https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf>, 2.3.5 and 4.2;
//! types of fields: <https://www.rabbitmq.com/amqp-0-9-1-errata.html#section_3>.

use std::{
    io,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// How deep a header may nest.
const DEPTH: usize = 64;

/// How many bytes are read at a time.
const CHUNK: usize = 64 << 10;

/// The longest frame that is looked at: longer ones lapin does not take anyway.
const LONGEST: usize = 16 << 20;

/// A frame's type, channel and length come before its payload, and one byte after it.
const FRAME_HEADER: usize = 7;
const FRAME_END: usize = 1;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// `basic.deliver`, by its class and its number.
const DELIVER: [u8; 4] = [0, 60, 0, 60];

/// A peer whose frames are amended.
pub(super) struct Sieve<W> {
    wire: W,
    bytes: BytesMut,
    /// How many of them are fit to be read.
    fit: usize,
    /// How many that come after those are fit as well, whatever they are.
    passing: usize,
}

impl<W> Sieve<W> {
    pub(super) fn new(wire: W) -> Self {
        Self { wire, bytes: BytesMut::new(), fit: 0, passing: 0 }
    }

    /// The peer, to write to.
    pub(super) fn wire(&mut self) -> &mut W {
        &mut self.wire
    }

    /// Amends all frames that are there as a whole.
    fn sift(&mut self) {
        loop {
            let rest = &mut self.bytes[self.fit..];
            if self.passing > 0 {
                let passed = self.passing.min(rest.len());
                self.fit += passed;
                self.passing -= passed;
                if self.passing > 0 {
                    return;
                }
                continue;
            }
            let Some([kind, _, _, length @ ..]) = rest.first_chunk::<FRAME_HEADER>() else { return };
            let (kind, length) = (*kind, u32::from_be_bytes(*length) as usize);
            let end = FRAME_HEADER + length;
            match kind {
                METHOD | HEADER if length <= LONGEST => {
                    if rest.len() < end + FRAME_END {
                        return;
                    }
                    amend(kind, &mut rest[FRAME_HEADER..end]);
                    self.fit += end + FRAME_END;
                }
                METHOD | HEADER | BODY | HEARTBEAT => self.passing = end + FRAME_END,
                // Whoever this is speaks no AMQP: let lapin say so.
                _ => self.passing = usize::MAX,
            }
        }
    }
}

impl<W: AsyncRead + Unpin> AsyncRead for Sieve<W> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.fit == 0 {
            this.bytes.reserve(CHUNK);
            if ready!(poll_read_buf(Pin::new(&mut this.wire), context, &mut this.bytes))? == 0 {
                return Poll::Ready(Ok(()));
            }
            this.sift();
        }
        let read = this.fit.min(buffer.remaining());
        buffer.put_slice(&this.bytes[..read]);
        this.bytes.advance(read);
        this.fit -= read;
        Poll::Ready(Ok(()))
    }
}

fn amend(kind: u8, payload: &mut [u8]) {
    let mut fields = Fields { bytes: payload, at: 0 };
    // What ends too early is lapin's to complain of.
    let _ = if kind == HEADER { fields.content_header() } else { fields.method() };
}

/// Walks over a payload.
struct Fields<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Fields<'_> {
    fn method(&mut self) -> Option<()> {
        if self.bytes.first_chunk() != Some(&DELIVER) {
            return Some(());
        }
        self.skip(DELIVER.len())?;
        self.short_text()?;
        // The delivery tag, and whether it is redelivered.
        self.skip(9)?;
        self.short_text()?;
        self.short_text()
    }

    fn content_header(&mut self) -> Option<()> {
        // Class, weight, and the length of the body.
        self.skip(12)?;
        let flags = self.take(2)?;
        let flags = u16::from_be_bytes([self.bytes[flags.start], self.bytes[flags.start + 1]]);
        // In the order of their flags, from the highest: content_type, content_encoding, headers,
        // delivery_mode, priority, correlation_id, reply_to, expiration, message_id, timestamp,
        // type, user_id, app_id, cluster_id.
        for property in (0..14).filter(|property| flags & (0x8000 >> property) != 0) {
            match property {
                2 => {
                    let table = self.long()?;
                    self.table(table.end, DEPTH)?;
                }
                3 | 4 => self.skip(1)?,
                9 => self.skip(8)?,
                _ => self.short_text()?,
            }
        }
        Some(())
    }

    fn table(&mut self, end: usize, depth: usize) -> Option<()> {
        while self.at < end {
            self.short_text()?;
            self.value(depth)?;
        }
        Some(())
    }

    fn array(&mut self, end: usize, depth: usize) -> Option<()> {
        while self.at < end {
            self.value(depth)?;
        }
        Some(())
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        let kind = self.take(1)?.start;
        match self.bytes[kind] {
            b'V' => Some(()),
            b't' | b'b' | b'B' => self.skip(1),
            b's' | b'U' | b'u' => self.skip(2),
            b'I' | b'i' | b'f' => self.skip(4),
            b'D' => self.skip(5),
            b'L' | b'l' | b'd' | b'T' => self.skip(8),
            b'S' | b'x' => {
                let content = self.long()?;
                self.at = content.end;
                Some(())
            }
            nesting @ (b'A' | b'F') => {
                let content = self.long()?;
                let fits = match (depth.checked_sub(1), nesting) {
                    (None, _) => None,
                    (Some(depth), b'A') => self.array(content.end, depth),
                    (Some(depth), _) => self.table(content.end, depth),
                };
                if fits.is_none() || self.at != content.end {
                    self.bytes[kind] = b'x';
                    self.at = content.end;
                }
                Some(())
            }
            _ => None,
        }
    }

    /// The content of what has its length in four bytes before it, not walked over yet.
    fn long(&mut self) -> Option<Range<usize>> {
        let length = self.take(4)?;
        let length = self.bytes[length].first_chunk().map(|bytes| u32::from_be_bytes(*bytes))? as usize;
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
        Some(self.at..end)
    }

    /// What has its length in one byte before it, and is text.
    fn short_text(&mut self) -> Option<()> {
        let length = self.take(1)?;
        let text = self.take(self.bytes[length.start].into())?;
        let mut text = &mut self.bytes[text];
        while let Err(error) = str::from_utf8(text) {
            let bad = error.valid_up_to();
            text[bad] = b'?';
            text = &mut text[bad..];
        }
        Some(())
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.take(count).map(drop)
    }

    fn take(&mut self, count: usize) -> Option<Range<usize>> {
        let start = self.at;
        self.at = start.checked_add(count).filter(|end| *end <= self.bytes.len())?;
        Some(start..self.at)
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Sieve<W> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().wire()).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().wire()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().wire()).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;
    use tokio::io::AsyncReadExt;

    use super::*;

    /// What comes through when the bytes arrive in pieces of this length.
    fn sifted(bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut sieve = Sieve::new(Pieces { bytes: bytes.to_vec(), piece: piece.max(1) });
        let mut read = Vec::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(sieve.read_to_end(&mut read)).expect("bytes");
        read
    }

    struct Pieces {
        bytes: Vec<u8>,
        piece: usize,
    }

    impl AsyncRead for Pieces {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let this = self.get_mut();
            let piece = this.piece.min(this.bytes.len()).min(buffer.remaining());
            buffer.put_slice(&this.bytes[..piece]);
            this.bytes.drain(..piece);
            Poll::Ready(Ok(()))
        }
    }

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("a frame's length");
        [&[kind, 0, 1], &length.to_be_bytes()[..], payload, &[0xce]].concat()
    }

    /// A content header with this property list.
    fn header(properties: &[u8]) -> Vec<u8> {
        frame(HEADER, &[&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9][..], properties].concat())
    }

    fn long(content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).expect("a length");
        [&length.to_be_bytes()[..], content].concat()
    }

    /// A content header whose only property is this table of headers.
    fn headers(table: &[u8]) -> Vec<u8> {
        header(&[&[0x20, 0][..], &long(table)].concat())
    }

    fn deliver(exchange: &[u8], routing_key: &[u8]) -> Vec<u8> {
        let text = |text: &[u8]| [&[u8::try_from(text.len()).expect("short")], text].concat();
        let tag = [0, 0, 0, 0, 0, 0, 0, 1, 0];
        frame(METHOD, &[&DELIVER[..], &text(b"consumer"), &tag, &text(exchange), &text(routing_key)].concat())
    }

    /// A table with an entry that nests so deep: a table in a table in a table, …
    fn nested(depth: usize) -> Vec<u8> {
        (0..depth).fold(b"\x01aV".to_vec(), |inner, _| [&b"\x01aF"[..], &long(&inner)].concat())
    }

    #[test]
    fn what_celery_writes_passes_unchanged() {
        let captured: Value = serde_json::from_str(include_str!("../../../tests/fixtures/celery_amqp_publish.json"))
            .expect("the fixture is JSON");
        let hex = captured["property_list"].as_str().expect("bytes");
        let properties: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect();
        let stream = [
            deliver("größe".as_bytes(), b"key"),
            header(&properties),
            frame(BODY, &[0xff; 9]),
            frame(HEARTBEAT, &[]),
            deliver(b"", b""),
        ]
        .concat();
        for piece in [1, 7, 100, usize::MAX] {
            assert_eq!(sifted(&stream, piece), stream);
        }
    }

    #[test]
    fn bytes_that_are_no_text_become_question_marks() {
        assert_eq!(sifted(&deliver(b"\xffx", b"a\xc3("), 5), deliver(b"?x", b"a?("));
        assert_eq!(sifted(&headers(b"\x02\xe2\x82t\x01"), 5), headers(b"\x02??t\x01"));
        // content_type, correlation_id
        assert_eq!(sifted(&header(b"\x84\x00\x01\x80\x02ok"), 5), header(b"\x84\x00\x01?\x02ok"));
        // A long text may hold anything.
        assert_eq!(sifted(&headers(b"\x01aS\0\0\0\x01\xff"), 5), headers(b"\x01aS\0\0\0\x01\xff"));
    }

    #[test]
    fn what_nests_too_deep_becomes_bytes() {
        let fits = headers(&nested(DEPTH));
        assert_eq!(sifted(&fits, usize::MAX), fits);
        for depth in [DEPTH + 1, 20_000] {
            let bottomless = headers(&nested(depth));
            let amended = sifted(&bottomless, usize::MAX);
            let changed: Vec<_> = (0..amended.len()).filter(|at| amended[*at] != bottomless[*at]).collect();
            assert_eq!(changed.len(), 1);
            assert_eq!((bottomless[changed[0]], amended[changed[0]]), (b'F', b'x'));
        }
        // An array is walked through like a table, and one that is no array is bytes.
        let array = |kind: &[u8]| headers(&[b"\x01a", kind, b"\0\0\0\x02I\0"].concat());
        assert_eq!(sifted(&array(b"A"), usize::MAX), array(b"x"));
    }

    #[test]
    fn whoever_speaks_no_amqp_is_passed_on() {
        for other in [&b"AMQP\0\0\x09\x01"[..], b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
            assert_eq!(sifted(other, 3), other);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm_and_none_get_lost(
            frames in prop::collection::vec((1_u8..4, prop::collection::vec(any::<u8>(), 0..200), any::<bool>()), 0..6),
            piece in 1_usize..300,
        ) {
            let stream: Vec<u8> = frames
                .iter()
                .flat_map(|(kind, payload, structured)| match (kind, structured) {
                    (2, true) => headers(payload),
                    (1, true) => frame(METHOD, &[&DELIVER[..], payload].concat()),
                    _ => frame(*kind, payload),
                })
                .collect();
            let once = sifted(&stream, piece);
            prop_assert_eq!(once.len(), stream.len());
            prop_assert_eq!(&sifted(&once, usize::MAX), &once);
        }
    }
}
