//! What browsers send: requests, and frames around MQTT packets.

use super::Seed;

const CONNECT: &[u8] = b"\x10\x0e\0\x04MQTT\x04\x02\0\x3c\0\x02T1";
const PING: &[u8] = b"\xc0\0";
const MASK: [u8; 4] = [0x11, 0x22, 0x33, 0x44];

/// A masked frame as clients send them.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        len @ 0..126 => out.push(0x80 | len as u8),
        len @ 126..0x1_0000 => {
            out.push(0xFE);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(0xFF);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

pub(super) fn all() -> Vec<Seed> {
    let request = |lines: &str| {
        format!("GET /mqtt HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{lines}\r\n")
    };
    let key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let offer = format!("{key}Sec-WebSocket-Protocol: mqttv3.1, mqtt\r\n");
    let requests = [
        ("proper", [request(&offer).into_bytes(), frame(0x82, CONNECT)].concat()),
        ("no_protocol", request(key).into_bytes()),
        ("no_key", request("Sec-WebSocket-Protocol: mqtt\r\n").into_bytes()),
        ("origin", request(&format!("{offer}Origin: https://elsewhere.example\r\n")).into_bytes()),
        ("post", b"POST /mqtt HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("path", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("half", b"GET /mqtt HTTP/1.1\r\nHos".to_vec()),
    ];
    let split = [frame(0x02, &CONNECT[..5]), frame(0x00, &CONNECT[5..9]), frame(0x80, &CONNECT[9..])];
    let between = [frame(0x02, &CONNECT[..5]), frame(0x89, b"here?"), frame(0x80, &CONNECT[5..])];
    let frames = [
        ("one", frame(0x82, CONNECT)),
        ("many_packets", frame(0x82, &[CONNECT, PING, PING].concat())),
        ("one_by_one", [frame(0x82, CONNECT), frame(0x82, PING), frame(0x82, PING)].concat()),
        ("spread", [frame(0x82, &CONNECT[..3]), frame(0x82, &CONNECT[3..])].concat()),
        ("split", split.concat()),
        ("ping_between", between.concat()),
        ("empty", [frame(0x82, b""), frame(0x82, CONNECT)].concat()),
        ("text", frame(0x81, "电梯".as_bytes())),
        ("not_utf8", frame(0x81, b"\xc3\x28")),
        ("close", [frame(0x82, CONNECT), frame(0x88, b"\x03\xe8bye")].concat()),
        ("close_short", frame(0x88, b"\x03")),
        ("pong", frame(0x8A, b"")),
        ("long_ping", frame(0x89, &[0; 200])),
        ("length_16", frame(0x82, &[0; 300])),
        ("length_64", b"\x82\xff\0\0\0\x01\0\0\0\0".to_vec()),
        ("unmasked", [&[0x82, CONNECT.len() as u8], CONNECT].concat()),
        ("reserved", frame(0x83, CONNECT)),
        ("compressed", frame(0xC2, CONNECT)),
        ("no_beginning", frame(0x80, CONNECT)),
    ];
    let requests = requests.into_iter().map(|(name, bytes)| (format!("request_{name}"), 1, bytes));
    let frames = frames.into_iter().map(|(name, bytes)| (format!("frames_{name}"), 0, bytes));
    let mut seeds = Vec::new();
    for (number, (name, kind, bytes)) in requests.chain(frames).enumerate() {
        // Some at once, some in pieces.
        let head = [kind, [0, 1, 7][number % 3]];
        seeds.push(Seed::new("websocket", name, [&head[..], &bytes].concat()));
    }
    seeds
}
