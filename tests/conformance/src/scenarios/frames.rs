//! Frames that no client should send: what is answered, and when the connection ends.

use super::requests::{Topic, fetch, text};
use crate::session::raw_header;
use crate::{Scenario, Session, scenario};
use anyhow::Result;
use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, HeartbeatRequest, MetadataRequest};
use std::time::Duration;

pub const SCENARIOS: &[Scenario] = &[scenario("frames", lengths), scenario("frames-headers", headers), scenario("frames-bodies", bodies)];

const LIMIT: Duration = Duration::from_secs(3);

/// What comes of `bytes`, sent as they are.
fn send(s: &mut Session, step: &str, bytes: &[u8]) -> Result<()> {
    let mut c = s.connect()?;
    c.send_bytes(bytes)?;
    s.hear_raw(&mut c, step, LIMIT)?;
    Ok(())
}

/// What comes of a frame with its true length.
fn frame(s: &mut Session, step: &str, frame: &[u8]) -> Result<()> {
    let mut c = s.connect()?;
    c.send_frame(frame)?;
    s.hear_raw(&mut c, step, LIMIT)?;
    Ok(())
}

fn lengths(s: &mut Session) -> Result<()> {
    for length in [-1, i32::MIN, i32::MAX, 104_857_601] {
        send(s, &format!("length {length}"), &length.to_be_bytes())?;
    }
    send(s, "length 0", &0i32.to_be_bytes())?;
    for size in [1, 2, 4, 7, 8, 9] {
        let header = raw_header(18, 0, false);
        frame(s, &format!("the first {size} bytes of a request"), &header[..size])?;
    }
    send(s, "a TLS hello", &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3])?;
    send(s, "an HTTP request", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut c = s.connect()?;
    let request = c.frame(0, &ApiVersionsRequest::default())?;
    c.send_frame(&request)?;
    c.send_bytes(&(-5i32).to_be_bytes())?;
    let first = matches!(c.answer(LIMIT)?, crate::session::Answer::Frame(_));
    s.note("a good request, then a negative length: the first is answered", "raw frame", first.into())?;
    s.hear_raw(&mut c, "and then", LIMIT)?;
    Ok(())
}

fn headers(s: &mut Session) -> Result<()> {
    for key in [-1, 4, 5, 6, 7, 58, 63, 82, 93, 94, 500, i16::MAX] {
        for version in [0, 3] {
            let header = raw_header(key, version, false);
            frame(s, &format!("key {key} version {version}"), &header)?;
        }
    }
    for (what, key, version) in [
        ("Metadata", 3, 14),
        ("Metadata", 3, -1),
        ("Fetch", 1, 3),
        ("Fetch", 1, 19),
        ("CreateTopics", 19, 1),
        ("JoinGroup", 11, 10),
        ("Heartbeat", 12, 5),
        ("LeaderAndIsr", 4, 0),
    ] {
        for flexible in [false, true] {
            let mut request = raw_header(key, version, flexible);
            request.put_slice(&[0; 16]);
            frame(s, &format!("{what} version {version}, flexible header {flexible}"), &request)?;
        }
    }
    let mut c = s.connect()?;
    c.client_id = None;
    let request = c.frame(1, &MetadataRequest::default().with_topics(Some(vec![])))?;
    c.send_frame(&request)?;
    s.hear::<MetadataRequest>(&mut c, "null client id", 1)?;
    let mut c = s.connect()?;
    c.client_id = Some(text("\u{1f980} ../ \0"));
    let request = c.frame(1, &MetadataRequest::default().with_topics(Some(vec![])))?;
    c.send_frame(&request)?;
    s.hear::<MetadataRequest>(&mut c, "odd client id", 1)?;
    let mut bad = BytesMut::new();
    bad.put_slice(&[0, 3, 0, 1, 0, 0, 0, 77, 0, 2, 0xff, 0xfe, 0, 0, 0, 0]);
    let mut c = s.connect()?;
    c.send_raw(&bad)?;
    s.hear::<MetadataRequest>(&mut c, "client id that is no UTF-8", 1)?;
    let mut long = BytesMut::new();
    long.put_slice(&[0, 3, 0, 1, 0, 0, 0, 77, 0x7f, 0xff, 0, 0, 0, 0]);
    frame(s, "client id longer than the frame", &long)?;
    let mut negative = BytesMut::new();
    negative.put_slice(&[0, 3, 0, 1, 0, 0, 0, 77, 0xff, 0xfe, 0, 0, 0, 0]);
    let mut c = s.connect()?;
    c.send_raw(&negative)?;
    s.hear::<MetadataRequest>(&mut c, "client id of length -2", 1)?;
    Ok(())
}

fn bodies(s: &mut Session) -> Result<()> {
    s.note_only_own();
    let mut c = s.connect()?;
    let heartbeat = HeartbeatRequest::default().with_group_id(s.group("g")).with_member_id(text("m"));
    for version in [0, 4] {
        let whole = c.frame(version, &heartbeat)?;
        let mut longer = whole.clone();
        longer.put_slice(&[0, 1, 2]);
        c.send_frame(&longer)?;
        s.hear::<HeartbeatRequest>(&mut c, &format!("v{version} three bytes too many"), version)?;
        frame(s, &format!("v{version} last byte missing"), &whole[..whole.len() - 1])?;
        frame(s, &format!("v{version} half"), &whole[..whole.len() - 8])?;
    }
    for (what, count) in [("-1", -1), ("-2", -2), ("2^31-1", i32::MAX), ("100", 100)] {
        let mut request = raw_header(3, 1, false);
        request.put_i32(count);
        let mut c = s.connect()?;
        c.send_raw(&request)?;
        s.hear::<MetadataRequest>(&mut c, &format!("Metadata v1 with {what} topics"), 1)?;
        let mut request = raw_header(20, 1, false);
        request.put_i32(count);
        request.put_i32(1000);
        frame(s, &format!("DeleteTopics v1 with {what} topics"), &request)?;
    }
    for (what, varint) in [("0", &[0u8][..]), ("2^28", &[0x80, 0x80, 0x80, 0x80, 1]), ("an endless varint", &[0xff; 12])] {
        let mut request = raw_header(13, 4, true);
        request.put_slice(&[2, b'g']);
        request.put_slice(varint);
        request.put_u8(0);
        frame(s, &format!("LeaveGroup v4, member count {what}"), &request)?;
    }
    for (what, length) in [("-1", -1i16), ("-2", -2), ("32767", i16::MAX)] {
        let mut request = raw_header(12, 0, false);
        request.put_i16(length);
        request.put_slice(b"g");
        frame(s, &format!("Heartbeat v0, group id of length {what}"), &request)?;
    }
    let mut request = raw_header(12, 0, false);
    request.put_slice(&[0, 2, 0xff, 0xfe, 0, 0, 0, 1, 0, 1, b'm']);
    frame(s, "Heartbeat v0, group id that is no UTF-8", &request)?;
    let mut tagged = raw_header(18, 3, false);
    tagged.put_slice(&[2, 0x63, 1, 0xaa, 0x64, 0]); // two unknown tags in the header
    tagged.put_slice(&[2, b'x', 2, b'1', 1, 0x65, 2, 1, 2]); // and one in the body
    let mut c = s.connect()?;
    c.send_frame(&tagged)?;
    let answered = matches!(c.answer(LIMIT)?, crate::session::Answer::Frame(_));
    s.note("unknown tagged fields are skipped", "raw frame", answered.into())?;
    let mut unordered = raw_header(18, 3, false);
    unordered.put_slice(&[2, 0x64, 0, 0x63, 0, 2, b'x', 2, b'1', 0]);
    let mut c = s.connect()?;
    c.send_frame(&unordered)?;
    let answered = matches!(c.answer(LIMIT)?, crate::session::Answer::Frame(_));
    s.note("tagged fields out of order", "raw frame", answered.into())?;
    let topic = Topic::Name(s.topic("x"));
    let mut c = s.connect()?;
    let whole = c.frame(12, &fetch(&topic, &[(0, 0, 100)]))?;
    frame(s, "Fetch v12, half", &whole[..whole.len() / 2 + 10])?;
    Ok(())
}
