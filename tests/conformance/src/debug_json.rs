//! Turns the `Debug` text of a decoded message into JSON, so that every answer can be compared field by field without a
//! hand-written view per API. The codec's messages derive `Debug` and nothing else that is machine-readable.

use anyhow::{Result, bail, ensure};
use serde_json::{Map, Value};
use std::fmt::Debug;

/// Marks a byte string in the JSON; the rest of the string is hexadecimal.
pub const BYTES_PREFIX: &str = "bytes:";

/// The fields of `message` as JSON: structs become objects, newtypes vanish, byte strings become `bytes:<hex>`.
pub fn to_json(message: &impl Debug) -> Result<Value> {
    let text = format!("{message:?}");
    let mut parser = Parser { text: text.as_bytes(), at: 0 };
    let value = parser.value()?;
    ensure!(parser.at == text.len(), "text left after the value: {text}");
    Ok(value)
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    fn skip(&mut self, wanted: u8) -> bool {
        while self.peek() == b' ' || (self.peek() == b',' && wanted != b',') {
            self.at += 1;
        }
        let found = self.peek() == wanted;
        self.at += usize::from(found);
        found
    }

    fn value(&mut self) -> Result<Value> {
        self.skip(0);
        match self.peek() {
            b'"' => Ok(Value::String(String::from_utf8(self.quoted()?)?)),
            b'b' if self.text.get(self.at + 1) == Some(&b'"') => {
                self.at += 1;
                let hex: String = self.quoted()?.iter().map(|b| format!("{b:02x}")).collect();
                Ok(Value::String(format!("{BYTES_PREFIX}{hex}")))
            }
            b'[' => {
                self.at += 1;
                let mut items = Vec::new();
                while !self.skip(b']') {
                    items.push(self.value()?);
                }
                Ok(Value::Array(items))
            }
            b'{' => {
                self.at += 1;
                self.fields()
            }
            _ => self.named(),
        }
    }

    /// `Name { .. }`, `Name(value)`, a number, a UUID, `true`, `false` or `None`.
    fn named(&mut self) -> Result<Value> {
        let start = self.at;
        while self.peek().is_ascii_alphanumeric() || b"_-+.:".contains(&self.peek()) {
            self.at += 1;
        }
        let token = std::str::from_utf8(&self.text[start..self.at])?.to_owned();
        ensure!(!token.is_empty(), "no value at byte {start}");
        if self.peek() == b'(' {
            self.at += 1;
            let inner = self.value()?;
            ensure!(self.skip(b')'), "{token} is not closed");
            return Ok(inner);
        }
        if self.peek() == b' ' && self.text.get(self.at + 1) == Some(&b'{') {
            self.at += 2;
            return self.fields();
        }
        Ok(match token.as_str() {
            "None" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            number => match number.parse::<i64>() {
                Ok(n) => n.into(),
                Err(_) => Value::String(token),
            },
        })
    }

    /// The inside of a struct or a map, up to and including the closing brace.
    fn fields(&mut self) -> Result<Value> {
        let mut fields = Map::new();
        while !self.skip(b'}') {
            let start = self.at;
            while self.peek() != b':' {
                ensure!(self.peek() != 0, "field name without end");
                self.at += 1;
            }
            let name = std::str::from_utf8(&self.text[start..self.at])?.to_owned();
            self.at += 1;
            fields.insert(name, self.value()?);
        }
        Ok(Value::Object(fields))
    }

    /// A quoted string with Rust's escapes, as bytes.
    fn quoted(&mut self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.at += 1;
        loop {
            let byte = self.peek();
            self.at += 1;
            match byte {
                b'"' => return Ok(out),
                0 => bail!("string without end"),
                b'\\' => self.escape(&mut out)?,
                _ => out.push(byte),
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let kind = self.peek();
        self.at += 1;
        match kind {
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'0' => out.push(0),
            b'x' => {
                let hex = std::str::from_utf8(&self.text[self.at..self.at + 2])?;
                out.push(u8::from_str_radix(hex, 16)?);
                self.at += 2;
            }
            b'u' => {
                let rest = std::str::from_utf8(&self.text[self.at + 1..])?;
                let hex = rest.split('}').next().unwrap_or_default();
                let c = char::from_u32(u32::from_str_radix(hex, 16)?).unwrap_or('?');
                out.extend_from_slice(c.to_string().as_bytes());
                self.at += hex.len() + 2;
            }
            other => out.push(other),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug)]
    #[allow(dead_code)] // read through Debug alone
    struct Id(i32);

    #[derive(Debug)]
    #[allow(dead_code)] // read through Debug alone
    struct Sample {
        id: Id,
        name: Option<&'static str>,
        none: Option<i32>,
        bytes: bytes::Bytes,
        list: Vec<Id>,
        map: std::collections::BTreeMap<i32, i32>,
        uuid: uuid::Uuid,
    }

    #[test]
    fn debug_text_becomes_json_field_by_field() {
        let sample = Sample {
            id: Id(-7),
            name: Some("a \"q\" \n{}, é\u{1}"),
            none: None,
            bytes: bytes::Bytes::from_static(b"\x00\"\xffx\n"),
            list: vec![Id(1), Id(2)],
            map: [(1, 2)].into(),
            uuid: uuid::Uuid::nil(),
        };
        let json = to_json(&sample).expect("parses");
        assert_eq!(
            json,
            json!({"id": -7, "name": "a \"q\" \n{}, é\u{1}", "none": null, "bytes": "bytes:0022ff780a", "list": [1, 2],
                   "map": {"1": 2}, "uuid": "00000000-0000-0000-0000-000000000000"})
        );
    }
}
