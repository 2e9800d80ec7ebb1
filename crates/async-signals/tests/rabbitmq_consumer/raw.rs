//! A publisher that writes its own bytes: what lapin would not write, or not survive.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

/// Publishes one message with a confirm. Headers are an encoded table.
pub(super) fn publish(url: &str, exchange: &str, routing_key: &[u8], headers: &[u8], body: &[u8]) {
    let address = url.split(['@', '/']).find(|part| part.starts_with("127.0.0.1")).expect("an address");
    let mut peer = TcpStream::connect(address).expect("a connection");
    peer.set_read_timeout(Some(super::DEADLINE)).expect("a deadline");
    peer.write_all(b"AMQP\0\0\x09\x01").expect("a greeting");
    expect(&mut peer, [10, 10]);
    let login = [&long(b"")[..], &short(b"PLAIN"), &long(b"\0guest\0guest"), &short(b"en_US")].concat();
    method(&mut peer, 0, [10, 11], &login);
    expect(&mut peer, [10, 30]);
    // One channel, frames of 128 KiB, no heartbeat.
    method(&mut peer, 0, [10, 31], &[0, 1, 0, 2, 0, 0, 0, 0]);
    method(&mut peer, 0, [10, 40], b"\x01/\0\0");
    expect(&mut peer, [10, 41]);
    method(&mut peer, 1, [20, 10], b"\0");
    expect(&mut peer, [20, 11]);
    method(&mut peer, 1, [85, 10], b"\0");
    expect(&mut peer, [85, 11]);
    let to = [&[0, 0][..], &short(exchange.as_bytes()), &short(routing_key), &[0]].concat();
    method(&mut peer, 1, [60, 40], &to);
    let length = u64::try_from(body.len()).expect("a length").to_be_bytes();
    frame(&mut peer, 2, 1, &[&[0, 60, 0, 0][..], &length, &[0x20, 0], &long(headers)].concat());
    frame(&mut peer, 3, 1, body);
    expect(&mut peer, [60, 80]);
}

/// A table whose one entry nests so deep.
pub(super) fn nested(depth: usize) -> Vec<u8> {
    (0..depth).fold(b"\x01aV".to_vec(), |inner, _| [&b"\x01aF"[..], &long(&inner)].concat())
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).expect("short")], text].concat()
}

fn long(content: &[u8]) -> Vec<u8> {
    [&u32::try_from(content.len()).expect("a length").to_be_bytes()[..], content].concat()
}

fn method(peer: &mut TcpStream, channel: u8, [class, method]: [u8; 2], arguments: &[u8]) {
    frame(peer, 1, channel, &[&[0, class, 0, method][..], arguments].concat());
}

fn frame(peer: &mut TcpStream, kind: u8, channel: u8, payload: &[u8]) {
    peer.write_all(&[&[kind, 0, channel][..], &long(payload), &[0xce]].concat()).expect("written");
}

fn expect(peer: &mut TcpStream, [class, method]: [u8; 2]) {
    let mut head = [0; 7];
    peer.read_exact(&mut head).expect("a frame");
    let [.., a, b, c, d] = head;
    let mut rest = vec![0; u32::from_be_bytes([a, b, c, d]) as usize + 1];
    peer.read_exact(&mut rest).expect("its payload");
    assert_eq!((head[0], &rest[..4]), (1, &[0, class, 0, method][..]), "{}", String::from_utf8_lossy(&rest));
}
