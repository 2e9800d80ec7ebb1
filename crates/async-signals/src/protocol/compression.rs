//! Bodies that the sender's kombu has compressed (`task_compression`).
//!
//! Only zlib is read: kombu calls it `gzip`, and `application/x-gzip` on the
//! wire. What other libraries compress that way is read too: a body may also be
//! gzip in earnest. A body says nothing true of its size, so it is
//! decompressed up to a limit and no further.

use std::{borrow::Cow, io::Read};

use flate2::read::{GzDecoder, ZlibDecoder};
use serde_json::{Map, Value};
use thiserror::Error;

/// How large a body may become, in bytes.
pub const LARGEST: usize = 32 << 20;

/// What kombu calls it: on the wire, and in settings.
const ZLIB: [&str; 3] = ["application/x-gzip", "gzip", "zlib"];
/// How gzip begins. No zlib stream does.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Why a body cannot be decompressed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CompressionError {
    /// Compressed in a way that is not read here.
    #[error(
        "its body is compressed as {name}, and signals may be compressed with zlib only: \
         set task_compression to \"gzip\" or None"
    )]
    Unknown {
        /// What its header says, or the beginning of that.
        name: String,
    },
    /// Larger than the limit once it is decompressed.
    #[error("its body is more than {limit} bytes once it is decompressed")]
    TooLarge {
        /// The bytes allowed.
        limit: usize,
    },
    /// No compressed bytes, or not all of them.
    #[error("its body is said to be compressed, and cannot be decompressed: {reason}")]
    Malformed {
        /// What is wrong with them.
        reason: String,
    },
}

/// Whether a message's headers say that its body is compressed.
///
/// # Errors
///
/// [`CompressionError::Unknown`]: in a way that is not read here.
///
/// ```
/// use async_signals::protocol::compression::is_compressed;
/// use serde_json::json;
///
/// let headers = json!({"task": "async_signals.propagate", "compression": "application/x-gzip"});
/// assert_eq!(is_compressed(headers.as_object().unwrap()), Ok(true));
/// ```
pub fn is_compressed(headers: &Map<String, Value>) -> Result<bool, CompressionError> {
    match headers.get("compression") {
        None | Some(Value::Null) => Ok(false),
        Some(Value::String(name)) if ZLIB.contains(&&**name) => Ok(true),
        Some(other) => Err(CompressionError::Unknown { name: other.to_string().chars().take(100).collect() }),
    }
}

/// A message's body as it was before it was compressed, of at most [`LARGEST`] bytes if it was.
///
/// # Errors
///
/// See [`CompressionError`].
pub fn plain<'a>(headers: &Map<String, Value>, body: &'a [u8]) -> Result<Cow<'a, [u8]>, CompressionError> {
    if is_compressed(headers)? { decompress(body, LARGEST).map(Cow::Owned) } else { Ok(Cow::Borrowed(body)) }
}

/// Never holds more than `limit` bytes and what little the decoder needs.
fn decompress(body: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut plain = Vec::new();
    let read = if body.starts_with(&GZIP) {
        GzDecoder::new(body).take(most).read_to_end(&mut plain)
    } else {
        ZlibDecoder::new(body).take(most).read_to_end(&mut plain)
    };
    match read {
        Ok(size) if size > limit => Err(CompressionError::TooLarge { limit }),
        Ok(_) => Ok(plain),
        Err(error) => Err(CompressionError::Malformed { reason: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{
        Compression,
        write::{GzEncoder, ZlibEncoder},
    };
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn headers(compression: Value) -> Map<String, Value> {
        Map::from_iter([("compression".to_owned(), compression)])
    }

    fn zlib(plain: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).expect("it is memory");
        encoder.finish().expect("it is memory")
    }

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).expect("it is memory");
        encoder.finish().expect("it is memory")
    }

    #[test]
    fn reads_what_kombu_has_compressed() {
        // kombu.compression.compress('[["shop.order_placed", null], {}, {}]', "gzip")
        let body = b"x\x9c\x8b\x8eV*\xce\xc8/\xd0\xcb/JI-\x8a/\xc8ILNMQ\xd2Q\xc8+\xcd\xc9\x89\xd5Q\xa8\xae\x05\xe1\
                     X\x00\xfc\xdb\r\x10";
        let plain = plain(&headers(json!("application/x-gzip")), body).expect("zlib");
        assert_eq!(str::from_utf8(&plain), Ok(r#"[["shop.order_placed", null], {}, {}]"#));
    }

    #[test]
    fn leaves_alone_what_is_not_compressed() {
        for headers in [Map::new(), headers(Value::Null)] {
            assert_eq!(plain(&headers, b"[]"), Ok(Cow::Borrowed(&b"[]"[..])));
        }
    }

    #[test]
    fn names_what_it_does_not_read() {
        for name in [json!("application/x-bz2"), json!("application/zstd"), json!(5), json!("x".repeat(1000))] {
            let error = plain(&headers(name.clone()), b"").expect_err("it is not read");
            assert!(matches!(&error, CompressionError::Unknown { .. }), "{name}");
            let text = error.to_string();
            assert!(text.contains("task_compression") && text.len() < 300, "{text}");
        }
    }

    #[test]
    fn a_bomb_does_not_go_off() {
        let limit = 1 << 20;
        for bomb in [zlib(&vec![0; 4 * limit]), gzip(&vec![0; 4 * limit])] {
            assert!(bomb.len() < limit / 100, "it is small");
            assert_eq!(decompress(&bomb, limit), Err(CompressionError::TooLarge { limit }));
        }
        let larger = zlib(&vec![0; LARGEST + 1]);
        let error = plain(&headers(json!("gzip")), &larger).expect_err("it is too large");
        assert_eq!(error, CompressionError::TooLarge { limit: LARGEST });
        let fits = zlib(&vec![0; limit]);
        assert_eq!(decompress(&fits, limit).map(|plain| plain.len()), Ok(limit));
    }

    #[test]
    fn says_what_is_broken() {
        let whole = zlib(b"hello hello hello");
        for broken in [&b""[..], b"hello", &whole[..whole.len() - 5], &whole[..whole.len() - 1]] {
            assert!(matches!(decompress(broken, 100), Err(CompressionError::Malformed { .. })), "{broken:?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_compressed_comes_back(body: Vec<u8>) {
            prop_assert_eq!(&decompress(&zlib(&body), body.len()), &Ok(body.clone()));
            prop_assert_eq!(&decompress(&gzip(&body), body.len()), &Ok(body));
        }

        #[test]
        fn nothing_makes_it_panic_or_grow(body: Vec<u8>, limit in 0..1000_usize) {
            if let Ok(plain) = decompress(&body, limit) {
                prop_assert!(plain.len() <= limit);
            }
        }
    }
}
