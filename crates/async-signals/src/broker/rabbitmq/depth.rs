//! How deep the tables in a message's headers may nest.
//!
//! lapin reads a table within a table by calling itself, so whoever may publish
//! could exhaust the stack of every worker that is sent the message. Here the
//! bytes are looked over as they come from the socket: a table or an array that
//! lies too deep has its type changed to a byte array, whose layout is the same.
//! The message arrives all the same, and nothing has to be kept until it is whole.
//!
//! Format: AMQP 0-9-1, 2.3.5 (frames), 2.3.5.2 (content headers) and 4.2.5.5
//! (field tables), with the field types of <https://www.rabbitmq.com/docs/amqp-0-9-1-errata>.

/// Tables within tables, the headers themselves counted.
const DEEPEST: usize = 32;

/// The frame type of content headers.
const HEADER: u64 = 2;
/// Property flags of a content header, in the order of the properties.
const CONTENT_TYPE: u64 = 1 << 15;
const CONTENT_ENCODING: u64 = 1 << 14;
const HEADERS: u64 = 1 << 13;

/// What the number stands for that is being read.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reading {
    /// Type, channel and size of a frame.
    Frame,
    Flags,
    /// The length of a string that stands before the headers.
    PropertyLength,
    /// How long the headers are, or a table or array in them.
    Length {
        is_table: bool,
    },
    KeyLength,
    Type,
    /// The length of a string or of bytes.
    ValueLength,
    /// Nothing yet: a field may begin, or its table end.
    Field,
}

/// A table or array that has begun.
#[derive(Debug)]
struct Open {
    /// Where in the frame's payload it ends.
    end: u64,
    is_table: bool,
}

/// Looks over the bytes of one connection, in the order in which they arrive.
#[derive(Debug)]
pub(super) struct Depth {
    reading: Reading,
    number: u64,
    /// How many bytes of the number are still to come.
    missing: u8,
    /// How many bytes are of no interest.
    skip: u64,
    /// How far into the frame's payload, …
    offset: u64,
    /// … and how long that is.
    size: u64,
    /// Which strings stand before the headers, and whether there are headers.
    flags: u64,
    open: Vec<Open>,
}

impl Default for Depth {
    fn default() -> Self {
        Self { reading: Reading::Frame, number: 0, missing: 7, skip: 0, offset: 0, size: 0, flags: 0, open: Vec::new() }
    }
}

impl Depth {
    /// Looks over what has arrived, and makes harmless what lies too deep.
    pub(super) fn bound(&mut self, mut bytes: &mut [u8]) {
        loop {
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            bytes = &mut bytes[skipped..];
            self.skip -= skipped as u64;
            self.offset += skipped as u64;
            if self.skip == 0 && self.reading == Reading::Field {
                self.field();
                continue;
            }
            if self.skip == 0 && self.reading != Reading::Frame && self.offset >= self.size {
                // It ends in the middle of something, and the next one begins where it says.
                self.next_frame();
                continue;
            }
            let Some((byte, rest)) = bytes.split_first_mut() else { return };
            if self.reading == Reading::Type && matches!(byte, b'A' | b'F') && self.open.len() >= DEEPEST {
                *byte = b'x';
            }
            self.number = self.number << 8 | u64::from(*byte);
            self.missing -= 1;
            self.offset += 1;
            if self.missing == 0 {
                self.read(self.number);
            }
            bytes = rest;
        }
    }

    /// A number is complete.
    fn read(&mut self, number: u64) {
        match self.reading {
            Reading::Frame => {
                (self.offset, self.size) = (0, number & u64::from(u32::MAX));
                self.open.clear();
                match number >> 48 {
                    // Class, weight and the body's size come first.
                    HEADER if self.size >= 14 => {
                        self.skip = 12;
                        self.expect(Reading::Flags, 2);
                    }
                    _ => self.next_frame(),
                }
            }
            Reading::Flags => {
                self.flags = number;
                self.property();
            }
            Reading::PropertyLength => {
                self.pass(number);
                self.property();
            }
            Reading::Length { is_table } => {
                self.open.push(Open { end: self.offset + number, is_table });
                self.reading = Reading::Field;
            }
            Reading::KeyLength => {
                self.pass(number);
                self.expect(Reading::Type, 1);
            }
            Reading::Type => self.value(number as u8),
            Reading::ValueLength => {
                self.reading = Reading::Field;
                self.pass(number);
            }
            Reading::Field => {}
        }
    }

    /// The next of the properties up to the headers.
    fn property(&mut self) {
        if self.flags & (CONTENT_TYPE | CONTENT_ENCODING) != 0 {
            // The highest flag that is left.
            self.flags &= if self.flags & CONTENT_TYPE != 0 { !CONTENT_TYPE } else { !CONTENT_ENCODING };
            self.expect(Reading::PropertyLength, 1);
        } else if self.flags & HEADERS != 0 {
            self.expect(Reading::Length { is_table: true }, 4);
        } else {
            self.next_frame();
        }
    }

    /// A field begins, or the table ends that it would belong to.
    fn field(&mut self) {
        match self.open.last() {
            // What comes after the headers is flat.
            None => self.next_frame(),
            Some(_) if self.offset >= self.size => self.next_frame(),
            Some(open) if self.offset >= open.end => {
                self.open.pop();
            }
            Some(Open { is_table: true, .. }) => self.expect(Reading::KeyLength, 1),
            Some(_) => self.expect(Reading::Type, 1),
        }
    }

    fn value(&mut self, kind: u8) {
        self.reading = Reading::Field;
        match kind {
            b'V' => {}
            b't' | b'b' | b'B' => self.pass(1),
            b's' | b'U' | b'u' => self.pass(2),
            b'I' | b'i' | b'f' => self.pass(4),
            b'D' => self.pass(5),
            b'L' | b'l' | b'd' | b'T' => self.pass(8),
            b'S' | b'x' => self.expect(Reading::ValueLength, 4),
            b'F' => self.expect(Reading::Length { is_table: true }, 4),
            b'A' => self.expect(Reading::Length { is_table: false }, 4),
            // lapin does not read on after it either.
            _ => self.next_frame(),
        }
    }

    fn expect(&mut self, reading: Reading, bytes: u8) {
        (self.reading, self.number, self.missing) = (reading, 0, bytes);
    }

    /// Passes over what is flat.
    fn pass(&mut self, bytes: u64) {
        self.skip += bytes;
        if self.offset + self.skip > self.size {
            // It would reach out of its frame, and nobody reads it further than that.
            self.skip = self.size.saturating_sub(self.offset);
        }
    }

    /// Passes over the rest of the frame, and the byte that ends it.
    fn next_frame(&mut self) {
        self.skip = self.size.saturating_sub(self.offset) + 1;
        self.expect(Reading::Frame, 7);
    }
}

#[cfg(test)]
mod tests {
    use lapin::{
        protocol::basic::parse_properties,
        types::{AMQPValue, FieldTable},
    };
    use proptest::prelude::*;

    use super::*;

    /// A frame of a type.
    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).expect("a short payload");
        [&[kind, 0, 1], &size.to_be_bytes()[..], payload, &[0xce]].concat()
    }

    /// A content header with this table for its headers, given without its length.
    fn header(table: &[u8]) -> Vec<u8> {
        let length = u32::try_from(table.len()).expect("a short table");
        let fixed = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0b1111_0000, 0];
        frame(2, &[&fixed[..], b"\x04json\x05utf-8", &length.to_be_bytes(), table, &[2]].concat())
    }

    /// A field that holds itself so many times.
    fn nested(kind: u8, depth: usize) -> Vec<u8> {
        let mut value = vec![b'V'];
        for _ in 0..depth {
            let key: &[u8] = if kind == b'F' { b"\x01k" } else { b"" };
            let length = u32::try_from(key.len() + value.len()).expect("a short value");
            value = [&[kind], &length.to_be_bytes()[..], key, &value].concat();
        }
        [b"\x04deep".as_slice(), &value].concat()
    }

    fn bounded(bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        Depth::default().bound(&mut bytes);
        bytes
    }

    fn depth(value: &AMQPValue) -> usize {
        match value {
            AMQPValue::FieldTable(table) => 1 + table.into_iter().map(|(_, value)| depth(value)).max().unwrap_or(0),
            AMQPValue::FieldArray(items) => 1 + items.as_slice().iter().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    fn headers(frame: &[u8]) -> FieldTable {
        let payload = &frame[7 + 12..frame.len() - 1];
        let (rest, properties) = parse_properties(payload).expect("properties");
        assert!(rest.is_empty());
        properties.headers().clone().expect("headers")
    }

    #[test]
    fn what_lies_too_deep_becomes_bytes() {
        for kind in [b'F', b'A'] {
            for deep in [1, DEEPEST - 1, DEEPEST, DEEPEST + 1, 5_000] {
                let table = headers(&bounded(&header(&nested(kind, deep))));
                assert_eq!(depth(&AMQPValue::FieldTable(table)), DEEPEST.min(deep + 1), "{deep}");
            }
        }
    }

    #[test]
    fn what_is_flat_stays_as_it_is() {
        let fields: &[&[u8]] = &[
            b"\x01at\x01",
            b"\x01bb\xff",
            b"\x01BB\xff",
            b"\x01ss\0\x01",
            b"\x01UU\0\x01",
            b"\x01uu\0\x01",
            b"\x01II\0\0\0\x01",
            b"\x01ii\0\0\0\x01",
            b"\x01ff\0\0\0\0",
            b"\x01DD\x02\0\0\0\x01",
            b"\x01ll\0\0\0\0\0\0\0\x01",
            b"\x01LL\0\0\0\0\0\0\0\x01",
            b"\x01dd\0\0\0\0\0\0\0\0",
            b"\x01TT\0\0\0\0\0\0\0\x01",
            b"\x01SS\0\0\0\x02FA",
            b"\x01xx\0\0\0\x02FA",
            b"\x01VV",
            b"\x01FF\0\0\0\0",
            b"\x01AA\0\0\0\0",
        ];
        let all = fields.concat();
        let flat = header(&all);
        assert_eq!(bounded(&flat), flat);
        // And whatever stands before it does not hide what is deep.
        let deep = header(&[all, nested(b'F', 100)].concat());
        assert_eq!(depth(&AMQPValue::FieldTable(headers(&bounded(&deep)))), DEEPEST);
    }

    proptest! {
        #[test]
        fn it_is_all_one_how_the_bytes_are_cut(
            cuts in prop::collection::vec(1..200_usize, 0..40),
            kinds in prop::collection::vec(0..3_u8, 1..6),
        ) {
            let frames = kinds.iter().map(|kind| match kind {
                0 => frame(3, &[b'F'; 300]),
                1 => header(&nested(b'A', 50)),
                _ => header(&nested(b'F', 50)),
            });
            let whole: Vec<u8> = frames.collect::<Vec<_>>().concat();
            let expected = bounded(&whole);
            let mut bytes = whole.clone();
            let (mut scanner, mut at) = (Depth::default(), 0_usize);
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let end = at.saturating_add(cut).min(bytes.len());
                scanner.bound(&mut bytes[at..end]);
                at = end;
            }
            prop_assert_eq!(bytes, expected);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let garbage = bounded(&header(&bytes));
            prop_assert_eq!(garbage.len(), header(&bytes).len());
            bounded(&bytes);
        }
    }
}
