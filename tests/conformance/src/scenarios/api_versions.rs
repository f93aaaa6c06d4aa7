//! ApiVersions: the first request of every client.

use super::requests::text;
use crate::session::{RAW_CORRELATION_ID, raw_header};
use crate::{Scenario, Session, debug_json, scenario};
use anyhow::{Result, ensure};
use bytes::{Buf, BufMut};
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::Decodable;
use std::time::Duration;

pub const SCENARIOS: &[Scenario] = &[scenario("api-versions", api_versions)];

fn api_versions(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    for version in 0..=4 {
        let mut request = ApiVersionsRequest::default();
        if version >= 3 {
            request = request.with_client_software_name(text("conformance")).with_client_software_version(text("1.0"));
        }
        s.ask(&mut c, &format!("v{version}"), version, &request)?;
    }
    for (step, name, software_version) in [
        ("empty software name", "", "1.0"),
        ("empty software version", "x", ""),
        ("software name with a space", "a b", "1.0"),
        ("software name starting with a dash", "-a", "1.0"),
        ("software version with a slash", "a", "1/0"),
        ("software name with dot and dash", "a.b-c", "1.0-rc.1"),
    ] {
        let request =
            ApiVersionsRequest::default().with_client_software_name(text(name)).with_client_software_version(text(software_version));
        s.ask(&mut c, step, 3, &request)?;
    }
    for version in [5, 99, i16::MAX] {
        unknown_version(s, version)?;
    }
    Ok(())
}

/// A version nobody knows yet is answered in version 0, so that a newer client can step down.
fn unknown_version(s: &mut Session, version: i16) -> Result<()> {
    let mut c = s.connect()?;
    let mut frame = raw_header(18, version, true);
    frame.put_slice(&[2, b'x', 2, b'1', 0]);
    c.send_frame(&frame)?;
    let step = format!("unknown version {version}");
    match c.answer(Duration::from_secs(10))? {
        crate::session::Answer::Frame(mut answer) => {
            ensure!(answer.get_i32() == RAW_CORRELATION_ID, "correlation id");
            let answer = ApiVersionsResponse::decode(&mut answer, 0)?;
            s.note_json(&step, "ApiVersions v0", debug_json::to_json(&answer)?)
        }
        _ => s.note(&step, "ApiVersions v0", "closed".into()),
    }
}
